"""Every command of hotstart in the docs is one that there is, and runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotstart import Store
from hotstart.cli import main
from hotstart.cli.app import read
from tests.docs import shop
from tests.docs.blocks import blocks_of, pages
from tests.docs.fragments import COMMANDS
from tests.docs.names import REPLACED
from tests.docs.run import commands
from tests.processors import RUNS_V4

SHELLS = ("", "sh", "console")
FIRST = ("keygen", "observe", "build", "warm")
"""Commands that make what others read."""
QUICK = {
    "build": ["--compiler", "op_by_op"],
    "warm": ["--compiler", "op_by_op", "--no-check"],
    "explain": ["--compiler", "op_by_op"],
}
STATUSES = {"explain": {0, 6}}
"""Of commands that end in other ways than with 0: a page may explain a miss."""
KEY = "9c1d"
"""How the key of a program begins, in the docs."""
MADE = {"old.report.json": "encoder.report.json"}
"""Files of a build in the place of those that the docs name."""


def commands_of(page: str) -> list[list[str]]:
    return [
        command
        for block in blocks_of(page)
        if block.language in SHELLS
        for command in commands(block)
    ]


PAGES = [page for page in pages() if commands_of(page)]


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_are_there(page: str) -> None:
    for command in commands_of(page):
        assert read(command).run


def test_fragments_are_of_commands_that_are_there() -> None:
    there = {" ".join(command) for page in PAGES for command in commands_of(page)}
    assert set(COMMANDS) - there == set()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("HOTSTART_CACHE", str(tmp_path / "cache/models"))
    shop.make(tmp_path)
    assert main(["build", "shop.search:encoder", "-o", "encoder.hot", *quick(["build", "-o"])]) == 0
    yield tmp_path
    for name in [each for each in sys.modules if each.partition(".")[0] == "shop"]:
        del sys.modules[name]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run(page: str, folder: Path) -> None:
    for command in ordered(commands_of(page)):
        if " ".join(command) not in COMMANDS:
            words = [replaced(word, folder) for word in command]
            assert main([*words, *quick(words)]) in STATUSES.get(words[0], {0}), command


def quick(words: list[str]) -> list[str]:
    """Flags with which a command takes no longer than it has to."""
    unchecked = ["--no-check"] if words[0] == "build" and "-o" in words else []
    return [*QUICK.get(words[0], []), *unchecked]


def ordered(found: list[list[str]]) -> list[list[str]]:
    """Put what makes files first; a key of the folder's own name is made by the fixture."""
    wanted = [command for command in found if command != ["keygen", "team"]]
    ranks = {name: rank for rank, name in enumerate(FIRST)}
    return sorted(wanted, key=lambda command: ranks.get(command[0], len(FIRST)))


def replaced(word: str, folder: Path) -> str:
    for old, new in {**REPLACED, **MADE}.items():
        word = word.replace(old, new.format(folder=folder))
    if word == "x86-64-v4" and not RUNS_V4:
        word = "x86-64-v2"  # a build runs what it makes
    if word == KEY:
        word = next(each.key for each in Store("cache/models").entries.all())
    return word
