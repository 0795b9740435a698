from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from hotstart._torch.graphs.symbols import fake_mode
from hotstart.capture.weight_table import WeightTable, traceable
from hotstart.errors import CaptureError
from hotstart.model import ModelIndex, roots
from hotstart.records.artifact import WeightSpec
from tests.capturing import CPU, captured, compiled

X = torch.randn(4, 8)


def specs(model: Any) -> dict[str, WeightSpec]:
    _, weights = captured(model, X)
    return {spec.name: spec for spec in weights.specs}


class Kinds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8, dtype=torch.float32)
        self.register_buffer("offset", torch.zeros(8))
        self.register_buffer("hidden", torch.zeros(8), persistent=False)
        self.plain = torch.ones(8)
        self.listed = [torch.ones(8)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) + self.offset + self.hidden + self.plain + self.listed[0]


def test_every_tensor_is_named_by_where_the_model_keeps_it() -> None:
    assert {name: spec.kind for name, spec in specs(Kinds()).items()} == {
        "inner.weight": "parameter",
        "inner.bias": "parameter",
        "offset": "buffer",
        "hidden": "buffer",
        "plain": "attribute",
        "listed[0]": "captured",
    }


def test_shape_dtype_stride_and_device_are_known() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.zeros(3, 8, dtype=torch.float64).t())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.double() @ self.table

    assert specs(Model()) == {
        "table": WeightSpec("table", "buffer", "float64", "cpu", (8, 3), (1, 8))
    }


def test_tied_weights_are_one_entry_with_all_names() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(8, 8, bias=False)
            self.second = nn.Linear(8, 8, bias=False)
            self.third = self.first
            self.second.weight = self.first.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.third(self.first(x)))

    assert {name: spec.ties for name, spec in specs(Tied()).items()} == {
        "first.weight": ("second.weight", "third.weight")
    }


def test_only_what_the_graph_reads_is_listed() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    assert set(specs(Model())) == {"used.weight", "used.bias"}


def test_what_was_made_to_trace_a_model_is_no_weight() -> None:
    with fake_mode():
        made = torch.randn(4, 8)
    with pytest.raises(CaptureError, match=r"d\.total: expected a tensor of the caller"):
        WeightTable(ModelIndex(Kinds())).slot(made, "d.total")
    with traceable(model := Kinds().to("meta"), CPU) as index:
        assert WeightTable(index).slot(model.inner.weight, "inner.weight") == 0


LINEAR, OFFSET = nn.Linear(8, 8), torch.randn(8)


def test_a_functions_modules_are_found_by_its_variables() -> None:
    inner, scale = nn.Linear(8, 8), torch.randn(8)

    def f(x: torch.Tensor) -> torch.Tensor:
        return LINEAR(inner(x)) * scale + OFFSET

    _, weights = captured(f, X)
    assert {spec.name: spec.kind for spec in weights.specs} == {
        "inner.weight": "parameter",
        "inner.bias": "parameter",
        "LINEAR.weight": "parameter",
        "LINEAR.bias": "parameter",
        "scale": "captured",
        "OFFSET": "captured",
    }
    held = [id(tensor) for tensor in weights.captured.values()]
    assert sorted(held) == sorted([id(scale), id(OFFSET)])


def test_a_methods_modules_are_those_of_its_object() -> None:
    class Pipeline:
        def __init__(self) -> None:
            self.net = nn.Linear(8, 8)

        def run(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x)

    model = Kinds()
    assert roots(model.forward) == {"": model}
    assert {name: spec.kind for name, spec in specs(Pipeline().run).items()} == {
        "net.weight": "parameter",
        "net.bias": "parameter",
    }


def test_weights_that_the_graph_writes_to_are_marked() -> None:
    class Accumulates(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", torch.zeros(8))
            self.register_buffer("scale", torch.ones(8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.total += x.sum(0)
            return x * self.scale + self.total

    model, twin = Accumulates(), Accumulates()
    program = compiled(model, X)
    total = model.total
    for _ in range(2):
        assert torch.equal(program(X), twin(X))
    assert model.total is total
    assert torch.equal(model.total, twin.total)
    mutated = {w.name: w.mutated for w in program.artifact.requirements.weights}
    assert mutated == {"total": True, "scale": False}


def test_a_tensor_keeps_its_number() -> None:
    model = nn.Linear(8, 8)
    table = WeightTable(ModelIndex(model))
    assert table.slot(model.bias, "?") == 0
    assert table.slot(model.weight, "?") == 1
    assert table.slot(model.bias, "?") == 0
    assert [spec.name for spec in table.specs] == ["bias", "weight"]


# --- weights on the meta device -------------------------------------------------------------------


def on_meta() -> nn.Module:
    with torch.device("meta"):
        model = Kinds()
    model.offset = torch.zeros(8)
    return model


def test_stand_ins_replace_meta_tensors_only_and_are_taken_back() -> None:
    model = on_meta()
    before = {place.name: place.get() for place in ModelIndex(model).places}
    with traceable(model, CPU):
        inside = {place.name: place.get() for place in ModelIndex(model).places}
        assert {str(tensor.device) for tensor in inside.values()} == {"cpu"}
        assert inside["offset"] is before["offset"]
        assert isinstance(inside["inner.weight"], nn.Parameter)
    assert {place.name: place.get() for place in ModelIndex(model).places} == before


def test_meta_tensors_are_put_back_after_an_error() -> None:
    model = on_meta()
    weight = model.inner.weight
    with pytest.raises(ZeroDivisionError), traceable(model, CPU):
        raise ZeroDivisionError
    assert model.inner.weight is weight


def test_ties_survive_the_stand_ins() -> None:
    model = on_meta()
    model.inner.bias = nn.Parameter(model.hidden)
    model.extra = model.inner
    with traceable(model, CPU):
        assert model.extra.weight is model.inner.weight
