"""What was read while tracing must hold in every call, or the call says what changed."""

from __future__ import annotations

import operator
import os
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import ModelMismatch, Options, Program
from hotstart.guards import check as guards

EAGER = Options(compiler="op_by_op")
X = torch.arange(1.0, 4.0)
Patch = pytest.MonkeyPatch

FACTOR = 2.0
TABLE = {"a": 2.0}
STEPS = [2.0, 3.0]
CHOICE = {"x"}
WEIGHT = torch.ones(3)


def helper(x: Tensor, by: float = 2.0) -> Tensor:
    return x * by


class Config:
    factor = 2.0

    def __init__(self) -> None:
        self.scale = 2.0
        self.inner = types.SimpleNamespace(eps=2.0)


class Slots:
    __slots__ = ("scale",)

    def __init__(self) -> None:
        self.scale = 2.0


class Gain(nn.Module):
    """Reads one thing of every kind."""

    shared = 2.0

    def __init__(self) -> None:
        super().__init__()
        self.gain = 2.0
        self.config = Config()
        self.slots = Slots()
        self.scaling = {"default": 2.0}
        self.active = ["default"]
        self.merged = False
        self.tags = {"a"}
        self.nested = {"outer": {"inner": [2.0]}}
        self.drop = nn.Dropout(0.5)
        self.act: Callable[[Tensor], Tensor] = torch.sin

    def once(self, x: Tensor) -> Tensor:
        return x * self.gain

    def forward(self, x: Tensor, by: float = 1.0) -> Tensor:
        x = self.drop(self.act(self.once(x))) * self.config.scale * self.config.inner.eps
        x = x * self.config.factor * self.shared * self.slots.scale * by
        for name in self.active:
            x = x * self.scaling[name]
        if not self.merged:
            x = x + self.nested["outer"]["inner"][0]
        if "a" in self.tags:
            x = x + 1
        if hasattr(self, "extra"):
            x = x + 5
        x = x * FACTOR * TABLE["a"] * STEPS[1] + WEIGHT
        if "x" in CHOICE:
            x = x + 7
        if os.environ.get("HOTSTART_TEST_GAIN"):
            x = x + 9
        return helper(x)


