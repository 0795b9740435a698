"""Random numbers: op by op they are those of eager, compiled whole those of `torch.compile`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from tests.semantics import assert_same, both, build, check, mostly_eager

pytestmark = pytest.mark.usefixtures("kept_pieces")

R = torch.randn
ONES = torch.ones(16, 16)


def draws(x: Tensor) -> tuple[Tensor, ...]:
    dropped = nn.functional.dropout(x, 0.5)
    return dropped, torch.rand(4), torch.randn_like(x), torch.randint(0, 10, (5,))


def more_draws(x: Tensor) -> tuple[Tensor, ...]:
    made = (torch.randperm(5), torch.normal(0.0, 1.0, (3,)), torch.empty(3).exponential_())
    drawn = (torch.bernoulli(torch.full((4,), 0.5)), torch.multinomial(x.softmax(-1), 2))
    return *made, *drawn, x.clone().uniform_(), x.clone().normal_(), nn.functional.rrelu(x)


def seeded(function: Any, *args: Tensor) -> Any:
    torch.manual_seed(5)
    return function(*args)


@pytest.mark.parametrize("function", [draws, more_draws])
def test_op_by_op_numbers_are_those_of_eager(function: Any) -> None:
    check(function, (ONES,))


@pytest.mark.slow
def test_compiled_numbers_are_those_of_torch_compile() -> None:
    torch.compiler.reset()
    stock = torch.compile(draws)
    program = build(draws, ONES, compiler="inductor")
    with torch.no_grad():
        stock(ONES)  # compiling draws numbers of its own
        assert_same(seeded(program, ONES), seeded(stock, ONES))
        assert_same(seeded(program, ONES + 1), seeded(stock, ONES + 1))


@pytest.mark.slow
def test_more_compiled_numbers_are_those_of_torch_compile() -> None:
    torch.compiler.reset()
    stock = torch.compile(more_draws)
    program = build(more_draws, ONES, compiler="inductor")
    with torch.no_grad():
        stock(ONES)
        assert_same(seeded(program, ONES), seeded(stock, ONES))


@both
def test_every_call_draws_anew_and_a_seed_starts_over(compiler: str) -> None:
    program = build(draws, ONES, compiler=compiler)
    first = seeded(program, ONES)
    second = program(ONES)
    assert not any(torch.equal(*pair) for pair in zip(first[:3], second[:3], strict=True))
    assert_same(seeded(program, ONES), first)


@mostly_eager
def test_a_program_with_cuts_follows_the_seed(compiler: str) -> None:
    blocks = [nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Dropout(0.5)) for _ in range(3)]
    model = nn.Sequential(*blocks).train()
    program = build(model, ONES, compiler=compiler)
    first = seeded(program, ONES)
    assert not torch.equal(program(ONES), first)
    assert_same(seeded(program, ONES), first)
    if compiler == "op_by_op":
        assert_same(first, seeded(model, ONES).detach())


@mostly_eager
def test_dropout_that_is_off_leaves_the_generator_alone(compiler: str) -> None:
    model = nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.5)).eval()
    program = build(model, ONES, compiler=compiler)
    before = torch.get_rng_state()
    assert_same(program(ONES), model(ONES).detach(), 1e-5)
    assert torch.equal(torch.get_rng_state(), before)


@mostly_eager
def test_attention_with_dropout(compiler: str) -> None:
    def f(q: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(q, q, q, dropout_p=0.3)

    q = R(1, 2, 8, 4)
    if compiler == "op_by_op":
        check(f, (q,), tolerance=1e-5)
    program = build(f, q, compiler=compiler)
    assert not torch.equal(program(q), program(q))
    assert_same(seeded(program, q), seeded(program, q))


@pytest.mark.parametrize("seeding", ["manual_seed", "fork_rng", "generator"])
def test_seeding_in_forward_is_refused(seeding: str) -> None:
    generator = torch.Generator()

    def f(x: Tensor) -> Tensor:
        if seeding == "generator":
            return x + torch.rand(16, generator=generator)
        if seeding == "manual_seed":
            torch.manual_seed(3)
            return x + torch.rand(16)
        with torch.random.fork_rng():
            return x + torch.rand(16)

    with pytest.raises(hotstart.CaptureError, match=f"{seeding}"):
        build(f, ONES)
