"""The tutorial does what it says: its files, its commands, and what they print."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.docs.blocks import ROOT, Block, blocks_of

PAGE = "docs/tutorial.md"
SET_UP = ("python3 -m venv", ". .venv/bin/activate", "pip install")
"""Commands that set up an environment: the tests have one."""
MOST_S = 400
"""Bound on what the commands take in all: some three minutes on two busy cores."""
_NUMBER = re.compile(r"\d[\d.]*(e-\d+)?")
_KEY = re.compile(r"\b[0-9a-f]{32}\b")


class Command(NamedTuple):
    """A command of a page, and the lines that it prints below it, among others at `...`."""

    text: str
    prints: list[str]


def commands(block: Block) -> list[Command]:
    found: list[Command] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append(Command(line[2:], []))
        elif line != "...":
            found[-1].prints.append(line.partition("...")[0].rstrip())
    return found


def plain(text: str) -> str:
    """The text without what differs from run to run: numbers, keys, and widths of columns."""
    return " ".join(_NUMBER.sub("N", _KEY.sub("KEY", text)).split())


@pytest.fixture
def environment() -> dict[str, str]:
    """An environment in which `python` is that of the tests, and finds what is tested."""
    found = {name: value for name, value in os.environ.items() if name != "HOTSTART_CACHE"}
    scripts = str(Path(sys.executable).parent)
    return {
        **found,
        "PATH": os.pathsep.join([scripts, found["PATH"]]),
        "PYTHONPATH": str(ROOT / "src"),
        "OMP_WAIT_POLICY": "PASSIVE",
    }


class Shell:
    """Runs commands in a folder, some of them until the end."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self.port = free_port()
        self.servers: list[subprocess.Popen[str]] = []

    def run(self, command: Command) -> None:
        """Run a command; it ends and prints as the page says, or serves until the test ends."""
        text, _, comment = command.text.replace("8000", str(self.port)).partition("  # ")
        if text.endswith("&"):
            self.servers.append(self.started(text.removesuffix("&")))
            wait_for(self.port)
            return
        process = self.started(text)
        printed, _ = process.communicate(timeout=300)
        assert process.returncode == (comment == "ends with status 1"), printed
        for line in command.prints:
            assert plain(line) in plain(printed), f"{text}:\n{printed}"

    def started(self, text: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", "-c", text],
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def stop(self) -> None:
        for process in self.servers:
            os.killpg(process.pid, signal.SIGTERM)
            process.communicate()


@pytest.fixture
def shell(tmp_path: Path, environment: dict[str, str]) -> Iterator[Shell]:
    made = Shell(tmp_path, environment)
    yield made
    made.stop()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="the tutorial asks its server by curl")
def test_the_tutorial(shell: Shell) -> None:
    began = time.monotonic()
    for block in blocks_of(PAGE):
        if block.file:
            (shell.folder / block.file).write_text(block.text)
        for command in commands(block) if block.language == "console" else ():
            if not command.text.startswith(SET_UP):
                shell.run(command)
    assert time.monotonic() - began < MOST_S, (
        "a reader has ten minutes, for reading and installing too"
    )


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        port: int = taken.getsockname()[1]
    return port


def wait_for(port: int) -> None:
    """Wait until somebody listens."""
    for _ in range(600):
        with socket.socket() as asking:
            if asking.connect_ex(("localhost", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"expected a server at port {port}, found none after a minute")
