"""The flags of every command. Nothing here imports torch."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeAlias, get_args

from hotstart.cli import output, parse
from hotstart.options import CompilerName, MissPolicy, Options, Prove

_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

_STATUS_EPILOG = """\
exit status:
  0    fine
  1    another error, such as a file that cannot be read or written
  2    wrong usage
  3    the artifact is damaged, or none of hotstart
  4    the artifact does not fit here
  5    no trusted key signed the artifact
  6    the cache has no program that fits
  130  interrupted
"""

_FACTORY = """\
the factory returns (model, args, kwargs): the module and example inputs for it; or
(model, calls): hotstart.Call objects by name, each with its own dynamic shapes; or a
dict of arguments for hotstart.compile, which go before what flags say.
"""

_FACTORY_EPILOG = f"{_FACTORY}\n{_STATUS_EPILOG}"

_REMOTE = "s3://bucket/prefix, gs://, az://, file:///folder, or https:// to read only"

_BUILD_EPILOG = f"""\
{_FACTORY}
  hotstart build shop.search:encoder --dynamic 'input_ids:0=batch[1..16]' \\
      --dynamic 'input_ids:1=seq[1..512]' --dynamic attention_mask:0=batch \\
      --dynamic attention_mask:1=seq --range seq=1..64 --size batch=1 -o encoder.hot

