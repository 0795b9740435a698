"""Programs in the place of methods: compile_submodule, install, restore, compiled."""

from __future__ import annotations

import copy
import inspect
import pickle
import threading
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


def counting(monkeypatch: pytest.MonkeyPatch, home: str) -> list[int]:
    """Counts the calls of `compile` in a module."""
    calls: list[int] = []

    def compile(*args: Any, **kwargs: Any) -> hotstart.Program:
        calls.append(1)
        return hotstart.compile(*args, **kwargs)

    monkeypatch.setattr(f"{home}.compile", compile)
    return calls


@pytest.fixture
def compiles(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that something was compiled."""
    return counting(monkeypatch, "hotstart._inplace")


def runs(program: hotstart.Program, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each call of a program."""
    calls: list[int] = []
    run = program._call

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return run(*args, **kwargs)

    monkeypatch.setattr(program, "_call", counted)
    return calls


# --- compile_submodule ----------------------------------------------------------------------------


def test_the_model_runs_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    model, program = in_place()
    calls = runs(program, monkeypatch)
    for batch in (1, 5):
        x = torch.randn(batch, 4)
        assert torch.equal(model(x), model.head(Encoder.forward(model.encoder, x)))
    assert len(calls) == 2
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


def test_the_program_falls_back_to_forward_and_not_to_itself() -> None:
    model, _ = in_place(hotstart.Options(compiler="eager", on_miss="eager"))
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


# --- compiled -------------------------------------------------------------------------------------


@hotstart.compiled(dynamic_shapes=BATCH, options=EAGER)
class Hot(Encoder):
    """Compiled in the first call of each instance."""


class Plus(Hot):
    """Overrides what is compiled."""

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return super().forward(x, scale) + 1


class Renamed(Hot):
    """Inherits it."""


def test_each_instance_of_a_class_compiles_once(compiles: list[int]) -> None:
    first, second = frozen(Hot()), frozen(Hot())
    for module in (first, second, first):
        for batch in (2, 5):
            x = torch.randn(batch, 4)
            assert torch.equal(module(x), Encoder.forward(module, x))
    assert len(compiles) == 2
    assert first.forward.program is not second.forward.program
    with pytest.raises(hotstart.ContractError, match="batch"):
        first(torch.randn(9, 4))


def test_the_class_is_still_the_class(compiles: list[int]) -> None:
    module = frozen(Hot())
    x = torch.randn(3, 4)
    expected = module(x)
    assert isinstance(module, Hot)
    assert Hot.__doc__ == "Compiled in the first call of each instance."
    assert inspect.signature(Hot.forward) == inspect.signature(Encoder.forward)
    assert torch.equal(Hot.forward.__wrapped__(module, x), expected)  # type: ignore[attr-defined]
    assert len(compiles) == 1
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert isinstance(twin, Hot)
        assert torch.equal(twin(x), expected)
        assert twin.forward.program is not module.forward.program
    assert len(compiles) == 3
    module.load_state_dict(frozen(Hot()).state_dict())
    assert torch.equal(module(x), Encoder.forward(module, x))
    assert torch.equal(module.train()(x), module.eval()(x))


def test_subclasses(compiles: list[int]) -> None:
    x = torch.randn(3, 4)
    plus, renamed = frozen(Plus()), frozen(Renamed())
    assert torch.equal(plus(x), Encoder.forward(plus, x) + 1)
    assert compiles == []
    assert torch.equal(renamed(x), Encoder.forward(renamed, x))
    assert compiles == [1]


def test_a_model_with_such_a_module_is_one_graph() -> None:
    model = nn.Sequential(frozen(Hot()), nn.Linear(4, 2)).requires_grad_(False)
    x = torch.randn(3, 4)
    expected = model(x)  # compiles the inner one
    assert torch.equal(hotstart.compile(model, (x,), options=EAGER)(x), expected)


def test_threads_that_call_first_compile_once(compiles: list[int]) -> None:
    module = frozen(Hot())
    x = torch.randn(3, 4)
    results: list[Tensor] = []
    start = threading.Barrier(4)

    def call() -> None:
        start.wait()
        results.append(module(x))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(torch.equal(result, Encoder.forward(module, x)) for result in results)
    assert len(compiles) == 1


def test_training_is_refused_before_anything_is_compiled(compiles: list[int]) -> None:
    with pytest.raises(hotstart.ContractError, match="autograd"):
        Hot()(torch.randn(3, 4))
    assert compiles == []


def test_a_function(compiles: list[int]) -> None:
    @hotstart.compiled(options=EAGER, dynamic_shapes=BATCH)
    def double(x: Tensor, *, by: int = 2) -> Tensor:
        """Twice."""
        return x * by

    assert double.__name__ == "double"
    assert double.program is None  # type: ignore[attr-defined]
    for batch in (2, 5):
        x = torch.randn(batch, 4)
        assert torch.equal(double(x), x * 2)
    assert len(compiles) == 1
    assert double.program.pieces  # type: ignore[attr-defined]
    with pytest.raises(hotstart.ContractError, match="by"):
        double(torch.randn(2, 4), by=3)


def test_a_function_that_compiles_what_does_not_fit(compiles: list[int]) -> None:
    @hotstart.compiled(options=hotstart.Options(compiler="eager", on_miss="compile"))
    def double(x: Tensor) -> Tensor:
        return x * 2

    for size in (3, 4, 3):
        x = torch.randn(size)
        assert torch.equal(double(x), x * 2)
    assert len(compiles) == 1  # the program itself does the rest


class Engine:
    def __init__(self) -> None:
        self.layer = frozen(nn.Linear(4, 4))

    @hotstart.compiled(options=EAGER)
    def step(self, x: Tensor) -> Tensor:
        return self.layer(x) + 1

    def twice(self, x: Tensor) -> Tensor:
        return self.step(self.step(x))


def test_a_method_of_any_class(compiles: list[int]) -> None:
    engine, other = Engine(), Engine()
    x = torch.randn(3, 4)
    for one in (engine, other, engine):
        assert torch.equal(one.step(x), one.layer(x) + 1)
    assert len(compiles) == 2
    twin = copy.deepcopy(engine)
    with torch.no_grad():
        twin.layer.weight.zero_()
    assert torch.equal(twin.step(x), twin.layer(x) + 1)
    assert torch.equal(Engine.step.__wrapped__(engine, x), engine.step(x))
    program = hotstart.compile(engine.twice, (x,), options=EAGER)
    assert torch.equal(program(x), engine.twice(x))


def test_an_object_without_room_for_a_program() -> None:
    class Small:
        __slots__ = ()

        @hotstart.compiled(options=EAGER)
        def step(self, x: Tensor) -> Tensor:
            return x + 1

    with pytest.raises(hotstart.OptionsError, match="__slots__"):
        Small().step(torch.ones(3))


@pytest.mark.parametrize("target", [3, nn.Module, Engine, torch.sin], ids=type)
def test_what_cannot_be_decorated(target: Any) -> None:
    with pytest.raises(hotstart.OptionsError, match="a subclass of torch"):
        hotstart.compiled(target)


def test_a_setting_that_does_not_exist() -> None:
    with pytest.raises(hotstart.OptionsError, match="dynamic_shapes, jobs"):
        hotstart.compiled(sizes=3)  # type: ignore[call-overload]
