"""A job as bytes: another process makes the same job of them, or none."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim, Options
from hotstart._torch.graphs.values import storage_of
from hotstart._torch.graphs.writes import was_mutated
from hotstart.capture.captured import example_of
from hotstart.compilers import Job, OpByOpCompiler
from hotstart.compilers.workers.job_data import NotData, job_data
from hotstart.compilers.workers.job_read import job_of

TOKEN = OpByOpCompiler().token()


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


class Shapes(nn.Module):
    """Sizes, slices, several results at once, dtypes and keyword arguments among arguments."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        rows, columns = x.shape
        values, places = x.max(dim=-1, keepdim=True)
        mask = torch.arange(rows)[:, None] < rows // 2 + columns
        wide = x.new_zeros(rows, 2 * columns, dtype=torch.float64)
        parts = torch.split(x.masked_fill(~mask, float("-inf")), [3, columns - 3], dim=1)
        return values, places, wide[1:, ::2], torch.cat(parts, dim=1).softmax(-1), x.mT


class Counting(nn.Module):
    """Writes to a buffer, and to an argument."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add_(x.sum(0))
        x[:1] = 0
        return x * self.seen


@pytest.fixture
def jobs_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Job]]:
    """Build a model; all jobs that the compiler was given."""
    found: list[Job] = []
    compiles = OpByOpCompiler.compile

    def compile(self: OpByOpCompiler, job: Job) -> Any:
        found.append(job)
        return compiles(self, job)

    monkeypatch.setattr(OpByOpCompiler, "compile", compile)

    def built(model: nn.Module, *args: Any, dims: Any, **options: Any) -> list[Job]:
        found.clear()
        hotstart.compile(
            model.eval(),
            args,
            dynamic_shapes=dims,
            options=Options(compiler="op_by_op"),
            **options,
        )
        return list(found)

    return built


ROWS = {"x": {0: Dim("rows", min=0, max=9)}}


@pytest.mark.parametrize(
    ("model", "dims"),
    [
        (nn.Sequential(Block(), Block(), Block()), {"input": {0: Dim("rows", min=0, max=9)}}),
        (Shapes(), {"x": {0: Dim("rows", min=0, max=9), 1: Dim("columns", min=4, max=12)}}),
        (Counting(), ROWS),
        (Counting(), None),
    ],
)
def test_the_job_that_is_made_is_the_one_that_was_written(
    model: nn.Module, dims: Any, jobs_of: Callable[..., list[Job]]
) -> None:
    jobs = jobs_of(model, torch.randn(4, 8), dims=dims)
    assert jobs
    for job in jobs:
        made = job_of(job_data(job), TOKEN)
        assert made.key == job.key
        assert made.shapes == job.shapes
        assert made.piece.digest == job.piece.digest
        assert [n.name for n in made.piece.nodes] == [n.name for n in job.piece.nodes]
        assert OpByOpCompiler().compile(made) == OpByOpCompiler().compile(job)


def test_inputs_say_again_what_is_a_weight_and_what_is_written_to(
    jobs_of: Callable[..., list[Job]],
) -> None:
    def about(job: Job) -> list[tuple[bool, bool]]:
        inputs = job.piece.inputs
        return [(job.graph.is_weight(n), was_mutated(example_of(n))) for n in inputs]

    for job in jobs_of(Counting(), torch.randn(4, 8), dims=ROWS):
        made = job_of(job_data(job), TOKEN)
        assert about(made) == about(job)
        assert (True, True) in about(made)


class Aliasing(nn.Module):
    """A piece whose inputs share memory."""

    def forward(self, x: Tensor) -> Tensor:
        left, right = x[:, :4], x[:, 4:]
        smallest = torch.sort(left)[0]
        return left * right + smallest


def test_inputs_that_share_memory_share_it_again(jobs_of: Callable[..., list[Job]]) -> None:
    jobs = jobs_of(Aliasing(), torch.randn(4, 8), dims=ROWS, split_on=["aten::sort"])

    def memory(job: Job) -> list[int]:
        numbers = [storage_of(example_of(node)) for node in job.piece.inputs]
        return [numbers.index(number) for number in numbers]

    for job in jobs:
        made = job_of(job_data(job), TOKEN)
        assert memory(made) == memory(job)
        offsets = [job.graph.expression(example_of(n).storage_offset()) for n in job.piece.inputs]
        again = [made.graph.expression(example_of(n).storage_offset()) for n in made.piece.inputs]
        assert again == offsets


def test_conditions_on_sizes_come_along(jobs_of: Callable[..., list[Job]]) -> None:
    class Even(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sin() if x.shape[0] % 2 == 0 else x.cos()

    jobs = [job for job in jobs_of(Even(), torch.randn(4, 8), dims=ROWS) if job.where]
    assert jobs
    for job in jobs:
        assert job_of(job_data(job), TOKEN).where == job.where


def test_another_compiler_makes_another_job(jobs_of: Callable[..., list[Job]]) -> None:
    job, *_ = jobs_of(Block(), torch.randn(4, 8), dims=None)
    data = job_data(job)
    with pytest.raises(NotData, match="its key is"):
        job_of(data, "another")


def test_data_that_was_changed_is_refused(jobs_of: Callable[..., list[Job]]) -> None:
    job, *_ = jobs_of(Block(), torch.randn(4, 8), dims=None)
    data = job_data(job)
    assert b"gelu" in data
    with pytest.raises(NotData, match="its key is"):
        job_of(data.replace(b"gelu", b"silu"), TOKEN)


def test_an_operator_of_the_users_own_is_no_data(jobs_of: Callable[..., list[Job]]) -> None:
    from tests.integration.own_op import Halving

    job, *_ = jobs_of(Halving(), torch.randn(4, 8), dims=None)
    with pytest.raises(NotData, match="did not come with torch"):
        job_data(job)


def test_a_body_of_a_higher_order_operator_is_no_data(jobs_of: Callable[..., list[Job]]) -> None:
    class Either(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,))

    jobs = jobs_of(Either(), torch.randn(4, 8), dims=None)
    with pytest.raises(NotData, match="GraphModule"):
        job_data(next(job for job in jobs if any(n.op == "get_attr" for n in job.piece.nodes)))


def test_data_is_plain_pickle_and_small(jobs_of: Callable[..., list[Job]]) -> None:
    job, *_ = jobs_of(Block(), torch.randn(4, 8), dims=None)
    assert len(job_data(job)) < 20_000
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(job_data(job))
