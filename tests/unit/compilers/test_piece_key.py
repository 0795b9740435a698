"""What is part of a piece's key, and what of its kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from hotstart import Dim
from hotstart.compilers.piece_key import Bounds, piece_key, piece_kind
from hotstart.partition import Graph, Piece
from hotstart.records.shapes import Choice, Interval, Variant
from tests.capturing import planned

RANGE = {"rows": Bounds(2, 8, 5)}


def model(x: torch.Tensor) -> torch.Tensor:
    return x.sin()


def piece_at(rows: Choice) -> tuple[Graph, Piece]:
    """The one piece of a model with an axis `rows`, and its graph where this is a range or size."""
    dynamic = {"x": {0: Dim("rows", max=8)}}
    plan = planned(model, torch.ones(5, 3), split_on=[], dynamic=dynamic)
    (piece,) = plan.pieces
    return plan.graph.at(Variant((("rows", rows),))), piece


def kind(compiler: str = "op_by_op") -> str:
    graph, piece = piece_at(Interval(2, 8))
    return piece_kind(graph, piece, RANGE, compiler)


def of_another_digest() -> str:
    graph, piece = piece_at(Interval(2, 8))
    return piece_kind(graph, replace(piece, digest="another"), RANGE, "op_by_op")


def of_another_compiler() -> str:
    return kind("inductor")


def under_autocast() -> str:
    with torch.autocast("cpu"):
        return kind()


def of_one_size() -> str:
    graph, piece = piece_at(4)
    return piece_kind(graph, piece, {}, "op_by_op")


@pytest.mark.parametrize(
    "other", [of_another_digest, of_another_compiler, under_autocast, of_one_size]
)
def test_a_kind_has_all_but_ranges(other: Callable[[], str]) -> None:
    assert kind() == kind()
    assert other() != kind()


@pytest.mark.parametrize("bounds", [Bounds(1, 8, 5), Bounds(2, 9, 5), Bounds(2, 8, 4)])
def test_ranges_and_what_they_are_tuned_for_are_in_the_key(bounds: Bounds) -> None:
    assert piece_key(kind(), RANGE.values(), ()) != piece_key(kind(), [bounds], ())


def test_conditions_are_in_the_key() -> None:
    assert piece_key(kind(), RANGE.values(), ()) != piece_key(kind(), RANGE.values(), ("a0 != 3",))
