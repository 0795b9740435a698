"""Views that an attribute of a tensor gives, as results: taken anew in each call."""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim
from tests.semantics import assert_same, both, build, shares_memory

R = torch.randn
EAGER = hotstart.Options(compiler="op_by_op")
ATTRIBUTES = ["mT", "T", "H", "mH", "data", "real", "mT.mT", "data.T", "real.mT"]
CASES = [(a, dtype) for a in ATTRIBUTES for dtype in (torch.float32, torch.complex64)]

# Inductor says that it runs complex numbers as eager does.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for"),
    pytest.mark.usefixtures("kept_pieces"),
]


def assert_views(found: Tensor, expected: Tensor, base: Tensor) -> None:
    """The same view of the same memory, in values and layout."""
    assert torch.equal(found, expected)
    assert found.stride() == expected.stride()
    assert found.is_conj() == expected.is_conj()
    assert shares_memory(found, base)


@pytest.mark.parametrize(("attribute", "dtype"), [*CASES, ("imag", torch.complex64)])
def test_a_view_of_an_argument_is_all_that_is_returned(attribute: str, dtype: torch.dtype) -> None:
    view = attrgetter(attribute)
    scope: dict[str, Any] = {}
    exec(f"def f(x): return x.{attribute}", scope)
    program = build(scope["f"], R(3, 4, dtype=dtype))
    for x in (R(3, 4, dtype=dtype), R(4, 3, dtype=dtype).t()):
        assert_views(program(x), view(x), x)


@both
def test_views_beside_other_results(compiler: str) -> None:
    def f(x: Tensor, y: Tensor) -> Any:
        return {"all": [x.mT, (x * 2).mT, y.data], "row": x[1:], "sum": x + y.T}

    program = build(f, R(4, 4), R(4, 4), compiler=compiler)
    for x, y in ((R(4, 4), R(4, 4)), (R(4, 4).t(), R(4, 4))):
        found, expected = program(x, y), f(x, y)
        assert_same(found, expected, 1e-6)
        assert shares_memory(found["all"][0], x)
        assert shares_memory(found["all"][2], y)
        assert not shares_memory(found["all"][1], x)


def test_a_view_that_is_read_and_returned() -> None:
    def f(x: Tensor) -> tuple[Tensor, Tensor]:
        view = x.mT
        return view, view * 2

    program = build(f, R(3, 4))
    x = R(3, 4)
    assert_same(program(x), f(x))
    assert shares_memory(program(x)[0], x)


@both
def test_a_view_of_a_written_argument_sees_the_write(compiler: str) -> None:
    def f(x: Tensor) -> Tensor:
        view = x.mT
        x.add_(1)
        return view

    program = build(f, R(3, 4), compiler=compiler)
    for x in (R(3, 4), R(4, 3).t()):
        before = x.clone()
        assert_views(program(x), (before + 1).mT, x)


def test_sizes_follow_the_call_in_every_variant() -> None:
    def f(x: Tensor) -> Any:
        return x.mT, (x * 2 if x.shape[0] > 4 else x * 3)

    program = build(f, R(3, 4), dynamic_shapes={"x": {0: Dim("n", min=1, max=9, sizes=[7])}})
    assert len(program.code) > 2
    for size in (1, 3, 6, 7, 9):
        x = R(size, 4)
        assert_same(program(x), f(x))


class Keeps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(R(3, 4))
        self.register_buffer("total", R(3, 4))
        self.last = R(4, 3)
        self.whole = R(3, 4)

    def forward(self, x: Tensor) -> Any:
        self.last, self.whole = x.mT, x
        before = self.total.mT
        self.total = self.total + 1
        return self.weight.T, self.weight.data, before, self.total.mT


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_views_of_weights_and_in_attributes(device: str) -> None:
    model = Keeps().to(device)
    model.last, model.whole = model.last.to(device), model.whole.to(device)
    program = build(model, R(3, 4))
    if device == "meta":
        model.to_empty(device="cpu")
        model.last, model.whole = R(4, 3), R(3, 4)
        nn.init.ones_(model.weight)
        model.total.zero_()
    for _ in range(2):
        x, total = R(3, 4), model.total
        transposed, data, before, after = program(x)
        assert_views(transposed, model.weight.T, model.weight)
        assert_views(data, model.weight.data, model.weight)
        assert_views(before, total.mT, total)
        assert_same(after, (total + 1).mT)
        assert_same(model.total, total + 1)
        assert_views(model.last, x.mT, x)
        assert model.whole is x
        assert not any(t.requires_grad for t in (transposed, data, before, after))


def test_a_view_of_a_replaced_weight_is_of_the_new_one() -> None:
    model = Keeps()
    program = build(model, R(3, 4))
    model.weight = nn.Parameter(R(3, 4))
    assert shares_memory(program(R(3, 4))[0], model.weight)


@dataclasses.dataclass
class Both:
    view: Tensor
    again: Tensor


def both_of(x: Tensor) -> Both:
    view = x.mT
    return Both(view, view)


def test_one_view_in_two_places_is_one_object() -> None:
    x = R(3, 4)
    found = build(both_of, x)(x)
    assert found.view is found.again
    assert_views(found.view, x.mT, x)


def test_views_of_arguments_and_weights_after_a_load(tmp_path: Path) -> None:
    file = tmp_path / "views.hot"
    build(Keeps().eval(), R(3, 4)).save(file)
    model = Keeps().eval()
    program = hotstart.load(file, model)
    x = R(3, 4)
    transposed, data, _, _ = program(x)
    assert_views(transposed, model.weight.T, model.weight)
    assert_views(data, model.weight.data, model.weight)
    assert_views(model.last, x.mT, x)


def test_views_in_the_place_of_a_submodule() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Keeps()

        def forward(self, x: Tensor) -> Any:
            return self.inner(x)

    model = Outer().requires_grad_(False)
    hotstart.compile_submodule(model, "inner", (R(3, 4),), options=EAGER)
    x = R(3, 4)
    assert_views(model(x)[0], model.inner.weight.T, model.inner.weight)
    assert_views(model.inner.last, x.mT, x)


def test_what_autograd_left_with_a_tensor_is_refused() -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(R(4))
            self.weight.grad = torch.ones(4)

        def forward(self, x: Tensor) -> Tensor:
            return x * self.weight.grad

    with pytest.raises(hotstart.CaptureError, match=r"weight\.grad"):
        build(Steps(), R(3, 4))
    with pytest.raises(hotstart.CaptureError, match=r"x\.grad"):
        build(lambda x: x * 2 if x.grad is None else x, R(3, 4))
