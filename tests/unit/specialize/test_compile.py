"""What is compiled, for which sizes, and how often."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sympy
import torch
from torch import Tensor, nn

from hotstart import (
    Call,
    Dim,
    Options,
    Program,
    RangeError,
    Store,
    StoreError,
    assemble,
    build_report,
)
from hotstart._torch.graphs.symbols import Condition, axis_symbol
from hotstart.cache.stored_pieces import StoredPieces
from hotstart.capture.described import describe_calls
from hotstart.capture.weight_table import WeightTable, traceable
from hotstart.compilers import Bounds, Job, Narrowed, OpByOpCompiler
from hotstart.events import Clock
from hotstart.misses import OnMiss
from hotstart.records.artifact import Artifact, CompiledUnit
from hotstart.records.shapes import Interval, Variant
from hotstart.runtime.bind import bind
from hotstart.runtime.weights.model_weights import weights_of
from hotstart.specialize.compile import begin_calls, compile_calls, units_of
from hotstart.specialize.contract import make_contract, make_requirements
from hotstart.specialize.part_jobs import PartJobs, shared_jobs
from hotstart.specialize.parts import VariantPart
from hotstart.specialize.piece_store import PieceStore
from hotstart.specialize.trace import trace_calls
from hotstart.specialize.unit_table import Units
from tests.capturing import CPU

N = axis_symbol("n")
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
    """The op-by-op compiler, which assumes something about some jobs."""

    def __init__(self, assumes: Callable[[Job], sympy.Basic | None] = lambda job: None) -> None:
        self.assumes = assumes
        self.jobs: list[Job] = []

    def compile(self, job: Job) -> CompiledUnit | Narrowed:  # type: ignore[override]
        self.jobs.append(job)
        condition = self.assumes(job)
        if condition is not None:
            return Narrowed(Condition(condition, "a test"))
        return super().compile(job)


def built(
    model: nn.Module,
    compiler: Recording,
    dims: object = WHOLE,
    splits: int = 16,
    kept: PieceStore | None = None,
) -> Program:
    """A program of what a compiler made, checked at every size."""
    model.eval()
    clock = Clock()
    units = Units(compiler, clock, kept)
    example = Call(args=(torch.randn(4, 8),), dynamic_shapes=dims)  # type: ignore[arg-type]
    with traceable(model, CPU) as index:
        weights = WeightTable(index)
        options = Options(compiler="op_by_op", splits=splits)
        described = describe_calls(model, {"": example}, options)
        calls = trace_calls(index, described, weights, options, "auto", clock)
        requirements = make_requirements(index, weights, calls)
        contract = make_contract(model, calls[0])
        compiled = compile_calls(begin_calls(calls, units), units)
    stitched = assemble.stitch_call(compiled[0], requirements, contract)
    captured, infos = tuple(weights.captured.items()), build_report.piece_infos(calls)
    artifact = Artifact(requirements, (stitched,), units_of(compiled), captured, infos, {}, {})
    made = build_report.list_made(infos, compiled)
    program = Program(
        artifact, model, bind(artifact, weights_of(model, artifact)), made, clock, OnMiss(), {}
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
    condition: Callable[[int], bool],
) -> None:
    compiler = Recording()
    program = built(Forked(condition), compiler)
    assert len(program.report.variants) == 2
    assert [sizes(job) for job in blocks(compiler.jobs)] == [(2, 16)]
    assert Counter(unit.action for unit in program.report.units)["compiled"] == len(
        program.artifact.units
    )


def test_what_a_part_assumes_is_left_out_where_parts_share() -> None:
    compiler = Recording()
    built(Forked(even), compiler)
    (block,) = blocks(compiler.jobs)
    assert block.where == ()
    assert all(job.where for job in compiler.jobs if job is not block)


def test_declared_ranges_are_compiled_for_each() -> None:
    """They are declared so that each gets code for its own sizes."""
    compiler = Recording()
    dims = {"x": {0: Dim("n", min=2, max=16, ranges=[(2, 8), (9, 16)])}}
    built(Forked(even), compiler, dims)
    assert sorted(sizes(job) for job in blocks(compiler.jobs)) == [(2, 8), (9, 16)]


def test_a_unit_that_cannot_do_for_all_parts_is_compiled_for_each() -> None:
    compiler = Recording(lambda job: None if job.where else sympy.Eq(N % 2, 0))
    program = built(Forked(even), compiler)
    assert [bool(job.where) for job in blocks(compiler.jobs)] == [False, True, True]
    assert len(program.report.variants) == 2


def test_what_fails_for_all_parts_may_do_for_each() -> None:
    def fails(job: Job) -> None:
        if not job.where:
            raise ValueError("too general")

    assert len(built(Forked(even), Recording(fails)).report.variants) == 2


class Shaped(Job):
    """A job whose operators give other shapes in another part.

    No operator is known that does so and leaves the rest of a piece as it is.
    """

    shapes = property(lambda job: job.where)  # type: ignore[assignment]


def shared(jobs: list[Job]) -> list[Job]:
    """The job in the place of each, where each is of a part of its own."""
    choices = (("n", Interval(2, 16)),)
    part = VariantPart(Variant(choices), choices, {"n": 4})
    nothing: Any = None
    parts = [PartJobs(part, nothing, nothing, (job,)) for job in jobs]
    found = shared_jobs(parts, [], Recording())
    return [found[job.key] for job in jobs]


def test_operators_that_give_other_shapes_in_another_part_are_compiled_for_each() -> None:
    compiler = Recording(lambda job: None if job.where else sympy.Eq(N % 2, 0))
    built(Forked(even), compiler)
    whole, *each = blocks(compiler.jobs)
    assert [job.key for job in shared(each)] == [whole.key] * 2
    shaped = [Shaped(job.kind, job.piece, job.graph, job.bounds, job.where) for job in each]
    assert [job.key for job in shared(shaped)] == [job.key for job in each]


def decides_at(size: int, layer: str = "before.0") -> Callable[[Job], sympy.Basic | None]:
    """What a compiler assumes that treats sizes up to one of them in another way, in one layer."""

    def assumes(job: Job) -> sympy.Basic | None:
        if job.piece.layers != (layer,) or "n" not in job.bounds:
            return None
        low, high = sizes(job)
        side = sympy.Gt(N, size) if job.bounds["n"].hint > size else sympy.Le(N, size)
        return side if low <= size < high else None

    return assumes


def test_what_a_compile_assumes_splits_all_parts_of_a_range_at_once() -> None:
    compiler = Recording(decides_at(3))
    program = built(Forked(even), compiler)
    assert len(program.report.variants) == 4
    # For all, for the first part, then for either side of what was assumed.
    assert [sizes(job) for job in blocks(compiler.jobs)] == [(2, 16), (2, 16), (4, 16), (2, 3)]


def test_what_was_made_before_a_part_was_split_is_used_and_told_of() -> None:
    compiler = Recording(decides_at(3, "after.0"))
    program = built(Forked(lambda n: True), compiler)
    assert [sizes(job) for job in blocks(compiler.jobs)] == [(2, 16)]
    reported = [unit.action for unit in program.report.units if unit.piece == "piece_0"]
    assert reported == ["compiled", "reused"]


def test_units_that_no_part_runs_are_left_out() -> None:
    compiler = Recording(decides_at(2))  # leaves one size, which is no range
    program = built(Forked(small), compiler)
    assert {unit.key for unit in program.artifact.units} == {
        key for call in program.artifact.calls for part in call.stitched for key in part.units
    }


def test_a_split_more_than_is_allowed_is_an_error() -> None:
    compiler = Recording(decides_at(3))
    with pytest.raises(RangeError, match="n > 3"):
        built(Forked(lambda n: True), compiler, splits=0)


@pytest.mark.thorough
def test_splits_are_counted_for_all_parts_together() -> None:
    """The model makes two parts and the compiler two of either, which are three more than one."""
    compiler = Recording(decides_at(3))
    with pytest.raises(RangeError, match="n <= 3"):
        built(Forked(even), compiler, splits=2)
    assert len(built(Forked(even), compiler, splits=3).report.variants) == 4


def test_the_report_says_what_split_what() -> None:
    compiler = Recording(decides_at(3))
    report = built(Forked(small), compiler).report
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


def test_a_compiler_that_makes_a_constant_of_a_size_is_stopped_early() -> None:
    def assumes(job: Job) -> sympy.Basic | None:
        bounds = job.bounds.get("n")
        return None if bounds is None else sympy.Eq(N, bounds.hint)

    compiler = Recording(assumes)
    with pytest.raises(RangeError, match=r"15 parts.*splits=14"):
        built(Forked(lambda n: True), compiler, splits=12)
    # Four values, each for all parts that are left and then for the first of them.
    assert len([job for job in compiler.jobs if job.bounds]) <= 8


class Earlier:
    """What compiles of an earlier build gave."""

    def __init__(self) -> None:
        self.made: dict[str, CompiledUnit | Narrowed] = {}
        self.is_all = False

    def get(self, job: Job) -> CompiledUnit | Narrowed | None:
        return self.made.get(job.key)

    def put(self, job: Job, made: CompiledUnit | Narrowed) -> None:
        assert job.key not in self.made
        self.made[job.key] = made

    def permit(self, job: Job) -> None:
        if self.is_all:
            raise StoreError(job.piece.name)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "assumes",
    [lambda job: None, lambda job: None if job.where else sympy.Eq(N % 2, 0), decides_at(3)],
    ids=["nothing", "what a part knows", "what splits a part"],
)
def test_with_the_units_of_an_earlier_build_the_same_is_built_and_nothing_compiled(
    assumes: Callable[[Job], sympy.Basic | None],
) -> None:
    model, earlier, compiler = Forked(even), Earlier(), Recording(assumes)
    first = built(model, Recording(assumes), kept=earlier)
    earlier.is_all = True
    again = built(model, compiler, kept=earlier)
    assert compiler.jobs == []
    assert again.artifact.units == first.artifact.units
    assert again.code == first.code


@pytest.mark.thorough
def test_a_store_keeps_units_and_where_compiles_stopped(tmp_path: Path) -> None:
    store, made = Store(tmp_path), []
    for _ in range(2):
        compiler = Recording(decides_at(3))
        built(Forked(even), compiler, kept=StoredPieces(store))
        made.append(len(compiler.jobs))
    assert made[0] > made[1] == 0


# --- which unit serves which job ------------------------------------------------------------------


@pytest.fixture(scope="module")
def block() -> Job:
    """The job of a block for a range of sizes."""
    recording = Recording()
    built(Forked(even), recording)
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
