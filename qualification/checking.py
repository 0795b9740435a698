"""Check at save in forks of a process that has imported torch, instead of in new processes.

A program that is saved is run once more by `python -m hotstart.saving.apart`, and most of the
time that takes is `import torch`. Thousands of programs share that import here: a process that has
the environment of the check, and has built nothing, forks for each of them. What runs in the fork
is the check as it is.

As a program, it is that process: it reads commands as lines of JSON and answers with lines.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hotstart.saving import apart

_WITHOUT_MODULES = 3
"""A check has so many arguments; names of modules to import come after them."""


@contextlib.contextmanager
def checks_in_forks(*heavy: str) -> Iterator[None]:
    """Answer `subprocess.run` of a check from a fork; any other command runs as it is.

    Args:
        heavy: modules that those of the models import, and that take seconds: where a check imports
            modules, these are imported once.
    """
    run = subprocess.run
    parents: dict[tuple[str, ...], _Parent] = {}

    def forked(command: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        if list(command[1:3]) != ["-m", apart.__name__]:
            return run(command, *args, **kwargs)
        arguments = [str(argument) for argument in command[3:]]
        imported = heavy if len(arguments) > _WITHOUT_MODULES else ()
        if imported not in parents:
            parents[imported] = _Parent(kwargs["env"], imported)
        status, said = parents[imported].check(arguments, kwargs["env"])
        return subprocess.CompletedProcess(list(command), status, "", said)

    subprocess.run = forked  # type: ignore[assignment]
    try:
        yield
    finally:
        subprocess.run = run
        for parent in parents.values():
            parent.end()


class _Parent:
    """A process that forks one process for each check."""

    def __init__(self, environment: Mapping[str, str], imported: Sequence[str]) -> None:
        command = [sys.executable, "-m", __name__, *imported]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def check(self, arguments: list[str], environment: Mapping[str, str]) -> tuple[int, str]:
        """The exit status of a check, and what it wrote to stderr."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = [arguments, dict(environment), str(Path.cwd())]
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        status, said = json.loads(self._process.stdout.readline())
        return status, said

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()  # closes what it was spoken to through


def main(*imported: str) -> None:
    """Fork for every line that is read, and answer with the status and what was said."""
    for name in imported:
        importlib.import_module(name)
    for line in sys.stdin:
        with tempfile.TemporaryFile() as said:
            status = _fork(partial(_check, *json.loads(line)), said.fileno())
            said.seek(0)
            answer = [status, said.read().decode(errors="replace")]
        print(json.dumps(answer), flush=True)


def _check(arguments: list[str], environment: dict[str, str], folder: str) -> None:
    """Check as a process would that was started here."""
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = environment["PYTHONPATH"].split(os.pathsep)
    os.chdir(folder)
    apart.main(*arguments)


def _fork(function: Callable[[], None], stderr: int) -> int:
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        os.dup2(stderr, 2)
        os.dup2(stderr, 1)
        function()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001  the fork says what a process of its own would say
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


if __name__ == "__main__":
    main(*sys.argv[1:])
