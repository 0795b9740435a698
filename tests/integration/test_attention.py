"""Attention runs in a kernel of hotstart's where torch's does not make the most of a processor."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim, Options
from hotstart.compilers.inductor import attention
from hotstart.compilers.inductor.packing_rule import Processor, this_processor
from tests.processes import run_fresh

QUERIES, KEYS = Dim("queries", min=1, max=300), Dim("keys", min=0, max=300)
AROUND = (1, 2, 15, 16, 17, 31, 32, 33, 47, 48, 49, 97, 143, 144, 145, 300)
"""At the least number of queries, and on each side of blocks of queries and keys."""


@pytest.fixture(autouse=True)
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "pays", lambda processor: True)


class Attention(nn.Module):
    """Takes apart what it is given, so that queries, keys and values are made in the program."""

    def __init__(self, heads: int, **given: Any) -> None:
        super().__init__()
        self.heads, self.given = heads, given

    def split(self, x: Tensor) -> Tensor:
        wide = x.shape[2] // self.heads
        return (x * 1.5).view(x.shape[0], x.shape[1], self.heads, wide).transpose(1, 2)

    def forward(self, x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = self.split(x), self.split(y), self.split(y + 1)
        made = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, **self.given)
        return made.transpose(1, 2).flatten(2) + 1


def sources(program: hotstart.Program) -> str:
    return "".join(unit.source for unit in program.artifact.units)


def compiled(model: nn.Module, *args: Tensor, **given: Any) -> hotstart.Program:
    shapes = {"x": {1: QUERIES}, "y": {1: KEYS}}
    if len(args) > 2:
        shapes["mask"] = {2: QUERIES, 3: KEYS}
    options = Options(**given)
    program = hotstart.compile(model.eval(), args, dynamic_shapes=shapes, options=options)
    assert program.report.not_native == ()
    return program


def same(model: nn.Module, program: hotstart.Program, *args: Tensor) -> None:
    torch.testing.assert_close(program(*args), model(*args), rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize(("heads", "wide"), [(2, 32), (3, 21)])
def test_queries_and_keys_of_any_number(heads: int, wide: int) -> None:
    model = Attention(heads)
    program = compiled(model, torch.randn(2, 64, wide), torch.randn(2, 64, wide))
    assert "attention(" in sources(program)
    for queries in AROUND:
        for keys in (1, 5, 128, 129, 300):
            same(model, program, torch.randn(2, queries, wide), torch.randn(2, keys, wide))


@pytest.mark.slow
def test_no_keys_are_left_to_torch() -> None:
    model = Attention(2)
    program = compiled(model, torch.randn(2, 64, 32), torch.randn(2, 64, 32))
    same(model, program, torch.randn(2, 64, 32), torch.randn(2, 0, 32))


def masks(queries: int, keys: int) -> list[Tensor]:
    scores = torch.randn(2, 2, queries, keys)
    causal = torch.full((queries, keys), -math.inf).triu(1)
    padding = torch.where(torch.rand(2, 1, 1, keys) > 0.3, 0.0, -math.inf)
    nothing = torch.where(torch.rand(2, 1, queries, 1) > 0.5, 0.0, -math.inf)
    shape = scores.shape
    return [scores, *(mask.expand(shape).contiguous() for mask in (causal, padding, nothing))]


@pytest.mark.thorough
def test_a_mask_is_added_also_where_it_leaves_nothing() -> None:
    model = Attention(2, scale=0.3)
    x = torch.randn(2, 64, 32)
    program = compiled(model, x, x, masks(64, 64)[0])
    assert "attention(" in sources(program)
    for queries in (1, 15, 16, 17, 33, 48, 130):
        for keys in (1, 16, 17, 129):
            x, y = torch.randn(2, queries, 32), torch.randn(2, keys, 32)
            for mask in masks(queries, keys):
                same(model, program, x, y, mask)


class Encoder(nn.Module):
    """Attention over projections that share an input, with a mask of padding as models have it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v, self.o = (nn.Linear(64, 64) for _ in range(4))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        def split(of: Tensor) -> Tensor:
            return of.view(of.shape[0], of.shape[1], 4, 16).transpose(1, 2)

        q, k, v = split(self.q(x)), split(self.k(x)), split(self.v(x))
        shown = mask[:, None, None, :].bool()
        made = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=shown)
        made = made.transpose(1, 2).flatten(2)
        return x + self.o(made)


