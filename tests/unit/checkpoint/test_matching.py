"""One way of naming is found for a whole checkpoint, or names near those that are missing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from hotstart.checkpoint.matching import match, near
from hotstart.checkpoint.tensors import GivenTensors
from hotstart.records.artifact import WeightSpec
from hotstart.records.standalone import Naming, Prefix, Rename

PLAIN = Naming()


def specs(*names: str | tuple[str, ...]) -> dict[int, WeightSpec]:
    made = {}
    for slot, name in enumerate(names):
        first, *ties = (name,) if isinstance(name, str) else name
        made[slot] = WeightSpec(first, "parameter", "float32", "cpu", (2,), (1,), ties=tuple(ties))
    return made


def matched(
    wanted: Sequence[str | tuple[str, ...]], names: Sequence[str], naming: Naming = PLAIN
) -> list[list[str]]:
    return list(match(specs(*wanted), names, naming).values())


def test_names_that_are_the_same_are_taken_whatever_else_there_is() -> None:
    naming = Naming((Prefix("", "body."),), (Rename("a", "b"),))
    names = ["a", "b", "body.a", "body.b", "pooler"]
    assert matched(["a", "b"], names, naming) == [["a"], ["b"]]


@pytest.mark.parametrize(
    ("naming", "wanted", "names"),
    [
        (Naming((Prefix("", "bert."),)), ["e.w", "l.w"], ["bert.e.w", "bert.l.w"]),
        (Naming((Prefix("bert.", ""),)), ["bert.e.w", "cls.w"], ["e.w", "cls.w"]),
        (Naming((Prefix("", "model.enc."),)), ["w", "b"], ["model.enc.w", "model.enc.b"]),
        (PLAIN, ["encoder.bert.w", "encoder.bert.x.b"], ["bert.w", "bert.x.b"]),
        (PLAIN, ["encoder.bert.w", "encoder.bert.x.b"], ["w", "x.b"]),
        (Naming((), (Rename(r"gamma$", "weight"),)), ["n.weight", "w"], ["n.gamma", "w"]),
        (
            Naming((Prefix("", "b."),), (Rename(r"gamma$", "weight"),)),
            ["n.weight", "w"],
            ["b.n.gamma", "b.w"],
        ),
        (
            Naming((), (Rename(r"(?P<g0>^x(\d))", r"y.\g<2>"), Rename("^y", "z"))),
            ["z.1.w", "z.2.w"],
            ["x1.w", "x2.w"],
        ),
        (Naming((), (Rename("^w", "v", ("m.in.", "in.")),)), ["in.v", "w"], ["in.w", "w"]),
    ],
)  # fmt: skip
def test_names_that_differ_by_a_rule_are_found(
    naming: Naming, wanted: list[str], names: list[str]
) -> None:
    assert matched(wanted, [*names, "other"], naming) == [[name] for name in names]


def test_names_are_not_guessed_one_by_one() -> None:
    naming = Naming((Prefix("", "one."), Prefix("", "two.")))
    found = matched(["a", "b", "c"], ["one.a", "one.b", "two.c", "c.d"], naming)
    assert found == [["one.a"], ["one.b"], []]


def test_a_renamed_name_that_two_names_lead_to_is_none() -> None:
    naming = Naming((), (Rename("x|y", "w"),))
    assert matched(["w", "v"], ["x", "y"], naming) == [[], []]


def test_every_name_of_a_tied_tensor_is_found() -> None:
    wanted = [("emb.w", "head.w"), "b"]
    assert matched(wanted, ["emb.w", "b"]) == [["emb.w"], ["b"]]
    assert matched(wanted, ["head.w", "b"]) == [["head.w"], ["b"]]
    assert matched(wanted, ["emb.w", "head.w", "b"]) == [["emb.w", "head.w"], ["b"]]


def test_near_names_are_those_that_end_alike_or_are_of_the_shape() -> None:
    names = ["a.up.weight", "a.down.weight", "b.up.bias", "z", "c.up.weight"]
    shapes = {"a.down.weight": 3, "z": 2}
    tensors = {name: torch.zeros(shapes.get(name, 2)) for name in names}
    checkpoint = GivenTensors(tensors, "here", shared=False)
    (spec,) = specs("layers.up.weight").values()
    assert near(spec, checkpoint, {"c.up.weight"}) == ["a.up.weight", "a.down.weight", "b.up.bias"]
    (spec,) = specs("nothing.alike").values()
    assert near(spec, GivenTensors({"x": torch.zeros(5)}, "here", shared=False), ()) == []
