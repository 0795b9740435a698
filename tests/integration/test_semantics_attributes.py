"""Attributes of modules that forward sets: constants, sizes, and what later calls read of them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import hotstart
from hotstart import Dim
from tests.semantics import assert_same, both, build

pytestmark = pytest.mark.usefixtures("kept_pieces")

R = torch.randn
EAGER = hotstart.Options(compiler="op_by_op")


class Sets(nn.Module):
    """Sets constants before it reads them, so that every call does the same."""

    kind = "none"

    def __init__(self) -> None:
        super().__init__()
        self.scale = 3
        self.name: Any = None
        self.inner = nn.Linear(3, 3)
        self.same = 1.5

    def forward(self, x: Tensor) -> Tensor:
        self.scale = 2
        self.scale *= 2
        self.name = ("s", None, torch.float32)
        self.kind = "some"
        self.inner.done = True
        self.same = self.same
        self.size = x.shape[0]
        self.pair = [x * 2, {"x": x.mT}]
        return self.inner(x) * self.scale


def state_of(module: Sets) -> dict[str, Any]:
    names = ("scale", "name", "kind", "same", "size", "pair")
    return {**{n: getattr(module, n) for n in names}, "done": getattr(module.inner, "done", None)}


@both
def test_constants_sizes_and_containers_are_set_in_every_call(compiler: str) -> None:
    model = Sets()
    reference = copy.deepcopy(model)
    dims = {"x": {0: Dim("n", min=1, max=8)}}
    program = build(model, R(2, 3), compiler=compiler, dynamic_shapes=dims)
    assert (model.scale, model.name, hasattr(model, "size")) == (3, None, False)
    for size in (3, 5, 3):
        x = R(size, 3)
        with torch.no_grad():
            assert_same(program(x), reference(x), 1e-6)
        assert_same(state_of(model), state_of(reference), 1e-6)
        assert type(model.pair) is list
    (stitched,) = program.artifact.calls[0].stitched
    assert ("inner", "done") in stitched.sets


class Once(nn.Module):
    """Reads what it sets, in one of several ways."""

    calls = 0

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.ready, self.table = how, False, {"k": 1}
        self.cached: Any = None

    def forward(self, x: Tensor) -> Tensor:
        match self.how:
            case "flag":
                x = x if self.ready else x * 2
                self.ready = True
            case "class":
                self.calls += 1
                x = x * self.calls
            case "missing":
                if not hasattr(self, "factor"):
                    self.factor = 3
                    x = x + 1
            case "default":
                x = x * getattr(self, "factor", 2)
                self.factor = 3
            case "none":
                if self.cached is None:
                    self.cached = 4
                    x = x + 1
            case "tensor":
                if self.cached is None:
                    self.cached = x * 2
                x = x + self.cached
            case "deeper":
                x = x * self.table["k"]
                self.table = {"k": 2}
            case "size":
                x = x + 1 if self.cached == x.shape[0] else x
                self.cached = x.shape[0]
        return x * 5


@pytest.mark.parametrize(
    "how", ["flag", "class", "missing", "default", "none", "tensor", "deeper", "size"]
)
def test_what_the_next_call_would_read_otherwise_is_refused(how: str) -> None:
    with pytest.raises(hotstart.CaptureError, match=r"forward sets the model\.[\s\S]*was there"):
        build(Once(how), R(2, 3))


@pytest.mark.parametrize("how", ["flag", "missing", "default", "none", "tensor", "deeper", "size"])
def test_after_one_call_every_call_is_the_same(how: str) -> None:
    model = Once(how)
    model(R(2, 3))
    reference = copy.deepcopy(model)
    program = build(model, R(2, 3))
    for _ in range(2):
        x = R(2, 3)
        assert torch.equal(program(x), reference(x))


class Window(nn.Module):
    """One size sets what the others read, as Swin's windows are."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = 3

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] <= 4:
            self.shift = 0
        return x + self.shift


def test_what_one_part_of_a_range_sets_and_another_reads_is_refused() -> None:
    dims = {"x": {0: Dim("n", min=2, max=8)}}
    with pytest.raises(hotstart.CaptureError, match=r"sets the model\.shift"):
        build(Window(), R(3, 2), dynamic_shapes=dims)
    model = Window()
    program = build(model, R(3, 2))
    x = R(3, 2)
    assert torch.equal(program(x), x)
    assert model.shift == 0
    program = build(Window(), R(6, 2), dynamic_shapes={"x": {0: Dim("n", min=5, max=8)}})
    x = R(7, 2)
    assert torch.equal(program(x), x + 3)


