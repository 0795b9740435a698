"""The flags, and how a command ends. Torch is imported by what needs it only, not by `--help`."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from hotstart.cli import artifact, build, output, parse
from hotstart.errors import (
    CorruptArtifact,
    HotstartError,
    IncompatibleArtifact,
    OptionsError,
    UntrustedArtifact,
)
from hotstart.options import CompilerName, MissPolicy, Options
from hotstart.shapes import Dim

_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

_STATUS_EPILOG = """\
exit status:
  0    fine
  1    another error, such as a file that cannot be read or written
  2    wrong usage
  3    the artifact is damaged, or none of hotstart
  4    the artifact does not fit here
  5    no trusted key signed the artifact
  130  interrupted
"""

_STATUSES = {CorruptArtifact: 3, IncompatibleArtifact: 4, UntrustedArtifact: 5}

_BUILD_EPILOG = f"""\
the factory returns (model, args, kwargs): the module and example inputs for it; or
(model, calls): hotstart.Call objects by name, each with its own dynamic shapes.

  hotstart build shop.search:encoder --dynamic 'input_ids:0=batch[1..16]' \\
      --dynamic 'input_ids:1=seq[1..512]' --dynamic attention_mask:0=batch \\
      --dynamic attention_mask:1=seq --range seq=1..64 --size batch=1 -o encoder.hot

{_STATUS_EPILOG}"""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What every command can be asked for."""

    json: bool = False
    traceback: bool = False


@dataclass(frozen=True, kw_only=True)
class BuildRequest(Request):
    """What `hotstart build` was asked for."""

    factory: parse.Factory
    dynamic_shapes: dict[str, dict[int, Dim]] | None
    split_on: Literal["auto"] | tuple[str, ...]
    compiler: CompilerName
    on_miss: MissPolicy
    splits: int
    debug_dir: Path | None
    jobs: int | None
    output: Path | None
    sign_key: Path | None
    check: bool


@dataclass(frozen=True, kw_only=True)
class DemoRequest(Request):
    """What `hotstart demo` was asked for."""


@dataclass(frozen=True, kw_only=True)
class InspectRequest(Request):
    """What `hotstart inspect` was asked for."""

    file: Path


@dataclass(frozen=True, kw_only=True)
class VerifyRequest(Request):
    """What `hotstart verify` was asked for; without keys, no signature is checked."""

    file: Path
    trusted_keys: tuple[str, ...] | None


@dataclass(frozen=True, kw_only=True)
class LoadCheckRequest(Request):
    """What `hotstart load-check` was asked for."""

    file: Path
    verify_source: bool


@dataclass(frozen=True, kw_only=True)
class KeygenRequest(Request):
    """What `hotstart keygen` was asked for."""

    file: Path


