"""Memory that a call writes to and that something else of the call lies in as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hotstart
from tests.semantics import assert_same, both, build

pytestmark = pytest.mark.usefixtures("kept_pieces")


class Counts(nn.Module):
    """Writes to a buffer, and reads it and its argument afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("state", torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        self.state.add_(1)
        return x * 2 + self.state


class WritesItsArgument(nn.Module):
    """Writes to its argument, and reads a buffer afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("state", torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        x.add_(1)
        return x * 2 + self.state


class TwoBuffers(nn.Module):
    """Writes to one buffer, and reads another one afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("a", torch.ones(8))
        self.register_buffer("b", torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        self.a.add_(x)
        return self.b * 2 + x


class Reads(nn.Module):
    """Writes to nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("state", torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.state


def shared(kind: str) -> TwoBuffers:
    model = TwoBuffers()
    match kind:
        case "one tensor":
            model.b = model.a
        case "a view":
            model.b = model.a.view(8)
        case "halves":
            whole = torch.ones(16)
            model.a, model.b = whole[:8], whole[8:]
        case "crossing":
            whole = torch.ones(12)
            model.a, model.b = whole[:8], whole[4:]
    return model


@both
@pytest.mark.parametrize("model_type", [Counts, WritesItsArgument])
@pytest.mark.parametrize("view", [False, True])
def test_an_argument_that_is_a_weight_is_refused_where_one_is_written(
    model_type: type[Any], compiler: str, view: bool
) -> None:
    model = model_type()
    program = build(model, torch.zeros(8), compiler=compiler)
    argument = model.state.view(2, 4).view(8) if view else model.state
    with pytest.raises(hotstart.ContractError, match=r"x: .*the model's state.*\.clone\(\)"):
        program(argument)
    assert torch.equal(model.state, torch.ones(8))  # nothing has run
    assert_same(program(argument.clone()), model_type()(torch.ones(8)), 1e-6)


@pytest.mark.parametrize("model_type", [Counts, WritesItsArgument])
def test_a_program_built_with_such_a_call_serves_other_arguments(model_type: type[Any]) -> None:
    model = model_type()
    program = build(model, model.state)
    with pytest.raises(hotstart.ContractError, match="the model's state"):
        program(model.state)
    assert_same(program(torch.zeros(8)), model_type()(torch.zeros(8)))


def test_an_argument_beside_a_weight_in_one_memory_is_taken() -> None:
    model, whole = Counts(), torch.ones(16)
    model.state = whole[:8]
    program = build(model, torch.zeros(8))
    assert_same(program(whole[8:]), Counts()(torch.ones(8)))


def test_an_argument_that_is_a_weight_is_taken_where_nothing_is_written() -> None:
    model = Reads()
    program = build(model, torch.zeros(8))
    assert_same(program(model.state), torch.full((8,), 2.0))


@pytest.mark.parametrize("kind", ["one tensor", "a view", "crossing"])
def test_weights_that_share_memory_at_load_only_are_refused(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "model.hot"
    build(TwoBuffers(), torch.zeros(8)).save(file)
    with pytest.raises(hotstart.ModelMismatch, match=r"a: expected memory of its own.*b lies in"):
        hotstart.load(file, shared(kind))
    program = hotstart.load(file, shared("halves"))
    assert_same(program(torch.ones(8)), TwoBuffers()(torch.ones(8)))


@pytest.mark.parametrize("kind", ["a view", "crossing"])
def test_weights_that_shared_memory_at_the_build_only_are_refused(
    kind: str, tmp_path: Path
) -> None:
    file = tmp_path / "model.hot"
    build(shared(kind), torch.zeros(8)).save(file)
    with pytest.raises(hotstart.ModelMismatch, match="a: expected memory that b lies in"):
        hotstart.load(file, TwoBuffers())
    program = hotstart.load(file, shared(kind))
    expected = shared(kind)(torch.ones(8))
    assert_same(program(torch.ones(8)), expected)


def test_written_weights_of_a_mapping_get_memory_of_their_own(tmp_path: Path) -> None:
    file, tensor = tmp_path / "model.hot", torch.ones(8)
    mapping = {"a": tensor, "b": tensor.view(8)}
    build(TwoBuffers(), torch.zeros(8)).save(file)
    program = hotstart.load(file, weights=mapping)
    assert_same(program(torch.ones(8)), TwoBuffers()(torch.ones(8)))
    assert torch.equal(tensor, torch.ones(8))
    build(shared("a view"), torch.zeros(8)).save(file)
    with pytest.raises(hotstart.ModelMismatch, match="a: expected memory that b lies in"):
        hotstart.load(file, weights=mapping)


def test_a_weight_replaced_by_one_that_shares_memory_is_refused() -> None:
    model = TwoBuffers()
    program = build(model, torch.zeros(8))
    program(torch.ones(8))
    model.b = model.a.view(8)
    with pytest.raises(hotstart.ModelMismatch, match="a: expected memory of its own"):
        program(torch.ones(8))


# --- one memory that several storages show, as parts of an array do -------------------------------


def parts(*begins: int) -> list[Tensor]:
    array = np.ones(16, "float32")
    return [torch.from_numpy(array[begin : begin + 8]) for begin in begins]


@pytest.mark.parametrize("model_type", [Counts, WritesItsArgument])
@both
def test_an_argument_in_another_storage_of_a_weight_is_refused(
    model_type: type[Any], compiler: str
) -> None:
    model = model_type()
    model.state, crossing, beside = parts(0, 4, 8)
    program = build(model, torch.zeros(8), compiler=compiler)
    with pytest.raises(hotstart.ContractError, match=r"x: .*the model's state"):
        program(crossing)
    assert_same(program(beside), model_type()(torch.ones(8)))


class WritesOne(nn.Module):
    def forward(self, x: Tensor, cache: Tensor) -> Tensor:
        cache.add_(1)
        return x * 2 + cache


@both
def test_arguments_in_storages_that_meet_are_refused(compiler: str) -> None:
    program = build(WritesOne(), torch.zeros(8), torch.zeros(8), compiler=compiler)
    for begins in ((0, 4), (4, 0), (0, 0)):
        with pytest.raises(hotstart.ContractError, match=r"cache: .*shares memory with x"):
            program(*parts(*begins))
    assert_same(program(*parts(0, 8)), torch.full((8,), 4.0))


def test_weights_in_storages_that_meet_are_refused(tmp_path: Path) -> None:
    file, model = tmp_path / "model.hot", TwoBuffers()
    build(model, torch.zeros(8)).save(file)
    model.a, model.b = parts(0, 4)
    with pytest.raises(hotstart.ModelMismatch, match=r"a: expected memory of its own.*b lies in"):
        hotstart.load(file, model)
    model.a, model.b = parts(0, 8)
    assert_same(hotstart.load(file, model)(torch.ones(8)), TwoBuffers()(torch.ones(8)))


@both
def test_a_written_argument_whose_elements_share_memory_is_refused(compiler: str) -> None:
    def f(x: Tensor, y: Tensor) -> Tensor:
        x.add_(y)
        return x * 2

    program = build(f, torch.ones(4, 4), torch.ones(4, 4), compiler=compiler)
    windows = torch.arange(7.0).unfold(0, 4, 1)
    for x in (windows, torch.ones(4).expand(4, 4), torch.ones(4, 1).expand(4, 4)):
        with pytest.raises(hotstart.ContractError, match=r"elements share memory, strides \("):
            program(x, torch.ones(4, 4))
    assert_same(windows[:, 0], torch.arange(4.0))  # nothing was written
    for x in (torch.ones(4, 8)[:, ::2], torch.ones(4, 4).T):
        expected = f(x.clone(), windows)
        assert_same(program(x, windows), expected)  # what is only read may share
        assert_same(x * 2, expected)
