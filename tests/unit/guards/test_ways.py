"""From Dynamo's names to steps that other processes can take."""

from __future__ import annotations

import types
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from hotstart.guards.structure import follow
from hotstart.guards.ways import ways

LONG = "list(dict.keys(G['d']))[1]"


class Named(dict[str, int]):
    """Not Python's dict."""


class Box:
    """Has an attribute, and one of its class."""

    held = types.SimpleNamespace(by=3)

    def __init__(self) -> None:
        self.own = Named(a=1, b=2)

    @property
    def given(self) -> int:
        """A property."""
        return 4


HELD: dict[str, Any] = {"box": Box(), "d": Named(a=1, b=2), "n": [Named(z=5)], "t": (7, 8)}
NAMES = {
    "G['box'].own": Named(a=1, b=2),
    "dict.__getitem__(G['box'].own, 'b')": 2,
    "G['d']['a']": 1,
    LONG: "b",
    f"dict.__getitem__(G['d'], {LONG})": 2,
    f"G['d'][{LONG}]": 2,
    "list.__getitem__(G['n'], 0)['z']": 5,
    "tuple.__getitem__(G['t'], -1)": 8,
    "list({9})[0]": None,
    "type(G['box'])": Box,
    "type(G['box']).__mro__[1]": object,
    "dict(type(G['box']).__dict__)['held'].by": 3,
    "dict(type(G['box']).__dict__)['given'].fget.__name__": "given",
    "getattr(G['box'], 'given')": 4,
    "object.__getattribute__(G['box'], 'given')": 4,
}


@pytest.mark.parametrize("name", NAMES)
def test_steps_lead_where_the_name_does(name: str) -> None:
    found = [(kind, steps) for start, kind, steps in ways("value", name, None) if start == "G"]
    expected = NAMES[name]
    if expected is None:  # it begins nowhere that others have
        assert not found
    else:
        assert [kind for kind, _ in found] == ["value"]
        assert follow(HELD, found[0][1]) == expected


@pytest.mark.parametrize(
    ("name", "rest"),
    [
        ("___from_numpy(G['box'].own)", (("item", "box"), ("attribute", "own"))),
        ("G['box']().by", (("item", "box"),)),
        ("G['d'][(1, 2)].by", (("item", "d"),)),
        ("G['d'][torch.float32]", (("item", "d"),)),
        ("tuple_iterator_getitem(G['t'], 1)", (("item", "t"),)),
    ],
)
def test_what_no_steps_say_is_inside_of_what_they_lead_to(name: str, rest: object) -> None:
    assert ("G", "inside", rest) in list(ways("value", name, None))


@pytest.mark.parametrize(
    ("read", "key", "expected"),
    [
        ("attribute", "x", ("attribute", (("item", "d"), ("attribute", "x")))),
        ("contains", "x", ("contains", (("item", "d"), ("item", "x")))),
        ("contains", True, ("contains", (("item", "d"), ("item", 1)))),
        ("contains", (1, 2), ("keys", (("item", "d"),))),
        ("length", None, ("length", (("item", "d"),))),
    ],
)
def test_a_key_that_was_looked_up_is_the_last_step(read: Any, key: object, expected: Any) -> None:
    assert ("G", *expected) in list(ways(read, "G['d']", key))


def test_a_name_that_is_no_expression_begins_nowhere() -> None:
    assert not list(ways("value", "<ephemeral: x>", None))
    assert [start for start, _, _ in ways("value", "1 + 2", None)] == ["1 + 2"]


def test_a_property_of_a_module_is_not_read() -> None:
    """That of a parametrized weight runs the parametrization, which may write to buffers."""
    module = parametrizations.spectral_norm(nn.Linear(4, 4))
    before = module.parametrizations.weight[0]._u.clone()
    with pytest.raises(AttributeError, match="weight is a property"):
        follow(module, (("attribute", "weight"),))
    assert torch.equal(module.parametrizations.weight[0]._u, before)
