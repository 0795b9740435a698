"""Flags of commands that build for calls that were observed. Nothing here imports torch."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hotstart.cli import parse


def add_calls(command: ArgumentParser) -> None:
    """Declare the file of calls, and bounds of their axes."""
    add = command.add_argument
    add(
        "--calls",
        type=Path,
        metavar="FILE",
        help="build for the calls in this file of `hotstart observe`; the factory may return the "
        "model alone, and examples that it returns are left out",
    )
    add("--module", metavar="PATH", help="which of several modules in --calls the model is")
    for flag, which in (("--min", "smallest"), ("--max", "largest")):
        add(
            flag,
            action="append",
            default=[],
            type=parse.axis_size,
            metavar="AXIS=SIZE",
            help=f"the {which} size of an axis of --calls",
        )
    add(
        "--multiple",
        action="append",
        default=[],
        type=parse.axis_size,
        metavar="AXIS=NUMBER",
        help="an axis of --calls that takes multiples of a number only",
    )
    add(
        "--follow",
        action="append",
        default=[],
        metavar="AXIS",
        help="an axis of --calls that follows from others, as it did in every call",
    )


def require_calls(given: Namespace) -> None:
    """Exit with a usage error if a flag that is for --calls was given without."""
    for flag in ("module", "min", "max", "multiple", "follow"):
        if getattr(given, flag) and given.calls is None:
            given.parser.error(f"--{flag} is for --calls")


def with_calls(
    given: Namespace, arguments: Mapping[str, Any], dynamic_shapes: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Arguments of `hotstart.compile` with the calls of a file, read here, in place of examples.

    Args:
        given: the flags.
        arguments: those of flags and the factory.
        dynamic_shapes: what flags say of some parameters.

    Raises:
        ArtifactError: the file cannot be read, or is none.
        OptionsError: it has no calls of such a module.
    """
    from hotstart.observing.observed import ObservedCalls

    calls = ObservedCalls.load(given.calls)
    if given.module is not None:
        calls = calls[given.module]
    bounded = calls.within(
        min=dict(given.min),
        max=dict(given.max),
        multiples=dict(given.multiple),
        follow=given.follow,
        dynamic_shapes=dynamic_shapes,
    )
    examples = ("args", "kwargs", "calls", "dynamic_shapes")
    kept = {name: value for name, value in arguments.items() if name not in examples}
    return {**kept, "calls": bounded}
