"""Operators, views and writes in native code do what they do in eager."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from hotstart import Options, OptionsError
from tests.integration.native_models import build

pytestmark = pytest.mark.usefixtures("kept_pieces")


class Waves(nn.Module):
    """A convolution in one dimension, which is not packed; one that adds to what it is given."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.wave = nn.Conv1d(4, 8, 3, padding=1)
        self.image, self.again = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.wave(x)).unflatten(-1, (4, -1))
        return F.relu(self.again(F.gelu(self.image(x))) + self.image(x)).sum(1)


@pytest.mark.thorough
@torch.no_grad()
def test_convolutions_that_oneDNN_fuses_or_does_not_pack_are_native() -> None:  # noqa: N802
    model, x = Waves().eval(), torch.randn(2, 4, 16)
    packed = Options(form="native", pack_weights="always")
    native = build(model, x, options=packed)
    python = build(model, x, options=Options(form="python", pack_weights="always"))
    assert native(x).equal(python(x))
    assert "_convolution_pointwise_.binary" in "".join(u.source for u in native.artifact.units)
    assert "torch.convolution" in "".join(u.source for u in native.artifact.units)


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(4))
        self.weight = nn.Parameter(torch.randn(4, 4))

    def forward(self, x: Tensor, cache: Tensor) -> Tensor:
        self.count += 1
        cache[1] = x[0] * 2
        return F.gelu(x @ self.weight) + self.count + cache[1]


@pytest.mark.thorough
@torch.no_grad()
def test_what_is_written_to_has_a_new_version() -> None:
    model = Counting()
    program = build(model, torch.randn(3, 4), torch.zeros(2, 4))
    assert program.report.not_native == ()
    count = model.count
    cache, x = torch.zeros(2, 4), torch.randn(3, 4)
    versions = [(count._version, cache._version)]
    for number in (1, 2):
        before = count.clone()
        result = program(x, cache)
        assert count.equal(before + 1), number
        assert cache[1].equal(x[0] * 2)
        assert torch.allclose(result, F.gelu(x @ model.weight) + count + cache[1], atol=1e-6)
        versions.append((count._version, cache._version))
    for (count_before, cache_before), (count_after, cache_after) in itertools.pairwise(versions):
        assert count_before < count_after
        assert cache_before < cache_after


class Nonzero(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(x) * 2
        y = torch.where(x > 0, x, x.exp()).cumsum(0)
        return torch.ops.hotstart_native_test.twice(y) + F.gelu(y)


@pytest.fixture(scope="module")
def operator_in_python() -> Any:
    library = torch.library.Library("hotstart_native_test", "DEF")
    library.define("twice(Tensor x, float[] by=[2.0]) -> Tensor")
    library.impl("twice", lambda x, by=(2.0,): x * by[0], "CompositeExplicitAutograd")
    torch.library.register_fake(
        "hotstart_native_test::twice", lambda x, by=(2.0,): torch.empty_like(x)
    )
    yield
    library._destroy()


@pytest.mark.thorough
@pytest.mark.usefixtures("operator_in_python")
def test_a_step_without_a_native_form_is_named() -> None:
    x = torch.randn(3, 4)
    program = build(Nonzero(), x, options=Options())
    ((variant, reason),) = program.report.not_native
    assert variant
    assert "hotstart_native_test.twice" in reason
    assert "run as Python, not as native code" in str(program.report)
    assert torch.allclose(program(x), Nonzero()(x), atol=1e-6)
    with pytest.raises(OptionsError, match=r"form: got 'native'.*\n.*hotstart_native_test"):
        build(Nonzero(), x)


class Calls(nn.Module):
    """Operators with lists, dtypes, numbers and nothing among their arguments."""

    def forward(self, x: Tensor, at: Tensor) -> tuple[Tensor, ...]:
        values, places = torch.sort(x, dim=-1, descending=True)
        top = torch.topk(x, 2, dim=-1)
        rolled = torch.cdist(x, x).logcumsumexp(-1)
        return values, places, top.values, rolled, at.cumsum(0, dtype=torch.int32)


@torch.no_grad()
def test_operators_that_no_kernel_replaces() -> None:
    x, at = torch.randn(6, 5), torch.tensor([0, 3, 3])
    native = build(Calls(), x, at, options=Options())
    for given, expected in zip(native(x, at), Calls()(x, at), strict=True):
        assert torch.allclose(given.float(), expected.float(), atol=1e-5)


@pytest.mark.thorough
@torch.no_grad()
@pytest.mark.parametrize(
    "function",
    [
        lambda x: (3 ** (x + 1)) * 2,
        lambda x: torch.addmm(x, x, x, beta=2, alpha=3) + 1,
        lambda x: (x + 1).scatter(0, x.clamp(0, 2), 2**53 + 1) * 2,
        lambda x: (x * 2.5) ** 3 + torch.addmm(x.float(), x.float(), x.float(), alpha=2),
    ],
)
def test_integers_stay_integers_in_operators(function: Any) -> None:
    x = torch.arange(9).reshape(3, 3)
    given, expected = build(function, x, options=Options())(x), function(x)
    assert given.dtype == expected.dtype
    assert torch.allclose(given, expected)


@pytest.mark.thorough
@torch.no_grad()
def test_operators_that_name_a_dtype_of_no_buffer() -> None:
    def sums(x: Tensor) -> Tensor:
        return (x + 1).cumsum(0).sort(0).values

    x = torch.arange(6, dtype=torch.int32).flip(0)
    assert build(sums, x)(x).equal(sums(x))


class Views(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.linear(x), self.linear.weight[1:3], x.T, F.gelu(x)


@pytest.mark.thorough
@torch.no_grad()
def test_writes_to_views_that_come_back_count_as_writes_to_what_they_show() -> None:
    model = Views()
    x = torch.randn(3, 4)
    program = build(model, x, options=Options(form="native", pack_weights="always"))
    _, rows, turned, _ = program(x)
    before = model.linear.weight._version, x._version
    rows.mul_(5)
    turned.add_(1)
    assert (model.linear.weight._version, x._version) == (before[0] + 1, before[1] + 1)
    assert torch.allclose(program(x)[0], model.linear(x), atol=1e-5)
    with torch.inference_mode():
        assert [each.is_inference() for each in program(x)] == [True, False, False, True]


class WritesAndFails(nn.Module):
    def forward(self, x: Tensor, table: Tensor, at: Tensor) -> Tensor:
        x.add_(1)
        return F.gelu(F.embedding(at, table).cumsum(0).sort(0).values)


@pytest.mark.thorough
@torch.no_grad()
def test_what_is_written_to_before_an_error_has_a_new_version() -> None:
    x, table, at = torch.zeros(3), torch.randn(4, 2), torch.tensor([0, 3])
    program = build(WritesAndFails(), x, table, at)
    for number in (1, 2):
        version = x._version
        with pytest.raises(IndexError):
            program(x, table, at + 100)
        if x[0] == number:
            assert x._version > version
