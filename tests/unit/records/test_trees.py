from __future__ import annotations

import collections
import dataclasses
import enum
import math
from typing import Any, NamedTuple

import pytest
import torch
import torch.utils._pytree as pytree
from hypothesis import given
from hypothesis import strategies as st

from hotstart.records.nested import (
    Attributes,
    Const,
    Map,
    Record,
    Registered,
    Seq,
    Slot,
    Tree,
    children,
    same_constant,
    walk,
)
from hotstart.records.trees import (
    NotATree,
    build,
    closed,
    containers,
    describe,
    filled,
    opened,
    slots,
    tensors_of,
)


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = 0
    norm: float = dataclasses.field(init=False, default=1.0)


class Plain:
    def __init__(self, x: Any, rest: Any) -> None:
        self.x = x
        self.rest = rest


class Slotted:
    __slots__ = ("unset", "x", "y")

    def __init__(self, x: Any, y: Any) -> None:
        self.x = x
        self.y = y


@dataclasses.dataclass
class Outputs(collections.OrderedDict[str, Any]):
    first: Any = None


class Bag:
    def __init__(self, items: list[Any]) -> None:
        self.items = items
        self.key = object()  # so that its attributes do not say it all


pytree.register_pytree_node(
    Bag, lambda bag: (bag.items, len(bag.items)), lambda items, _: Bag(list(items))
)


class Copies:
    def __init__(self, items: list[Any]) -> None:
        self.items = items


pytree.register_pytree_node(
    Copies, lambda c: (c.items, None), lambda items, _: Copies([item + 0 for item in items])
)


@dataclasses.dataclass
class Doubling:
    x: Any

    def __post_init__(self) -> None:
        self.twice = self.x * 2


@dataclasses.dataclass
class Growing(collections.OrderedDict[str, Any]):
    first: Any = None

    def __post_init__(self) -> None:
        self["twice"] = self.first * 2


KNOWN = Plain(1, 2)


class Color(enum.Enum):
    RED = 1


def with_tensors_as_slots(value: Any) -> tuple[Tree, list[torch.Tensor], list[str]]:
    found: list[torch.Tensor] = []
    paths: list[str] = []

    def leaf(path: str, item: Any) -> Tree | None:
        if not isinstance(item, torch.Tensor):
            return None
        found.append(item)
        paths.append(path)
        return Slot("arg", len(found) - 1)

    return describe(value, "v", leaf), found, paths


T = torch.zeros(1)


@pytest.mark.parametrize(
    ("value", "kind", "paths"),
    [
        (T, Slot, ["v"]),
        ((T, 1), Seq, ["v[0]"]),
        ([T, [T]], Seq, ["v[0]", "v[1][0]"]),
        (Pair(1, T), Seq, ["v.right"]),
        ({"a": T, 3: (T,)}, Map, ["v['a']", "v[3][0]"]),
        (collections.OrderedDict(a=T), Map, ["v['a']"]),
        (Point(T, [T]), Attributes, ["v.x", "v.y[0]"]),
        (Plain(T, [T]), Attributes, ["v.x", "v.rest[0]"]),
        (Slotted(T, 1), Attributes, ["v.x"]),
        (Outputs(first=T), Record, ["v.first"]),
        (Bag([T, 2, T]), Registered, ["v.<0>", "v.<2>"]),
        ({"a": Bag([Point(x=Pair(T, None))])}, Map, ["v['a'].<0>.x.left"]),
    ],
)
def test_every_container_is_described_with_paths_a_user_would_write(
    value: Any, kind: type, paths: list[str]
) -> None:
    tree, _, found = with_tensors_as_slots(value)
    assert isinstance(tree, kind)
    assert found == paths


@pytest.mark.parametrize(
    "value",
    [
        (T, 1),
        [T, [None]],
        Pair(1, T),
        {"a": T, 3: (T,)},
        collections.OrderedDict(b=1, a=T),
        {"a": [Pair(T, ...)]},
    ],
)
def test_building_a_tree_gives_the_value_back(value: Any) -> None:
    tree, tensors, _ = with_tensors_as_slots(value)
    made = build(tree, lambda slot: tensors[slot.index])
    assert type(made) is type(value)
    assert made == value


def test_building_a_dataclass_and_a_registered_type_keeps_their_types() -> None:
    tree, tensors, _ = with_tensors_as_slots([Point(T, 2), Bag([T, 3])])
    point, bag = build(tree, lambda slot: tensors[slot.index])
    assert point == Point(T, 2)
    assert isinstance(bag, Bag)
    assert bag.items == [T, 3]


