"""A program runs with the tensors its model has now, or says which of them do not fit."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import nn

import hotstart
from hotstart import ModelMismatch
from tests.integration.shop import Counting

EAGER = hotstart.Options(compiler="op_by_op")
X = torch.randn(2, 4)


def bound_functions(program: hotstart.Program) -> object:
    """The variants' functions with the weights they are bound to; the same until weights change."""
    return program._binding()


class Model(nn.Module):
    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        if tied:
            self.blocks[1].weight = self.blocks[0].weight
        self.register_buffer("shift", torch.randn(4))
        self.plain = torch.randn(4)

    def forward(self, x):
        for block in self.blocks:
            x = torch.tanh(block(x))
        return x + self.shift * self.plain


def built(model: nn.Module | None = None) -> hotstart.Program:
    program = hotstart.compile(model or Model().eval(), (X,), options=EAGER)
    program(X)
    return program


def assert_current(program: hotstart.Program) -> None:
    with torch.no_grad():
        assert torch.equal(program(X), program.model(X))


def load(model: Model) -> None:
    model.load_state_dict(Model().state_dict())


def assign(model: Model) -> None:
    model.load_state_dict(Model().state_dict(), assign=True)


def replace_module(model: Model) -> None:
    model.blocks[1] = nn.Linear(4, 4)


def replace_list(model: Model) -> None:
    model.blocks = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])


def replace_parameter(model: Model) -> None:
    model.blocks[0].bias = nn.Parameter(torch.randn(4))


def replace_buffer(model: Model) -> None:
    model.shift = torch.randn(4)


def replace_attribute(model: Model) -> None:
    model.plain = torch.randn(4)


def change_values(model: Model) -> None:
    with torch.no_grad():
        model.blocks[0].weight.mul_(2)
        model.shift.zero_()


def set_data(model: Model) -> None:
    model.blocks[0].weight.data = torch.randn(4, 4)


def freeze(model: Model) -> None:
    model.requires_grad_(False)


def away_and_back(model: Model) -> None:
    model.double()
    model.float()


@pytest.mark.parametrize(
    "change",
    [
        load, assign, replace_module, replace_list, replace_parameter, replace_buffer,
        replace_attribute, change_values, set_data, freeze, away_and_back,
    ],
)  # fmt: skip
def test_a_change_of_the_model_is_noticed(change: Any) -> None:
    program = built()
    change(program.model)
    assert_current(program)
    change(program.model)
    assert_current(program)


def test_what_did_not_change_is_not_fetched_again() -> None:
    program = built()
    bound = bound_functions(program)
    change_values(program.model)
    load(program.model)
    program(X)
    assert bound_functions(program) is bound
    assign(program.model)
    assert bound_functions(program) is not bound


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda m: m.to(torch.float64), ["blocks.0.weight", "blocks.1.bias", "shift"]),
        (lambda m: m.half(), ["blocks.0.weight", "blocks.0.bias", "blocks.1.weight", "shift"]),
        (lambda m: m.blocks[1].bfloat16(), ["blocks.1.weight", "blocks.1.bias"]),
        (lambda m: m.to("meta"), ["blocks.0.weight", "shift"]),
        (lambda m: delattr(m.blocks[0], "weight"), ["blocks.0.weight"]),
        (lambda m: setattr(m.blocks[0], "bias", None), ["blocks.0.bias"]),
        (lambda m: setattr(m, "shift", torch.randn(5)), ["shift"]),
        (lambda m: setattr(m, "plain", torch.randn(8)[::2]), ["plain"]),
        (lambda m: setattr(m, "plain", torch.randn(4).to_sparse()), ["plain"]),
        (lambda m: setattr(m.blocks, "1", nn.Linear(4, 5)), ["blocks.1.weight", "blocks.1.bias"]),
        (lambda m: setattr(m.blocks[0].weight, "data", torch.randn(4, 8)), ["blocks.0.weight"]),
    ],
    ids=range(11),
)
def test_a_misfit_names_every_tensor_and_is_over_once_fixed(change: Any, named: list[str]) -> None:
    program = built()
    change(program.model)
    for _ in range(2):
        with pytest.raises(ModelMismatch) as caught:
            program(X)
        problems = caught.value.problems
        for name in named:
            assert sum(line.startswith(f"{name}: expected torch.float32") for line in problems) == 1
    assert torch.is_grad_enabled()
    fixed = Model()
    for name in ("blocks", "shift", "plain"):
        setattr(program.model, name, getattr(fixed, name))
    assert_current(program)


