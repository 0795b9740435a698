"""Numbers that Inductor gets wrong are right in a program, and the report says how."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import hotstart
from hotstart import Dim, Options
from tests.semantics import assert_same, check

pytestmark = pytest.mark.usefixtures("kept_pieces")

BATCH = Dim("batch", max=8)
INDUCTOR: dict[str, Any] = {"compiler": "inductor", "tolerance": 1e-5}


class SinesAreCosines:
    """A pass that makes Inductor wrong."""

    def __call__(self, graph: fx.Graph) -> None:
        for node in graph.find_nodes(op="call_function", target=torch.ops.aten.sin.default):
            node.target = torch.ops.aten.cos.default

    def uuid(self) -> str:
        return "sines are cosines"


def wave(x: Tensor) -> Tensor:
    return x.sin() * 2


def built(prove: str) -> hotstart.Program:
    settings = {"post_grad_custom_post_pass": SinesAreCosines()}
    options = Options(inductor=settings, prove=prove)  # type: ignore[arg-type]
    return hotstart.compile(
        wave, (torch.zeros(4, 3),), dynamic_shapes={"x": {0: BATCH}}, options=options
    )


@pytest.mark.usefixtures("compiled_anew")
def test_a_unit_that_differs_from_its_operators_runs_op_by_op(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "hotstart"):
        program = built("all")
    x = torch.randn(5, 3)
    assert torch.equal(program(x), wave(x))
    ((piece, reason),) = program.report.op_by_op
    assert piece == "piece_0"
    assert "output 0 differs by" in reason
    assert "at batch=" in reason
    assert reason in caplog.text
    assert "run op by op" in str(program.report)


def keys_of(program: hotstart.Program) -> set[str]:
    return {unit.key for unit in program.artifact.units}


@pytest.mark.thorough
@pytest.mark.usefixtures("compiled_anew")
def test_without_a_proof_a_wrong_unit_is_served_and_kept_apart_from_proven_ones() -> None:
    unproven, proven = built("off"), built("all")
    x = torch.randn(5, 3)
    torch.testing.assert_close(unproven(x), 2 * x.cos())
    assert "prove" not in unproven.report.phases
    assert not keys_of(unproven) & keys_of(proven)


@pytest.mark.thorough
@pytest.mark.usefixtures("compiled_anew")
def test_a_proof_says_at_which_sizes_it_compared(tmp_path: Any) -> None:
    program = hotstart.compile(wave, (torch.zeros(4, 3),), dynamic_shapes={"x": {0: BATCH}})
    (unit,) = program.artifact.units
    assert unit.proof.sizes == ("batch=1", "batch=3", "batch=4", "batch=8")
    assert program.report.proven == 1
    assert 0 < program.report.phases["prove"] < program.report.wall_s
    program.save(tmp_path / "wave.hot")
    (saved,) = hotstart.inspect(tmp_path / "wave.hot").units
    assert saved.proof == unit.proof
    (loaded,) = hotstart.load(tmp_path / "wave.hot", wave).artifact.units
    assert loaded.proof == unit.proof


@pytest.mark.usefixtures("compiled_anew")
def test_the_first_unit_of_a_piece_is_compared_where_one_has_several() -> None:
    ranges = Dim("batch", max=8, ranges=[(1, 4), (5, 8)])
    program = hotstart.compile(
        wave,
        (torch.zeros(4, 3),),
        dynamic_shapes={"x": {0: ranges}},
        options=Options(prove="first"),
    )
    assert len(program.artifact.units) == 2
    assert program.report.proven == 1


@pytest.mark.thorough
@pytest.mark.usefixtures("compiled_anew")
def test_what_cannot_be_compared_is_in_the_report() -> None:
    def picky(x: Tensor) -> Tensor:
        return torch.linalg.cholesky(x - 100.0).sin()

    program = hotstart.compile(picky, (torch.eye(3),))
    assert program.report.proven == 0
    ((piece, reason),) = program.report.unproven
    assert piece == "piece_0"
    assert "made-up inputs" in reason
    assert "not compared with the operators" in str(program.report)


# --- what Inductor got wrong in 2.13 --------------------------------------------------------------


class Sums(nn.Module):
    """Gives its sums away and starts again."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sums", torch.arange(8.0).reshape(2, 4))

    def forward(self, part: Tensor) -> Tensor:
        result = torch.slice_scatter(self.sums, part, 0, 1, 2)
        self.sums.zero_()
        return result


