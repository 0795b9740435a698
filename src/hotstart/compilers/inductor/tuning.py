"""Choose by measurement how the linears of a piece are computed, few rows apart from many.

There are three ways: by Inductor's C++ template, by oneDNN on packed weights, and by the library
that torch calls for plain ones. Which is the fastest depends on rows, sizes and the processor.
"""

from __future__ import annotations

import itertools
import logging
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from msgspec.structs import replace

from hotstart._torch.graphs.symbols import axis_symbol, holds_at, substitution
from hotstart._torch.graphs.writes import was_mutated
from hotstart._torch.packing.separate import Pack
from hotstart._torch.running.modes import apart
from hotstart.capture.captured import example_of
from hotstart.compilers.inductor.two_bodies import two_bodies, with_fallback
from hotstart.compilers.job import Candidate, Job
from hotstart.compilers.piece_key import Bounds
from hotstart.compilers.proof.trial import Trial
from hotstart.compilers.proof.trial_sizes import Sizes
from hotstart.records.artifact import CompiledUnit
from hotstart.runtime.code.unit_functions import python_unit
from hotstart.runtime.weights.preparations import Prepared

if TYPE_CHECKING:
    import sympy

_ROUNDS = 7
"""Number of measurements of each body at a size, taken in turns; the median counts."""

_SECONDS = 0.005
"""Least seconds of one measurement; a faster body is called several times."""

_SLOW = 0.05
"""Seconds of a call above which no larger size is measured."""

_CACHE = 1 << 26
"""Bytes of copies of weights that calls alternate between, since layers displace each other's
weights from the caches."""

_COPIES = 16
"""Bound on the copies of weights that are made for this."""

_SMALL = 1 << 12
"""Elements of a tensor up to which it is restored before each call that writes to it."""

_GAIN = 0.01
"""Least share of the time, averaged over all sizes, that a second body has to save.

Every packed copy of the weights has to save as much, since it takes as much memory as they do."""

_LOSS = 0.05
"""Share of the time at a size that the template has to lose before other ways are compiled."""

log = logging.getLogger(__name__)


Measure = Callable[[Job, Sequence[CompiledUnit], Sequence[Sizes]], Sequence[tuple[float, ...]]]
"""Measures calls of units at sizes of ascending work, in seconds; large ones may be left out."""


class Compile(Protocol):
    """Compiles a piece in one way; None if that fails."""

    def __call__(self, pack: Pack, *, templates: bool) -> Candidate | None:
        """Compile it with the linears packed that are chosen."""


def tuned(job: Job, given: CompiledUnit, compile_way: Compile, measure: Measure) -> CompiledUnit:
    """Make a unit of the fastest bodies.

    The template is the fastest for most pieces. Only where it is not, other ways are compiled too.

    Args:
        job: what it serves.
        given: a unit that serves the job.
        compile_way: compiles the piece in another way.
        measure: times units.

    Returns:
        A unit of one body, or of two with a choice by rows; the given unit if it has no linears.
    """
    template = compile_way(lambda rows, weight: True, templates=True)
    if template is None or template.rows is None:
        return given
    points = list(_points(job, template.rows))
    ways = _ways({"template": template, "untuned": Candidate(given)})
    fallback = Candidate(given)
    try:
        times = measure(job, list(ways.values()), [sizes for _, sizes in points])
        if _loses(times):
            packed = compile_way(lambda rows, weight: True, templates=False)
            plain = compile_way(lambda rows, weight: False, templates=False)
            named = {"template": template, "packed": packed, "plain": plain}
            ways = _ways({**named, "untuned": fallback})
            fallback = plain or fallback
            times = measure(job, list(ways.values()), [sizes for _, sizes in points])
    except Exception as error:  # noqa: BLE001  there is a unit that serves the job
        log.info("%s is not measured: %r", job.piece.name, error)
        return given
    if not times:
        return given
    counts = [count for count, _ in points][: len(times)]
    return _of_the_fastest(job, ways, template.rows, fallback, counts, times)


def _ways(candidates: Mapping[str, Candidate | None]) -> dict[str, CompiledUnit]:
    """Units by name, each code once."""
    units: dict[str, CompiledUnit] = {}
    for name, one in candidates.items():
        if one and one.unit.source not in {unit.source for unit in units.values()}:
            units[name] = one.unit
    return units


def _loses(times: Sequence[tuple[float, ...]]) -> bool:
    """Tell whether the first unit is clearly slower than another at a size."""
    return any(first > (1.0 + _LOSS) * min(others) for first, *others in times if others)


def _of_the_fastest(
    job: Job,
    ways: Mapping[str, CompiledUnit],
    rows: sympy.Expr,
    fallback: Candidate,
    counts: Sequence[int],
    times: Sequence[tuple[float, ...]],
) -> CompiledUnit:
    """Make a unit of the first of some ways, which is the template, and others, by their times.

    The template needs weights that are laid out, so there is another body where they are not.
    """
    names, units = list(ways), list(ways.values())
    for count, seconds in zip(counts, times, strict=True):
        log.debug("%s, %d rows: %s", job.piece.name, count, dict(zip(names, seconds, strict=True)))
    packs = [any(preparation.packs for preparation in unit.preparations) for unit in units]
    few, most, many = _best(counts, times, packs)
    if few == many == 0:
        unit = with_fallback(units[0], fallback.unit)
    elif few == many:
        unit = units[many]
    elif many == 0:
        unit = two_bodies(job, units[0], units[few], rows > most)
    else:
        unit = two_bodies(job, units[few], units[many], rows <= most)
    how = names[few] if few == many else f"{names[few]} up to {most} rows, {names[many]} for more"
    return replace(unit, linears=how)