@pytest.mark.parametrize(
    "value",
    [True, 1, 1.5, 1j, "s", b"s", None, ..., slice(1, None), range(3), torch.float32,
     torch.device("cpu"), torch.strided, torch.channels_last, torch.Size([1, 2]), Color.RED],
)  # fmt: skip
def test_constants_are_kept_as_they_are(value: Any) -> None:
    tree = describe(value, "v", lambda *_: None)
    assert isinstance(tree, Const)
    assert tree.value is value


@pytest.mark.parametrize("value", [object(), {1, 2}, lambda: None, T])
def test_anything_else_is_refused_with_its_path(value: Any) -> None:
    with pytest.raises(NotATree) as caught:
        describe({"a": [value]}, "v", lambda *_: None)
    assert caught.value.path == "v['a'][0]"
    assert caught.value.value is value


def test_a_subclass_of_dict_that_is_not_known_is_refused() -> None:
    class Settings(dict[str, Any]):
        pass

    with pytest.raises(NotATree):
        describe(Settings(), "v", lambda *_: None)


def test_an_object_is_built_from_its_attributes_and_runs_none_of_its_code() -> None:
    point = Point(1, 2)
    point.norm, point.extra = 3.0, T
    tree, tensors, _ = with_tensors_as_slots([point, Slotted(T, 1)])
    made, slotted = build(tree, lambda slot: tensors[slot.index])
    assert vars(made) == {"x": 1, "y": 2, "norm": 3.0, "extra": T}
    assert (slotted.x, slotted.y, hasattr(slotted, "unset")) == (T, 1, False)


def test_what_code_may_ask_the_identity_of_is_refused() -> None:
    with pytest.raises(NotATree):
        describe(KNOWN, "v", lambda *_: None)


@pytest.mark.parametrize("value", [Copies([T]), Doubling(T)])
def test_a_container_whose_building_makes_tensors_is_taken_by_its_attributes(value: Any) -> None:
    tree, tensors, _ = with_tensors_as_slots(value)
    assert isinstance(tree, Attributes)
    assert vars(build(tree, lambda slot: tensors[slot.index])) == vars(value)


def test_a_container_that_makes_tensors_and_is_more_than_attributes_is_refused() -> None:
    with pytest.raises(NotATree, match="that makes tensors when it is built"):
        with_tensors_as_slots([Growing(T)])


def test_a_dict_that_has_attributes_besides_its_fields_is_refused() -> None:
    outputs = Outputs(first=T)
    outputs.extra = T  # type: ignore[attr-defined]
    with pytest.raises(NotATree, match="attributes besides its fields"):
        with_tensors_as_slots(outputs)


def test_a_container_that_contains_itself_is_refused() -> None:
    inner: list[Any] = [T]
    inner.append({"again": inner})
    with pytest.raises(NotATree, match=r"v\[1\]\['again'\] is a list that contains itself"):
        with_tensors_as_slots(inner)


def test_a_tree_is_walked_from_the_outermost_on_with_the_paths_of_the_value() -> None:
    value = [T, {"a": Pair(T, Bag([T]))}]
    tree, _, paths = with_tensors_as_slots(value)
    walked = list(walk(tree, "v"))
    assert [path for path, found in walked if isinstance(found, Slot)] == paths
    assert [path for path, _ in walked][:4] == ["v", "v[0]", "v[1]", "v[1]['a']"]
    inside = [(path, held) for path, _, held in containers(tree, value, "v")]
    assert [path for path, _ in inside] == ["v", "v[1]", "v[1]['a']", "v[1]['a'].right"]
    assert inside[-1][1] is value[1]["a"].right


def test_slots_come_in_order() -> None:
    tree, _, _ = with_tensors_as_slots([T, {"a": Point(T, Bag([T]))}, (T,)])
    assert [slot.index for slot in slots(tree)] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (1, True, False),
        (1, 1.0, False),
        (0.0, -0.0, False),
        (math.nan, math.nan, True),
        (complex(0.0, -0.0), complex(0.0, 0.0), False),
        ("a", "a", True),
        (slice(1), slice(1), True),
        (None, 0, False),
        (torch.float16, torch.bfloat16, False),
    ],
)
def test_constants_are_the_same_only_with_their_type(left: Any, right: Any, same: bool) -> None:
    assert same_constant(left, right) is same


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.just(T),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.builds(Pair, inner, inner)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(values)
def test_any_nesting_survives_the_round_trip(value: Any) -> None:
    tree, tensors, paths = with_tensors_as_slots(value)
    assert build(tree, lambda slot: tensors[slot.index]) == value
    assert len(tensors) == len(list(slots(tree))) == len(set(paths))
    assert [path for path, _ in tensors_of(value, "v")] == paths


@given(values)
def test_one_level_is_opened_and_closed(value: Any) -> None:
    container = opened(value)
    if container is None:
        assert children(container) == ()
    else:
        assert filled(container, [child.value for child in children(container)]) == container
        assert closed(container) == value