CHANGES: dict[str, tuple[Callable[[Gain, Patch], None], str]] = {
    "an attribute": (lambda m, p: p.setattr(m, "gain", 5.0), r"0\.gain: expected 2\.0, found 5\.0"),
    "an attribute of another type": (
        lambda m, p: p.setattr(m, "gain", 2),
        r"0\.gain: expected 2\.0, found 2$",
    ),
    "a value of a config": (lambda m, p: p.setattr(m.config, "scale", 5.0), r"0\.config\.scale"),
    "another config": (
        lambda m, p: p.setattr(
            m, "config", types.SimpleNamespace(**{**vars(m.config)}, factor=1.0)
        ),
        r"0\.config",
    ),
    "a value further in": (
        lambda m, p: p.setattr(m.config.inner, "eps", 5.0),
        r"0\.config\.inner\.eps",
    ),
    "an attribute of a config's class": (
        lambda m, p: p.setattr(Config, "factor", 5.0),
        r"config.*factor",
    ),
    "an attribute of the module's class": (lambda m, p: p.setattr(Gain, "shared", 5.0), "shared"),
    "an object's own in place of its class'": (
        lambda m, p: p.setattr(m, "shared", 5.0, raising=False),
        "shared",
    ),
    "an object with slots": (lambda m, p: p.setattr(m.slots, "scale", 5.0), r"0\.slots"),
    "an entry of a dict": (lambda m, p: p.setitem(m.scaling, "default", 5.0), "scaling"),
    "an item of a list": (lambda m, p: operator.setitem(m.active, 0, "other"), "active"),
    "one more item": (lambda m, p: p.setattr(m, "active", ["default"] * 2), "active"),
    "an item appended": (lambda m, p: m.active.append("default"), "active"),
    "a flag": (lambda m, p: p.setattr(m, "merged", True), r"0\.merged: expected False, found True"),
    "a set": (lambda m, p: m.tags.clear(), "tags"),
    "an item of a nested list": (
        lambda m, p: operator.setitem(m.nested["outer"]["inner"], 0, 5.0),
        "nested",
    ),
    "an entry of a nested dict": (
        lambda m, p: p.setitem(m.nested, "outer", {"inner": [5.0]}),
        "nested",
    ),
    "an attribute that was not there": (
        lambda m, p: p.setattr(m, "extra", 1, raising=False),
        "extra",
    ),
    "a function that a module holds": (lambda m, p: p.setattr(m, "act", torch.cos), r"0\.act"),
    "a method of the object": (
        lambda m, p: p.setattr(m, "once", lambda x: x * 5, raising=False),
        "methods of 0",
    ),
    "a method of the class": (
        lambda m, p: p.setattr(Gain, "once", lambda self, x: x * 5),
        r"type\(0\)\.once",
    ),
    "forward of a class of torch's": (
        lambda m, p: p.setattr(nn.Dropout, "forward", lambda self, x: x * 5),
        r"type\(0\.drop\)\.forward: expected nothing",
    ),
    "a default of a method": (
        lambda m, p: p.setattr(Gain.forward, "__defaults__", (5.0,)),
        r"type\(0\)\.forward",
    ),
    "another module": (lambda m, p: setattr(m, "drop", nn.ReLU6().eval()), r"0\.drop"),
    "forward of the object": (
        lambda m, p: p.setattr(m, "forward", lambda x: x * 5, raising=False),
        "methods of 0",
    ),
    "forward of a submodule": (
        lambda m, p: p.setattr(m.drop, "forward", lambda x: x * 5, raising=False),
        r"methods of 0\.drop",
    ),
    "a hook": (
        lambda m, p: m.drop.register_forward_hook(lambda *a: a[-1] * 5) and None,
        r"methods of 0\.drop",
    ),
    "a hook before": (
        lambda m, p: m.register_forward_pre_hook(lambda m, args: (args[0] * 5,)) and None,
        "methods of 0",
    ),
    "another class": (lambda m, p: setattr(m.drop, "__class__", nn.Identity), r"0\.drop"),
    "a setting of a module of torch's": (lambda m, p: p.setattr(m.drop, "p", 0.7), r"drop\.p"),
    "a global": (lambda m, p: p.setitem(globals(), "FACTOR", 5.0), "FACTOR: expected 2.0"),
    "an entry of a global dict": (lambda m, p: p.setitem(TABLE, "a", 5.0), "TABLE"),
    "an item of a global list": (lambda m, p: operator.setitem(STEPS, 1, 5.0), "STEPS"),
    "a global set": (lambda m, p: p.setitem(globals(), "CHOICE", {"y"}), "CHOICE"),
    "a global tensor": (lambda m, p: p.setitem(globals(), "WEIGHT", torch.zeros(3)), "WEIGHT"),
    "a global function": (
        lambda m, p: p.setitem(globals(), "helper", lambda x, by=5.0: x * by),
        "helper",
    ),
    "defaults of a function": (lambda m, p: p.setattr(helper, "__defaults__", (5.0,)), "helper"),
    "code of a function": (
        lambda m, p: p.setattr(helper, "__code__", (lambda x, by=1: x + by).__code__),
        "helper",
    ),
    "a variable of the environment": (
        lambda m, p: p.setenv("HOTSTART_TEST_GAIN", "1"),
        "environment HOTSTART_TEST_GAIN",
    ),
}

NOT_SEEN_IN_EAGER = {
    "a setting of a module of torch's", "an attribute of another type", "another class",
}  # fmt: skip
"""What torch.compile guards on as well, though it makes no difference to the result here."""


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


COUNT = 0


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
        monkeypatch.setitem(globals(), "COUNT", number)
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
