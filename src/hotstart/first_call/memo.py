"""Find what a model keeps for the sizes of its last calls, and show that no result depends on it.

A mask for the last length, a grid for the last image: later calls of the same sizes find them,
others make them anew. Where they are made of sizes and weights alone, a program that makes them in
every call computes the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch

from hotstart.first_call.caches import Caches
from hotstart.first_call.contents import contents_of, leaves
from hotstart.first_call.fake_calls import FakeCalls, FirstCall, Ran
from hotstart.first_call.model_state import Changes, ModelState
from hotstart.first_call.snapshot import Snapshot
from hotstart.model import Model
from hotstart.records.dims import as_derived

log = logging.getLogger("hotstart")

Sized = tuple[FirstCall, Mapping[str, int]]
"""A call, and the size of each axis in it."""

Found = TypeVar("Found")

_NUMBERS = 16
"""Bound on the numbers that are looked at of those which a call leaves; the smallest ones are."""


@dataclass(frozen=True)
class Memo:
    """State that a model keeps from call to call, and no result depends on; none by default.

    Attributes:
        names: where it is kept.
        entries: the owners of attributes and of entries of containers, by the owner's identity and
            the name, key or number; None stands for all that a container holds.
        growing: owners, by identity, that had not all of these before any call.
        tensors: those that it holds in the state that is traced, by identity.
    """

    names: tuple[str, ...] = ()
    entries: Mapping[tuple[int, Any], Any] = field(default_factory=dict, repr=False)
    growing: frozenset[int] = frozenset()
    tensors: Mapping[int, torch.Tensor] = field(default_factory=dict, repr=False)

    def holds(self, owner: object, key: Any) -> bool:
        """Tell whether an attribute, or an entry of a container, belongs to it."""
        return (id(owner), key) in self.entries or (id(owner), None) in self.entries

    def adds_to(self, owner: object) -> bool:
        """Tell whether an object or container has more entries after a call than before."""
        return id(owner) in self.growing

    def holds_tensor(self, tensor: object) -> bool:
        """Tell whether a tensor is in it where the model is traced."""
        return id(tensor) in self.tensors

    def explains(self, before: Snapshot) -> bool:
        """Tell whether all that is different now belongs to the memo, of which there is some."""
        changed = before.entries_changed()
        return bool(changed) and all(self.holds(before.obj, key) for key in changed)

    def has(self, changes: Changes) -> bool:
        """Tell whether changes are to nothing else."""
        return all(self.holds(*each) for each in changes.entries)

    def now(self) -> Memo:
        """The same with the tensors that it holds now."""
        found = (leaf for leaf in leaves(self.values()) if isinstance(leaf, torch.Tensor))
        return replace(self, tensors={id(tensor): tensor for tensor in found})

    def contents(self) -> list[object]:
        """Tokens of what is kept now, equal for equal contents."""
        return contents_of(self.values())

    def values(self) -> list[Any]:
        """The objects that are kept now."""
        return [_entry(owner, key) for (_, key), owner in self.entries.items()]


def _entry(owner: Any, key: Any) -> Any:
    """Return an entry of a container, or an attribute; None if there is none."""
    if key is None:
        return owner
    if isinstance(owner, dict):
        return owner.get(key)
    if isinstance(owner, list):
        return owner[key] if key < len(owner) else None
    return getattr(owner, key, None)


def _has_entry(owner: Any, key: Any) -> bool:
    if isinstance(owner, dict):
        return key in owner
    return key is not None and (isinstance(owner, list) or hasattr(owner, key))


NO_MEMO = Memo()
"""Of a model that keeps nothing, or whose memory counts."""


def find_memo(model: Model, calls: Sequence[Sized]) -> Memo | None:
    """Find what calls of a model keep; the model is as before then.

    Returns:
        What they keep; None if that is nothing, counts for what another of them computes, or
        depends on more than sizes and weights.
    """
    return _undone(model, lambda state: _find_memo(model, state, calls))


def _find_memo(model: Model, state: ModelState, calls: Sequence[Sized]) -> Memo | None:
    made = FakeCalls(model)
    changes = [_changes_by(made, state, each) for each in calls]
    found = [each for each in changes if each is not None]
    if len(found) < len(changes) or not any(found):
        return None
    memo = memo_of(*found)
    histories = _Histories(model, state, memo)
    same = all(histories.make_no_difference(first, lambda _: calls) for first in calls)
    return memo if same else None


def is_independent(
    model: Model, memo: Memo, before: Sequence[Sized], later: Sequence[Sized]
) -> bool:
    """Tell whether calls compute the same after each of others as in the state the model is in.

    So do calls of the sizes that the first one had, and of any number that it has kept.

    Args:
        model: the model, which is as before then.
        memo: what calls may change.
        before: calls that are made first, each alone.
        later: calls that are compared.
    """
    return bool(_undone(model, lambda state: _are_same(model, state, memo, before, later)))


def _are_same(
    model: Model, state: ModelState, memo: Memo, before: Sequence[Sized], later: Sequence[Sized]
) -> bool:
    histories = _Histories(model, state, memo)
    numbers = _NewNumbers([*leaves(memo.values())])

    def calls_after(first: Sized) -> Sequence[Sized]:
        return [*later, *numbers.sizes_near(first, [*leaves(memo.values())])]

    return all(histories.make_no_difference(first, calls_after) for first in before)


def _undone(model: Model, make: Callable[[ModelState], Found]) -> Found | None:
    """Give what code finds that changes a model's state, and undo that; None if it fails."""
    state, caches = ModelState(model), Caches()
    try:
        return make(state)
    except Exception as error:  # noqa: BLE001  whoever asks has an error already, and a better one
        log.debug("what the model keeps cannot be found: %r", error)
        return None
    finally:
        state.put_back()
        caches.forget_new()


