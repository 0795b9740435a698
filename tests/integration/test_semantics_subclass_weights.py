"""Weights of tensor subclasses are the tensors that they are made of, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import CaptureError, Dim, ModelMismatch
from tests.integration.caching import origin
from tests.integration.wrapped import Doubled, Scaled, Two, Weighted, scaled
from tests.safetensors_files import file_of
from tests.semantics import assert_same, both, build, check

pytestmark = pytest.mark.usefixtures("kept_pieces")

R = torch.randn
X = R(3, 4)


def requirements(program: hotstart.Program, tmp_path: Path) -> Any:
    program.save(tmp_path / "model.hot")
    return hotstart.inspect(tmp_path / "model.hot").requirements


def weight_names(program: hotstart.Program, tmp_path: Path) -> list[str]:
    return [spec.name for spec in requirements(program, tmp_path).weights]


# --- what they compute ---------------------------------------------------------------------------


@both
def test_a_weight_of_a_subclass_computes_what_it_does_in_eager(compiler: str) -> None:
    model = Two(scaled(4, 4), scaled(5, 4))
    dims = {"x": {0: Dim("rows", min=1, max=8)}}
    program = build(model, X, compiler=compiler, dynamic_shapes=dims)
    for rows in (1, 2, 8):
        x = R(rows, 4)
        assert_same(program(x), model(x), 1e-5 if compiler == "inductor" else 0.0)
    assert not program.report.op_by_op


def test_inner_tensors_are_weights_by_name(tmp_path: Path) -> None:
    program = build(Two(scaled(4, 4), Doubled(R(5, 4))), X)
    assert weight_names(program, tmp_path) == ["first.values", "first.scale", "second.half"]


def test_a_subclass_inside_of_a_subclass(tmp_path: Path) -> None:
    model = Weighted(Doubled(Doubled(R(4, 4))))
    program = check(model, (X,), reference=model)
    assert weight_names(program, tmp_path) == ["weight.half.half"]


def test_what_forward_makes_of_one_may_be_of_the_subclass_too() -> None:
    class Turned(Weighted):
        def forward(self, x: Tensor) -> Tensor:
            turned = self.weight.t()
            return x @ turned + turned.sum()

    model = Turned(Doubled(R(4, 4)))
    check(model, (X,), reference=model)


def test_parts_of_one_are_of_the_subclass_too() -> None:
    class Split(Weighted):
        def forward(self, x: Tensor) -> Tensor:
            first, second = self.weight.split(2)
            return x[:, :2] @ first + x[:, 2:] @ second

    model = Split(Doubled(R(4, 4)))
    check(model, (X,), reference=model)


class Stepped(Doubled):
    """A subclass whose code makes a tensor of numbers."""

    def whole(self) -> Tensor:
        return self.half * torch.tensor([2.0, 0.1, -1.0, 3.0])


class Asking(Doubled):
    """A subclass whose code asks for the contents of its inner tensor."""

    def whole(self) -> Tensor:
        return self.half * 2 if self.half.sum() > 0 else self.half


def test_numbers_that_a_subclass_makes_a_tensor_of_are_in_the_program(tmp_path: Path) -> None:
    model = Weighted(Stepped(R(4, 4)))
    program = check(model, (X,), reference=model)
    assert weight_names(program, tmp_path) == ["weight.half"]


def test_a_subclass_that_asks_for_contents_is_refused() -> None:
    with pytest.raises(CaptureError, match="depends on the contents of a tensor"):
        build(Weighted(Asking(R(4, 4))), X)


def test_autocast_applies_to_what_a_subclass_calls() -> None:
    class Low(Two):
        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return super().forward(x)

    model = Low(scaled(4, 4), scaled(4, 4))
    program = check(model, (X,), reference=model)
    assert program(X).dtype is torch.bfloat16


def test_a_subclass_that_is_read_by_its_inner_tensors_as_well(tmp_path: Path) -> None:
    class Both(Weighted):
        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight + self.weight.half

    model = Both(Doubled(R(4, 4)))
    program = check(model, (R(4, 4),), reference=model)
    assert weight_names(program, tmp_path) == ["weight.half"]


def test_repeated_blocks_are_traced_once_unless_their_contexts_differ() -> None:
    class Block(nn.Module):
        def __init__(self, share: float) -> None:
            super().__init__()
            self.inner = Two(scaled(4, 4, share), scaled(4, 4))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.inner(x)

    model = nn.Sequential(Block(1.0), Block(1.0), Block(0.5), Block(1.0))
    program = check(model, (X,), reference=model)
    assert_same(program(X), model(X))


# --- what is kept of them ------------------------------------------------------------------------


def test_a_saved_program_runs_with_the_model_and_with_a_state_dict(tmp_path: Path) -> None:
    model = Two(scaled(4, 4), scaled(5, 4))
    file = tmp_path / "model.hot"
    build(model, X).save(file)
    other = Two(scaled(4, 4), scaled(5, 4))
    for program in (
        hotstart.load(file, other),
        hotstart.load(file, weights=other.state_dict()),
    ):
        assert_same(program(X), other(X))


def test_a_saved_program_runs_with_inner_tensors_in_safetensors(tmp_path: Path) -> None:
    model = Two(scaled(4, 4), scaled(5, 4))
    build(model, X).save(tmp_path / "model.hot")
    plain = {
        f"{name}.{inner}": getattr(tensor, inner)
        for name, tensor in model.state_dict().items()
        for inner in ("values", "scale")
    }
    (tmp_path / "model.safetensors").write_bytes(file_of(plain))
    program = hotstart.load(tmp_path / "model.hot", weights=tmp_path / "model.safetensors")
    assert_same(program(X), model(X))


def test_a_state_dict_with_another_context_does_not_fit(tmp_path: Path) -> None:
    build(Two(scaled(4, 4), scaled(5, 4)), X).save(tmp_path / "model.hot")
    other = Two(scaled(4, 4), scaled(5, 4, share=0.5))
    with pytest.raises(ModelMismatch, match=r"second:.*share.*expected 1\.0, found 0\.5"):
        hotstart.load(tmp_path / "model.hot", weights=other.state_dict())


def test_a_state_dict_of_the_plain_model_does_not_fit(tmp_path: Path) -> None:
    build(Two(scaled(4, 4), R(5, 4)), X).save(tmp_path / "model.hot")
    with pytest.raises(ModelMismatch, match=r"first\.values: expected torch\.int8.*near: first"):
        hotstart.load(tmp_path / "model.hot", weights=Two(R(4, 4), R(5, 4)).state_dict())


def test_prepared_weights_have_inner_tensors(tmp_path: Path) -> None:
    model = Two(scaled(4, 4), scaled(5, 4))
    program = build(model, X)
    program.save(tmp_path / "model.hot")
    program.save_weights(tmp_path / "model.weights")
    program = hotstart.load(tmp_path / "model.hot", weights=tmp_path / "model.weights")
    assert_same(program(X), model(X))


def test_one_that_checkpoints_leave_out_is_saved_with_the_program(tmp_path: Path) -> None:
    model = Weighted(R(4, 4))
    model.register_buffer("weight", scaled(4, 4), persistent=False)
    build(model, X).save(tmp_path / "model.hot")
    program = hotstart.load(tmp_path / "model.hot", weights={})
    assert_same(program(X), model(X))


def test_a_model_on_meta_is_compiled_and_gets_its_weights_later(tmp_path: Path) -> None:
    def model(device: str) -> nn.Module:
        values = torch.ones(4, 4, dtype=torch.int8, device=device)
        return Weighted(Scaled(values, torch.rand(4, 1, device=device)))

    hotstart.compile(
        model("meta"), (X,), options=hotstart.Options(compiler="op_by_op", device="cpu")
    ).save(tmp_path / "model.hot")
    real = model("cpu")
    assert_same(hotstart.load(tmp_path / "model.hot", real)(X), real(X))


def test_tied_weights_of_a_subclass_stay_tied(tmp_path: Path) -> None:
    shared = nn.Parameter(scaled(4, 4), requires_grad=False)
    model = Two(R(4, 4), R(4, 4))
    model.first = model.second = shared
    program = check(model, (X,), reference=model)
    (values, _) = requirements(program, tmp_path).weights
    assert (values.name, values.ties) == ("first.values", ("second.values",))
    model.second = nn.Parameter(scaled(4, 4), requires_grad=False)
    with pytest.raises(ModelMismatch, match=r"second: expected the same tensor as first"):
        program(X)


def test_inner_tensors_that_two_weights_share_are_one(tmp_path: Path) -> None:
    scale = torch.rand(4, 1)
    one, two = (Scaled(scaled(4, 4).values, scale) for _ in range(2))
    model = Two(R(4, 4), R(4, 4))
    model.register_parameter("first", None)
    model.register_parameter("second", None)
    del model.first, model.second
    model.first, model.second = one, two  # plain attributes, as they are
    program = check(model, (X,), reference=model)
    found = {spec.name: spec.ties for spec in requirements(program, tmp_path).weights}
    assert found == {"first.values": (), "first.scale": ("second.scale",), "second.values": ()}
    two.scale = scale.clone()
    with pytest.raises(ModelMismatch, match=r"second\.scale: expected the same tensor as"):
        program(X)


# --- what changes after the build ----------------------------------------------------------------


def test_contents_of_inner_tensors_may_change() -> None:
    model = Two(scaled(4, 4), scaled(5, 4))
    program = build(model, X)
    model.first.scale.mul_(3)
    assert_same(program(X), model(X))
    model.first.values = torch.ones_like(model.first.values)
    assert_same(program(X), model(X))
    model.first = nn.Parameter(scaled(4, 4), requires_grad=False)
    assert_same(program(X), model(X))


@pytest.mark.parametrize(
    ("weight", "named"),
    [
        (R(4, 4), r"first: expected a .*Scaled.*found torch"),
        (Doubled(R(4, 4)), r"first: expected a .*Scaled.*found a .*Doubled"),
        (scaled(4, 4, share=2.0), r"first: context\['share'\]: expected 1\.0, found 2\.0"),
        (scaled(4, 4, share=1), r"first: context\['share'\]: expected 1\.0, found 1"),
        (Scaled(torch.ones(4, 4), torch.rand(4, 1)), r"first\.values: expected .*int8"),
        (Scaled(scaled(4, 4).values, torch.rand(4, 4)), r"first\.scale: expected .*\[4, 1\]"),
    ],
)
def test_another_weight_in_its_place_is_a_mismatch(weight: Tensor, named: str) -> None:
    model = Two(scaled(4, 4), scaled(5, 4))
    program = build(model, X)
    model.first = nn.Parameter(weight, requires_grad=False)
    with pytest.raises(ModelMismatch, match=named):
        program(X)


def test_a_plain_weight_that_becomes_one_of_a_subclass_is_a_mismatch() -> None:
    model = Two(R(4, 4), R(5, 4))
    program = build(model, X)
    model.first = nn.Parameter(scaled(4, 4), requires_grad=False)
    with pytest.raises(ModelMismatch, match=r"first: expected .*float32.*found .*Scaled"):
        program(X)


def test_an_attribute_that_is_in_the_context_is_watched() -> None:
    model = Two(scaled(4, 4), scaled(5, 4))
    program = build(model, X)
    program(X)
    model.second.share = 0.25
    with pytest.raises(ModelMismatch, match=r"second: context\['share'\]: expected 1\.0"):
        program(X)
    model.second.share = 1.0
    assert_same(program(X), model(X))


def test_what_a_subclass_calls_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Two(scaled(4, 4), scaled(5, 4))
    program = build(model, X)
    monkeypatch.setattr(Scaled, "whole", lambda self: self.values * self.scale * 0)
    with pytest.raises(ModelMismatch, match=r"Scaled\.whole"):
        program(X)


def test_a_cached_program_is_found_for_the_same_context_only(tmp_path: Path) -> None:
    store = hotstart.Store(tmp_path, check=False)
    options = hotstart.Options(compiler="op_by_op")
    found = []
    for share in (1.0, 0.5, 1.0, 0.5):
        model = Two(scaled(4, 4), scaled(5, 4, share))
        program = hotstart.compile(model, (X,), options=options, cache=store)
        assert_same(program(X), model(X))
        found.append(origin(program))
    assert found == ["compiled", "compiled", "loaded", "loaded"]


# --- writes --------------------------------------------------------------------------------------


@both
def test_forward_may_write_to_inner_tensors(compiler: str) -> None:
    class Counting(Weighted):
        def forward(self, x: Tensor) -> Tensor:
            self.weight.add_(2.0)
            return x @ self.weight

    model, reference = (Counting(Doubled(torch.ones(4, 4))) for _ in range(2))
    program = build(model, X, compiler=compiler)
    for _ in range(3):
        assert_same(program(X), reference(X), 1e-5)
    assert_same(model.weight.half, reference.weight.half)


# --- refused -------------------------------------------------------------------------------------


class Replacing(Weighted):
    def forward(self, x: Tensor) -> Tensor:
        self.weight.neg_()
        return x @ self.weight


class Returning(Weighted):
    def forward(self, x: Tensor) -> Tensor:
        return self.weight.t(), x + 1


class Choosing(Weighted):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda x: x @ self.weight, lambda x: x - 1, (x,))


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (Replacing, "replaces its half"),
        (Returning, "the model returns one"),
        (Choosing, "tensor subclass|cond"),
    ],
)
def test_what_inner_tensors_cannot_stand_for_is_refused(model: Any, named: str) -> None:
    with pytest.raises(CaptureError, match=named):
        build(model(Doubled(R(4, 4))), R(4, 4))


class Noted(Doubled):
    """A subclass with a tensor in its context."""

    def __tensor_flatten__(self) -> Any:
        return ["half"], {"note": torch.ones(1)}


def test_a_context_that_holds_a_tensor_is_refused() -> None:
    with pytest.raises(CaptureError, match=r"weight: got a .*Noted.*a tensor is in it"):
        build(Weighted(Noted(R(4, 4))), X)


def test_an_inner_tensor_of_another_layout_is_refused() -> None:
    with pytest.raises(CaptureError, match=r"(?s)does not support sparse Tensors.*\.to_dense"):
        build(Weighted(Doubled(R(4, 4).to_sparse())), X)


def test_one_that_no_module_keeps_is_refused() -> None:
    kept = Doubled(R(4, 4))
    with pytest.raises(CaptureError, match=r"kept: got a .*Doubled"):
        build(lambda x: x @ kept, X)


# --- the model afterwards ------------------------------------------------------------------------


def test_a_model_that_was_compiled_can_be_converted() -> None:
    model = Weighted(Doubled(R(4, 4)))
    program = build(model, X)
    assert_same(program(X), model(X))
    model.double()  # torch swaps the weight, and refuses where there is a weak reference to it
    assert model.weight.dtype is torch.float64
    with pytest.raises(ModelMismatch, match=r"expected .*Doubled, found torch\.Tensor"):
        program(X)


def test_a_model_that_was_refused_can_be_converted() -> None:
    class Breaks(Weighted):
        def forward(self, x: Tensor) -> Tensor:
            torch._dynamo.graph_break()
            return x @ self.weight

    model = Breaks(Doubled(R(4, 4)))
    with pytest.raises(CaptureError, match="graph_break"):
        build(model, X)
    assert model.double().weight.dtype is torch.float64