{_STATUS_EPILOG}"""


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    made = argparse.ArgumentParser(
        prog="hotstart",
        description="Compile a PyTorch model once, ahead of time; start it hot everywhere.",
        epilog=_STATUS_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_build(commands)
    _add_artifact_commands(commands)
    _add_using_cache(commands)
    _add_cache(commands)
    return made


def _command(
    commands: _Commands, name: str, about: str, epilog: str = _STATUS_EPILOG
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--traceback", action="store_true", help="show where an error was raised")
    return command


def _add_artifact_commands(commands: _Commands) -> None:
    inspect = _command(commands, "inspect", "show what is in an artifact")
    verify = _command(commands, "verify", "verify every byte of an artifact, and its signature")
    load_check = _command(commands, "load-check", "say whether an artifact would load here")
    keygen = _command(commands, "keygen", "make a key pair to sign artifacts with")
    for command, printed in ((inspect, "manifest"), (verify, "result"), (load_check, "result")):
        command.add_argument("file", type=Path, metavar="FILE", help="an artifact")
        command.add_argument("--json", action="store_true", help=f"print the {printed} as JSON")
    verify.add_argument(
        "--trusted-key",
        action="append",
        metavar="KEY",
        help="a public key, as a .pub file or its text; one of those given must have signed it",
    )
    load_check.add_argument(
        "--no-source",
        action="store_true",
        help="do not compare the Python source that was traced with what is here",
    )
    keygen.add_argument(
        "file",
        type=Path,
        metavar="PRIVATE_KEY_FILE",
        help="where to write the private key; the public key goes beside it, with .pub added",
    )


def _add_cache(commands: _Commands) -> None:
    cache = _command(commands, "cache", "look after the folder that compiled programs are kept in")
    actions = cache.add_subparsers(dest="action", required=True, metavar="ACTION")
    about = {
        "ls": "list the programs, the newest first",
        "show": "show what a program was compiled for",
        "stats": "count files and bytes",
        "push": "publish programs and pieces at a remote",
        "pull": "bring programs from a remote",
        "verify": "verify every byte of every file",
        "gc": "remove what is unfinished, too old or too much",
        "pin": "keep programs whatever the limits",
        "unpin": "let limits count again for programs",
        "rm": "remove programs",
    }
    for name, text in about.items():
        action = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        _add_folder(action)
        action.add_argument("--json", action="store_true", help="print the result as JSON")
        if name in ("push", "pull"):
            action.add_argument("--remote", metavar="URL", required=True, help=_REMOTE)
            action.add_argument(
                "key", metavar="KEY", nargs="?", default="", help="a key, or how it begins"
            )
        if name in ("show", "pin", "unpin", "rm"):
            action.add_argument("key", metavar="KEY", help="a key, or how it begins")
        if name == "gc":
            action.add_argument("--max-bytes", type=parse.count, metavar="N")
            action.add_argument("--max-files", type=parse.count, metavar="N")
            action.add_argument("--max-age-days", type=float, metavar="DAYS")


def _add_build(commands: _Commands) -> None:
    build = _command(commands, "build", "compile a model, report, and save it", _BUILD_EPILOG)
    add = build.add_argument
    _add_factory(build)
    _add_compiling(build)
    add("--debug-dir", type=Path, metavar="DIR", help="write graph, pieces and stitched code here")
    add("-o", "--output", type=Path, metavar="FILE", help="save the program in this file")
    add("--sign-key", type=Path, metavar="KEY", help="sign it with this file of `hotstart keygen`")
    _add_no_check(build)
    add("--json", action="store_true", help="print the report as JSON")


def _add_using_cache(commands: _Commands) -> None:
    explain = _command(
        commands, "explain", "say whether a model is in the cache, and why not", _FACTORY_EPILOG
    )
    _add_factory(explain)
    warm = _command(commands, "warm", "compile models into the cache", _FACTORY_EPILOG)
    warm.add_argument(
        "factories",
        nargs="+",
        type=parse.factory,
        metavar="PACKAGE.MODULE:FUNCTION",
        help="functions that return a model and its example calls",
    )
    _add_no_check(warm)
    for command in (explain, warm):
        _add_compiling(command)
        _add_folder(command)
        command.add_argument("--remote", metavar="URL", help=_REMOTE)
        command.add_argument("--json", action="store_true", help="print the result as JSON")


def _add_factory(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "factory",
        type=parse.factory,
        metavar="PACKAGE.MODULE:FUNCTION",
        help="function that returns a model and its example calls",
    )


def _add_no_check(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--no-check",
        action="store_true",
        help="save without running the file in a process of its own and comparing results",
    )


def _add_folder(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="the folder; by default HOTSTART_CACHE, else the user's own for caches",
    )


def _add_compiling(command: argparse.ArgumentParser) -> None:
    command.set_defaults(parser=command)
    add = command.add_argument
    add(
        "--dynamic",
        action="append",
        default=[],
        type=parse.dynamic_dim,
        metavar="ARGUMENT:DIM=AXIS[LOW..HIGH]",
        help="a dynamic dimension; the bounds are needed once for each axis (quote the brackets)",
    )
    add(
        "--range",
        action="append",
        default=[],
        type=parse.axis_range,
        metavar="AXIS=LOW..HIGH",
        help="compile this range of the axis on its own",
    )
    add(
        "--size",
        action="append",
        default=[],
        type=parse.axis_size,
        metavar="AXIS=SIZE",
        help="compile this size of the axis statically",
    )
    add(
        "--split-on",
        action="append",
        default=[],
        metavar="OP",
        help="cut the graph at this operator; 'auto' (default): at repeated blocks",
    )
    add("--compiler", choices=get_args(CompilerName), default=Options.compiler)
    add(
        "--on-miss",
        choices=get_args(MissPolicy),
        default=Options.on_miss,
        help="what a call outside the contract does (default: %(default)s)",
    )
    add(
        "--splits",
        type=parse.count,
        default=Options.splits,
        metavar="N",
        help="how many further variants one may be split into by size (default: %(default)s)",
    )
    add(
        "--prove",
        choices=get_args(Prove),
        default=Options.prove,
        help="which units are compared with their operators (default: %(default)s)",
    )
    add("--jobs", type=parse.positive, metavar="N", help="parallel compile workers")


class _Version(argparse.Action):
    """Says which version this is, looked up only now: that takes longer than most commands."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        output.say(f"{parser.prog} {_version()}")
        parser.exit()


def _version() -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version("hotstart")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
