"""Regions of autocast and their like in calls that fail: see docs/semantics.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.semantics import build


class Within(nn.Module):
    """Fails within a region where it is asked for too many columns."""

    def __init__(self, region: Callable[[], Any]) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.region = region

    def forward(self, x: Tensor, count: Tensor) -> Tensor:
        with self.region():
            return self.layer(columns(x, count)).sum(0)


def columns(x: Tensor, count: Tensor) -> Tensor:
    return x[:, None, :] * x[:, : number(count), None]


def number(count: Tensor) -> int:
    read = count.item()
    torch._check(read >= 0)
    torch._check(read <= 3)
    return read


class Differentiates(Within):
    """Fails within a transform, which has a region of gradients."""

    def forward(self, x: Tensor, count: Tensor) -> Tensor:
        def loss(given: Tensor) -> Tensor:
            return (given * given)[:, : number(count)].sum()

        return torch.func.grad(loss)(x)


class AttentionInAutocast(Within):
    """Fails within two regions, and has been in a third."""

    def forward(self, x: Tensor, count: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
                first = nn.functional.scaled_dot_product_attention(*3 * [x[None, None]])
            with sdpa_kernel(SDPBackend.MATH):
                return first.sum() + self.layer(columns(x, count)).sum(0)


def settings_of_thread() -> tuple[Any, ...]:
    cuda = torch.backends.cuda
    return (
        torch.is_autocast_enabled("cpu"),
        torch.is_autocast_cache_enabled(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        cuda.math_sdp_enabled(),
        cuda.flash_sdp_enabled(),
        torch._C._functorch.peek_interpreter_stack(),
    )


@pytest.mark.parametrize(
    "model",
    [
        Within(lambda: torch.autocast("cpu", torch.bfloat16)),
        Within(lambda: torch.autocast("cpu", torch.bfloat16, cache_enabled=False)),
        Within(lambda: sdpa_kernel(SDPBackend.MATH)),
        Within(torch.inference_mode),
        Differentiates(lambda: None),
        AttentionInAutocast(lambda: None),
    ],
    ids=["autocast", "autocast without cache", "attention", "inference", "gradients", "nested"],
)
def test_a_call_that_fails_within_a_region_leaves_it(model: nn.Module) -> None:
    x = torch.randn(4, 4)
    program = build(model.eval(), x, torch.tensor(2))
    before = settings_of_thread()
    expected = program(x, torch.tensor(3))
    with pytest.raises(RuntimeError, match="as the model needs it"):
        program(x, torch.tensor(4))
    assert settings_of_thread() == before
    assert torch.equal(program(x, torch.tensor(3)), expected)