@dataclass(frozen=True, kw_only=True)
class CacheRequest(Request):
    """What `hotstart cache` was asked for."""

    action: str
    folder: Path | None
    key: str = ""
    max_bytes: int | None = None
    max_files: int | None = None
    max_age_days: float | None = None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments after the program's name; None: those of this process.

    Returns:
        The exit status: 0, 1 after an error of hotstart or a failed check of the demo, 3 for a
        corrupt artifact, 4 for one that does not fit here, 5 for an untrusted one, 130 after
        Ctrl-C.

    Raises:
        SystemExit: 2 after a usage error, 0 after `--help` and `--version`, as argparse does.
    """
    try:
        return _answer(read(argv))
    finally:
        output.flush()


def read(argv: Sequence[str] | None = None) -> Request:
    """The request that a command line makes.

    Raises:
        SystemExit: as in `main`.
    """
    given = _parser().parse_args(argv)
    match given.command:
        case "inspect":
            return InspectRequest(file=given.file, json=given.json, traceback=given.traceback)
        case "verify":
            return VerifyRequest(
                file=given.file,
                trusted_keys=tuple(given.trusted_key) if given.trusted_key else None,
                json=given.json,
                traceback=given.traceback,
            )
        case "load-check":
            return LoadCheckRequest(
                file=given.file,
                verify_source=not given.no_source,
                json=given.json,
                traceback=given.traceback,
            )
        case "keygen":
            return KeygenRequest(file=given.file, traceback=given.traceback)
        case "cache":
            return _cache_request(given)
        case "demo":
            return DemoRequest(traceback=given.traceback)
    return _build_request(given)


def _cache_request(given: argparse.Namespace) -> CacheRequest:
    return CacheRequest(
        action=given.action,
        folder=given.cache,
        key=getattr(given, "key", ""),
        max_bytes=getattr(given, "max_bytes", None),
        max_files=getattr(given, "max_files", None),
        max_age_days=getattr(given, "max_age_days", None),
        json=given.json,
        traceback=given.traceback,
    )


def _build_request(given: argparse.Namespace) -> BuildRequest:
    usage: argparse.ArgumentParser = given.parser
    if given.output is None and (given.sign_key or given.no_check):
        usage.error(f"{'--sign-key' if given.sign_key else '--no-check'} is for --output")
    try:
        shapes = parse.dynamic_shapes(given.dynamic, given.range, given.size)
    except OptionsError as error:
        usage.error(str(error))
    return BuildRequest(
        factory=given.factory,
        dynamic_shapes=shapes,
        split_on=parse.split_rule(given.split_on),
        compiler=given.compiler,
        on_miss=given.on_miss,
        splits=given.splits,
        debug_dir=given.debug_dir,
        jobs=given.jobs,
        output=given.output,
        sign_key=given.sign_key,
        check=not given.no_check,
        json=given.json,
        traceback=given.traceback,
    )


def _answer(request: Request) -> int:
    try:
        return _run(request)
    except HotstartError as error:
        if request.traceback:
            traceback.print_exc()
        if request.json:
            output.say_json({"ok": False, "error": _as_json(error)})
        else:
            output.say(f"error: {error}", sys.stderr)
        return _STATUSES.get(type(error), 1)
    except KeyboardInterrupt:
        output.say("interrupted", sys.stderr)
        return 130


def _as_json(error: HotstartError) -> dict[str, object]:
    differences = error.differences if isinstance(error, IncompatibleArtifact) else ()
    names = ("part", "expected", "found")
    return {
        "type": type(error).__name__,
        "message": str(error),
        "differences": [dict(zip(names, found, strict=True)) for found in differences],
    }


def _run(request: Request) -> int:
    match request:
        case BuildRequest():
            build.run(request)
        case InspectRequest():
            artifact.inspect(request)
        case VerifyRequest():
            artifact.verify(request)
        case LoadCheckRequest():
            artifact.load_check(request)
        case KeygenRequest():
            artifact.keygen(request)
        case CacheRequest():
            from hotstart.cli import cache

            cache.run(request)
        case _:
            from hotstart.cli import demo

            return demo.run()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hotstart",
        description="Compile a PyTorch model once, ahead of time; start it hot everywhere.",
        epilog=_STATUS_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_build(commands)
    _add_artifact_commands(commands)
    _add_cache(commands)
    _command(
        commands, "demo", "embed sentences with eager, torch.compile and hotstart, and compare"
    )
    return parser


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
    verify = _command(commands, "verify", "check every byte of an artifact, and its signature")
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
        "verify": "check every byte of every file",
        "gc": "remove what is unfinished, too old or too much",
        "rm": "remove programs",
    }
    for name, text in about.items():
        action = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        action.add_argument(
            "--cache",
            type=Path,
            metavar="DIR",
            help="the folder; by default HOTSTART_CACHE, else the user's own for caches",
        )
        action.add_argument("--json", action="store_true", help="print the result as JSON")
        if name in ("show", "rm"):
            action.add_argument("key", metavar="KEY", help="a key, or how it begins")
        if name == "gc":
            action.add_argument("--max-bytes", type=parse.count, metavar="N")
            action.add_argument("--max-files", type=parse.count, metavar="N")
            action.add_argument("--max-age-days", type=float, metavar="DAYS")


def _add_build(commands: _Commands) -> None:
    build = _command(commands, "build", "compile a model, report, and save it", _BUILD_EPILOG)
    build.set_defaults(parser=build)
    add = build.add_argument
    add(
        "factory",
        type=parse.factory,
        metavar="PACKAGE.MODULE:FUNCTION",
        help="function that returns (model, args, kwargs)",
    )
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
    add("--debug-dir", type=Path, metavar="DIR", help="write graph, pieces and stitched code here")
    add("--jobs", type=parse.positive, metavar="N", help="parallel compile workers")
    add("-o", "--output", type=Path, metavar="FILE", help="save the program in this file")
    add("--sign-key", type=Path, metavar="KEY", help="sign it with this file of `hotstart keygen`")
    add(
        "--no-check",
        action="store_true",
        help="save without running the file in a process of its own and comparing results",
    )
    add("--json", action="store_true", help="print the report as JSON")


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