def test_what_one_call_sets_and_another_reads_is_refused() -> None:
    calls = {"small": hotstart.Call(args=(R(3, 2),)), "large": hotstart.Call(args=(R(6, 2),))}
    with pytest.raises(hotstart.CaptureError, match=r"sets the model\.shift"):
        hotstart.compile(Window(), calls=calls, options=EAGER)


def test_an_attribute_that_forward_deletes_is_refused() -> None:
    class Deletes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.once = 2

        def forward(self, x: Tensor) -> Tensor:
            x = x * self.once
            del self.once
            return x

    with pytest.raises(hotstart.CaptureError, match=r"deletes the model\.once"):
        build(Deletes(), R(2))


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.window = Sets()

    def forward(self, x: Tensor) -> Tensor:
        return self.window(x)


def test_a_submodule_sets_its_attributes() -> None:
    model = Outer().requires_grad_(False)
    hotstart.compile_submodule(model, "window", (R(2, 3),), options=EAGER)
    assert model.window.scale == 3
    model(R(2, 3))
    assert (model.window.scale, model.window.size, model.window.inner.done) == (4, 2, True)


def test_attributes_are_set_after_a_load(tmp_path: Path) -> None:
    file = tmp_path / "sets.hot"
    build(Outer(), R(2, 3)).save(file)
    model = Outer()
    program = hotstart.load(file, model)
    x = R(2, 3)
    for _ in range(2):
        program(x)
        assert (model.window.scale, model.window.name[0], model.window.size) == (4, "s", 2)
        assert model.window.pair[1]["x"].data_ptr() == x.data_ptr()


# --- models of transformers -------------------------------------------------------------------


def swin() -> tuple[nn.Module, dict[str, Tensor]]:
    config = transformers.SwinConfig(
        image_size=16, embed_dim=8, depths=[2], num_heads=[1], window_size=4
    )
    return transformers.SwinModel(config), {"pixel_values": R(1, 3, 16, 16)}


def funnel() -> tuple[nn.Module, dict[str, Tensor]]:
    config = transformers.FunnelConfig(
        vocab_size=32, block_sizes=[1, 1], d_model=16, n_head=2, d_head=8, d_inner=16
    )
    return transformers.FunnelModel(config), {"input_ids": torch.arange(8)[None]}


def clap() -> tuple[nn.Module, dict[str, Tensor]]:
    config = transformers.ClapAudioConfig(
        depths=[2], num_attention_heads=[1], patch_embeds_hidden_size=8, hidden_size=8,
        spec_size=16, num_mel_bins=4, window_size=4, projection_dim=8,
    )  # fmt: skip
    inputs = {"input_features": R(1, 1, 16, 4), "is_longer": torch.tensor([[False]])}
    return transformers.ClapAudioModel(config), inputs


@pytest.mark.thorough
@pytest.mark.parametrize("make", [swin, funnel, clap])
def test_models_that_set_constants(make: Any) -> None:
    torch.manual_seed(0)
    model, inputs = make()
    model.eval()
    reference = copy.deepcopy(model)
    program = hotstart.compile(model, kwargs=inputs, options=EAGER)
    assert any(stitched.sets for stitched in program.artifact.calls[0].stitched)
    for _ in range(2):
        with torch.no_grad():
            assert torch.equal(program(**inputs)[0], reference(**inputs)[0])


@pytest.mark.slow
def test_rwkv_is_compiled_after_the_call_that_rescales_it() -> None:
    torch.manual_seed(0)
    config = transformers.RwkvConfig(
        vocab_size=32, hidden_size=16, num_hidden_layers=2, rescale_every=1
    )
    model = transformers.RwkvModel(config).eval()
    ids = torch.arange(4)[None]
    with pytest.raises(hotstart.CaptureError, match=r"layers_are_rescaled[\s\S]*once before"):
        hotstart.compile(model, kwargs={"input_ids": ids}, options=EAGER)
    with torch.no_grad():
        model(ids)
    reference = copy.deepcopy(model)
    program = hotstart.compile(model, kwargs={"input_ids": ids}, options=EAGER)
    for _ in range(2):
        with torch.no_grad():
            assert torch.equal(program(input_ids=ids)[0], reference(ids)[0])


class KeepsAMask(nn.Module):
    """A mask for the size of the last call, as that of PyTorch's word-language model."""

    def __init__(self) -> None:
        super().__init__()
        self.mask: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.mask is None or self.mask.size(0) != len(x):
            self.mask = torch.ones(len(x), len(x)).tril()
        return self.mask @ x


def test_a_tensor_that_forward_keeps_for_one_size() -> None:
    model = KeepsAMask().eval()
    program = build(model, torch.randn(9, 4))
    assert_same(program(torch.ones(9, 4)), model(torch.ones(9, 4)))
