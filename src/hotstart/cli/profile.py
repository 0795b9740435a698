"""`hotstart profile`: where the time of a call of a saved program goes."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hotstart.cli import flags, parse
from hotstart.cli.factory import call_factory
from hotstart.cli.output import require_place, tell, write_page
from hotstart.errors import ContractError, OptionsError

if TYPE_CHECKING:
    from hotstart.program import Program
    from hotstart.records.artifact import StitchedCall

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def add_profile(command: ArgumentParser) -> None:
    """Declare the flags of `hotstart profile`."""
    add = command.add_argument
    add("file", type=Path, metavar="FILE", help="the artifact")
    weights = command.add_mutually_exclusive_group(required=True)
    weights.add_argument(
        "--factory",
        type=parse.factory,
        metavar="PACKAGE.MODULE:FUNCTION",
        help="function that returns the model and its example calls, as for build",
    )
    weights.add_argument("--weights", type=Path, metavar="FILE", help="a checkpoint of the model")
    add("--call", metavar="NAME", help="the call, where the program has several")
    add(
        "--size",
        action="append",
        default=[],
        type=parse.axis_size,
        metavar="AXIS=SIZE",
        help="make up a call of this size, instead of the factory's example; once for each axis",
    )
    add(
        "--repeats",
        type=parse.positive,
        default=30,
        metavar="N",
        help="calls that are timed, each way (default: %(default)s)",
    )
    add(
        "--trace",
        type=Path,
        metavar="FILE",
        help="write a trace of a call, for chrome://tracing or Perfetto",
    )
    flags.add_html(command)
    flags.add_json(command, "profile")
    command.epilog = f"{flags.FACTORY}{command.epilog}"
    command.set_defaults(run=_profile)


def _profile(given: Namespace) -> None:
    """Measure a call, and print where its time goes.

    Raises:
        HotstartError: the file cannot be loaded, or the call not be made.
        OptionsError: a page is asked for, and a package for it is not installed.
    """
    import torch

    from hotstart.profiling.page import page_of
    from hotstart.profiling.profile import profile
    from hotstart.reporting.rendering import require_packages

    for place in filter(None, (given.trace, given.html)):
        require_place(place, "measured")
    if given.html is not None:
        require_packages()
    program, examples = _loaded(given)
    with torch.no_grad():
        args, kwargs = _arguments(program, given, examples)
        found = profile(program, args, kwargs, call=given.call, repeats=given.repeats)
        if given.trace is not None:
            _write_trace(given.trace, program, given.call, args, kwargs)
    if given.html is not None:
        write_page(given.html, page_of(found, given.file.name))
    tell(given, found.to_dict(), str(found))


def _loaded(given: Namespace) -> tuple[Program, Mapping[str, Arguments]]:
    """The program, and the factory's example calls by name."""
    from hotstart.api import load

    if given.weights is not None:
        return load(given.file, weights=given.weights), {}
    model, rest = call_factory(given.factory)
    calls = rest.get("calls")
    if calls is None:
        return load(given.file, model), {"": (rest.get("args", ()), rest.get("kwargs") or {})}
    examples = {name: (tuple(one.args), dict(one.kwargs or {})) for name, one in calls.items()}
    return load(given.file, model), examples


def _arguments(program: Program, given: Namespace, examples: Mapping[str, Arguments]) -> Arguments:
    """The example call, or one of the sizes that were given that runs.

    Raises:
        OptionsError: there is no such call, or it runs on no values that can be made up.
    """
    call = _call(program, given.call)
    if not given.size and call.name in examples:
        return examples[call.name]
    function = program[call.name]
    why: Exception | None = None
    for args, kwargs in _made_up(call, dict(given.size)):
        try:
            function(*args, **kwargs)
        except ContractError:
            raise
        except Exception as error:  # noqa: BLE001  whatever operators raise for such values
            why = error
        else:
            return args, kwargs
    raise OptionsError(
        f"{given.file}: expected a call with made-up values to run, found: {why}. Give a --factory "
        "whose example call does"
    )


def _made_up(call: StitchedCall, sizes: Mapping[str, int]) -> Iterator[Arguments]:
    from hotstart.profiling.made_up_call import made_up_calls

    return made_up_calls(call, sizes)


def _call(program: Program, name: str | None) -> StitchedCall:
    """The call of a name, or the only one.

    Raises:
        OptionsError: there is none of that name, or there are several.
    """
    calls = {call.name: call for call in program.artifact.calls}
    if name is None and len(calls) == 1:
        return next(iter(calls.values()))
    if name not in calls:
        raise OptionsError(f"call: got {name!r}, takes one of: {', '.join(calls)}")
    return calls[name]


def _write_trace(
    file: Path, program: Program, call: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    from torch import profiler

    from hotstart.profiling.ranges import profiler_ranges

    ranged = profiler_ranges(program)
    function = ranged if call is None else ranged[call]
    function(*args, **kwargs)
    with profiler.profile() as trace:
        function(*args, **kwargs)
    trace.export_chrome_trace(str(file))