def _points(job: Job, rows: sympy.Expr) -> Iterator[tuple[int, dict[str, int]]]:
    """Yield numbers of rows, each about twice the one before, with sizes that give it."""
    tuned_for = {axis: bound.hint for axis, bound in job.bounds.items()}
    axes = [axis for axis in job.bounds if axis_symbol(axis) in rows.free_symbols]
    found: dict[int, tuple[int, dict[str, int]]] = {}
    powers = itertools.product(*(_powers(job.bounds[axis]) for axis in axes))
    for each in (*(dict(zip(axes, sizes, strict=True)) for sizes in powers), tuned_for):
        each = tuned_for | each
        count = int(rows.xreplace(substitution(each)))
        if count and all(holds_at(condition, each) for condition in job.where):
            found.setdefault(count.bit_length(), (count, each))
    for bits in sorted(found):
        yield found[bits]


def _powers(bounds: Bounds) -> Iterator[int]:
    """Yield the powers of two of an axis, and its ends."""
    size = max(bounds.low, 1)
    while size < bounds.high:
        yield size
        size = 1 << size.bit_length()
    yield bounds.high


def measured(
    job: Job, units: Sequence[CompiledUnit], points: Sequence[Sizes]
) -> list[tuple[float, ...]]:
    """Measure calls of units, in seconds, at some sizes, until they become slow.

    Raises:
        NotComparable: the operators do not run on made-up inputs, so units may not either.
        Exception: a unit does not run.
    """
    prepared = Prepared(pack=True)
    trial = Trial(job)
    nodes = job.piece.inputs
    is_weight = [job.graph.is_weight(node) for node in nodes]
    copies: list[list[torch.Tensor]] = []
    calls: list[Iterator[Callable[..., Any]]] = []
    found: list[tuple[float, ...]] = []
    for sizes in points:
        inputs = trial.runnable(sizes).values.fresh()
        passed = [tensor for tensor, own in zip(inputs, is_weight, strict=True) if not own]
        if not calls:
            copies = _copies([tensor for tensor, own in zip(inputs, is_weight, strict=True) if own])
            binds = [python_unit(unit).bound for unit in units]
            calls = [itertools.cycle([bind(prepared, *own) for own in copies]) for bind in binds]
        written = _written(job, [passed, *copies])
        arguments = [*sizes.values(), *passed]
        found.append(_in_turns([partial(_next, each, arguments, written) for each in calls]))
        if min(found[-1]) > _SLOW:
            break
    return found


def _copies(weights: Sequence[torch.Tensor]) -> list[list[torch.Tensor]]:
    """Copy weights until they displace each other from the caches."""
    size = sum(tensor.numel() * tensor.itemsize for tensor in weights)
    count = min(_COPIES, _CACHE // max(size, 1))
    return [list(weights), *([tensor.clone() for tensor in weights] for _ in range(count))]


Written = Sequence[tuple[torch.Tensor, torch.Tensor]]
"""Tensors that a call may write to, with what they are to hold before each."""


def _written(job: Job, given: Sequence[Sequence[torch.Tensor]]) -> Written:
    """The small tensors among arguments, and among copies of weights, if the piece writes to any.

    A position in a cache that every call advances would leave the cache in the end.
    """
    if not any(was_mutated(example_of(node)) for node in job.piece.inputs):
        return ()
    small = (tensor for tensors in given for tensor in tensors if tensor.numel() <= _SMALL)
    return [(tensor, tensor.clone()) for tensor in small]


def _next(calls: Iterator[Callable[..., Any]], arguments: Sequence[Any], written: Written) -> None:
    """Call a unit with the next copy of its weights."""
    for tensor, before in written:
        tensor.copy_(before)
    next(calls)([*arguments])


def _in_turns(calls: Sequence[Callable[[], Any]]) -> tuple[float, ...]:
    """The median time of each of some calls."""
    with apart(), torch.no_grad():
        repeats = [max(1, math.ceil(_SECONDS / _seconds(call, 1))) for call in calls]
        rounds = [
            [_seconds(call, count) for call, count in zip(calls, repeats, strict=True)]
            for _ in range(_ROUNDS)
        ]
    return tuple(statistics.median(times) for times in zip(*rounds, strict=True))


def _seconds(call: Callable[[], Any], count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - started) / count


def _best(
    counts: Sequence[int], times: Sequence[Sequence[float]], packs: Sequence[bool]
) -> tuple[int, int, int]:
    """The body for few rows, the most rows that it is for, and the body for more.

    Every size that was measured counts alike, whatever time it takes.
    """
    logs = [[math.log(seconds) for seconds in each] for each in times]

    def cost(few: int, cut: int, many: int) -> float:
        taken = sum(row[few if number < cut else many] for number, row in enumerate(logs))
        used = {few, many}
        more = len(used) - 1 + sum(packs[body] for body in used)
        return taken / len(logs) + _GAIN * more

    bodies = range(len(packs))
    single = [(one, 0, one) for one in bodies]
    pairs = itertools.product(bodies, range(1, len(logs)), bodies)
    few, cut, many = min((*single, *pairs), key=lambda chosen: cost(*chosen))
    between = math.isqrt(counts[cut - 1] * counts[cut]) if cut else 0
    return few, between, many