class Projected(nn.Module):
    """Attention over packed linears that are small enough for a branch for few rows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v = (nn.Linear(256, 256) for _ in range(3))

    def forward(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        def split(of: Tensor) -> Tensor:
            return of.view(of.shape[0], of.shape[1], 4, 64).transpose(1, 2)

        q, k, v = split(self.q(x)), split(self.k(y)), split(self.v(z))
        return nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


@pytest.mark.slow
@pytest.mark.skipif(this_processor().vectors != 512, reason="they are packed with AVX-512 only")
def test_queries_may_come_from_linears_with_a_branch_for_few_rows() -> None:
    model = Projected().eval()
    x, shape = torch.randn(2, 40, 256), {1: Dim("length", max=200)}
    shapes = {"x": shape, "y": shape, "z": shape}
    program = hotstart.compile(model, (x, x, x), dynamic_shapes=shapes)
    both = [u.source for u in program.artifact.units if "mkldnn" in u.source]
    assert any("linear_kernel(" in source and "    attention(" in source for source in both)
    assert program.report.not_native == ()
    for length in (1, 2, 4, 5, 15, 16, 17, 33, 200):
        args = [torch.randn(2, length, 256) for _ in range(3)]
        with torch.no_grad():
            same(model, program, *args)


ENCODER_SHAPES = {
    "x": {0: Dim("batch", max=4), 1: Dim("length", max=200)},
    "mask": {0: Dim("batch", max=4), 1: Dim("length", max=200)},
}


def encoder(**given: Any) -> tuple[nn.Module, hotstart.Program]:
    model = Encoder().eval()
    args = (torch.randn(2, 40, 64), torch.ones(2, 40))
    options = Options(**given)
    return model, hotstart.compile(model, args, dynamic_shapes=ENCODER_SHAPES, options=options)


@pytest.mark.slow
def test_a_mask_of_padding_is_spread_over_heads_and_queries() -> None:
    model, program = encoder()
    assert "attention(" in sources(program)
    for batch, length in [(1, 1), (1, 2), (2, 3), (2, 16), (2, 31), (3, 65), (4, 200)]:
        x, mask = torch.randn(batch, length, 64), (torch.rand(batch, length) > 0.2).float()
        mask[:, 0] = 1
        with torch.no_grad():
            same(model, program, x, mask)


@pytest.mark.thorough
def test_values_that_are_no_numbers_spread_as_with_torch() -> None:
    model = Attention(2)
    x, y = torch.randn(2, 64, 32), torch.randn(2, 64, 32)
    program = compiled(model, x, y)
    x[0, 3, 5] = float("nan")
    y[1, 7, 1] = float("nan")
    same(model, program, x, y)


class Growing(Attention):
    """Attention whose values become infinite where its keys do not."""

    def forward(self, x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = self.split(x), self.split(y), self.split(y).exp()
        made = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return made.transpose(1, 2).flatten(2) + 1


@pytest.mark.slow
def test_an_infinite_value_that_is_masked_spreads_as_with_torch() -> None:
    model, x, y = Growing(2), torch.randn(2, 64, 32), torch.randn(2, 64, 32)
    mask = torch.zeros(2, 2, 64, 64)
    program = compiled(model, x, y, mask)
    y[1, 7, 1] = 100.0
    mask[..., 7] = -math.inf
    mask[:, :, 20:30] = -math.inf  # these queries have no keys
    assert model(x, y, mask)[1, 25].isnan().any()
    same(model, program, x, y, mask)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        ({"pack_weights": False}, torch.float32),
        ({}, torch.bfloat16),
        pytest.param({}, torch.float64, marks=pytest.mark.slow),
    ],
)
def test_others_are_left_to_torch(given: dict[str, Any], dtype: torch.dtype) -> None:
    model = Attention(2)
    x = torch.randn(2, 64, 32, dtype=dtype)
    program = compiled(model, x, x, **given)
    assert "attention(" not in sources(program)
    torch.testing.assert_close(program(x, x), model(x, x), rtol=2e-2, atol=2e-2)


@pytest.mark.thorough
def test_a_program_that_reads_more_of_the_operator_calls_it() -> None:
    class Both(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            q = (x * 1.5).view(x.shape[0], x.shape[1], 2, 16).transpose(1, 2)
            operator = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
            made, logs = operator(q, q + 1, q)
            return made * 1.0, logs * 1.0

    model, x = Both().eval(), torch.randn(2, 64, 32)
    program = hotstart.compile(model, (x,))
    assert "attention(" not in sources(program)
    torch.testing.assert_close(program(x), model(x), rtol=1e-4, atol=1e-5)


def test_it_pays_where_mkl_does_not_use_what_the_processor_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    assert attention.pays(Processor(vectors=512, intel=False))
    assert not attention.pays(Processor(vectors=512, intel=True))
    assert not attention.pays(Processor(vectors=256, intel=False))


FRESH = """
    import json, sys
    import torch
    import hotstart
    program = hotstart.load(sys.argv[1], weights=sys.argv[2])
    torch.manual_seed(1)
    calls = [(torch.randn(2, length, 64), torch.ones(2, length)) for length in (16, 32, 70)]
    print(json.dumps([program(*call).double().sum().item() for call in calls]))
"""


@pytest.mark.slow
def test_both_forms_give_the_same_bits_in_another_process(tmp_path: Path) -> None:
    found = []
    for form in ("native", "python"):
        _, program = encoder(form=form)
        program.save(tmp_path / f"{form}.hot")
        program.save_weights(tmp_path / f"{form}.weights")
        found.append(run_fresh(FRESH, tmp_path / f"{form}.hot", tmp_path / f"{form}.weights"))
    assert found[0] == found[1]
