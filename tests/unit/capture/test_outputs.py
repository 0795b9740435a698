from __future__ import annotations

import collections
import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

from hotstart import Dim
from hotstart.capture.results import Views
from hotstart.errors import CaptureError
from hotstart.records.nested import Attributes, Const, Map, Registered, Seq, Slot
from tests.capturing import captured, compiled

X = torch.randn(4, 8)
BATCH = {"x": {0: Dim("b", max=8)}}


class Pair(NamedTuple):
    left: torch.Tensor
    right: torch.Tensor


@dataclasses.dataclass
class Result:
    value: torch.Tensor
    count: int


class Bag:
    def __init__(self, items: list[Any]) -> None:
        self.items = items


# --- the structure of results ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "tree"),
    [
        (lambda x: x * 2, Slot("out", 0)),
        (lambda x: (x * 2,), Seq(tuple, (Slot("out", 0),))),
        (lambda x: [x * 2, None], Seq(list, (Slot("out", 0), Const(None)))),
        (lambda x: {"a": x * 2, "n": 3}, Map(dict, (("a", Slot("out", 0)), ("n", Const(3))))),
        (
            lambda x: Pair(x * 2, x + 1),
            Seq(Pair, (Slot("out", 0), Slot("out", 1))),
        ),
        (
            lambda x: Result(x * 2, 3),
            Attributes(Result, (("value", Slot("out", 0)), ("count", Const(3)))),
        ),
        (
            lambda x: collections.OrderedDict(a=x * 2),
            Map(collections.OrderedDict, (("a", Slot("out", 0)),)),
        ),
        (lambda x: Bag([x * 2]), Attributes(Bag, (("items", Seq(list, (Slot("out", 0),))),))),
        (
            lambda x: collections.deque([x * 2], maxlen=3),
            Registered(collections.deque, 3, (Slot("out", 0),)),
        ),
        (
            lambda x: {"a": [(x * 2, "s")]},
            Map(dict, (("a", Seq(list, (Seq(tuple, (Slot("out", 0), Const("s"))),))),)),
        ),
    ],
)
def test_results_are_described_in_the_models_own_types(function: Any, tree: Any) -> None:
    graph, _ = captured(function, X)
    assert graph.outputs == tree


def test_a_model_output_is_rebuilt() -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> BaseModelOutput:
            return BaseModelOutput(last_hidden_state=x * 2, hidden_states=(x + 1,))

    made = compiled(Model(), X)(X)
    assert type(made) is BaseModelOutput
    assert list(made) == ["last_hidden_state", "hidden_states"]
    assert torch.equal(made.last_hidden_state, X * 2)
    assert torch.equal(made.hidden_states[0], X + 1)
    assert made.attentions is None


def test_one_tensor_in_two_places_is_one_output() -> None:
    def f(x: torch.Tensor) -> Any:
        y = x * 2
        return y, [y]

    first, (second,) = compiled(f, X)(X)
    assert first is second


def test_a_result_of_an_unknown_type_is_refused() -> None:
    with pytest.raises(CaptureError, match="the result is a set, which cannot be rebuilt"):
        captured(lambda x: {x * 2}, X)


# --- what is no output of the graph ---------------------------------------------------------------


def test_an_argument_that_is_returned_is_the_callers_own_tensor() -> None:
    def f(x: torch.Tensor, y: torch.Tensor) -> Any:
        return x * 2, y

    y = torch.randn(3)
    assert compiled(f, X, y)(X, y)[1] is y


def test_a_weight_that_is_returned_is_the_models_own() -> None:
    class Model(nn.Linear):
        def forward(self, x: torch.Tensor) -> Any:
            return super().forward(x), self.weight

    model = Model(8, 8)
    assert compiled(model, X)(X)[1] is model.weight


def sizes(x: torch.Tensor) -> Any:
    return x * 2, x.shape[0], x.shape[0] * 2 + 1, x.numel(), x.shape, x.size(), {"n": x.size(1)}


def test_sizes_that_are_returned_follow_the_call() -> None:
    program = compiled(sizes, X, dynamic=BATCH)
    for batch in (1, 3, 8):
        x = torch.randn(batch, 8)
        assert program(x)[1:] == sizes(x)[1:]


def test_sizes_of_an_argument_that_the_graph_does_not_read_follow_the_call() -> None:
    def f(x: torch.Tensor, y: torch.Tensor) -> Any:
        return y * 2, x.shape

    program = compiled(f, X, X, dynamic=BATCH)
    assert program(torch.randn(7, 8), X)[1] == (7, 8)


