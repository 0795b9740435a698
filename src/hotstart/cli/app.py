"""Read a command line, run its command and exit with a status."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
import traceback
from collections.abc import Collection, Sequence
from typing import NoReturn

from hotstart.cli import output
from hotstart.cli.examples import EXAMPLES
from hotstart.errors import (
    CorruptArtifact,
    HotstartError,
    IncompatibleArtifact,
    UntrustedArtifact,
)
from hotstart.version import VERSION

_COMMANDS = {
    "build": ("build", "compile a model, report, and save it"),
    "observe": ("observe", "run a script, and write how it calls a module"),
    "inspect": ("artifact", "show what is in an artifact"),
    "report": ("report", "show how a program was made, or how two differ; as a page, too"),
    "explain-capture": ("explain_capture", "list all that keeps a model from being one graph"),
    "bisect": ("bisect", "find the first piece that departs from eager mode"),
    "repro": ("repro", "run one piece of a debug folder against eager mode"),
    "profile": ("profile", "show where the time of a call goes"),
    "verify": ("artifact", "check every byte of an artifact, and its signature"),
    "load-check": ("artifact", "say whether an artifact would load here"),
    "keygen": ("artifact", "make a key pair to sign artifacts with"),
    "c-library": ("c_library", "write the header and the library that serve programs from C"),
    "explain": ("explain", "say whether a model is in the cache, and why not"),
    "warm": ("warm", "compile models into the cache"),
    "cache": ("cache", "look after the folder that compiled programs are kept in"),
    "completion": ("completion", "print a script that completes commands in a shell"),
}
"""The module and the purpose of each command. `add_load_check` of a module declares the flags of
`load-check` and sets `run`, a function of the parsed flags that may return an exit status."""

_STATUSES = {CorruptArtifact: 3, IncompatibleArtifact: 4, UntrustedArtifact: 5}

_STATUS_EPILOG = """\
exit status:
  0    fine
  1    another error, such as of a file; or what bisect, repro or explain-capture looks for
  2    wrong usage
  3    the artifact is damaged, or none of hotstart
  4    the artifact does not fit here
  5    no trusted key signed the artifact
  6    the cache has no program that fits
  130  interrupted
"""


class _Parser(argparse.ArgumentParser):
    """Says of a wrong usage what is wrong, and how a call begins, but not every flag."""

    def error(self, message: str) -> NoReturn:
        """Print the error below one line of usage, and exit.

        Raises:
            SystemExit: 2.
        """
        error = f"usage: {self.prog} {self._begins()}\n{self.prog}: error: {message}\n"
        self.exit(2, f"{error}see {self.prog} --help\n")

    def _begins(self) -> str:
        words = ["[flags]"]
        for one in self._get_positional_actions():
            word = str(one.metavar or one.dest)
            words.append(f"[{word}]" if one.nargs in ("?", "*") else word)
        return " ".join(words)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments after the program's name; None: those of this process.

    Returns:
        The exit status: 0, 1 after an error of hotstart, 3 for a corrupt artifact, 4 for one that
        does not fit here, 5 for an untrusted one, 6 if the cache has no program that fits, 130
        after Ctrl-C.

    Raises:
        SystemExit: 2 after a usage error, 0 after `--help` and `--version`, as argparse does.
    """
    try:
        return _run(read(sys.argv[1:] if argv is None else argv))
    finally:
        output.flush()


def read(argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; `run` of the result does what it asks for.

    Raises:
        SystemExit: as in `main`.
    """
    # Others than the one that was asked for are not imported.
    parser = _parser([name for name in _COMMANDS if name in argv])
    given, unknown = parser.parse_known_args(argv)
    if unknown:
        given.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return given


def _parser(wanted: Collection[str]) -> argparse.ArgumentParser:
    """A parser that knows the flags of some commands, and of the others the names."""
    parser = _Parser(
        prog="hotstart",
        description="Compile a PyTorch model once, ahead of time; start it hot everywhere.",
        epilog=_STATUS_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(json=False, whole_parser=lambda: _parser(_COMMANDS))
    parser.add_argument("--version", action="version", version=f"hotstart {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, about) in _COMMANDS.items():
        command = commands.add_parser(
            name,
            help=about,
            description=f"{about[0].upper()}{about[1:]}.",
            epilog=f"examples:{EXAMPLES[name]}\n\n{_STATUS_EPILOG}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(parser=command)
        command.add_argument(
            "--traceback", action="store_true", help="show where an error was raised"
        )
        if name in wanted:
            home = importlib.import_module(f"hotstart.cli.{module}")
            getattr(home, f"add_{name.replace('-', '_')}")(command)
    return parser


def _run(given: argparse.Namespace) -> int:
    try:
        with output.json_alone() if given.json else contextlib.nullcontext():
            status: int = given.run(given) or 0
    except HotstartError as error:
        if given.traceback:
            traceback.print_exc()
        if given.json:
            output.say_json({"ok": False, "error": _as_json(error)})
        else:
            output.say(f"error: {error}", sys.stderr)
        return _STATUSES.get(type(error), 1)
    except KeyboardInterrupt:
        output.say("interrupted", sys.stderr)
        return 130
    return status


def _as_json(error: HotstartError) -> dict[str, object]:
    differences = error.differences if isinstance(error, IncompatibleArtifact) else ()
    names = ("part", "expected", "found")
    return {
        "type": type(error).__name__,
        "message": str(error),
        "differences": [dict(zip(names, found, strict=True)) for found in differences],
    }
