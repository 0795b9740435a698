"""Everything that is looked at in a call: a change is noticed, and nothing else happens."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from hotstart.guards.watch import Sealed, Watched


class Slotted:
    __slots__ = ("value",)


class Held:
    pass


class MadeUp(dict[Any, Any]):
    """Finds another object in every place whenever it is asked."""

    def __getitem__(self, key: Any) -> object:
        return object()


def restless(mapping: dict[Any, Any], *keys: Any) -> Watched:
    watched = Watched({id(mapping)})
    watched.mapping(mapping, *keys)
    return watched


def function_over(value: Any) -> Callable[[], Any]:
    return lambda: value


def _emptied(cell: Any) -> None:
    del cell.cell_contents


def case(name: str) -> tuple[Watched, Callable[[], Any]]:
    """Something that is watched, and a change of it."""
    watched = Watched(set())
    match name:
        case "a dict":
            held = {"a": 1}
            watched.mapping(held)
            return watched, lambda: held.update(b=2)
        case "an entry":
            held = {"a": 1}
            return restless(held, "a"), lambda: held.update(a=2)
        case "an entry that goes":
            held = {"a": None}
            return restless(held, "a"), lambda: held.pop("a")
        case "an entry that comes":
            held = {}
            return restless(held, "a"), lambda: held.update(a=None)
        case "an entry of a dict that makes up what is missing":
            made: dict[str, Any] = defaultdict(lambda: None, a=None)
            return restless(made, "a"), lambda: made.pop("a")
        case "a cell":
            cell = (function_over(1).__closure__ or ())[0]
            watched.attribute(cell, "cell_contents")
            return watched, lambda: _emptied(cell)
        case "a slot":
            slotted = Slotted()
            watched.attribute(slotted, "value")
            return watched, lambda: setattr(slotted, "value", None)
        case "defaults":
            function = function_over(1)
            watched.attribute(function, "__defaults__")
            return watched, lambda: setattr(function, "__defaults__", (1,))
        case "keys":
            held = {"a": 1}
            keyed = Watched({id(held)})
            keyed.keys(held)
            return keyed, lambda: held.update(b=1)
        case "a list":
            items = [1, 2]
            watched.whole(items)
            return watched, items.reverse
        case "a list that grows":
            items = []
            watched.whole(items)
            return watched, lambda: items.append(1)
        case "a set":
            members = {1}
            watched.whole(members)
            return watched, lambda: members.add(2)
        case "a dict that is empty":
            hooks: dict[int, Any] = {}
            watched.empty(hooks)
            return watched, lambda: hooks.update({1: 1})
    held_object = Held()
    watched.objects.append(held_object)
    return watched, lambda: setattr(held_object, "__class__", type("Other", (Held,), {}))


CASES = [
    "a dict", "an entry", "an entry that goes", "an entry that comes",
    "an entry of a dict that makes up what is missing", "a cell", "a slot", "defaults", "keys",
    "a list", "a list that grows", "a set", "a dict that is empty", "a class",
]  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_change_is_noticed(name: str) -> None:
    watched, change = case(name)
    sealed = Sealed(watched)
    assert sealed.unchanged()
    change()
    assert not sealed.unchanged()


def test_looking_adds_nothing_to_a_dict_that_makes_up_what_is_missing() -> None:
    held: dict[str, Any] = defaultdict(list, a=1)
    sealed = Sealed(restless(held, "a"))
    del held["a"]
    assert not sealed.unchanged()
    assert held == {}


def test_a_dict_that_finds_other_objects_each_time_is_as_it_was() -> None:
    sealed = Sealed(restless(MadeUp(a=1), "a"))
    assert sealed.unchanged()
