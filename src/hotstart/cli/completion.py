"""`hotstart completion`: a script that completes commands, flags and files in a shell."""

from __future__ import annotations

import sys
from argparse import Action, ArgumentParser, Namespace, _SubParsersAction
from collections.abc import Iterator
from pathlib import Path

from hotstart.errors import OptionsError

_SHELLS = ("bash", "zsh", "tcsh")


def add_completion(command: ArgumentParser) -> None:
    """Declare the flags of `hotstart completion`."""
    command.add_argument("shell", choices=_SHELLS, help="the shell")
    command.set_defaults(run=_completion)


def _completion(given: Namespace) -> None:
    """Print the script for a shell.

    Raises:
        OptionsError: the package that writes it is not installed.
    """
    try:
        import shtab
    except ImportError:
        raise OptionsError(
            "completion: needs the package shtab, which is not installed here. Do: pip install "
            "'hotstart[cli]'"
        ) from None
    parser: ArgumentParser = given.whole_parser()
    for action in _actions(parser):
        if action.type is Path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    sys.stdout.write(f"{shtab.complete(parser, given.shell)}\n")


def _actions(parser: ArgumentParser) -> Iterator[Action]:
    """The arguments of a parser and of the commands below it."""
    for action in parser._actions:
        yield action
        if isinstance(action, _SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