def test_tied_weights_stay_tied_or_are_a_mismatch() -> None:
    model = Model(tied=True).eval()
    program = built(model)
    model.blocks[1].weight = nn.Parameter(torch.randn(4, 4))
    with pytest.raises(ModelMismatch, match=r"blocks\.1\.weight: expected the same tensor as"):
        program(X)
    model.blocks[0].weight = model.blocks[1].weight
    assert_current(program)


def test_a_model_compiled_on_meta_runs_once_it_has_weights() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)).eval()
    program = hotstart.compile(model, (torch.empty(2, 4, device="meta"),), options=EAGER)
    with pytest.raises(ModelMismatch, match=r"0\.weight.*on cpu, .* found .* on meta"):
        program(X)
    real = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    model.load_state_dict(real.state_dict(), assign=True)
    assert_current(program)


def test_a_model_on_meta_may_be_emptied_onto_a_device() -> None:
    with torch.device("meta"):
        model = nn.Linear(4, 4).eval()
    program = hotstart.compile(model, (X,), options=EAGER)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.5)
    assert_current(program)


def test_weights_of_a_functions_modules_are_followed() -> None:
    layer = nn.Linear(4, 4)

    def model(x):
        return layer(x) * 2

    program = hotstart.compile(model, (X,), options=EAGER)
    assert torch.equal(program(X), model(X).detach())
    layer.load_state_dict(nn.Linear(4, 4).state_dict(), assign=True)
    assert torch.equal(program(X), model(X).detach())


def test_replaced_weights_are_not_kept_alive() -> None:
    import weakref

    program = built()
    old = weakref.ref(program.model.blocks[0].weight)
    assign(program.model)
    program(X)
    assert old() is None


def test_fetching_the_weights_of_a_deep_model_takes_milliseconds() -> None:
    def nest(depth: int) -> nn.Module:
        module: nn.Module = nn.Linear(4, 4)
        for _ in range(depth):
            module = nn.Sequential(module, nn.Identity())
        return module

    model = nn.Sequential(*(nest(4) for _ in range(20))).eval()
    program = built(model)
    assign_state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    best = min(_timed(program, model, assign_state) for _ in range(3))
    assert best < 0.1


def _timed(program: hotstart.Program, model: nn.Module, state: dict[str, torch.Tensor]) -> float:
    model.load_state_dict({name: t.clone() for name, t in state.items()}, assign=True)
    started = time.perf_counter()
    bound_functions(program)
    return time.perf_counter() - started


def test_buffers_of_a_module_that_was_replaced_are_updated_in_the_new_one() -> None:
    model = nn.Sequential(Counting())
    program = hotstart.compile(model, (torch.zeros(3),), options=EAGER)
    program(torch.zeros(3))
    model[0] = Counting()
    assert torch.equal(program(torch.zeros(3)), torch.ones(3))
    assert model[0].seen == 1


def test_a_module_inside_that_changes_its_mode_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).eval()
    program = hotstart.compile(model, (torch.zeros(2, 3),), options=EAGER)
    program(torch.zeros(2, 3))
    model[1].train()
    with pytest.raises(hotstart.ContractError, match=r"1\.training: got True, takes False"):
        program(torch.zeros(2, 3))
    model[1].eval()
    program(torch.zeros(2, 3))
