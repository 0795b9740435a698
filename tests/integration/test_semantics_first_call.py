"""Models whose first call sets up what later ones find: hotstart makes that call."""

from __future__ import annotations

import copy
import functools
import gc
import importlib
import logging
import random
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import hotstart
from hotstart import Dim
from hotstart.errors import CaptureError, ModelMismatch
from tests.semantics import assert_same, build, check

pytestmark = pytest.mark.usefixtures("kept_pieces")

R = torch.randn
EAGER = hotstart.Options(compiler="op_by_op")
LOCK = threading.Lock()
TABLES: dict[Any, Tensor] = {}


class FirstCall(nn.Module):
    """Does something in its first call."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class TakesALock(FirstCall):
    scale: float | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.scale is None:
            with LOCK:
                self.scale = 2.0
        return self.inner(x) * self.scale


class RegistersAHook(FirstCall):
    hooked = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.hooked:
            with LOCK:
                self.inner.register_forward_hook(lambda _, __, result: result.relu())
                self.hooked = True
        return self.inner(x)


class InAnAttribute(FirstCall):
    table: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.table is None:
            self.table = torch.arange(x.shape[-1], dtype=x.dtype)
        return self.inner(x) + self.table


class InADict(FirstCall):
    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[int, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        if 4 not in self.tables:
            self.tables[4] = torch.arange(4.0)
        return self.inner(x) + self.tables[4]


class InABuffer(FirstCall):
    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "table"):
            self.register_buffer("table", self.inner.weight.sum(0), persistent=False)
        return self.inner(x) + self.table


class InAGlobal(FirstCall):
    def forward(self, x: Tensor) -> Tensor:
        if "first" not in TABLES:
            TABLES["first"] = torch.arange(4.0)
        return self.inner(x) + TABLES["first"]


class Draws(FirstCall):
    """Keeps a random projection, as Performers do."""

    projection: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.projection is None:
            self.projection = torch.randn(4, 4) * random.random()
        return self.inner(x) @ self.projection


class DependsOnData(TakesALock):
    """Gives as many rows as begin with a positive number."""

    def forward(self, x: Tensor) -> Tensor:
        rows = (x[:, 0] > 0).nonzero()[:, 0]
        return super().forward(x[rows]) * rows.shape[0]


@pytest.fixture(autouse=True)
def _no_tables() -> None:
    TABLES.clear()


SET_UP = [
    *(TakesALock, RegistersAHook, InAnAttribute, InADict, InABuffer, InAGlobal, Draws),
    pytest.param(DependsOnData, marks=pytest.mark.thorough),
]


@pytest.mark.parametrize("cls", SET_UP)
def test_a_model_is_called_once_and_the_log_says_so(
    cls: type[FirstCall], caplog: pytest.LogCaptureFixture
) -> None:
    model = cls()
    weights = copy.deepcopy(model.state_dict())
    x = R(2, 4)
    drawn = torch.get_rng_state(), random.getstate()
    with caplog.at_level(logging.INFO, "hotstart"):
        program = build(model, x)
    assert "the model was called once before it was compiled" in caplog.text
    assert torch.equal(torch.get_rng_state(), drawn[0])
    assert random.getstate() == drawn[1]
    assert all(torch.equal(model.state_dict()[name], value) for name, value in weights.items())
    for _ in range(2):
        x = R(2, 4)
        with torch.no_grad():
            assert torch.equal(program(x), model(x))


@pytest.mark.parametrize("cls", [TakesALock, RegistersAHook, InAnAttribute, InABuffer])
def test_a_load_calls_a_model_that_was_not_called(cls: type[FirstCall], tmp_path: Path) -> None:
    model = cls()
    fresh = copy.deepcopy(model)
    build(model, R(2, 4)).save(tmp_path / "x.hot")
    program = hotstart.load(tmp_path / "x.hot", fresh)
    x = R(2, 4)
    with torch.no_grad():
        assert torch.equal(program(x), model(x))


def test_a_cache_calls_a_model_that_was_not_called(tmp_path: Path) -> None:
    x = R(2, 4)
    model = RegistersAHook()
    fresh = copy.deepcopy(model)
    first = hotstart.compile(model, (x,), options=EAGER, cache=tmp_path)
    second = hotstart.compile(fresh, (x,), options=EAGER, cache=tmp_path)
    assert {unit.action for unit in first.report.units} == {"compiled"}
    assert {unit.action for unit in second.report.units} == {"loaded"}
    assert torch.equal(first(x), second(x))


def test_a_model_that_does_not_fit_is_not_called_for_good(tmp_path: Path) -> None:
    build(TakesALock(), R(2, 4)).save(tmp_path / "x.hot")
    other = TakesALock()
    other.inner = nn.Linear(4, 4, bias=False)
    with pytest.raises(ModelMismatch, match=r"inner\.bias"):
        hotstart.load(tmp_path / "x.hot", other)
    assert other.scale is None


def test_lazy_modules_get_weights_as_in_eager() -> None:
    x = R(2, 3, 4)

    def make() -> nn.Module:
        return nn.Sequential(nn.LazyConv1d(3, 1), nn.LazyLinear(2))

    torch.manual_seed(0)
    reference = make()
    reference(x)
    torch.manual_seed(0)
    model = make()
    program = build(model, x)
    assert torch.equal(program(x), reference(x))
    assert not any(isinstance(p, nn.parameter.UninitializedParameter) for p in model.parameters())


def test_tables_are_as_large_as_the_largest_size() -> None:
    class Grows(FirstCall):
        table = torch.zeros(0)

        def forward(self, x: Tensor) -> Tensor:
            if self.table.shape[0] < x.shape[0]:
                self.table = torch.arange(x.shape[0], dtype=x.dtype)[:, None]
            return self.inner(x) + self.table[: x.shape[0]]

    model = Grows()
    dims = {"x": {0: Dim("n", min=2, max=64)}}
    check(model, (R(3, 4),), (R(64, 4),), dynamic_shapes=dims)
    assert len(model.table) == 64


class Numbered(FirstCall):
    state = 5

    def forward(self, x: Tensor) -> Tensor:
        if self.state == 5:
            with LOCK:
                self.state = 1
        return self.inner(x)


class KnowsASize(FirstCall):
    """Does something else at one size, until it was called with another."""

    size = 5

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] == self.size:
            return self.inner(x)
        if self.size:
            with LOCK:
                self.size = 0
        return self.inner(x) * 2


@pytest.mark.thorough
def test_a_number_that_was_replaced_may_be_read_if_no_size_is_equal_to_it() -> None:
    check(Numbered(), (R(2, 4),))
    dims = {"x": {0: Dim("n", min=2, max=8)}}
    check(Numbered(), (R(2, 4),), (R(5, 4),), (R(8, 4),), dynamic_shapes=dims)
    with pytest.raises(CaptureError, match=r"model\.size"):
        build(KnowsASize(), R(2, 4), dynamic_shapes=dims)


@pytest.mark.thorough
def test_tables_that_are_there_grow_to_the_largest_size() -> None:
    class Rotary(FirstCall):
        def __init__(self) -> None:
            super().__init__()
            self.grow(4)

        def grow(self, length: int) -> None:
            self.length = length
            angles = torch.outer(torch.arange(length).float(), torch.tensor([1, 0.1, 0.01, 0]))
            self.register_buffer("cos", angles.cos(), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            if len(x) > self.length:
                self.grow(len(x))
            return self.inner(x) * self.cos[: len(x)]

    dims = {"x": {0: Dim("n", min=2, max=64)}}
    model = Rotary()
    reference = copy.deepcopy(model)
    program = build(model, R(3, 4), dynamic_shapes=dims)
    for rows in (3, 64, 5):
        x = R(rows, 4)
        assert_same(program(x), reference(x))


def test_a_model_on_meta_is_set_up_too(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = InAnAttribute()
    build(model, R(2, 4)).save(tmp_path / "x.hot")
    assert {p.device.type for p in model.parameters()} == {"meta"}
    real = InAnAttribute()
    x = R(2, 4)
    program = hotstart.load(tmp_path / "x.hot", real)
    with torch.no_grad():
        assert torch.equal(program(x), real(x))


# --- what stays refused --------------------------------------------------------------------------


class Counts(TakesALock):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


class Rescales(FirstCall):
    done = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.done:
            with LOCK, torch.no_grad():
                self.inner.weight.mul_(2)
                self.done = True
        return self.inner(x)


class KeepsItsInput(FirstCall):
    first: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.first is None:
            self.first = x * 2
        return self.inner(x) + self.first


class KeepsWhatItWroteTo(FirstCall):
    first: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.first is None:
            table = torch.zeros(2, 4)
            table[:1] = x[:1]
            self.first = table
        return self.inner(x) + self.first


class KeepsWhatItMadeOfThat(FirstCall):
    first: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.first is None:
            table = torch.zeros(2, 4)
            table[:1] = x[:1]
            table.mul_(2)
            self.first = table + 1
        return self.inner(x) + self.first


class ElseAtFirst(FirstCall):
    ready = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.ready:
            with LOCK:
                self.ready = True
            return self.inner(x) * 2
        return self.inner(x)


class SetsForOtherSizes(FirstCall):
    shift = 3

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] == 5:
            x = x * self.shift
        if x.shape[0] >= 8:
            self.shift = 0
        return self.inner(x)


@functools.lru_cache
def doubled(x: Tensor) -> Tensor:
    return x * 2


class CachesInAFunction(TakesALock):
    def forward(self, x: Tensor) -> Tensor:
        if self.scale is None:
            TABLES[x] = doubled(x)
        return super().forward(x)


@torch.compiler.disable
def take_down(x: Tensor) -> Tensor:
    return x * 2


class CachesInAFunctionOnly(FirstCall):
    """Changes nothing that the model leads to, and is refused for something else."""

    def forward(self, x: Tensor) -> Tensor:
        return take_down(self.inner(x) + doubled(x))


REFUSED = [
    Counts, KeepsItsInput, KeepsWhatItWroteTo, ElseAtFirst, CachesInAFunctionOnly,
    *(
        pytest.param(cls, marks=pytest.mark.slow)
        for cls in (Rescales, KeepsWhatItMadeOfThat, SetsForOtherSizes, CachesInAFunction)
    ),
]  # fmt: skip


@pytest.mark.thorough
@pytest.mark.parametrize("cls", REFUSED)
def test_a_first_call_that_does_more_is_refused_and_undone(cls: type[FirstCall]) -> None:
    from torch._subclasses.fake_tensor import FakeTensor

    doubled.cache_clear()
    model = cls()
    before = dict(vars(model))
    weights = copy.deepcopy(model.state_dict())
    dims = {"x": {0: Dim("n", min=2, max=8)}}
    with pytest.raises(CaptureError):
        build(model, R(2, 4), dynamic_shapes=dims)
    assert vars(model) == before
    assert not TABLES
    assert doubled.cache_info().currsize == 0
    assert all(torch.equal(model.state_dict()[name], value) for name, value in weights.items())
    gc.collect()
    held = [vars(model), TABLES]
    assert not any(isinstance(v, FakeTensor) for each in held for v in each.values())


def test_a_model_that_fails_after_its_first_call_is_as_before() -> None:
    class Fails(TakesALock):
        def forward(self, x: Tensor) -> Tensor:
            return take_down(super().forward(x))

    model = Fails()
    with pytest.raises(CaptureError, match="take_down"):
        build(model, R(2, 4))
    assert model.scale is None


# --- models of transformers ----------------------------------------------------------------------


def bert() -> tuple[nn.Module, dict[str, Any]]:
    config = transformers.BertConfig(
        vocab_size=32, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=16,
    )  # fmt: skip
    inputs = {"input_ids": torch.arange(8)[None], "output_hidden_states": True}
    return transformers.BertModel(config), inputs


def segformer() -> tuple[nn.Module, dict[str, Any]]:
    config = transformers.SegformerConfig(
        depths=[1] * 2, hidden_sizes=[8, 8], num_attention_heads=[1, 1], num_encoder_blocks=2,
        decoder_hidden_size=8, sr_ratios=[2, 1], patch_sizes=[7, 3], strides=[4, 2],
        mlp_ratios=[2, 2],
    )  # fmt: skip
    return transformers.SegformerForSemanticSegmentation(config), {"pixel_values": R(1, 3, 32, 32)}


@pytest.mark.slow
@pytest.mark.parametrize("make", [bert, segformer])
def test_models_that_install_hooks_under_a_lock(
    make: Callable[[], tuple[nn.Module, dict[str, Any]]], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model, inputs = make()
    model.eval()
    fresh, reference = copy.deepcopy(model), copy.deepcopy(model)
    hotstart.compile(model, kwargs=inputs, options=EAGER).save(tmp_path / "x.hot")
    program = hotstart.load(tmp_path / "x.hot", fresh)
    with torch.no_grad():
        found, expected = program(**inputs), reference(**inputs)
    assert type(found) is type(expected)
    assert torch.equal(found[0], expected[0])
    states, wanted = (each.get("hidden_states") or () for each in (found, expected))
    assert len(states) == len(wanted)
    assert all(map(torch.equal, states, wanted))


BACKENDS = """
class Backend:
    def double(self, x):
        return x * 2

_type2backend = {}

def get_backend(tensor):
    found = _type2backend.get(type(tensor))
    if found is None:
        found = _type2backend[type(tensor)] = Backend()
    return found
"""
"""The part of einops that remembers what serves a class of tensors."""


def test_what_einops_knows_of_classes_of_tensors_is_no_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "einops"
    package.mkdir()
    (package / "__init__.py").write_text('__version__ = "0.8.2"\n')
    (package / "_backends.py").write_text(BACKENDS)
    monkeypatch.syspath_prepend(tmp_path)
    backends = importlib.import_module("einops._backends")

    class Doubles(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            weight = backends.get_backend(self.weight).double(self.weight)
            return backends.get_backend(input).double(input) @ weight.T

    model, x = Doubles(4, 3).eval(), torch.randn(2, 4)
    try:
        build(model, x).save(tmp_path / "model.hot")
        backends._type2backend.clear()
        program = hotstart.load(tmp_path / "model.hot", model)
        assert_same(program(x), model(x))
        backends._type2backend.clear()
        assert_same(program(x), model(x))
    finally:
        for name in ("einops", "einops._backends"):
            del sys.modules[name]
