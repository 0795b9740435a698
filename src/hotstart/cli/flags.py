"""Flags that several commands have, and what they mean. Nothing here imports torch."""

from __future__ import annotations

import contextlib
import logging
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from hotstart.cli import parse
from hotstart.errors import OptionsError
from hotstart.options import CaptureMode, CompilerName, Form, Jobs, Options, PackWeights, Prove
from hotstart.targets import TargetName

if TYPE_CHECKING:
    from hotstart.cache.store import Store
    from hotstart.events import Listener

FACTORY = """\
the factory returns (model, args, kwargs): the module and example inputs for it; or
(model, calls): hotstart.Call objects by name, each with its own dynamic shapes; or a
dict of arguments for hotstart.compile. A flag for what it says, too, is an error, but
for --jobs and --debug-dir.

"""


PACK_WEIGHTS: dict[str, PackWeights] = {"yes": True, "no": False, "always": "always"}
"""What `--pack-weights` takes, with what `hotstart.Options` has for it."""


def add_factory(command: ArgumentParser) -> None:
    """Declare the factory of a command."""
    command.add_argument(
        "factory",
        type=parse.factory,
        metavar="PACKAGE.MODULE:FUNCTION",
        help="function that returns a model and its example calls",
    )


def add_compiling(command: ArgumentParser) -> None:
    """Declare how a command compiles; `settings` and `listening` say what was given."""
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
    add(
        "--compiler",
        choices=get_args(CompilerName),
        help=f"what compiles the pieces (default: {Options.compiler})",
    )
    add(
        "--splits",
        type=parse.count,
        metavar="N",
        help=f"how many further variants one may be split into by size (default: {Options.splits})",
    )
    add(
        "--pack-weights",
        choices=PACK_WEIGHTS,
        help="whether weights are packed where that is faster, or always (default: yes)",
    )
    add(
        "--tune",
        action="store_const",
        const=True,
        help="measure ways to compute linears, and take the fastest; takes longer",
    )
    add(
        "--target",
        action="append",
        choices=get_args(TargetName),
        help="the processor to build for: this machine's, all of a level, or 64-bit Arm; again for "
        f"several in one file (default: {Options.target})",
    )
    add(
        "--capture",
        choices=get_args(CaptureMode),
        help=f"whether a repeated block is traced once, or every call (default: {Options.capture})",
    )
    add(
        "--form",
        choices=get_args(Form),
        help=f"what joins the pieces: native code, or Python (default: {Options.form})",
    )
    add(
        "--prove",
        choices=get_args(Prove),
        help=f"which units are compared with their operators (default: {Options.prove})",
    )
    add(
        "--jobs",
        type=parse.jobs,
        metavar="N",
        help="processes that compile; 'ray': those of a Ray cluster",
    )


def add_no_check(command: ArgumentParser) -> None:
    """Declare `--no-check`."""
    command.add_argument(
        "--no-check",
        action="store_true",
        help="save without running the file in a process of its own and comparing results",
    )


def add_cache(command: ArgumentParser) -> None:
    """Declare the folder of a cache."""
    command.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="the folder; by default HOTSTART_CACHE, else the user's own for caches",
    )


def add_remote(command: ArgumentParser, required: bool = False) -> None:
    """Declare the remote of a cache."""
    about = "s3://bucket/prefix, gs://, az://, file:///folder, or https:// to read only"
    command.add_argument("--remote", metavar="URL", required=required, help=about)


def add_sign(command: ArgumentParser, what: str = "it") -> None:
    """Declare the private key that signs what a command writes."""
    about = f"sign {what} with this file of `hotstart keygen`"
    command.add_argument("--sign-key", type=Path, metavar="KEY", help=about)


def add_trusted(command: ArgumentParser) -> None:
    """Declare the public keys that a command asks for."""
    command.add_argument(
        "--trusted-key",
        action="append",
        metavar="KEY",
        help="a public key, as a .pub file or its text; one of those given must have signed "
        "what is read",
    )


