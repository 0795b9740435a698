"""Sizes decide as little as they must: fewer variants, and no compile that goes on in vain."""

from __future__ import annotations

from typing import Any

import pytest
import sympy
import torch
from torch import Tensor, nn
from torch._inductor.graph import GraphLowering
from torch.nn import functional
from torch.utils._sympy.functions import FloorDiv, ModularIndexing

import hotstart
from hotstart import Dim, Options
from hotstart._torch.inductor.sizes import simplified

pytestmark = pytest.mark.usefixtures("kept_pieces")


class Calls(nn.Module):
    """A function of a tensor and of modules."""

    def __init__(self, function: Any, *parts: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Any:
        return self.function(x, *self.parts)


def built(model: nn.Module, example: Tensor, dims: dict[int, Dim], **options: Any) -> Any:
    return hotstart.compile(
        model.eval(), (example,), dynamic_shapes={"x": dims}, options=Options(**options)
    )


def assert_same(program: Any, model: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        expected = model(x)
    found = program(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert found.stride() == expected.stride()


# --- convolutions ---------------------------------------------------------------------------------

CHANNELS_LAST: Any = {"memory_format": torch.channels_last}


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv1d(4, 4, 3),
        nn.Conv2d(4, 8, 3),
        nn.Conv2d(4, 4, 1),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Conv2d(4, 8, 3, dilation=2),
        nn.Conv2d(4, 8, 3).to(**CHANNELS_LAST),
        nn.ConvTranspose2d(4, 4, 3, stride=2),
        nn.ConvTranspose2d(4, 4, 3).to(**CHANNELS_LAST),
        nn.Conv3d(4, 4, 3),
    ],
    ids=[
        "1d", "2d", "1x1", "depthwise", "dilated", "channels last", "transposed",
        "transposed, channels last", "3d",
    ],
)  # fmt: skip
def test_a_convolution_serves_all_batches_with_one_variant(conv: nn.Module) -> None:
    spatial = [8] * (conv.weight.ndim - 2)
    model = Calls(lambda x, conv: conv(x).relu(), conv)
    program = built(model, torch.randn(2, 4, *spatial), {0: Dim("b", max=20)}, compiler="op_by_op")
    assert list(program.code) == ["b=1..20"]
    for batch in (1, 2, 15, 16, 20):
        assert_same(program, model, torch.randn(batch, 4, *spatial))


def test_a_batch_that_decides_about_the_layout_still_splits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No operator of torch's on CPU is known to; a backend that did would be asked as before."""

    def determine(given: Tensor, weight: Tensor, backend: Any) -> torch.memory_format:
        return torch.channels_last if given.shape[0] < 16 else torch.contiguous_format

    monkeypatch.setattr(torch._C, "_conv_determine_backend_memory_format", determine)
    model = nn.Conv2d(4, 4, 3).eval()
    program = hotstart.compile(
        model,
        (torch.randn(2, 4, 8, 8),),
        dynamic_shapes={"input": {0: Dim("b", max=20)}},
        options=Options(compiler="op_by_op"),
    )
    # Fake convolutions of torch 2.11 compare the batch with 1, too, where they are asked as before.
    low = {"b=1", "b=2..15"} if torch.__version__ < "2.12" else {"b=1..15"}
    assert set(program.code) == {*low, "b=16..20"}


# --- operators that are called whole --------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize(
    "function",
    [
        lambda x: functional.adaptive_avg_pool2d(x, (3, 2)) + 1,
        lambda x: functional.adaptive_max_pool2d(x, (3, 2)) + 1,
        lambda x: functional.interpolate(x, size=(20, 30), mode="nearest") * 2,
        lambda x: functional.interpolate(x, size=(20, 30), mode="nearest-exact") * 2,
        lambda x: functional.interpolate(x.mean(3), size=20, mode="nearest") * 2,
    ],
    ids=["adaptive mean", "adaptive maximum", "nearest", "nearest-exact", "nearest, 1d"],
)
def test_an_operator_whose_code_would_hold_a_size_is_called_whole(function: Any) -> None:
    model = Calls(function)
    dims = {2: Dim("h", min=4, max=40), 3: Dim("w", min=4, max=40)}
    program = built(model, torch.randn(2, 4, 16, 24), dims)
    assert list(program.code) == ["h=4..40,w=4..40"]
    assert len(program.artifact.units) == 1
    for h, w in ((4, 40), (5, 7), (16, 24), (40, 4)):
        assert_same(program, model, torch.randn(2, 4, h, w))


