"""What is taken down of a model before a call, and put back."""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from hotstart.first_call.model_state import ModelState

VARIABLE: dict[str, Any] = {"entries": [1]}
NUMBER = 1


class Config:
    """An object that is no module."""

    def __init__(self) -> None:
        self.size = 3
        self.names = ["a"]


class Slotted:
    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 1


class Model(nn.Module):
    shared: dict[str, int] = {}  # noqa: RUF012
    kind = "some"

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)
        self.lazy = nn.LazyLinear(2)
        self.config = Config()
        self.slotted = Slotted()
        self.queue = collections.deque([1])
        self.seen = {1}
        self.nested = ({"k": [1, 2]},)
        count = 0

        def counted() -> int:
            nonlocal count
            count += 1
            return count

        self.counted = counted


def _set_variable(_: Model) -> None:
    global NUMBER
    NUMBER = 2


def _set_memory(model: Model) -> None:
    model.inner.weight.data = torch.zeros(2, 2)


CHANGES: list[tuple[Callable[[Model], Any], str]] = [
    (lambda m: setattr(m, "kind", "other"), "kind"),
    (lambda m: setattr(m.inner, "done", True), "inner.done"),
    (lambda m: m.inner.register_buffer("table", torch.zeros(2)), "inner"),
    (lambda m: m.inner.register_forward_hook(print), "inner._forward_hooks"),
    (lambda m: setattr(m.config, "size", 4), "config.size"),
    (lambda m: m.config.names.append("b"), "config.names"),
    (lambda m: setattr(m.slotted, "value", 2), "slotted"),
    (lambda m: m.queue.append(2), "queue"),
    (lambda m: m.seen.add(2), "seen"),
    (lambda m: m.nested[0]["k"].append(3), "nested[0]['k']"),
    (lambda m: m.counted(), "counted"),
    (lambda m: m.shared.update(k=1), "Model.shared"),
    (lambda m: setattr(type(m), "kind", "other"), "Model"),
    (lambda m: VARIABLE["entries"].append(2), f"{__name__}.VARIABLE['entries']"),
    (_set_variable, __name__),
    (_set_memory, "inner.weight"),
    (lambda m: m.lazy(torch.zeros(1, 3)), "lazy.weight"),
]


@pytest.mark.parametrize(("change", "name"), CHANGES)
def test_a_change_is_named_and_undone(change: Callable[[Model], Any], name: str) -> None:
    model = Model()
    state = ModelState(model)
    assert state.changed() == []
    change(model)
    assert name in state.changed()
    state.put_back()
    assert state.changed() == []


def test_everything_is_as_it_was() -> None:
    model = Model()
    weight = model.inner.weight.detach()
    state = ModelState(model)
    for change, _ in CHANGES:
        change(model)
    state.put_back()
    assert (model.kind, model.config.size, model.slotted.value, NUMBER) == ("some", 3, 1, 1)
    assert (model.config.names, model.queue, model.seen) == (["a"], collections.deque([1]), {1})
    assert (model.nested, model.shared, VARIABLE) == (({"k": [1, 2]},), {}, {"entries": [1]})
    assert model.counted() == 1
    assert model.inner.weight.is_set_to(weight)
    assert not model.inner._forward_hooks
    assert "table" not in model.inner._buffers
    assert type(model.lazy) is nn.LazyLinear
    assert nn.parameter.is_lazy(model.lazy.weight)
    assert model.lazy(torch.zeros(1, 3)).shape == (1, 2)


def test_values_of_tensors_are_no_state() -> None:
    model = Model()
    state = ModelState(model)
    with torch.no_grad():
        model.inner.weight.add_(1)
    assert state.changed() == []


def test_a_number_in_place_of_another_is_told_apart_from_what_was_missing() -> None:
    model = Model()
    state = ModelState(model)
    model.kind = "other"
    model.done = True
    model.training = False
    assert state.overwritten(model, "kind")
    assert not state.overwritten(model, "done")
    assert not state.overwritten(model, "training")
