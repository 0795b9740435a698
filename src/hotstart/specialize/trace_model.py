"""Trace the calls of a model: as it is, after its first calls, or without what these keep."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from msgspec import structs

from hotstart import faults
from hotstart.capture.described import DescribedCall
from hotstart.capture.naming import naming_of
from hotstart.capture.refusals import refuse_skipped_hooks
from hotstart.capture.trace import KeptTensorRead
from hotstart.capture.weight_table import WeightTable
from hotstart.errors import CaptureError
from hotstart.events import Clock
from hotstart.first_call.memo import NO_MEMO, Memo
from hotstart.first_call.set_up import SetUp, set_up
from hotstart.model import Model, ModelIndex
from hotstart.options import Options
from hotstart.partition import SplitOn
from hotstart.records.artifact import Requirements
from hotstart.records.standalone import Naming
from hotstart.specialize.contract import make_requirements
from hotstart.specialize.memo import (
    after_calls,
    find_memo_of,
    first_call_of,
    histories,
    larger_calls,
    makes_no_difference,
    tell,
)
from hotstart.specialize.trace import TracedCall, not_captured, trace_calls
from hotstart.specialize.twice import compute_the_same_after_another

log = logging.getLogger("hotstart")


@dataclass(frozen=True)
class TracedModel:
    """A model whose calls were traced.

    Attributes:
        index: of the model, as it is now.
        weights: the table of tensors that the graphs read.
        calls: its calls.
        requirements: what the model must be.
        naming: how names of checkpoints may differ.
    """

    index: ModelIndex
    weights: WeightTable
    calls: list[TracedCall]
    requirements: Requirements
    naming: Naming


def trace_model(
    index: ModelIndex,
    calls: Sequence[DescribedCall],
    options: Options,
    split_on: SplitOn,
    clock: Clock,
) -> TracedModel:
    """Trace the calls of a model.

    If that fails and first calls change the model, trace after them; if that fails, too, and calls
    change the model in a way that makes no difference to others, trace without these changes.

    Raises:
        CaptureError, PartitionError: see `trace_calls`; the model is as it was.
    """
    try:
        return _trace_after_first_calls(index, calls, options, split_on, clock)
    except CaptureError as error:
        memo = find_memo_of(index.model, calls)
        if memo is None:
            raise
        log.debug("with what it keeps for other calls, the model is not captured: %s", error)
        trace = partial(_traced, calls=calls, options=options, split_on=split_on, clock=clock)
        traced = _trace_without(memo, index.model, calls, trace)
        if traced is None:
            raise
    tell(memo)
    return traced


def _trace_without(
    memo: Memo,
    model: Model,
    calls: Sequence[DescribedCall],
    trace: Callable[..., TracedModel],
) -> TracedModel | None:
    """Trace calls of a model that keeps something for others; None if that counts.

    Where a graph would read what was kept for its own sizes, calls are traced as they are after
    some of larger sizes than are declared.
    """
    kept: KeptTensorRead | None = None
    for before in ([], larger_calls(calls)):
        with after_calls(model, before) as made:
            try:
                traced = _proven(ModelIndex(model), calls, trace, memo.now()) if made else None
                break
            except CaptureError as error:
                log.debug("without what it keeps, the model is not captured: %s", error)
                kept = error if isinstance(error, KeptTensorRead) else None
    else:
        return None
    if kept is not None and not made:
        raise kept
    if traced is None or not makes_no_difference(model, memo, traced.calls, before):
        return None
    return replace(traced, index=ModelIndex(model))


def _proven(
    index: ModelIndex,
    calls: Sequence[DescribedCall],
    trace: Callable[..., TracedModel],
    memo: Memo,
) -> TracedModel | None:
    """Trace calls of a model; None if one may compute something else after another one."""
    traced = trace(index, memo=memo)
    same = compute_the_same_after_another(index, traced.weights, calls, traced.calls, memo)
    return traced if same else None


def _trace_after_first_calls(
    index: ModelIndex,
    calls: Sequence[DescribedCall],
    options: Options,
    split_on: SplitOn,
    clock: Clock,
) -> TracedModel:
    """Trace the calls of a model; if that fails and first calls change the model, after them."""
    after = _set_up_first(index, calls)
    if after is None:
        try:
            return _traced(index, calls, options, split_on, clock)
        except CaptureError as error:
            after = _set_up(index, calls)
            if after is None:
                raise
            log.debug("before its first call, the model is not captured: %s", error)
    with after.or_undone():
        traced = _traced(ModelIndex(index.model), calls, options, split_on, clock)
        _refuse_history(traced, after)
    after.tell("compiled")
    return replace(traced, requirements=structs.replace(traced.requirements, set_up=True))


def _set_up_first(index: ModelIndex, calls: Sequence[DescribedCall]) -> SetUp | None:
    """Initialise lazy modules, since Dynamo would do it with random numbers of its own.

    Raises:
        CaptureError: their first call fails.
    """
    lazy = [place.name for place in index.places if torch.nn.parameter.is_lazy(place.get())]
    if not lazy:
        return None
    after = _set_up(index, calls)
    if after is None:
        raise CaptureError(
            f"{lazy[0]}: expected a tensor, found one that has no shape before the first call, and "
            "that call fails with fake tensors. Call the model once before it is compiled."
        )
    return after


def _set_up(index: ModelIndex, calls: Sequence[DescribedCall]) -> SetUp | None:
    return set_up(index.model, [first_call_of(call.target, call.arguments) for call in calls])


def _refuse_history(traced: TracedModel, after: SetUp) -> None:
    """Raise if graphs read a number or text that the first call has replaced, or replace it again.

    First and later calls are compared at some sizes only; at others the old value may still count.
    Where one is read, calls are compared at the ends of the sizes of every graph, too. A tensor
    that each call reads and replaces is another one after one more call.
    """
    specs = traced.weights.specs
    weights = {name for weight in specs for name in (weight.name, *weight.ties)}
    for captured in (graph.captured for call in traced.calls for graph in call.graphs):
        for update in captured.updates:
            if update.path in weights and update.path in after.changed:
                raise _depends_on_history(update.owner, update.name)
    read = _overwritten(traced, after)
    if read and not after.is_independent(*histories(traced.index.model, traced.calls)):
        raise _depends_on_history(*read[0])


def _overwritten(traced: TracedModel, after: SetUp) -> list[tuple[str, str]]:
    """The numbers and texts that graphs of many sizes read and the first call has replaced."""
    ranges = (call for call in traced.calls if call.arguments.axes)
    return [
        (path, str(guard.steps[0][1]))
        for call in ranges
        for graph in call.graphs
        for path, kind in graph.captured.read.modules.items()
        for guard in kind.guards
        if guard.steps
        and guard.steps[0][0] == "attribute"
        and after.overwrote(traced.index.modules[path], str(guard.steps[0][1]))
    ]


def _depends_on_history(owner: str, name: str) -> CaptureError:
    return CaptureError(
        f"forward sets {owner or 'the model'}.{name}, and what it does depends on what was there "
        "before. Call the model once at the largest sizes before it is compiled, or pass what "
        "changes as an argument."
    )


def _traced(
    index: ModelIndex,
    calls: Sequence[DescribedCall],
    options: Options,
    split_on: SplitOn,
    clock: Clock,
    memo: Memo = NO_MEMO,
) -> TracedModel:
    with faults.typed(not_captured):
        refuse_skipped_hooks(index)
        weights = WeightTable(index)
        traced = trace_calls(index, calls, weights, options, split_on, clock, memo)
        requirements = make_requirements(index, weights, traced)
        return TracedModel(index, weights, traced, requirements, naming_of(index))
