"""What was read while tracing must hold in every call, or the call says what changed."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import ModelMismatch, Program
from hotstart.guards import compare as guards
from tests.integration import gain
from tests.integration.gain import CHANGES, EAGER, NOT_SEEN_IN_EAGER, STEPS, Config, Gain, Patch, X


@pytest.fixture(autouse=True)
def steps_as_they_were() -> Iterator[None]:
    yield
    STEPS[:] = [2.0, 3.0]


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(Gain()).eval()


def right(program: Program, model: nn.Module) -> bool:
    """Whether a program gives what its model gives. It has to."""
    with torch.no_grad():
        return torch.equal(program(X), model(X))


@pytest.mark.parametrize(("change", "named"), CHANGES.values(), ids=CHANGES)
def test_what_changed_between_two_calls_is_named(
    model: nn.Module,
    change: Callable[[Any, Patch], None],
    named: str,
    monkeypatch: Patch,
    request: pytest.FixtureRequest,
) -> None:
    program = hotstart.compile(model, (X,), options=EAGER)
    assert right(program, model)
    before = model(X)
    change(model[0], monkeypatch)
    if not any(name in request.node.name for name in NOT_SEEN_IN_EAGER):
        assert not torch.equal(model(X) if not raises(model) else before * 0, before)
    for _ in range(2):
        with pytest.raises(ModelMismatch, match=f"(?m){named}"):
            program(X)


def raises(model: nn.Module) -> bool:
    try:
        model(X)
    except (AttributeError, LookupError, TypeError):
        return True
    return False


def put_back(program: Program, model: nn.Module) -> None:
    """Change something twice, each time back again."""
    gain = model[0] if isinstance(model, nn.Sequential) else model
    for _ in range(2):
        gain.gain = 5.0
        with pytest.raises(ModelMismatch, match="gain"):
            program(X)
        gain.gain = 2.0
        assert right(program, model)


def test_what_is_put_back_is_right_again(model: nn.Module) -> None:
    put_back(hotstart.compile(model, (X,), options=EAGER), model)


def test_a_loaded_program_notices_as_well(model: nn.Module, tmp_path: Path) -> None:
    hotstart.compile(model, (X,), options=EAGER).save(tmp_path / "m.hot", check=False)
    put_back(hotstart.load(tmp_path / "m.hot", model), model)


def test_a_compiled_submodule_notices_as_well(model: nn.Module) -> None:
    plain = nn.Sequential(Gain()).eval()
    hotstart.compile_submodule(model, "0", (X,), options=EAGER)
    assert torch.equal(model(X), plain(X))
    model[0].config.scale = 5.0
    with pytest.raises(ModelMismatch, match=r"config\.scale"):
        model(X)
    model[0].config.scale = 2.0
    assert torch.equal(model(X), plain(X))


def test_hooks_around_a_compiled_submodule_run_around_it(model: nn.Module) -> None:
    plain = model(X)
    hotstart.compile_submodule(model, "0", (X,), options=EAGER)
    model(X)
    handle = model[0].register_forward_hook(lambda module, args, result: result * 2)
    assert torch.equal(model(X), plain * 2)
    handle.remove()
    assert torch.equal(model(X), plain)


def test_variables_of_outer_functions_are_looked_at() -> None:
    by, many = 2.0, [3.0]
    settings = types.SimpleNamespace(eps=4.0)

    def f(x: Tensor) -> Tensor:
        return x * by * many[0] + settings.eps

    program = hotstart.compile(f, (X,), options=EAGER)
    assert torch.equal(program(X), f(X))
    by = 5.0
    with pytest.raises(ModelMismatch, match=r"by.*: expected 2\.0, found 5\.0"):
        program(X)
    by, many[0] = 2.0, 5.0
    with pytest.raises(ModelMismatch, match="many"):
        program(X)
    many[0], settings.eps = 3.0, 5.0
    with pytest.raises(ModelMismatch, match="eps"):
        program(X)
    settings.eps = 4.0
    assert torch.equal(program(X), f(X))


def test_the_object_of_a_method_is_looked_at() -> None:
    class Scaled:
        def __init__(self) -> None:
            self.scale = 2.0
            self.more = {"a": 1.0}

        def run(self, x: Tensor) -> Tensor:
            return x * self.scale + self.more["a"]

    owner = Scaled()
    program = hotstart.compile(owner.run, (X,), options=EAGER)
    assert torch.equal(program(X), owner.run(X))
    owner.more["a"] = 5.0
    with pytest.raises(ModelMismatch, match="more"):
        program(X)
    owner.more["a"], owner.scale = 1.0, 5.0
    with pytest.raises(ModelMismatch, match=r"scale: expected 2\.0, found 5\.0"):
        program(X)


# --- what changes all the time ------------------------------------------------------------------


@pytest.fixture
def looks(monkeypatch: Patch) -> list[int]:
    """One entry for each time that all guards were compared."""
    found: list[int] = []
    compare = guards.misfits

    def counting(*args: Any) -> list[str]:
        found.append(1)
        return compare(*args)

    monkeypatch.setattr(guards, "misfits", counting)
    return found


def test_other_attributes_and_globals_may_change_in_every_call(
    model: nn.Module, looks: list[int], monkeypatch: Patch
) -> None:
    program = hotstart.compile(model, (X,), options=EAGER)
    assert right(program, model)
    looks.clear()
    for number in range(6):
        model.calls = number
        model[0].last = object()
        model[0].config.calls = number
        Config.calls = number
        model.eval()
        monkeypatch.setattr(gain, "COUNT", number)
        assert right(program, model)
    assert len(looks) <= guards.RESTLESS
    looks.clear()
    put_back(program, model)
    Config.factor = 5.0
    with pytest.raises(ModelMismatch, match="factor"):
        program(X)
    Config.factor = 2.0
    model[0].forward = lambda x: x
    with pytest.raises(ModelMismatch, match="methods of 0"):
        program(X)
    del Config.calls


class OfItsClass(nn.Module):
    factor = 2.0

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def test_an_attribute_of_a_class_that_changes_all_the_time_is_looked_at() -> None:
    model = OfItsClass()
    program = hotstart.compile(model, (X,), options=EAGER)
    for number in range(6):
        OfItsClass.calls = number  # type: ignore[attr-defined]
        assert right(program, model)
    OfItsClass.factor = 5.0
    with pytest.raises(ModelMismatch, match="factor"):
        program(X)
    OfItsClass.factor = 2.0
    assert right(program, model)


def test_a_variable_that_a_function_lost_is_named() -> None:
    def scaling(factor: float) -> Callable[[Tensor], Tensor]:
        return lambda x: x * factor

    model = OfItsClass()
    model.scale = scaling(2.0)  # type: ignore[assignment]
    model.forward = lambda x: model.scale(x)  # type: ignore[method-assign]
    program = hotstart.compile(model, (X,), options=EAGER)
    assert right(program, model)
    (cell,) = model.scale.__closure__  # type: ignore[attr-defined]
    del cell.cell_contents
    with pytest.raises(ModelMismatch, match=r"expected 2\.0, found"):
        program(X)


def test_a_variable_without_a_value_may_stay_so(looks: list[int]) -> None:
    def scaling(factor: float, has_more: bool) -> Callable[[Tensor], Tensor]:
        if has_more:
            more = 2.0
        return lambda x: x * factor + more if has_more else x * factor

    model = OfItsClass()
    model.scale = scaling(2.0, False)  # type: ignore[assignment]
    model.forward = lambda x: model.scale(x)  # type: ignore[method-assign]
    program = hotstart.compile(model, (X,), options=EAGER)
    assert right(program, model)
    looks.clear()
    for _ in range(3):
        assert right(program, model)
    assert looks == []
    cells = dict(zip(model.scale.__code__.co_freevars, model.scale.__closure__, strict=True))  # type: ignore[attr-defined]
    cells["factor"].cell_contents = 5.0
    with pytest.raises(ModelMismatch, match=r"expected 2\.0, found 5\.0"):
        program(X)


class Keeps(nn.Module):
    """Replaces an attribute and a buffer in every call."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = torch.zeros(3)
        self.register_buffer("kept", torch.zeros(3))
        self.gain = 2.0

    def forward(self, x: Tensor) -> Tensor:
        self.plain = self.plain + x
        self.kept = self.kept + x
        return (self.plain + self.kept) * self.gain


