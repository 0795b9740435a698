"""Call a model once before it is traced or bound, where that sets up what later calls find.

The call is made with fake tensors as arguments: see `FakeArguments`. What it writes to tensors that
were there is undone, and so is all of it where anything that it leaves depends on arguments.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from hotstart.first_call.caches import Caches
from hotstart.first_call.fake_calls import FakeCalls, FirstCall, tensors_of
from hotstart.first_call.memo import Sized, is_independent, memo_of
from hotstart.first_call.model_state import ModelState
from hotstart.model import Model

log = logging.getLogger("hotstart")

_NAMED = 3
"""How many of the attributes that a first call sets are named in the log."""


class SetUp:
    """A model after its first call.

    Attributes:
        changed: the names of what the call set.
    """

    def __init__(self, model: Model, state: ModelState, changed: Sequence[str]) -> None:
        self._model, self._state = model, state
        self.changed = tuple(changed)

    @contextlib.contextmanager
    def or_undone(self) -> Iterator[None]:
        """Put the model back into its state before the call if what is inside raises."""
        done = False
        try:
            yield
            done = True
        finally:
            if not done:
                self._state.put_back()

    def is_independent(self, before: Sequence[Sized], later: Sequence[Sized]) -> bool:
        """Tell whether calls compute the same after others as if there had been no first call."""
        now, changes = ModelState(self._model), self._state.changes()
        if changes is None:
            return False
        self._state.put_back()
        try:
            return is_independent(self._model, memo_of(changes), before, later)
        finally:
            now.put_back()

    def overwrote(self, module: torch.nn.Module, name: str) -> bool:
        """Tell whether the call set an attribute of a module to another number or text."""
        return self._state.overwritten(module, name)

    def tell(self, done: str) -> None:
        """Tell the user what was called, and why."""
        more = len(self.changed) - _NAMED
        log.info(
            "the model was called once before it was %s, since its first call sets %s%s",
            done,
            ", ".join(self.changed[:_NAMED]),
            f" and {more} more" if more > 0 else "",
        )


def set_up(model: Model, calls: Sequence[FirstCall]) -> SetUp | None:
    """Make the first calls of a model, in order, if they set up what later ones find.

    Returns:
        What they changed; None if they fail, change nothing, leave anything that was computed of an
        argument, or compute something else than later calls: the model is as before then.
    """
    try:
        return _set_up(model, calls)
    except Exception as error:  # noqa: BLE001  whoever asks has an error already, and a better one
        log.debug("the first call cannot be made: %r", error)
        return None


def _set_up(model: Model, calls: Sequence[FirstCall]) -> SetUp | None:
    state, caches, made = ModelState(model), Caches(), FakeCalls(model)
    for sizes_of in (FirstCall.at_largest, FirstCall.at_given):
        kept = False
        try:
            kept = _make_first(calls, sizes_of, model, made, state)
        finally:
            if not kept:
                state.put_back()
                caches.forget_new()
        if kept:
            changed = state.changed()
            return SetUp(model, state, changed) if changed else None
    if made.outlived():
        log.warning(
            "the model was called once to be compiled, and something keeps a tensor of that call "
            "that has no values. If calls of the model fail by it, start the process anew, and "
            "call the model once before it is compiled."
        )
    return None


def _make_first(
    calls: Sequence[FirstCall],
    sizes_of: Callable[[FirstCall], Mapping[str, int]],
    model: Model,
    made: FakeCalls,
    state: ModelState,
) -> bool:
    """Make first calls of a model in a state; tell whether what they leave can stay.

    Every call computes the same after them as before, at these sizes and the smallest ones.
    """
    at = [(call, sizes_of(call)) for call in calls]
    tensors = tensors_of(model)
    if not all(made.make(*each) for each in at):
        return False
    if not state.changed():
        return not made.outlived()
    made.compare_by_value({id(t) for t in tensors} - {id(t) for t in tensors_of(model)})
    state.put_back()
    first = [made.make(*each) for each in at]
    now = ModelState(model)
    state.put_back()
    others = [
        (call, other)
        for number, (call, sizes) in enumerate(at)
        for other in (call.smallest(), sizes)
        if other != sizes or number  # the first call of all found the state that was before
    ]
    before = [made.make_in(state, *each) for each in others]
    now.put_back()
    after = [made.make_in(now, *each) for each in others]
    later = [made.make_in(now, *each) for each in at]
    return before == after and first == later and not made.outlived()
