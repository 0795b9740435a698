"""Run Python in forks of a process that has imported torch, instead of in new processes.

Most of the time that a short command takes is `import torch`. Here one process imports it, and
forks for each command; the fork has the command's arguments, environment, working folder and
output. The process has built and loaded nothing.

As a program, it is that process: it reads commands as lines of JSON and answers with lines.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO

from hotstart.saving import check_process

Fork = tuple[IO[str], IO[str]]
"""Where a process is asked, and where it answers."""


class Forks:
    """A process that forks, started at the first command.

    Commands may need modules that take long to import: those are imported once, in a fork that
    forks for such commands.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(
        self,
        command: Sequence[object],
        environment: Mapping[str, str],
        imported: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Run `-c CODE ARGUMENT...` or `-m MODULE ARGUMENT...`, with modules that are imported."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                cwd=Path(__file__).parents[1],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        arguments = [str(argument) for argument in command]
        asked = [list(imported), arguments, dict(environment), str(Path.cwd())]
        process.stdin.write(json.dumps(asked) + "\n")
        process.stdin.flush()
        status, out, err = json.loads(process.stdout.readline())
        return subprocess.CompletedProcess([sys.executable, *arguments], status, out, err)

    def end(self) -> None:
        """End the process: there are no more commands."""
        if self._process is not None:
            self._process.communicate()


def serve(lines: Iterable[str], answers: IO[str]) -> None:
    """Fork for every line that is read, and answer with the status and the output."""
    others: dict[tuple[str, ...], Fork] = {}
    for line in lines:
        imported, *command = json.loads(line)
        names = tuple(imported)
        if not names:
            answer = json.dumps(_answer(*command)) + "\n"
        else:
            if names not in others:
                others[names] = _with_modules(names)
            ask, answered = others[names]
            ask.write(json.dumps([[], *command]) + "\n")
            ask.flush()
            answer = answered.readline()
        answers.write(answer)
        answers.flush()
    for ask, answered in others.values():
        ask.close()
        answered.close()
    for _ in others:
        os.wait()


def _with_modules(names: Sequence[str]) -> Fork:
    """Fork a process that imports modules, and then forks for commands."""
    here, there = socket.socketpair()
    if os.fork():
        there.close()
        with here:
            return here.makefile("w"), here.makefile("r")
    try:
        here.close()
        for name in names:
            importlib.import_module(name)
        serve(there.makefile("r"), there.makefile("w"))
    except BaseException:  # noqa: BLE001  what made the fork must not go on in it
        traceback.print_exc()
    finally:
        os._exit(1)


def _answer(
    command: Sequence[str], environment: Mapping[str, str], folder: str
) -> tuple[int, str, str]:
    """Run a command in a fork; the exit status, stdout and stderr."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        status = _fork(partial(_run, command, environment, folder), out.fileno(), err.fileno())
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return status, texts[0], texts[1]


def _run(command: Sequence[str], environment: Mapping[str, str], folder: str) -> None:
    """Run a command as Python would that was started here."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[:0] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    kind, what, *arguments = command
    sys.argv = [what if kind == "-m" else kind, *arguments]
    if kind == "-c":
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102
    elif what == check_process.__name__:  # imported before, which runpy warns of
        check_process.main(*arguments)
    else:
        runpy.run_module(what, run_name="__main__", alter_sys=True)


def _fork(function: Callable[[], None], stdout: int, stderr: int) -> int:
    """Call a function in a fork, as the main program there; the exit status."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        with Path(os.devnull).open() as nothing:
            os.dup2(nothing.fileno(), 0)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        function()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001  the fork says what a process of its own would say
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve(sys.stdin, sys.stdout)