def test_what_a_program_sets_itself_is_no_reason_to_look(looks: list[int]) -> None:
    model, plain = Keeps(), Keeps()
    program = hotstart.compile(model, (X,), options=EAGER)
    for _ in range(6):
        assert torch.equal(program(X), plain(X))
    assert len(looks) <= 1 + guards.RESTLESS
    model.gain = 5.0
    with pytest.raises(ModelMismatch, match="gain"):
        program(X)


@pytest.mark.thorough
def test_refresh_finds_what_calls_do_not_look_at() -> None:
    class Within:
        @property
        def scale(self) -> float:
            return 2.0

    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.many = [types.SimpleNamespace(by=float(n)) for n in range(500)]

        def forward(self, x: Tensor) -> Tensor:
            return x * sum(one.by for one in self.many)

    model = Reads()
    program = hotstart.compile(model, (X,), options=EAGER)
    program(X)
    program.refresh()
    model.many[499].by = 1.0
    with pytest.raises(ModelMismatch, match="many"):
        program.refresh()
    with pytest.raises(ModelMismatch, match="many"):
        program(X)
    model.many[499].by = 499.0
    program(X)


def test_a_tensor_that_no_module_keeps_may_change_what_it_holds(tmp_path: Path) -> None:
    class Holds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tables = [torch.ones(3)]
            self.gain = 2.0

        def forward(self, x: Tensor) -> Tensor:
            return x * self.tables[0] * self.gain

    model = Holds()
    program = hotstart.compile(model, (X,), options=EAGER)
    assert right(program, model)
    program.save(tmp_path / "m.hot", check=False)
    loaded = hotstart.load(tmp_path / "m.hot", model)
    model.tables[0].mul_(3)
    program.refresh()
    assert right(program, model)
    with pytest.raises(ModelMismatch, match="tables"):  # which has a table of its own, of the file
        loaded(X)
    model.tables[0] = torch.ones(3)
    assert right(loaded, model)
    model.tables[0] = torch.zeros(3)
    with pytest.raises(ModelMismatch, match="tables"):
        program(X)
