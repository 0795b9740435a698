"""The flags, and how a command ends. Torch is imported by commands only, not by `--help`."""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from hotstart.cli import parse
from hotstart.errors import HotstartError, OptionsError
from hotstart.options import CompilerName, MissPolicy, Options
from hotstart.shapes import Dim

_BUILD_EPILOG = """\
the factory returns (model, args, kwargs): the module and example inputs for it.

  hotstart build shop.search:encoder --dynamic 'input_ids:0=batch[1..16]' \\
      --dynamic 'input_ids:1=seq[1..512]' --dynamic attention_mask:0=batch \\
      --dynamic attention_mask:1=seq --range seq=1..64 --size batch=1
"""


@dataclass(frozen=True)
class BuildRequest:
    """What `hotstart build` was asked for."""

    factory: parse.Factory
    dynamic_shapes: dict[str, dict[int, Dim]] | None
    split_on: Literal["auto"] | tuple[str, ...]
    compiler: CompilerName
    on_miss: MissPolicy
    debug_dir: Path | None
    jobs: int | None
    json: bool
    traceback: bool


@dataclass(frozen=True)
class DemoRequest:
    """What `hotstart demo` was asked for."""

    traceback: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments after the program's name; None: those of this process.

    Returns:
        The exit status: 0, 1 after an error of hotstart or a failed check, 130 after Ctrl-C.

    Raises:
        SystemExit: 2 after a usage error, 0 after `--help` and `--version`, as argparse does.
    """
    request = read(argv)
    try:
        return _run(request)
    except HotstartError as error:
        if request.traceback:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def read(argv: Sequence[str] | None = None) -> BuildRequest | DemoRequest:
    """The request that a command line makes.

    Raises:
        SystemExit: as in `main`.
    """
    given = _parser().parse_args(argv)
    if given.command == "demo":
        return DemoRequest(given.traceback)
    build: argparse.ArgumentParser = given.parser
    try:
        shapes = parse.dynamic_shapes(given.dynamic, given.range, given.size)
    except OptionsError as error:
        build.error(str(error))
    return BuildRequest(
        factory=given.factory,
        dynamic_shapes=shapes,
        split_on=parse.split_rule(given.split_on),
        compiler=given.compiler,
        on_miss=given.on_miss,
        debug_dir=given.debug_dir,
        jobs=given.jobs,
        json=given.json,
        traceback=given.traceback,
    )


def _run(request: BuildRequest | DemoRequest) -> int:
    if isinstance(request, DemoRequest):
        from hotstart.cli import demo

        return demo.run()
    from hotstart.cli import build

    return build.run(request)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hotstart",
        description="Compile a PyTorch model once, ahead of time; start it hot everywhere.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--traceback", action="store_true", help="show where an error was raised")
    _add_build(commands, shared)
    commands.add_parser(
        "demo",
        parents=[shared],
        help="embed sentences with eager, torch.compile and hotstart, and compare",
    )
    return parser


def _add_build(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser
) -> None:
    build = commands.add_parser(
        "build",
        parents=[shared],
        help="compile a model and report what was compiled",
        epilog=_BUILD_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
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
    add("--debug-dir", type=Path, metavar="DIR", help="write graph, pieces and stitched code here")
    add("--jobs", type=parse.positive, metavar="N", help="parallel compile workers")
    add("--json", action="store_true", help="print the report as JSON")


def _version() -> str:
    try:
        return importlib.metadata.version("hotstart")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
