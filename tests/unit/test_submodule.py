"""Programs in the place of methods: compile_submodule, install, restore."""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim
from tests.capturing import EAGER

BATCH = {"x": {0: Dim("batch", max=8)}}


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        for layer in self.layers:
            x = layer(x).relu()
        return x * scale


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x))


def frozen(module: nn.Module) -> Any:
    return module.eval().requires_grad_(False)


def in_place(options: hotstart.Options = EAGER) -> tuple[Any, hotstart.Program]:
    """A model whose encoder is compiled for a batch of up to 8."""
    model = frozen(Model())
    example = (torch.zeros(2, 4),)
    return model, hotstart.compile_submodule(
        model, "encoder", example, dynamic_shapes=BATCH, options=options
    )


# --- compile_submodule ----------------------------------------------------------------------------


def test_the_model_runs_the_program() -> None:
    model, program = in_place()
    for batch in (1, 5):
        x = torch.randn(batch, 4)
        assert torch.equal(model(x), model.head(Encoder.forward(model.encoder, x)))
    model(torch.randn(4, 5).t())
    assert program.relayouts == {"x": 1}
    assert model.encoder.forward.program is program


def test_everything_else_about_the_module_stays() -> None:
    model, _ = in_place()
    plain = Model()
    assert list(model.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in model.named_modules()] == [n for n, _ in plain.named_modules()]
    assert inspect.signature(model.encoder.forward) == inspect.signature(plain.encoder.forward)
    seen: list[str] = []
    model.encoder.register_forward_pre_hook(lambda *_: seen.append("before"))
    model.encoder.register_forward_hook(lambda *_: seen.append("after"))
    x = torch.randn(3, 4)
    expected = model.head(Encoder.forward(model.encoder, x))
    assert torch.equal(model(x), expected)
    assert seen == ["before", "after"]
    weights = frozen(Model()).state_dict()
    model.load_state_dict(weights, assign=True)
    plain.load_state_dict(weights)
    assert torch.equal(model(x), frozen(plain)(x))


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "file"]
)
def test_a_copy_runs_its_own_weights(copied: Callable[[Any], Any]) -> None:
    model, _ = in_place()
    twin = copied(model)
    with torch.no_grad():
        twin.encoder.layers[0].weight.zero_()
    x = torch.randn(3, 4)
    plain = frozen(Model())
    plain.load_state_dict(twin.state_dict())
    assert torch.equal(twin(x), plain(x))
    again = hotstart.compile_submodule(twin, "encoder", (x,), options=EAGER)
    assert torch.equal(twin(x), plain(x))
    assert again.model.__self__ is twin.encoder


def test_a_larger_model_is_traced_as_if_nothing_was_replaced() -> None:
    model, _ = in_place()
    plain = copy.deepcopy(model)
    hotstart.restore(plain.encoder)
    x = torch.randn(3, 4)
    whole = hotstart.compile(model, (x,), options=EAGER)
    expected = hotstart.compile(plain, (x,), options=EAGER)
    assert torch.equal(whole(x), plain(x))
    assert [p.digest for p in whole.pieces] == [p.digest for p in expected.pieces]
    stock = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.equal(stock(x), plain(x))
    torch.compiler.reset()


def test_the_module_alone_can_be_compiled_again() -> None:
    model, _ = in_place()
    x = torch.randn(3, 4)
    expected = model.encoder(x)
    assert torch.equal(hotstart.compile(model.encoder, (x,), options=EAGER)(x), expected)
    program = hotstart.compile_submodule(model, "encoder", (x,), options=EAGER)
    assert model.encoder.forward.program is program
    assert torch.equal(model.encoder(x), expected)


def test_restore() -> None:
    model, _ = in_place()
    hotstart.restore(model.encoder)
    assert "forward" not in vars(model.encoder)
    assert model(torch.randn(9, 4)).shape == (9, 2)
    hotstart.restore(model)  # nothing in its place