def add_html(command: ArgumentParser) -> None:
    """Declare `--html`."""
    about = "write a page for a browser: one file, no network"
    command.add_argument("--html", type=Path, metavar="PAGE", help=about)


def add_json(command: ArgumentParser, printed: str = "result") -> None:
    """Declare `--json`."""
    command.add_argument("--json", action="store_true", help=f"print the {printed} as JSON")


_OPTIONS = ("compiler", "splits", "pack_weights", "tune", "target", "capture", "form", "prove")
"""Flags that are fields of `hotstart.Options`; None where they were not given."""


@dataclass(frozen=True)
class Settings:
    """The arguments of `hotstart.compile` that flags give.

    Attributes:
        arguments: all of them, those that were not given by their defaults.
        given: for each argument the flags that were given for it.
    """

    arguments: dict[str, Any]
    given: Mapping[str, Sequence[str]]

    def beside(self, factory: parse.Factory, made: Mapping[str, Any]) -> dict[str, Any]:
        """Add the arguments that a factory has returned.

        Raises:
            OptionsError: flags say what the factory says, too.
        """
        for name in made:
            about = "dynamic_shapes" if name == "calls" else name  # calls have their own
            if flags := ", ".join(self.given.get(about, ())):
                raise OptionsError(
                    f"{flags}: got this and {name!r} of what {factory} returns, takes one of "
                    f"them; leave out the flag, or {name!r} in the factory"
                )
        return {**self.arguments, **made}


def settings(given: Namespace) -> Settings:
    """Collect the arguments of `hotstart.compile` that flags give.

    Raises:
        SystemExit: the flags contradict each other.
    """
    try:
        shapes = parse.dynamic_shapes(given.dynamic, given.range, given.size)
    except OptionsError as error:
        usage: ArgumentParser = given.parser
        usage.error(str(error))
    chosen = {name: v for name in _OPTIONS if (v := getattr(given, name)) is not None}
    if "pack_weights" in chosen:
        chosen["pack_weights"] = PACK_WEIGHTS[chosen["pack_weights"]]
    arguments = {
        "dynamic_shapes": shapes,
        "split_on": parse.split_rule(given.split_on),
        "options": Options(**chosen),
    }
    shaping = [name for name in ("dynamic", "range", "size") if getattr(given, name)]
    flags = {
        "dynamic_shapes": shaping,
        "split_on": ["split-on"] if given.split_on else [],
        "options": [name.replace("_", "-") for name in chosen],
    }
    return Settings(arguments, {name: [f"--{f}" for f in each] for name, each in flags.items()})


def listening(arguments: dict[str, Any], jobs: Jobs | None, listener: Listener) -> dict[str, Any]:
    """The same arguments, with a listener, and with `--jobs` if it was given."""
    options = arguments["options"]
    if isinstance(options, Options):  # else that is an error of `hotstart.compile`
        options = replace(options, on_event=listener, jobs=jobs or options.jobs)
    return {**arguments, "options": options}


def compiling_on(arguments: Mapping[str, Any]) -> contextlib.AbstractContextManager[None]:
    """Connect to a Ray cluster while a command compiles with such arguments, if they say so.

    Raises:
        OptionsError: Ray is not installed, or no cluster can be reached.
    """
    options = arguments["options"]
    if not isinstance(options, Options) or options.jobs != "ray":
        return contextlib.nullcontext()
    from hotstart.compilers.workers.ray_cluster import ray_connection

    return ray_connection()


def store(folder: Path | None, remote: str | None, **more: Any) -> Store:
    """The store of a folder and a remote; its trouble is an error, and its warnings are shown."""
    from hotstart.cache.store import Store

    logging.basicConfig(format="%(levelname)s: %(message)s", stream=sys.stderr)
    return Store(folder, strict=True, remote=remote, **more)
