"""What is compiled, for which sizes, and how often."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import sympy
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim, Options, RangeError, _torch, assemble
from hotstart.build import build_program
from hotstart.compilers import Bounds, Job, Narrowed, OpByOpCompiler
from hotstart.program import OnMiss
from hotstart.records.artifact import CompiledUnit

N = _torch.axis_symbol("n")
WHOLE = {"x": {0: Dim("n", min=2, max=16)}}


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(x)))


class Forked(nn.Module):
    """Takes one way or another by its size, between blocks that are the same either way."""

    def __init__(self, condition: Callable[[int], bool]) -> None:
        super().__init__()
        self.condition = condition
        self.before = nn.ModuleList(Block() for _ in range(2))
        self.after = nn.ModuleList(Block() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.before:
            x = block(x)
        x = x.sin() if self.condition(x.shape[0]) else x.cos()
        for block in self.after:
            x = block(x)
        return x


def even(n: int) -> bool:
    return n % 2 == 0


def small(n: int) -> bool:
    return n <= 7


class Recording(OpByOpCompiler):
    """The eager compiler, which assumes something about some jobs."""

    def __init__(self, assumes: Callable[[Job], sympy.Basic | None]) -> None:
        self.assumes = assumes
        self.jobs: list[Job] = []

    def compile(self, job: Job) -> CompiledUnit | Narrowed:  # type: ignore[override]
        self.jobs.append(job)
        condition = self.assumes(job)
        if condition is not None:
            return Narrowed(_torch.Condition(condition, "a test"))
        return super().compile(job)


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Recording:
    made = Recording(lambda job: None)
    monkeypatch.setattr(assemble, "make_compiler", lambda options, clock: made)
    return made


def built(model: nn.Module, dims: object = WHOLE, **options: object) -> hotstart.Program:
    """A program that was checked at every size."""
    program = hotstart.compile(
        model.eval(),
        (torch.randn(4, 8),),
        dynamic_shapes=dims,  # type: ignore[arg-type]
        options=Options(compiler="op_by_op", **options),  # type: ignore[arg-type]
    )
    for n in range(2, 17):
        x = torch.randn(n, 8)
        torch.testing.assert_close(program(x), model(x), rtol=0, atol=0)
    return program


def sizes(job: Job) -> tuple[int, int]:
    bounds = job.bounds["n"]
    return bounds.low, bounds.high


def blocks(jobs: list[Job]) -> list[Job]:
    """The jobs of pieces that are a block and nothing else, as the first ones are."""
    return [job for job in jobs if job.piece.layers == ("before.0",)]


@pytest.mark.parametrize("condition", [even, small])
def test_a_block_is_compiled_once_for_all_parts_of_a_range(
    compiler: Recording, condition: Callable[[int], bool]
) -> None:
    program = built(Forked(condition))
    assert len(program.report.variants) == 2
    assert [sizes(job) for job in blocks(compiler.jobs)] == [(2, 16)]
    assert Counter(unit.action for unit in program.report.units)["compiled"] == len(
        program.artifact.units
    )


def test_what_a_part_assumes_is_left_out_where_parts_share(compiler: Recording) -> None:
    built(Forked(even))
    (block,) = blocks(compiler.jobs)
    assert block.where == ()
    assert all(job.where for job in compiler.jobs if job is not block)


def test_declared_ranges_are_compiled_for_each(compiler: Recording) -> None:
    """They are declared so that each gets code for its own sizes."""
    dims = {"x": {0: Dim("n", min=2, max=16, ranges=[(2, 8), (9, 16)])}}
    built(Forked(even), dims)
    assert sorted(sizes(job) for job in blocks(compiler.jobs)) == [(2, 8), (9, 16)]


def test_a_unit_that_cannot_do_for_all_parts_is_compiled_for_each(compiler: Recording) -> None:
    compiler.assumes = lambda job: None if job.where else sympy.Eq(N % 2, 0)
    program = built(Forked(even))
    assert [bool(job.where) for job in blocks(compiler.jobs)] == [False, True, True]
    assert len(program.report.variants) == 2


def test_what_fails_for_all_parts_may_do_for_each(compiler: Recording) -> None:
    def fails(job: Job) -> None:
        if not job.where:
            raise ValueError("too general")

    compiler.assumes = fails
    assert len(built(Forked(even)).report.variants) == 2


def test_operators_that_give_other_shapes_in_another_part_are_compiled_for_each(
    compiler: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No operator is known that does so and leaves the rest of a piece as it is.
    monkeypatch.setattr(Job, "shapes", property(lambda job: job.where))
    built(Forked(even))
    assert [bool(job.where) for job in blocks(compiler.jobs)] == [True, True]


def decides_at(size: int, layer: str = "before.0") -> Callable[[Job], sympy.Basic | None]:
    """What a compiler assumes that treats sizes up to one of them in another way, in one layer."""

    def assumes(job: Job) -> sympy.Basic | None:
        if job.piece.layers != (layer,) or "n" not in job.bounds:
            return None
        low, high = sizes(job)
        side = sympy.Gt(N, size) if job.bounds["n"].hint > size else sympy.Le(N, size)
        return side if low <= size < high else None

    return assumes


def test_what_a_compile_assumes_splits_all_parts_of_a_range_at_once(compiler: Recording) -> None:
    compiler.assumes = decides_at(3)
    program = built(Forked(even))
    assert len(program.report.variants) == 4
    # For all, for the first part, then for either side of what was assumed.
    assert [sizes(job) for job in blocks(compiler.jobs)] == [(2, 16), (2, 16), (4, 16), (2, 3)]


def test_what_was_made_before_a_part_was_split_is_used_and_told_of(compiler: Recording) -> None:
    compiler.assumes = decides_at(3, "after.0")
    program = built(Forked(lambda n: True))
    assert [sizes(job) for job in blocks(compiler.jobs)] == [(2, 16)]
    reported = [unit.action for unit in program.report.units if unit.piece == "piece_0"]
    assert reported == ["compiled", "reused"]


def test_units_that_no_part_runs_are_left_out(compiler: Recording) -> None:
    compiler.assumes = decides_at(2)  # leaves one size, which is no range
    program = built(Forked(small))
    assert {unit.key for unit in program.artifact.units} == {
        key for call in program.artifact.calls for part in call.stitched for key in part.units
    }


def test_a_split_more_than_is_allowed_is_an_error(compiler: Recording) -> None:
    compiler.assumes = decides_at(3)
    with pytest.raises(RangeError, match="n > 3"):
        built(Forked(lambda n: True), splits=0)


def test_splits_are_counted_for_all_parts_together(compiler: Recording) -> None:
    """The model makes two parts and the compiler two of either, which are three more than one."""
    compiler.assumes = decides_at(3)
    with pytest.raises(RangeError, match="n <= 3"):
        built(Forked(even), splits=2)
    assert len(built(Forked(even), splits=3).report.variants) == 4


def test_the_report_says_what_split_what(compiler: Recording) -> None:
    compiler.assumes = decides_at(3)
    report = built(Forked(small)).report
    model, compile_ = report.splits
    assert model.variant == "n=2..16"
    assert model.into == ("n=2..7", "n=8..16")
    ((condition, source),) = model.conditions
    assert condition == "n <= 7"
    assert "test_compile.py" in source
    assert compile_.variant == "n=2..7"
    assert compile_.conditions == (("n > 3", "a test"),)
    assert compile_.into == ("n=4..7", "n=2..3")
    assert "n=2..7: n > 3  (a test)\n    into 2: n=4..7, n=2..3" in str(report)
    assert "test_compile.py" not in str(report.reproducible())


def test_a_compiler_that_makes_a_constant_of_a_size_is_stopped_early(compiler: Recording) -> None:
    def assumes(job: Job) -> sympy.Basic | None:
        bounds = job.bounds.get("n")
        return None if bounds is None else sympy.Eq(N, bounds.hint)

    compiler.assumes = assumes
    with pytest.raises(RangeError, match=r"15 parts.*splits=14"):
        built(Forked(lambda n: True), splits=12)
    # Four values, each for all parts that are left and then for the first of them.
    assert len([job for job in compiler.jobs if job.bounds]) <= 8


class Earlier:
    """The units of an earlier build."""

    def __init__(self, units: Mapping[str, CompiledUnit]) -> None:
        self.units = units
        self.added: list[str] = []

    def get(self, key: str) -> CompiledUnit | None:
        return self.units.get(key)

    def put(self, unit: CompiledUnit) -> None:
        self.added.append(unit.key)


@pytest.mark.parametrize(
    "assumes",
    [lambda job: None, lambda job: None if job.where else sympy.Eq(N % 2, 0), decides_at(3)],
    ids=["nothing", "what a part knows", "what splits a part"],
)
def test_with_the_units_of_an_earlier_build_the_same_is_built_and_nothing_compiled(
    compiler: Recording, assumes: Callable[[Job], sympy.Basic | None]
) -> None:
    compiler.assumes = assumes
    model = Forked(even).eval()
    call = hotstart.Call(args=(torch.randn(4, 8),), dynamic_shapes=WHOLE)
    options = Options(compiler="op_by_op")
    first = build_program(model, {"": call}, "auto", options, OnMiss())
    earlier = Earlier({unit.key: unit for unit in first.artifact.units})
    again = build_program(model, {"": call}, "auto", options, OnMiss(), earlier)
    assert not earlier.added
    assert again.artifact.units == first.artifact.units
    assert [part.source for call in again.artifact.calls for part in call.stitched] == [
        part.source for call in first.artifact.calls for part in call.stitched
    ]


# --- which unit serves which job ------------------------------------------------------------------


@pytest.fixture
def block() -> Job:
    """The job of a block for a range of sizes."""
    recording = Recording(lambda job: None)
    call = hotstart.Call(args=(torch.randn(4, 8),), dynamic_shapes=WHOLE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assemble, "make_compiler", lambda options, clock: recording)
        build_program(
            Forked(even).eval(), {"": call}, "auto", Options(compiler="op_by_op"), OnMiss()
        )
    return next(job for job in recording.jobs if job.bounds)


def with_sizes(job: Job, low: int, high: int, *where: sympy.Basic) -> Job:
    (axis,) = job.bounds
    return dataclasses.replace(job, bounds={axis: Bounds(low, high, low)}, where=where)


@pytest.mark.parametrize(
    ("made", "wanted", "serves"),
    [
        ((2, 9), (2, 9), True),
        ((2, 9), (3, 8), True),
        ((2, 9), (2, 10), False),
        ((2, 9), (1, 9), False),
        ((2, 9), (2, 9, sympy.Eq(N % 2, 0)), True),
        ((2, 9, sympy.Eq(N % 2, 0)), (2, 9), False),
        ((2, 9, sympy.Eq(N % 2, 0)), (4, 8, sympy.Eq(N % 2, 0)), True),
        ((2, 9, sympy.Eq(N % 2, 0)), (4, 8, sympy.Eq(N % 3, 0)), False),
    ],
)
def test_a_unit_serves_what_its_sizes_include(
    block: Job, made: tuple[Any, ...], wanted: tuple[Any, ...], serves: bool
) -> None:
    assert with_sizes(block, *made).includes(with_sizes(block, *wanted)) is serves


def test_a_unit_of_another_kind_serves_nothing(block: Job) -> None:
    other = dataclasses.replace(block, kind="another")
    assert not other.includes(block)
