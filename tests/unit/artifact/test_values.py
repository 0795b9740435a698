"""Python values survive the way to JSON and back, with their types."""

from __future__ import annotations

import collections
import dataclasses
import enum
import json
import math
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hotstart.artifact.values import decode, encode
from hotstart.errors import ArtifactError
from hotstart.records.classes import class_path, find_class
from hotstart.records.nested import same_constant


class Pair(NamedTuple):
    left: Any
    right: Any


class Color(enum.Enum):
    RED = object()  # its value says nothing
    BLUE = 2


class Access(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass(frozen=True)
class Settings:
    rate: float
    names: tuple[str, ...] = ()


def refuse(_: Any) -> Any:
    raise AssertionError("there is no tensor here")


def there_and_back(value: Any) -> Any:
    return decode(json.loads(json.dumps(encode(value, refuse))), refuse)


def same(left: Any, right: Any) -> bool:
    if type(left) is not type(right):
        return False
    if isinstance(left, tuple | list | torch.Size):
        pairs = zip(left, right, strict=False)
        return len(left) == len(right) and all(same(a, b) for a, b in pairs)
    if isinstance(left, dict):
        return same(list(left.items()), list(right.items()))
    if isinstance(left, slice):  # one that holds nan is not equal to itself
        parts = [(s.start, s.stop, s.step) for s in (left, right)]
        return same(*parts)
    return same_constant(left, right)


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.complex_numbers(), st.text(),
    st.binary(), st.sampled_from([..., torch.float16, torch.strided, torch.channels_last]),
    st.sampled_from([torch.device("cpu"), torch.device("cuda", 1), Level.LOW, *Color]),
    st.sampled_from([Access.READ, Access.READ | Access.WRITE, Access(0)]),
)  # fmt: skip
hashable = st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.binary())
containers = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner), st.lists(inner).map(tuple), st.dictionaries(hashable, inner),
        st.builds(Pair, inner, inner), st.builds(slice, inner, inner, inner),
    ),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.thorough
@given(containers)
def test_a_value_comes_back_with_its_type(value: Any) -> None:
    assert same(there_and_back(value), value)


@pytest.mark.parametrize(
    "value",
    [
        {1, 2, 3}, frozenset({"a"}), range(1, 9, 2), torch.Size([2, 3]), Settings(0.5, ("a", "b")),
        -0.0, math.inf, 2**63, -(2**200), Pair, torch.Tensor, collections.OrderedDict, True, 1, 1.0,
    ],
    ids=repr,
)  # fmt: skip
def test_values_that_are_easily_confused_stay_themselves(value: Any) -> None:
    found = there_and_back(value)
    assert type(found) is type(value)
    assert found == value
    assert repr(found) == repr(value)


def test_tensors_are_kept_by_name() -> None:
    kept: dict[str, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> str:
        kept[f"t{len(kept)}"] = tensor
        return f"t{len(kept) - 1}"

    table = torch.ones(2)
    data = json.loads(json.dumps(encode([table, (1, table * 2)], keep)))
    found = decode(data, kept.__getitem__)
    assert found[0] is table
    assert torch.equal(found[1][1], table * 2)


def test_what_has_no_exact_description_is_refused_by_name() -> None:
    class Local:
        pass

    for value in (Local(), Local, lambda: 0, open, iter([]), object()):
        with pytest.raises(ArtifactError, match="cannot be saved"):
            encode(value, refuse)


@pytest.mark.parametrize(
    "data",
    [
        {}, {"tuple": [], "list": []}, {"unknown": 1}, {"int": "x"}, {"torch": "no_such_thing"},
        {"tuple": 3}, {"torch": "load"}, {"device": "toaster"},
        {"enum": ["tests.unit.nowhere:Color", "RED"]},
        {"enum": [f"{__name__}:Color", "GREEN"]}, {"namedtuple": [f"{__name__}:Pair", 1]},
        {"dataclass": [f"{__name__}:Settings", ["speed", 1]]}, {"class": "os:path"}, {"class": 3},
        {"bytes": "\u2603"}, {"float": None}, {"dict": [[1]]}, {"dict": [[{"list": []}, 1]]},
    ],
    ids=repr,
)  # fmt: skip
def test_what_describes_nothing_is_an_error(data: Any) -> None:
    with pytest.raises(ArtifactError):
        decode(data, refuse)


def test_a_class_is_found_again_only_where_it_says_it_is() -> None:
    assert find_class(class_path(Pair)) is Pair
    with pytest.raises(ArtifactError, match="expected a class at nowhere:Thing, found none"):
        find_class("nowhere:Thing")
    with pytest.raises(ArtifactError, match="found a module"):
        find_class("os:path")