def test_a_number_that_is_no_integer_is_refused() -> None:
    with pytest.raises(CaptureError, match="not an integer"):
        captured(lambda x: (x * 2, x.shape[0] / 3), X, dynamic=BATCH)


# --- changes of the model and of what surrounds it ------------------------------------------------


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.seen: list[Any] = []
        self.cache: dict[str, Any] = {}
        self.register_buffer("total", torch.zeros(8))
        self.scale = torch.ones(8)


class Counts(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        return x * 2


class Appends(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x)
        return x * 2


class Caches(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.cache["x"] = x
        return x * 2


INNER = nn.Linear(8, 8)


class Registers(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.register_buffer("added", x * 2)
        return x * 2


class Adds(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.added = INNER
        return INNER(x)


class Deletes(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        del self.scale
        return x * 2


@pytest.mark.parametrize(
    ("cls", "named"),
    [
        (Counts, r"the model.count"),
        (Appends, "seen"),
        (Caches, "cache"),
        (Adds, "outlives the call .*_modules"),
        (Registers, "registers 'added' with the model"),
        (Deletes, "deletes the model.scale"),
    ],
)
def test_changed_python_state_is_refused_and_put_back(cls: type[Model], named: str) -> None:
    model = cls()
    with pytest.raises(CaptureError, match=named):
        captured(model, X)
    assert (model.count, model.seen, model.cache) == (0, [], {})
    assert not hasattr(model, "added")
    assert torch.equal(model.scale, torch.ones(8))


HISTORY: list[int] = []
CALLS = 0


def appends_to_a_global(x: torch.Tensor) -> torch.Tensor:
    HISTORY.append(1)
    return x * 2


def counts_in_a_global(x: torch.Tensor) -> torch.Tensor:
    global CALLS
    CALLS += 1
    return x * 2


def test_changed_globals_are_refused_and_put_back() -> None:
    with pytest.raises(CaptureError, match="HISTORY"):
        captured(appends_to_a_global, X)
    with pytest.raises(CaptureError, match="CALLS"):
        captured(counts_in_a_global, X)
    assert HISTORY == []
    assert CALLS == 0


def test_a_changed_variable_of_an_outer_function_is_refused() -> None:
    calls = 0

    def f(x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return x * 2

    with pytest.raises(CaptureError, match="outlives the call"):
        captured(f, X)


class Replaces(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.total = self.total + x.sum(0)
        self.scale = self.scale * 2
        return x * self.scale + self.total


def test_replaced_buffers_and_attributes_are_replaced_in_every_call() -> None:
    model, twin = Replaces(), Replaces()
    program = compiled(model, X)
    assert torch.equal(model.total, torch.zeros(8))
    for _ in range(2):
        assert torch.equal(program(X), twin(X))
        assert torch.equal(model.total, twin.total)
        assert torch.equal(model.scale, twin.scale)


def test_replaced_attributes_are_put_back_after_capture() -> None:
    model = Replaces()
    total, scale = model.total, model.scale
    graph, _ = captured(model, X)
    assert model.total is total
    assert model.scale is scale
    assert [(u.owner, u.name) for u in graph.updates] == [("", "scale"), ("", "total")]


def test_batch_norm_in_training_updates_its_statistics() -> None:
    model, twin = nn.BatchNorm1d(8), nn.BatchNorm1d(8)
    program = compiled(model, X)
    assert torch.allclose(program(X), twin(X), atol=1e-6)
    assert torch.allclose(model.running_mean, twin.running_mean)
    assert model.num_batches_tracked == twin.num_batches_tracked == 1


class Flag:
    value = 0


FLAG = Flag()


@contextlib.contextmanager
def flag_set() -> Iterator[None]:
    before = FLAG.value
    FLAG.value = 1
    try:
        yield
    finally:
        FLAG.value = before


def test_a_change_that_is_undone_before_the_end_does_not_count() -> None:
    FLAG.value = 0

    def f(x: torch.Tensor) -> torch.Tensor:
        with flag_set():
            return x * (FLAG.value + 1)

    assert torch.equal(compiled(f, X)(X), X * 2)


def test_tensors_that_bytecode_makes_are_known_and_views_have_a_base() -> None:
    views = Views({})
    with views:
        view, made, same = X.mT, torch.cat([X, X]), X.add_(0)
    assert views.base_of(view) == (X, "mT")
    assert views.base_of(made) is None
    assert views.made(made)
    assert not views.made(same)
