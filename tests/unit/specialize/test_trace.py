"""Every declared size is served by a graph that stands for the model at that size."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._sympy.functions import FloorDiv

from hotstart import Dim, RangeError
from hotstart._torch.graphs.symbols import Condition, axis_symbol, holds_at
from hotstart.errors import CaptureError
from hotstart.records.dims import variants
from hotstart.specialize.limits import range_error
from hotstart.specialize.parts import Split, VariantPart
from hotstart.specialize.split import Declaration
from hotstart.specialize.trace import TracedPart, trace_parts
from tests.capturing import compiled

A, B = axis_symbol("a"), axis_symbol("b")
MOD = sympy.Mod


@dataclass(frozen=True, eq=False)
class Path:
    """A graph that stands for the model where all of its conditions hold."""

    assumed: tuple[Condition, ...]


def paths(*decisions: Any) -> Callable[[VariantPart], Path]:
    """A model that takes another path for every outcome of every decision."""

    def path(part: VariantPart) -> Path:
        taken = [d if holds_at(d, part.hints) else sympy.Not(d) for d in decisions]
        return Path(tuple(Condition(expr, "somewhere") for expr in taken))

    return path


def traced(path: Any, declaration: Declaration) -> tuple[list[TracedPart], list[Split]]:
    return trace_parts(lambda part, _: path(part), declaration)


def served(limit: int, path: Any, *axes: Dim) -> tuple[list[Any], list[TracedPart]]:
    """The graphs, and which sizes each serves."""
    parts, _ = traced(path, Declaration(axes, {axis.name: 5 for axis in axes}, limit))
    return list(dict.fromkeys(each.graph for each in parts)), parts


def names(parts: Sequence[TracedPart]) -> list[str]:
    return [each.part.variant.name for each in parts]


def test_a_size_that_is_special_gets_a_graph_of_its_own() -> None:
    graphs, parts = served(8, paths(sympy.Ne(A, 1)), Dim("a", max=9))
    assert names(parts) == ["a=2..9", "a=1"]
    assert len(graphs) == 2


def test_a_bound_splits_the_range_in_two() -> None:
    _, parts = served(8, paths(A <= 15), Dim("a", max=40))
    assert names(parts) == ["a=1..15", "a=16..40"]


def test_an_interval_in_the_middle_leaves_two_sides() -> None:
    inside = sympy.And(A >= 3, A <= 6)
    graphs, parts = served(8, paths(inside), Dim("a", max=9))
    assert names(parts) == ["a=3..6", "a=1..2", "a=7..9"]
    assert len(graphs) == 2, "both sides take the same path"


def test_parity_is_a_condition_on_a_variant() -> None:
    _, parts = served(8, paths(sympy.Eq(MOD(A, 2), 0)), Dim("a", max=40))
    assert names(parts) == ["a=1..40 where (a % 2) != 0", "a=1..40 where (a % 2) == 0"]


def test_a_condition_on_two_axes_is_a_condition_on_a_variant() -> None:
    _, parts = served(8, paths(A * B <= 20), Dim("a", max=9), Dim("b", max=9))
    assert [each.part.variant.where for each in parts] == ["a*b > 20", "a*b <= 20"]


def test_a_graph_serves_another_range_where_it_is_proven_to() -> None:
    graphs, parts = served(8, paths(sympy.Ne(A, 1)), Dim("a", max=40, ranges=[(1, 16)]))
    assert names(parts) == ["a=2..16", "a=1", "a=17..40"]
    assert len(graphs) == 2


def test_single_sizes_that_were_declared_are_not_split() -> None:
    _, parts = served(0, paths(sympy.Ne(A, 1)), Dim("a", max=9, sizes=[1]))
    assert names(parts) == ["a=2..9", "a=1"]


def test_more_splits_than_allowed_are_an_error_that_states_the_condition() -> None:
    thirds = [sympy.Eq(MOD(A, 9), n) for n in range(9)]
    with pytest.raises(RangeError, match="somewhere") as caught:
        served(4, paths(*thirds), Dim("a", max=90))
    assert caught.value.axis == "a"
    assert "(a % 9)" in caught.value.condition


def test_an_error_names_the_axes_of_its_condition_and_not_those_of_the_part() -> None:
    axes = (Dim("a", max=9), Dim("b", max=9))
    (variant,) = variants(axes)
    part = VariantPart(variant, variant.choices, {"a": 2, "b": 2}, where=A * B <= 20)
    error = range_error(part, Condition(A <= 3, "somewhere"), axes)
    assert error.axis == "a"
    assert "declare 'a' as 1..3" in str(error)


def test_sizes_for_which_the_model_does_not_work_are_an_error_about_the_range() -> None:
    def path(part: VariantPart) -> Path:
        if part.hints["a"] > 12:
            raise CaptureError("too long")
        return Path((Condition(A <= 12, "assert"),))

    with pytest.raises(RangeError, match="a <= 12") as caught:
        served(8, path, Dim("a", max=40))
    assert isinstance(caught.value.__cause__, CaptureError)
    assert "declare 'a' as 1..12; for other sizes the model cannot be" in str(caught.value)


def test_an_error_of_the_first_trace_is_raised_as_it_is() -> None:
    def path(part: VariantPart) -> Path:
        raise CaptureError("a graph break")

    with pytest.raises(CaptureError, match="a graph break"):
        served(8, path, Dim("a", max=40))


def test_axes_that_are_one_size_are_traced_at_that_size() -> None:
    seen: list[tuple[dict[str, int], dict[str, int]]] = []

    def path(part: VariantPart) -> Path:
        seen.append((part.fixed, dict(part.hints)))
        return paths(sympy.Ne(A, 1))(part)

    served(8, path, Dim("a", max=9))
    assert seen == [({}, {"a": 5}), ({"a": 1}, {"a": 1})]


def test_a_range_too_long_to_try_every_size_is_split_by_conditions() -> None:
    _, parts = served(8, paths(A >= 2), Dim("a", max=1 << 30))
    assert names(parts) == ["a=1..1073741824 where a >= 2", "a=1..1073741824 where a < 2"]


def test_splits_are_told_with_what_made_them() -> None:
    declaration = Declaration((Dim("a", max=9),), {"a": 5}, 8)
    _, (split,) = traced(paths(sympy.Ne(A, 1)), declaration)
    assert split.part.variant.name == "a=1..9"
    assert [(str(c.expr), c.source) for c in split.conditions] == [("Ne(a, 1)", "somewhere")]
    assert [part.variant.name for part in split.into] == ["a=2..9", "a=1"]


@pytest.mark.parametrize(("bounds", "warned"), [((9, 5), 0), ((12, 9, 7, 5), 1)])
def test_a_build_warns_while_it_comes_to_many_parts(
    bounds: Sequence[int], warned: int, caplog: pytest.LogCaptureFixture
) -> None:
    model = paths(*(bound >= A for bound in bounds))
    traced(model, Declaration((Dim("a", max=30),), {"a": 30}, 8))
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == warned
    for message in warnings:
        for told in ("a=1..30", "5 parts", "sizes of a only (somewhere)", "ranges=", "splits="):
            assert told in message


def by_quotient(part: VariantPart) -> Path:
    """A model that has another graph for every value of a quotient."""
    return Path((Condition(sympy.Eq(FloorDiv(A, 4), part.hints["a"] // 4), "pooling"),))


def test_a_number_that_takes_all_of_its_values_is_refused_early() -> None:
    made: list[Any] = []

    def path(part: VariantPart) -> Path:
        made.append(part)
        return by_quotient(part)

    with pytest.raises(RangeError, match=r"51 parts.*Options\(splits=50\)") as caught:
        served(16, path, Dim("a", max=200))
    assert caught.value.source == "pooling"
    assert len(made) == 5, "four that were split, and one that was left over whole"


def test_a_number_of_few_values_is_served() -> None:
    _, parts = served(16, by_quotient, Dim("a", max=23))
    assert sorted(names(parts)) == [
        "a=1..3", "a=12..15", "a=16..19", "a=20..23", "a=4..7", "a=8..11",
    ]  # fmt: skip


decisions = st.sampled_from(
    [
        sympy.Ne(A, 1), sympy.Ne(B, 1), A <= 5, B > 3, sympy.Eq(MOD(A, 2), 0),
        sympy.Eq(MOD(B, 3), 1), A * B <= 12, A < B, sympy.Eq(A, B), sympy.Ne(A + B, 7),
    ]
)  # fmt: skip


@pytest.mark.thorough
@given(st.lists(decisions, max_size=3, unique=True), st.booleans())
@settings(deadline=None, max_examples=60)
def test_all_sizes_are_served_once_by_a_graph_that_holds_there(found: Any, ranges: bool) -> None:
    axes = (Dim("a", max=8, ranges=[(1, 4)] if ranges else None), Dim("b", max=6))
    parts, _ = traced(paths(*found), Declaration(axes, {"a": 5, "b": 2}, 64))
    for a, b in itertools.product(range(1, 9), range(1, 7)):
        sizes = {"a": a, "b": b}
        (each,) = (p for p in parts if p.part.variant.covers(sizes))
        assert all(holds_at(condition.expr, sizes) for condition in each.graph.assumed)
    for each in parts:
        assert each.part.variant.covers(each.part.hints)


# --- real models ----------------------------------------------------------------------------------


def by_chunks(x: torch.Tensor) -> torch.Tensor:
    rows = x.shape[0]
    padded = torch.nn.functional.pad(x, (0, 0, 0, -rows % 4)) if rows % 4 else x
    return padded.view(-1, 4, x.shape[1]).sum(1)


def by_parity(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if x.shape[0] % 2 == 0 else x + 1


def by_length(x: torch.Tensor) -> torch.Tensor:
    if x.shape[0] == 1:
        return x.squeeze(0) - 1
    return x[:5] * 2 if x.shape[0] > 5 else x


@pytest.mark.parametrize("function", [by_chunks, by_parity, by_length])
def test_one_declared_range_is_enough(function: Any) -> None:
    program = compiled(function, torch.randn(6, 8), dynamic={"x": {0: Dim("s", max=16)}})
    for size in range(1, 17):
        x = torch.randn(size, 8)
        assert torch.equal(program(x), function(x)), size
