"""Check at save in forks of a process that has imported torch, instead of in new processes.

A program that is saved is run once more by `python -m hotstart.packaging.check`, and most of the
time that takes is `import torch`. Thousands of programs share that import here: a process that has
the environment of the check, and has built nothing, forks for each of them. What runs in the fork
is the check as it is.

As a program, it is that process: it reads commands as lines of JSON and answers with lines.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

CHECK = "hotstart.packaging.check"


@contextlib.contextmanager
def checks_in_forks() -> Iterator[None]:
    """Answer `subprocess.run` of a check from a fork; any other command runs as it is."""
    run = subprocess.run
    parents: dict[bool, _Parent] = {}

    def forked(command: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        if list(command[1:3]) != ["-m", CHECK]:
            return run(command, *args, **kwargs)
        arguments = [str(argument) for argument in command[3:]]
        # Modules that define operators import the database, which takes seconds: once is enough.
        heavy = len(arguments) > 3
        if heavy not in parents:
            parents[heavy] = _Parent(kwargs["env"], heavy)
        status, said = parents[heavy].check(arguments)
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

    def __init__(self, environment: Mapping[str, str], heavy: bool) -> None:
        command = [sys.executable, "-m", __name__, *(["heavy"] if heavy else [])]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def check(self, arguments: list[str]) -> tuple[int, str]:
        """The exit status of a check, and what it wrote to stderr."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()
        status, said = json.loads(self._process.stdout.readline())
        return status, said

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def main(weight: str = "") -> None:
    """Fork for every line that is read, and answer with the status and what was said."""
    from hotstart.packaging import check

    if weight:
        import torch.testing._internal.common_methods_invocations  # noqa: F401
    for line in sys.stdin:
        with tempfile.TemporaryFile() as said:
            status = _fork(check.main, json.loads(line), said.fileno())
            said.seek(0)
            answer = [status, said.read().decode(errors="replace")]
        print(json.dumps(answer), flush=True)


def _fork(function: Any, arguments: list[str], stderr: int) -> int:
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        os.dup2(stderr, 2)
        os.dup2(stderr, 1)
        function(*arguments)
        status = 0
    except BaseException:  # noqa: BLE001  the fork says what a process of its own would say
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


if __name__ == "__main__":
    main(*sys.argv[1:])
