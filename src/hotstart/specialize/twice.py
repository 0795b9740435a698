"""Prove that a call computes the same after another one as by itself, for all sizes of both.

Both calls are traced as one graph, with axes of their own: what the first keeps, the second may
read.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import structs

from hotstart._torch.graphs.symbols import Condition, are_equal
from hotstart.capture.arguments import Arguments
from hotstart.capture.captured import Captured
from hotstart.capture.described import DescribedCall
from hotstart.capture.same_results import results_of
from hotstart.capture.trace import capture
from hotstart.capture.weight_table import WeightTable
from hotstart.errors import CaptureError
from hotstart.first_call.memo import Memo
from hotstart.model import Model, ModelIndex
from hotstart.records.contract import Parameter
from hotstart.records.dims import DerivedSize, Dim, Size
from hotstart.records.nested import Seq, Slot, Tree, children, filled, is_container
from hotstart.specialize.parts import VariantPart
from hotstart.specialize.split import Declaration
from hotstart.specialize.trace import TracedCall, trace_parts

log = logging.getLogger("hotstart")

_FIRST = "first_call_"
"""Prefix of the names of the first call's axes, which no others may have."""

_PARTS = 64
"""Bound on the further parts that sizes of both calls are split into."""


@dataclass(frozen=True, eq=False)
class _TwoCalls:
    """A graph of two calls, with the conditions that it assumes."""

    captured: Captured
    assumed: tuple[Condition, ...]


def compute_the_same_after_another(
    index: ModelIndex,
    weights: WeightTable,
    calls: Sequence[DescribedCall],
    traced: Sequence[TracedCall],
    memo: Memo,
) -> bool:
    """Tell whether each call computes the same after each of all, also itself."""
    if any(dim.name.startswith(_FIRST) for call in calls for dim in call.arguments.axes):
        return False
    return all(
        _is_same_after(index, weights, first, call, alone, memo)
        for first in calls
        for call, alone in zip(calls, traced, strict=True)
    )


def _is_same_after(
    index: ModelIndex,
    weights: WeightTable,
    first: DescribedCall,
    call: DescribedCall,
    alone: TracedCall,
    memo: Memo,
) -> bool:
    arguments = _of_both(call.arguments, first.arguments)
    known = len(weights.specs)
    target = _one_after_the_other(first, call)

    def trace(part: VariantPart, number: int) -> _TwoCalls:
        captured = capture(
            index, target, arguments, weights, part.fixed, part.hints, False, {}, memo
        )
        return _TwoCalls(captured, captured.assumed)

    declaration = Declaration(arguments.axes, arguments.example_sizes, _PARTS)
    try:
        parts, _ = trace_parts(trace, declaration, lambda *_: None)
    except CaptureError as error:
        log.debug("two calls after one another are not captured: %s", error)
        return False
    same = all(_is_same(part.part, part.graph.captured, alone) for part in parts)
    return same and len(weights.specs) == known


def _is_same(part: VariantPart, both: Captured, alone: TracedCall) -> bool:
    """Tell whether the second of two calls computes what it does by itself, in a part of sizes."""
    firsts = {f"{_FIRST}{axis}": axis for axis in part.hints if f"{_FIRST}{axis}" in part.hints}
    names = {a: b for a, b in firsts.items() if part.fails(are_equal(a, b)) is None}
    found = results_of(both, names)
    own = {axis: size for axis, size in part.hints.items() if not axis.startswith(_FIRST)}
    graph = next(each.graph for each in alone.parts if each.part.variant.covers(own))
    return found is not None and found == results_of(graph.captured, {})


def _one_after_the_other(first: DescribedCall, second: DescribedCall) -> Model:
    """A function that makes both calls, of the values of the second one's parameters first."""
    number = len(second.arguments.parameters)
    ways = _way(second.arguments), _way(first.arguments)
    targets = second.target, first.target

    def both(*values: Any) -> Any:
        _call(targets[1], ways[1], values[number:])
        return _call(targets[0], ways[0], values[:number])

    return both


@dataclass(frozen=True)
class _All:
    """The values of `*args`, by the number of that parameter."""

    number: int


_Way = tuple[tuple[int | _All, ...], tuple[tuple[str, int], ...]]
"""How the values of parameters are passed, by their numbers: by position, and by name."""


def _way(arguments: Arguments) -> _Way:
    numbers: list[Any] = [
        [_All(n)] if p.kind == "var_positional" else n for n, p in enumerate(arguments.parameters)
    ]
    args, kwargs = arguments.passed(numbers)
    return args, tuple(kwargs.items())


def _call(target: Model, way: _Way, values: Sequence[Any]) -> Any:
    args: list[Any] = []
    for each in way[0]:
        if isinstance(each, int):
            args.append(values[each])
        else:
            args.extend(values[each.number])
    return target(*args, **{name: values[number] for name, number in way[1]})


def _of_both(second: Arguments, first: Arguments) -> Arguments:
    """The arguments of a function that makes both calls, with axes of the first renamed."""
    shifted = [_shifted(p.tree, len(second.tensors)) for p in first.parameters]
    trees = (*(p.tree for p in second.parameters), *shifted)
    specs = [structs.replace(s, shape=tuple(map(_renamed, s.shape))) for s in first.tensors]
    return Arguments(
        (Parameter("values", "var_positional", Seq(tuple, trees)),),
        (*second.tensors, *specs),
        (*second.axes, *map(_renamed_dim, first.axes)),
        {**second.example_sizes, **{_FIRST + a: n for a, n in first.example_sizes.items()}},
        len(trees),
    )


def _shifted(tree: Tree, by: int) -> Tree:
    if isinstance(tree, Slot):
        return structs.replace(tree, index=tree.index + by) if tree.kind == "arg" else tree
    if not is_container(tree):
        return tree
    return filled(tree, [_shifted(child.value, by) for child in children(tree)])


def _renamed(size: Size) -> Size:
    if isinstance(size, int):
        return size
    if isinstance(size, str):
        return _FIRST + size
    return DerivedSize(tuple((_FIRST + axis, factor) for axis, factor in size.terms), size.plus)


def _renamed_dim(dim: Dim) -> Dim:
    ranges = [(each.lo, each.hi) for each in dim.ranges]
    return Dim(_FIRST + dim.name, dim.min, dim.max, ranges, dim.sizes)