def test_a_saved_program_is_put_in_place(tmp_path: Path) -> None:
    model, program = in_place()
    program.save(tmp_path / "encoder.hot", check=False)
    other = frozen(Model())
    x = torch.randn(3, 4)
    expected = other(x)
    loaded = hotstart.load(tmp_path / "encoder.hot", other.encoder, on_miss="eager")
    hotstart.install(loaded)
    assert other.encoder.forward.program is loaded
    assert torch.equal(other(x), expected)
    assert other(torch.randn(9, 4)).shape == (9, 2)  # falls back to forward, not to itself
    assert model is not other


def scaled(by: float) -> Callable[[Any], Any]:
    """A decorator, whose variables a trace reads."""

    def decorate(forward: Any) -> Any:
        @functools.wraps(forward)
        def inner(self: Any, x: Tensor) -> Tensor:
            return forward(self, x) * by

        return inner

    return decorate


class Decorated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(3))

    @scaled(2.0)
    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


def test_a_saved_program_of_a_decorated_forward_is_put_in_place(tmp_path: Path) -> None:
    model = frozen(nn.Sequential(Decorated()))
    x = torch.randn(3)
    program = hotstart.compile_submodule(model, "0", (x,), options=EAGER)
    program.save(tmp_path / "decorated.hot", check=False)
    other = frozen(Decorated())
    expected = other(x)
    for target in (other, other.forward):
        hotstart.install(hotstart.load(tmp_path / "decorated.hot", target))
        assert torch.equal(other(x), expected)
        hotstart.restore(other)


def test_weights_of_a_decorated_forward_are_the_models_own() -> None:
    model = frozen(nn.Sequential(Decorated()))
    program = hotstart.compile_submodule(model, "0", (torch.zeros(3),), options=EAGER)
    assert [weight.name for weight in program.artifact.requirements.weights] == ["bias"]
    assert not program.artifact.captured
    model.load_state_dict(frozen(nn.Sequential(Decorated())).state_dict())
    assert torch.equal(model(torch.zeros(3)), model[0].bias * 2)


def test_the_program_falls_back_to_forward_and_not_to_itself() -> None:
    model, _ = in_place(hotstart.Options(compiler="op_by_op", on_miss="eager"))
    assert model(torch.randn(9, 4)).shape == (9, 2)


def test_a_call_that_does_not_fit_is_refused() -> None:
    model, _ = in_place()
    with pytest.raises(hotstart.ContractError, match="batch"):
        model(torch.randn(9, 4))


def test_a_call_that_needs_autograd_is_refused() -> None:
    model, _ = in_place()
    x = torch.randn(3, 4)
    with pytest.raises(hotstart.ContractError, match="autograd"):
        model(x.clone().requires_grad_())
    model.requires_grad_(True)
    with pytest.raises(hotstart.ContractError, match="autograd"):
        model(x)
    with torch.no_grad():
        assert not model(x).requires_grad


def test_no_such_module() -> None:
    with pytest.raises(hotstart.OptionsError, match="encoder, head"):
        hotstart.compile_submodule(Model(), "decoder", (torch.zeros(2, 4),))


def test_a_forward_that_something_else_replaced_is_refused() -> None:
    model = frozen(Model())
    model.encoder.forward = lambda x: x
    with pytest.raises(hotstart.OptionsError, match="what the class defines"):
        hotstart.compile_submodule(model, "encoder", (torch.zeros(2, 4),), options=EAGER)


def test_nothing_is_replaced_if_nothing_was_compiled() -> None:
    model = frozen(Model())
    with pytest.raises(hotstart.CaptureError):
        hotstart.compile_submodule(model, "encoder", (torch.zeros(2, 4), 1, 2), options=EAGER)
    assert "forward" not in vars(model.encoder)


def test_a_program_of_a_whole_module_is_not_put_in_place() -> None:
    encoder = frozen(Encoder())
    with pytest.raises(hotstart.OptionsError, match=r"module\.forward"):
        hotstart.install(hotstart.compile(encoder, (torch.zeros(2, 4),), options=EAGER))
    hotstart.install(hotstart.compile(encoder.forward, (torch.zeros(2, 4),), options=EAGER))
    assert encoder.forward.program.model.__self__ is encoder