def _changes_by(made: FakeCalls, state: ModelState, each: Sized) -> Changes | None:
    """List what a call changes, and undo it; None if it fails, or changes more than a memo."""
    ran = made.make(*each)
    changes = state.changes() if ran is not None and ran.only_computes else None
    state.put_back()
    return changes


def memo_of(*changes: Changes) -> Memo:
    """Make a memo of what calls change, in the state before them."""
    entries = {(id(owner), key): owner for each in changes for owner, key in each.entries}
    names = dict.fromkeys(name for each in changes for name in each.names)
    growing = frozenset(at for (at, key), owner in entries.items() if not _has_entry(owner, key))
    return Memo(tuple(names), entries, growing).now()


@dataclass(frozen=True)
class _Left:
    """A call that was made; what it computed, or None if it failed, and what is kept after it."""

    ran: Ran | None
    contents: list[object]


class _Histories:
    """Calls after one another, compared with the same calls in the state before all of them.

    Args:
        model: the model.
        state: the state before all, which the model is in.
        memo: what calls may change.
    """

    def __init__(self, model: Model, state: ModelState, memo: Memo) -> None:
        self._model, self._state, self._memo = model, state, memo
        self._made = FakeCalls(model)
        self._made.compare_by_value(memo.tensors)
        self._alone: dict[tuple[int, tuple[tuple[str, int], ...]], _Left] = {}

    def make_no_difference(
        self, first: Sized, calls_after: Callable[[Sized], Sequence[Sized]]
    ) -> bool:
        """Tell whether calls compute the same after another one as without it.

        Args:
            first: the call.
            calls_after: gives the others, in the state after it.
        """
        try:
            left = self._make(first)
            now, later = ModelState(self._model), calls_after(first)
            if left.ran is None or self._made.outlived():
                return False
            return all(self._is_same(now, left, each) for each in (first, *later))
        finally:
            self._state.put_back()

    def _is_same(self, now: ModelState, left: _Left, later: Sized) -> bool:
        """Tell whether a call computes the same in a state as it does before all calls.

        And whether it keeps what it would keep then, or leaves what the call before it has left:
        then no number of calls makes another state than one of them does.
        """
        call, sizes = later
        key = (id(call), tuple(sorted(sizes.items())))
        if key not in self._alone:
            self._state.put_back()
            self._alone[key] = self._make(later)
        now.put_back()
        found, alone = self._make(later), self._alone[key]
        same = found.ran is not None and found.ran == alone.ran
        return same and found.contents in (left.contents, alone.contents)

    def _make(self, each: Sized) -> _Left:
        """Make a call that changes no more than the memo."""
        ran = self._made.make(*each)
        changes = self._state.changes()
        fits = changes is not None and self._memo.has(changes)
        made = ran if fits and ran is not None and ran.only_computes else None
        return _Left(made, self._memo.contents())


class _NewNumbers:
    """Numbers that calls may compare sizes with, each looked at once.

    Args:
        kept: what is kept before any call.
    """

    def __init__(self, kept: Sequence[Any]) -> None:
        self._before = kept
        self._seen: set[int] = set()

    def sizes_near(self, first: Sized, kept: Sequence[Any]) -> Iterator[Sized]:
        """The same call with one size that is a number among what it has kept, or next to one."""
        call, sizes = first
        found = [*self._before, *kept]
        shapes = {n for each in found if isinstance(each, torch.Tensor) for n in each.shape}
        numbers = {each for each in found if type(each) is int} | {*sizes.values()}
        near = shapes | {n + step for n in numbers for step in (-1, 0, 1)}
        new = sorted(n for n in near - self._seen if _is_served(call, n))[:_NUMBERS]
        self._seen.update(new)
        for number in new:
            for dim in call.axes:
                for size in _sizes_of(call, dim.name, number):
                    if dim.serves(size) and size != sizes[dim.name]:
                        yield call, {**sizes, dim.name: size}


def _is_served(call: FirstCall, number: int) -> bool:
    return any(dim.serves(n) for dim in call.axes for n in _sizes_of(call, dim.name, number))


def _sizes_of(call: FirstCall, axis: str, number: int) -> set[int]:
    """The sizes of an axis where it, or a size that follows from it, is a number."""
    every = (as_derived(size) for spec in call.tensors for size in spec.shape)
    alone = (size for size in every if len(size.terms) == 1 and size.terms[0][0] == axis)
    return {number, *(size.solved(number) for size in alone)}
