"""Check at save in forks of a process that has imported torch, instead of in new processes.

A program that is saved is run once more by `python -m hotstart.saving.check_process`, and most of
the time that takes is `import torch`. Thousands of programs share that import here (see `forks`).
What runs in the fork is the check as it is.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

from hotstart.saving import check_process
from qualification.forks import Forks

_WITHOUT_MODULES = 3
"""A check has so many arguments; names of modules to import come after them."""


@contextlib.contextmanager
def checks_in_forks(*heavy: str) -> Iterator[Forks]:
    """Answer `subprocess.run` of a check from a fork; any other command runs as it is.

    Args:
        heavy: modules that those of the models import, and that take seconds: where a check imports
            modules, these are imported once.

    Yields:
        What forks; it runs other commands, too.
    """
    run = subprocess.run
    forks = Forks()

    def forked(command: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        if list(command[1:3]) != ["-m", check_process.__name__]:
            return run(command, *args, **kwargs)
        modules = len(command) - len(["python", "-m", check_process.__name__]) > _WITHOUT_MODULES
        return forks.run(command[1:], kwargs["env"], heavy if modules else ())

    subprocess.run = forked  # type: ignore[assignment]
    try:
        yield forks
    finally:
        subprocess.run = run
        forks.end()
