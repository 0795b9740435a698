"""Compare the graphs of models whose repeated blocks are traced once with those of whole traces.

`python -m qualification.captures [ARCHITECTURE...]` does so for the architectures of the
conformance suite, or for some of them, and ends with status 1 if anything differs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn

from hotstart import Call, Options
from hotstart.capture.captured import Captured
from hotstart.capture.described import describe_calls
from hotstart.capture.weight_table import traceable
from hotstart.errors import HotstartError
from hotstart.events import Clock
from hotstart.options import CaptureMode
from hotstart.specialize.trace import TracedCall
from hotstart.specialize.trace_model import trace_model
from qualification import suites
from qualification.conformance import catalogue
from qualification.conformance.measure import call, make
from qualification.conformance.zoo.entry import Entry


def traced(model: nn.Module, given: Call, mode: CaptureMode) -> list[TracedCall]:
    """The calls of a model as a build traces them."""
    options = Options(capture=mode)
    with traceable(model, torch.device("cpu")) as index:
        calls = describe_calls(model, {"": given}, options)
        return trace_model(index, calls, options, "auto", Clock(None)).calls


def differences(first: list[TracedCall], second: list[TracedCall]) -> Iterator[str]:
    """Every way in which two traces of the same calls differ, a line each."""
    for one, other in zip(first, second, strict=True):
        if [part.part for part in one.parts] != [part.part for part in other.parts]:
            yield f"{one.name}: other parts of sizes"
            continue
        for graph, counterpart in zip(one.graphs, other.graphs, strict=True):
            yield from _captured(graph.captured, counterpart.captured)


def _captured(one: Captured, other: Captured) -> Iterator[str]:
    nodes, others = list(one.graph.nodes), list(other.graph.nodes)
    if len(nodes) != len(others):
        yield f"{len(nodes)} nodes, {len(others)} of a whole trace"
        return
    numbers = [{node: n for n, node in enumerate(each)} for each in (nodes, others)]
    for node, counterpart in zip(nodes, others, strict=True):
        described = _node(node, numbers[0]), _node(counterpart, numbers[1])
        if described[0] != described[1]:
            yield f"{node.name}: {described[0]}\n  of a whole trace: {described[1]}"
    for name in ("inputs", "outputs", "updates", "changes", "fixed", "modes"):
        values = [getattr(each, name) for each in (one, other)]
        if values[0] != values[1]:
            yield f"{name}: {values[0]}\n  of a whole trace: {values[1]}"
    read, other_read = set(_read(one)), set(_read(other))
    if read != other_read:
        more, less = sorted(read - other_read), sorted(other_read - read)
        yield f"read: {more[:6]}\n  of a whole trace: {less[:6]}"
    conditions = [{str(c.expr) for c in each.conditions} for each in (one, other)]
    if conditions[0] != conditions[1]:
        yield f"conditions: {conditions[0]}\n  of a whole trace: {conditions[1]}"
    asked = [
        [(r.asked, r.line, len(r.nodes)) for r in each.layout_reads.reads] for each in (one, other)
    ]
    if asked[0] != asked[1]:
        yield f"layouts asked for: {asked[0]}\n  of a whole trace: {asked[1]}"


def _read(captured: Captured) -> Iterator[str]:
    """Everything that a trace read, a line each."""
    for path, kind in captured.read.modules.items():
        yield from (f"{path}: {guard}" for guard in kind.guards)
        yield f"{path}: {kind.cls}, {kind.own}"
    yield from map(str, (*captured.read.seen, *captured.read.codes, *captured.read.loose))


def _node(node: fx.Node, numbers: dict[fx.Node, int]) -> tuple[Any, ...]:
    """A node without the names of nodes."""
    arguments = fx.node.map_arg((node.args, node.kwargs), lambda n: _Number(numbers[n]))
    modules = [
        (key.partition("@")[2], path, cls)
        for key, (path, cls) in (node.meta.get("nn_module_stack") or {}).items()
    ]
    target = node.op if node.op in ("placeholder", "output") else node.target
    return target, repr(arguments), modules, _value(node.meta.get("example_value"))


class _Number(str):
    """A node in an argument list."""

    def __new__(cls, number: int) -> _Number:
        return super().__new__(cls, f"node {number}")


def _value(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        strides = tuple(map(str, value.stride())) if value.layout == torch.strided else ()
        return tuple(map(str, value.shape)), strides, value.dtype, value.device, value.requires_grad
    if isinstance(value, tuple | list):
        return [_value(each) for each in value]
    return str(value)


def compare(entry: Entry) -> tuple[list[str], str]:
    """What differs for an architecture, and how long either way took."""
    found, seconds = [], []
    modes: tuple[CaptureMode, ...] = ("whole", "blocks_once")
    model = make(entry)
    given = Call(kwargs=call(entry, entry.example), dynamic_shapes=entry.dynamic_shapes)
    with torch.no_grad():
        model(**call(entry, entry.example))
    for mode in modes:
        started = time.process_time()
        found.append(traced(model, given, mode))
        seconds.append(time.process_time() - started)
    whole, once = found
    return list(differences(once, whole)), f"{seconds[1]:.2f} s, whole {seconds[0]:.2f} s"


def main(wanted: list[str]) -> None:
    """Compare, and exit with 1 if anything differs."""
    worst = 0
    known = [entry for module in catalogue.modules() for entry in catalogue.entries_of(module)]
    suites.require_known(wanted, [entry.name for entry in known])
    for entry in known:
        if wanted and entry.name not in wanted:
            continue
        try:
            different, seconds = compare(entry)
        except HotstartError as error:
            suites.tell(f"{entry.name}: {suites.problem(error)}")
            continue
        suites.tell(f"{entry.name}: {seconds}{', differs' if different else ''}")
        for line in different[:5]:
            print(f"{entry.name}: {line}")
        worst = max(worst, int(bool(different)))
    sys.exit(worst)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("architectures", nargs="*")
    main(parser.parse_args().architectures)