def scatter_into(x: Tensor, source: Tensor) -> Tensor:
    result = torch.slice_scatter(x, source, 0, 0, 1)
    x.copy_(result)
    return result


def shift(x: Tensor) -> Tensor:
    x[1:] = x[:-1].clone()
    return x + 0


def shift_back(x: Tensor) -> Tensor:
    x[:-1] = x[1:].clone()
    return x * 2


def nearest(x: Tensor) -> Tensor:
    return nn.functional.interpolate(x, scale_factor=(1.3, 1.5), mode="nearest")


@pytest.mark.slow
def test_a_buffer_that_is_scattered_into_and_then_overwritten() -> None:
    part = torch.ones(1, 4)
    program = check(Sums(), (part,), **INDUCTOR)
    assert all(without == "reinplace_inplaceable_ops" for _, without, _ in program.report.without)


@pytest.mark.thorough
def test_a_result_that_is_copied_to_an_argument_has_memory_of_its_own() -> None:
    x, source = torch.arange(12.0).reshape(4, 3), torch.ones(1, 3)
    program = check(scatter_into, (x, source), **INDUCTOR)
    result = program(x, source)
    x.zero_()
    assert result[1:].any()


@pytest.mark.thorough
@pytest.mark.parametrize("move", [shift, pytest.param(shift_back, marks=pytest.mark.slow)])
def test_rows_that_are_moved_within_an_argument(move: Any) -> None:
    calls = [(torch.randn(n, 3),) for n in (4, 1, 2, 3, 8)]
    check(move, *calls, **INDUCTOR, dynamic_shapes={"x": {0: BATCH}})


@pytest.mark.thorough
def test_a_size_at_which_interpolation_rounds_the_other_way() -> None:
    sizes = {"x": {2: Dim("height", max=9)}}
    calls = [(torch.randn(1, 2, height, 8),) for height in (8, 1, 2, 3, 5, 9)]
    check(nearest, *calls, **INDUCTOR, dynamic_shapes=sizes)


@torch.library.custom_op("hotstart_tests::write_at", mutates_args={"cache"})
def write_at(cache: Tensor, position: Tensor, new: Tensor) -> None:
    cache.index_copy_(1, position, new)


@write_at.register_fake
def _(cache: Tensor, position: Tensor, new: Tensor) -> None:
    return None


def decode(keys: Tensor, values: Tensor, position: Tensor, x: Tensor) -> Tensor:
    """Layers that write to views of caches, as serving engines do."""
    for k, v in zip(keys, values, strict=True):
        torch.ops.hotstart_tests.write_at(k, position, x * 2)
        torch.ops.hotstart_tests.write_at(v, position, x + 1)
        x = x + 0.1 * (k.sum(1, keepdim=True) + v.sum(1, keepdim=True))
    return x


def decoding(batch: int) -> tuple[Tensor, ...]:
    cache = torch.randn(2, batch, 4, 3)
    return cache, cache * 0.5, torch.tensor([2]), torch.randn(batch, 1, 3)


CACHES = {"keys": {1: BATCH}, "values": {1: BATCH}, "x": {0: BATCH}}


@pytest.mark.thorough
@pytest.mark.parametrize(
    "split_on",
    [pytest.param("auto", marks=pytest.mark.slow), ["hotstart_tests::write_at"]],
)
def test_a_custom_operator_that_writes_views_of_arguments(split_on: Any) -> None:
    calls = map(decoding, (2, 1, 3, 8))
    check(decode, *calls, **INDUCTOR, dynamic_shapes=CACHES, split_on=split_on)


@pytest.mark.thorough
def test_graphs_of_torch_compile_are_proven_too() -> None:
    torch.compiler.reset()
    compiled = torch.compile(shift, backend="hotstart", dynamic=False)
    mine, theirs = torch.randn(6, 3), torch.zeros(0)
    theirs = mine.clone()
    with torch.no_grad():
        assert_same((compiled(mine), mine), (shift(theirs), theirs))