@pytest.mark.thorough
def test_an_operator_of_known_sizes_is_still_compiled() -> None:
    model = Calls(lambda x: functional.interpolate(x, size=(20, 30), mode="nearest") * 2)
    program = built(model, torch.randn(2, 4, 16, 24), {0: Dim("b", min=2, max=8)})
    (unit,) = program.artifact.units
    assert "upsample_nearest" not in unit.source
    assert_same(program, model, torch.randn(3, 4, 16, 24))


# --- compiles that are given up -------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.usefixtures("compiled_anew")
def test_a_compile_that_narrows_is_given_up_before_code_is_generated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generated: list[Any] = []
    generate = GraphLowering.codegen

    def codegen(self: Any, *args: Any, **kwargs: Any) -> Any:
        generated.append(self)
        return generate(self, *args, **kwargs)

    monkeypatch.setattr(GraphLowering, "codegen", codegen)
    pooled = Calls(
        lambda x, conv: functional.adaptive_avg_pool2d(conv(x), (2, 3)).flatten(1),
        nn.Conv2d(3, 4, 3),
    )
    dims = {0: Dim("b", max=20), 2: Dim("h", min=6, max=40)}
    program = built(pooled, torch.randn(2, 3, 8, 9), dims)
    assert len(program.report.variants) == 2
    assert len(generated) == len(program.artifact.units) == 2


# --- whole nets -----------------------------------------------------------------------------------


class Head(nn.Module):
    """Class scores over several feature levels, as detectors have them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(4, 4, 3, stride=2, padding=1) for _ in range(2))
        self.scores = nn.Conv2d(4, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x, levels = self.stem(x).relu(), []
        for down in self.down:
            x = down(x).relu()
            n, _, h, w = (scores := self.scores(x)).shape
            levels.append(scores.view(n, 2, 3, h, w).permute(0, 3, 4, 1, 2).reshape(n, -1, 3))
        return torch.cat(levels, 1).sigmoid()


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_anew")
def test_a_detection_head_takes_one_unit_whose_indices_are_not_simplified(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    simplifications: list[Any] = []
    simplify = sympy.simplify

    def counted(expr: Any, *args: Any, **kwargs: Any) -> Any:
        simplifications.append(expr)
        return simplify(expr, *args, **kwargs)

    monkeypatch.setattr(sympy, "simplify", counted)
    model = Head()
    dims = {2: Dim("h", min=16, max=128), 3: Dim("w", min=16, max=128)}
    program = built(model, torch.randn(1, 3, 32, 40), dims)
    assert list(program.code) == ["h=16..128,w=16..128"]
    assert len(program.artifact.units) == 1
    assert not [e for e in simplifications if isinstance(e, sympy.Basic) and e.has(ModularIndexing)]
    for h, w in ((16, 128), (33, 47), (128, 16)):
        assert_same(program, model, torch.randn(1, 3, h, w))


# --- strides --------------------------------------------------------------------------------------

X, Y, H = (sympy.Symbol(name, integer=True, nonnegative=True) for name in "xyh")
ROWS = 3 * FloorDiv(H - 1, 4) + 3


@pytest.mark.parametrize(
    ("index", "stride"),
    [
        (X + 15 * FloorDiv(Y, ROWS) * FloorDiv(H - 1, 4) + 5 * ModularIndexing(Y, 1, ROWS), 1),
        (Y * FloorDiv(H, 2) ** 2 + 7 * X * FloorDiv(H, 2), 7 * FloorDiv(H, 2)),
        ((X + Y) * (H + 1), H + 1),
        (Y * H, 0),
        (FloorDiv(X, H), FloorDiv(X + 1, H) - FloorDiv(X, H)),
        (2 * X + sympy.Max(X, H) - sympy.Max(X, H), 2),
    ],
)
def test_the_stride_of_an_index_is_found_by_expansion(index: Any, stride: Any) -> None:
    found = simplified(index.xreplace({X: X + 1}) - index)
    assert sympy.expand(found - stride) == 0
    assert found.has(X) == sympy.sympify(stride).has(X)


def test_what_is_no_polynomial_is_left_to_sympy() -> None:
    assert simplified(sympy.sin(X) ** 2 + sympy.cos(X) ** 2) == 1
    assert simplified(sympy.Integer(3)) == 3
