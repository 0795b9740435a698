"""Products of groups of rows, as experts have them, run in a kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers.integrations.moe  # noqa: F401  registers the operator
from torch import Tensor, nn

import hotstart
from hotstart import Dim, Options

pytestmark = pytest.mark.usefixtures("kept_pieces")

ROWS = {"x": {0: Dim("rows", min=0, max=512)}}
ENDS = torch.tensor([3, 3, 10, 40])


def product(x: Tensor, matrices: Tensor, ends: Tensor) -> Tensor:
    made: Tensor = torch.ops.transformers.grouped_mm_fallback(x, matrices, ends)
    return made


class Experts(nn.Module):
    """A matrix for each group of rows, and a function of the product, which is not fused."""

    def __init__(self, k: int, n: int, view: Callable[[Tensor], Tensor], *shape: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.matrices = nn.Parameter(torch.randn(shape or (4, n, k)))
        self.view = view

    def forward(self, x: Tensor, ends: Tensor) -> Tensor:
        return product(x, self.view(self.matrices), ends).relu()


def transposed(matrices: Tensor) -> Tensor:
    return matrices.transpose(1, 2)


def as_it_is(matrices: Tensor) -> Tensor:
    return matrices


def sources(program: hotstart.Program) -> str:
    return "".join(unit.source for unit in program.artifact.units)


def compiled(model: nn.Module, k: int, options: Options | None = None) -> hotstart.Program:
    args = (torch.randn(40, k), ENDS.int())
    return hotstart.compile(model.eval(), args, dynamic_shapes=ROWS, options=options)


def by_kernel(program: hotstart.Program) -> bool:
    return "ops.transformers" not in sources(program)


def same(model: nn.Module, program: hotstart.Program, x: Tensor, ends: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(program(x, ends), model(x, ends), rtol=1e-4, atol=1e-4)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "model",
    [
        Experts(64, 48, transposed),
        Experts(37, 45, transposed),
        Experts(37, 45, as_it_is, 4, 37, 45),
        Experts(64, 96, as_it_is, 4, 64, 96),
        Experts(600, 520, as_it_is, 4, 600, 520),
        Experts(32, 16, lambda both: both[1:, :, 32:].transpose(1, 2), 5, 16, 64),
    ],
    ids=["along", "along, odd", "across, odd", "across", "across, large", "part of a weight"],
)
def test_a_kernel_computes_what_the_operator_does(model: Experts) -> None:
    k = model.view(model.matrices).shape[1]
    program = compiled(model, k)
    assert by_kernel(program)
    for rows in (1, 2, 5, 40, 500):
        x = torch.randn(rows, k)
        same(model, program, x, torch.tensor([rows // 4, rows // 4, rows // 2, rows]).int())
        same(model, program, x, torch.tensor([0, 1, 1, 1]).int())
        same(model, program, x, torch.tensor([rows, 0, rows // 2, rows // 3]).int())
        same(model, program, x, torch.tensor([0, rows, rows + 5, rows + 9]).int())


class Several(Experts):
    """Experts for each part of what it is given: parts lie one after the other in memory."""

    def forward(self, x: Tensor, ends: Tensor) -> Any:
        matrices = self.view(self.matrices)
        parts = zip(x.unbind(0), ends.unbind(0), strict=True)
        return [product(part, matrices, its_ends) for part, its_ends in parts]


@pytest.mark.thorough
def test_rows_may_lie_within_a_larger_tensor() -> None:
    model = Several(64, 48, transposed).eval()
    shapes = {"x": {1: Dim("rows", max=512)}}
    ends = torch.stack([ENDS, ENDS + 1, ENDS + 2]).int()
    program = hotstart.compile(model, (torch.randn(3, 8, 64), ends), dynamic_shapes=shapes)
    assert by_kernel(program)
    for rows in (8, 1, 40):
        x = torch.randn(3, rows, 64)
        with torch.no_grad():
            expected = model(x, ends)
            for found, wanted in zip(program(x, ends), expected, strict=True):
                torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("view", [transposed, as_it_is])
def test_a_row_does_not_depend_on_the_others(view: Callable[[Tensor], Tensor]) -> None:
    shape = (4, 37, 45) if view is as_it_is else ()
    program = compiled(Experts(37, 45, view, *shape), 37)
    x = torch.randn(9, 37)
    together = program(x, torch.tensor([0, 0, 9, 9]).int())
    for row in range(9):
        alone = program(x[row : row + 1].clone(), torch.tensor([0, 0, 1, 1]).int())
        assert torch.equal(together[row : row + 1], alone)


@pytest.mark.thorough
def test_matrices_are_read_in_every_call() -> None:
    model = Experts(32, 16, transposed)
    program = compiled(model, 32)
    x = torch.randn(8, 32)
    with torch.no_grad():
        model.matrices.mul_(2)
        same(model, program, x, ENDS.int())
        model.load_state_dict({"matrices": torch.randn(4, 16, 32)}, assign=True)
        same(model, program, x, ENDS.int())
    assert program.report.packed.bytes == 0


@pytest.mark.thorough
def test_without_packing_the_operator_runs() -> None:
    model = Experts(32, 16, transposed)
    program = compiled(model, 32, Options(pack_weights=False))
    assert not by_kernel(program)
    x = torch.randn(8, 32)
    with torch.no_grad():
        assert torch.equal(program(x, ENDS.int()), model(x, ENDS.int()))


@pytest.mark.thorough
@pytest.mark.parametrize(
    "model",
    [
        Experts(32, 16, transposed).double(),
        Experts(32, 16, lambda wide: wide[:, ::2, ::2], 4, 64, 32),
        Experts(0, 16, transposed),
    ],
    ids=["another dtype", "not dense", "nothing to sum up"],
)
def test_what_the_kernel_does_not_take_is_left_to_the_operator(model: Experts) -> None:
    matrices = model.view(model.matrices)
    args = (torch.randn(40, matrices.shape[1], dtype=matrices.dtype), ENDS.int())
    program = hotstart.compile(model.eval(), args, dynamic_shapes=ROWS)
    assert not by_kernel(program)
    same(model, program, *args)


class Given(nn.Module):
    """Matrices that calls bring along, beside a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(32))

    def forward(self, x: Tensor, matrices: Tensor, ends: Tensor) -> Tensor:
        return product(x * self.scale, matrices[1:].transpose(1, 2), ends)


@pytest.mark.thorough
def test_matrices_may_be_inputs() -> None:
    model = Given().eval()
    args = (torch.randn(40, 32), torch.randn(5, 16, 32), ENDS)
    program = hotstart.compile(model, args, dynamic_shapes=ROWS)
    assert by_kernel(program)
    with torch.no_grad():
        torch.testing.assert_close(program(*args), model(*args), rtol=1e-4, atol=1e-4)


@pytest.mark.thorough
def test_experts_of_a_model_run_in_it_by_default() -> None:
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        num_hidden_layers=1,
        hidden_size=32,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        intermediate_size=48,
        moe_intermediate_size=24,
        num_experts=4,
        num_experts_per_tok=2,
        vocab_size=64,
        use_cache=False,
    )
    experts = Qwen3MoeForCausalLM(config).eval().model.layers[0].mlp
    seq = {"hidden_states": {1: Dim("seq", min=2, max=64)}}
    program = hotstart.compile(experts, (torch.randn(1, 12, 32),), dynamic_shapes=seq)
    assert by_kernel(program)
    for length in (2, 12, 50):
        x = torch.randn(1, length, 32)
        with torch.no_grad():
            torch.testing.assert_close(program(x), experts(x), rtol=1e-4, atol=1e-4)
