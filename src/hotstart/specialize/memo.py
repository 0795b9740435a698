"""Find what calls of a model keep for others, and compare calls at the sizes of every graph."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence

from hotstart.capture.arguments import Arguments
from hotstart.capture.described import DescribedCall
from hotstart.first_call.caches import Caches
from hotstart.first_call.fake_calls import FakeCalls, FirstCall
from hotstart.first_call.memo import Memo, Sized, find_memo, is_independent
from hotstart.first_call.model_state import ModelState
from hotstart.model import Model, method_of
from hotstart.specialize.parts import Sizes, VariantPart
from hotstart.specialize.trace import TracedCall

log = logging.getLogger("hotstart")

_NAMED = 3
"""Bound on the places where a model keeps something that the log names."""

_BEFORE = 6
"""Bound on the parts of a call that others are made after."""


def first_call_of(target: Model, arguments: Arguments) -> FirstCall:
    """A call with fake tensors as arguments."""
    return FirstCall(
        target,
        arguments.parameters,
        arguments.tensors,
        arguments.axes,
        arguments.example_sizes,
        arguments.by_position,
    )


def find_memo_of(model: Model, calls: Sequence[DescribedCall]) -> Memo | None:
    """Find what calls keep that makes no difference at their smallest, given and largest sizes."""
    sized = [
        (call, sizes)
        for call in (first_call_of(each.target, each.arguments) for each in calls)
        for sizes in (call.at_given(), call.smallest(), call.at_largest())
    ]
    return find_memo(model, sized)


def larger_calls(calls: Sequence[DescribedCall]) -> list[Sized]:
    """The calls that have axes, with each of them larger than it is declared."""
    every = (first_call_of(each.target, each.arguments) for each in calls)
    return [(call, {dim.name: dim.max + 1 for dim in call.axes}) for call in every if call.axes]


@contextlib.contextmanager
def after_calls(model: Model, calls: Sequence[Sized]) -> Iterator[bool]:
    """Put a model into the state that it has after calls, while inside; give if these are made."""
    state, caches, fake = ModelState(model), Caches(), FakeCalls(model)
    try:
        yield all(fake.make(*each) for each in calls)
    finally:
        state.put_back()
        caches.forget_new()


def makes_no_difference(
    model: Model, memo: Memo, calls: Sequence[TracedCall], larger: Sequence[Sized]
) -> bool:
    """Tell whether a memo makes no difference where sizes take another path through the model.

    Nor after `larger` calls, if calls were traced after these.
    """
    before, later = histories(model, calls)
    return is_independent(model, memo, [*before, *larger], later)


def histories(model: Model, calls: Sequence[TracedCall]) -> tuple[list[Sized], list[Sized]]:
    """Calls to make first, and calls at the ends of all sizes that have a graph of their own."""
    before: list[Sized] = []
    later: list[Sized] = []
    for traced in calls:
        call = first_call_of(method_of(model, traced.method), traced.arguments)
        hints = [each.part.hints for each in traced.parts]
        every = [*hints[:_BEFORE], call.smallest(), call.at_largest()]
        before += [(call, sizes) for sizes in every]
        later += [(call, sizes) for each in traced.parts for sizes in _ends(each.part)]
    return before, later


def _ends(part: VariantPart) -> Iterator[Sizes]:
    """The sizes of a part where all axes are at one end, or one of them is at the other."""
    intervals = part.intervals()
    low = {axis: each.lo for axis, each in intervals.items()}
    high = {axis: each.hi for axis, each in intervals.items()}
    mixed = (
        {**one, axis: other[axis]} for one, other in ((low, high), (high, low)) for axis in low
    )
    for sizes in (low, high, *mixed):
        if part.variant.covers(sizes):
            yield sizes


def tell(memo: Memo) -> None:
    """Tell the user what a program does not keep."""
    more = len(memo.names) - _NAMED
    log.info(
        "a program keeps nothing for later calls in %s%s, as the model does: it makes that in "
        "every call, of sizes and weights alone",
        ", ".join(memo.names[:_NAMED]),
        f" and {more} more" if more > 0 else "",
    )
