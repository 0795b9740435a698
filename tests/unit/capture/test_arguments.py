from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import pytest
import torch
import torch.utils._pytree as pytree
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

from hotstart import Dim
from hotstart._torch.graphs.symbols import fake_mode
from hotstart.capture.arguments import dim_order
from hotstart.errors import CaptureError, OptionsError
from hotstart.records.dims import DerivedSize
from hotstart.records.nested import Const
from tests.capturing import captured, compiled, described

X = torch.randn(4, 8)


class Pair(NamedTuple):
    left: torch.Tensor
    right: torch.Tensor


@dataclasses.dataclass
class Batch:
    ids: torch.Tensor
    mask: torch.Tensor | None = None


class Bag:
    def __init__(self, *items: Any) -> None:
        self.items = items
        self.key = object()  # so that its attributes do not say it all


class Pocket:
    def __init__(self, *items: Any) -> None:
        self.more = items[-1]
        self.items = items[:-1]


pytree.register_pytree_node(
    Pocket, lambda p: ([*p.items, p.more], None), lambda items, _: Pocket(*items)
)


pytree.register_pytree_node(Bag, lambda bag: (list(bag.items), None), lambda items, _: Bag(*items))


# --- kinds of parameters --------------------------------------------------------------------------


def every_kind(
    a: Any, /, b: Any, c: Any = 2, *rest: Any, d: Any, e: Any = 3, **more: Any
) -> torch.Tensor:
    return a + b * c + sum(rest) * d + e + more.get("f", 0)


def test_every_kind_of_parameter_is_told_apart() -> None:
    arguments = described(every_kind, X, X, 5, X, X, d=X, f=X)
    assert [(p.name, p.kind) for p in arguments.parameters] == [
        ("a", "positional_only"),
        ("b", "positional"),
        ("c", "positional"),
        ("rest", "var_positional"),
        ("d", "keyword"),
        ("e", "keyword"),
        ("f", "keyword"),
    ]
    assert [t.path for t in arguments.tensors] == ["a", "b", "rest[0]", "rest[1]", "d", "f"]


def test_defaults_are_part_of_the_description() -> None:
    by_name = {p.name: p for p in described(every_kind, X, X, d=X).parameters}
    assert by_name["c"].tree == Const(2)
    assert (by_name["c"].has_default, by_name["c"].default) == (True, 2)
    assert not by_name["d"].has_default


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((X, X), {"d": X}),
        ((X, X, 4), {"d": X, "e": 5}),
        ((X, X, 4, X), {"d": X}),
        ((X, X, X, X, X), {"d": X, "e": X, "f": X}),
        ((X,), {"b": X, "d": X}),
    ],
)
def test_a_call_can_be_made_again_from_its_description(args: Any, kwargs: Any) -> None:
    arguments = described(every_kind, *args, **kwargs)
    tensors = [X + i for i in range(len(arguments.tensors))]
    numbers = iter(tensors)
    fresh_args = [next(numbers) if a is X else a for a in args]
    order = [p.name for p in arguments.parameters]
    fresh = {k: kwargs[k] for k in sorted(kwargs, key=order.index)}
    fresh_kwargs = {k: next(numbers) if v is X else v for k, v in fresh.items()}
    made_args, made_kwargs = arguments.call_with(tensors)
    assert torch.equal(
        every_kind(*made_args, **made_kwargs), every_kind(*fresh_args, **fresh_kwargs)
    )


@pytest.mark.parametrize(
    ("args", "kwargs"), [((X,), {}), ((X, X), {}), ((), {"a": X, "b": X, "d": X})]
)
def test_inputs_that_do_not_fit_the_signature_are_refused(args: Any, kwargs: Any) -> None:
    with pytest.raises(CaptureError, match="do not fit the model's signature"):
        described(every_kind, *args, **kwargs)


class Callable:
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    def method(self, x: torch.Tensor) -> torch.Tensor:
        return x * 3


def test_an_object_with_call_is_refused_with_what_to_pass_instead() -> None:
    with pytest.raises(CaptureError, match=r"got a Callable, takes .* Pass a method"):
        described(Callable(), X)
    assert torch.equal(compiled(Callable().method, X)(X), X * 3)


# --- containers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "paths"),
    [
        ({"a": X, "b": [X]}, ["v['a']", "v['b'][0]"]),
        ((X, (X, 1)), ["v[0]", "v[1][0]"]),
        (Pair(X, X), ["v.left", "v.right"]),
        (Batch(X), ["v.ids"]),
        (BaseModelOutput(last_hidden_state=X, hidden_states=(X,)),
         ["v.last_hidden_state", "v.hidden_states[0]"]),
        (Bag(X, 1, X), ["v.<0>", "v.<2>"]),
        (Pocket(X, 1, X), ["v.more", "v.items[0]"]),
    ],
)  # fmt: skip
def test_tensors_are_found_inside_containers(value: Any, paths: list[str]) -> None:
    assert [t.path for t in described(lambda v: v, value).tensors] == paths


def test_a_nested_argument_reaches_the_program() -> None:
    def model(batch: Any) -> torch.Tensor:
        return batch["p"].left + batch["b"].ids * batch["scale"]

    batch = {"p": Pair(X, X), "b": Batch(X), "scale": 3}
    other = {"p": Pair(X + 1, X), "b": Batch(X + 2), "scale": 3}
    assert torch.equal(compiled(model, batch)(other), model(other))


def test_an_object_that_is_no_container_is_refused_by_path() -> None:
    with pytest.raises(CaptureError, match=r"v\['a'\]: got a Callable, takes tensors"):
        described(lambda v: v, {"a": Callable()})


def test_sparse_tensors_are_refused() -> None:
    with pytest.raises(CaptureError, match=r"x: got a tensor of layout torch.sparse_coo"):
        described(lambda x: x, X.to_sparse())


def test_tensor_subclasses_are_refused() -> None:
    class Mine(torch.Tensor):
        pass

    with pytest.raises(CaptureError, match=r"x: got a .*Mine, takes a plain torch.Tensor"):
        described(lambda x: x, X.as_subclass(Mine))


# --- example tensors ------------------------------------------------------------------------------


def test_meta_examples_stand_for_tensors_on_the_device_that_was_asked_for() -> None:
    (spec,) = described(lambda x: x, X.to("meta")).tensors
    assert spec.device == "cpu"


@pytest.mark.parametrize("make", ["real", "fake", "meta"])
def test_real_fake_and_meta_examples_give_the_same_program(make: str) -> None:
    with fake_mode():
        fake = torch.empty(4, 8)
    example = {"real": X, "fake": fake, "meta": X.to("meta")}[make]
    program = compiled(lambda x: x * 2, example, dynamic={"x": {0: Dim("b", max=8)}})
    assert torch.equal(program(torch.ones(3, 8)), torch.full((3, 8), 2.0))


def test_a_model_on_meta_is_captured_without_weights_and_stays_on_meta() -> None:
    with torch.device("meta"):
        model = nn.Linear(8, 8)
    weight = model.weight
    _, weights = captured(model, X.to("meta"))
    assert [(w.name, w.device) for w in weights.specs] == [("weight", "cpu"), ("bias", "cpu")]
    assert model.weight is weight


@pytest.mark.parametrize(
    ("tensor", "order"),
    [
        (torch.empty(2, 3, 4, 5), (0, 1, 2, 3)),
        (torch.empty(2, 3, 4, 5).to(memory_format=torch.channels_last), (0, 2, 3, 1)),
        (torch.empty(3, 2).t(), (1, 0)),
        (torch.empty(1, 3).t(), (0, 1)),
        (torch.empty(4, 4)[:, ::2], (0, 1)),
        (torch.empty(1, 4).expand(3, 4), (0, 1)),
        (torch.empty(()), ()),
    ],
)
def test_the_compiled_layout_keeps_the_order_of_dense_tensors(
    tensor: torch.Tensor, order: tuple[int, ...]
) -> None:
    assert dim_order(tensor) == order


# --- dynamic shapes -------------------------------------------------------------------------------


def shapes(model: Any, *args: Any, dynamic: Any) -> list[tuple[int | str, ...]]:
    return [t.shape for t in described(model, *args, dynamic=dynamic).tensors]


def two(x: Any, y: Any) -> Any:
    return x, y


def test_several_axes_and_one_axis_on_several_inputs() -> None:
    b, s = Dim("b", max=8), Dim("s", max=16)
    arguments = described(two, X, X, dynamic={"x": {0: b, 1: s}, "y": {0: b}})
    assert [t.shape for t in arguments.tensors] == [("b", "s"), ("b", 8)]
    assert [axis.name for axis in arguments.axes] == ["b", "s"]
    assert arguments.example_sizes == {"b": 4, "s": 8}


def test_dimensions_count_from_the_end_too() -> None:
    assert shapes(two, X, X, dynamic={"x": {-1: Dim("s", max=16)}})[0] == (4, "s")


def test_a_sequence_gives_one_entry_for_each_dimension() -> None:
    assert shapes(two, X, X, dynamic={"y": (None, Dim("s", max=16))})[1] == (4, "s")


B = {0: Dim("b", max=8)}


@pytest.mark.parametrize(
    ("value", "dims", "dynamic"),
    [
        ({"a": X, "c": X}, {"a": B}, [0]),
        ([X, X], [None, B], [1]),
        (Pair(X, X), {"right": B}, [1]),
        (Pair(X, X), (B, None), [0]),
        (Batch(X, X), {"mask": B}, [1]),
        (BaseModelOutput(X, hidden_states=(X,)), {"hidden_states": (B,)}, [1]),
        (Bag(X, X), (None, B), [1]),
        (Bag({"a": X}, X), {0: {"a": B}}, [0]),
        (Pocket(X + 1, {"a": X}), (None, {"a": B}), [0]),
        (Pocket(X + 1, {"a": X}), {0: B}, [1]),
        (Pocket(X + 1, {"a": X}), {"more": {"a": B}}, [0]),
    ],
)
def test_dynamic_shapes_nest_like_the_argument(value: Any, dims: Any, dynamic: list[int]) -> None:
    found = shapes(lambda v: v, value, dynamic={"v": dims})
    assert [i for i, shape in enumerate(found) if shape[0] == "b"] == dynamic


def test_dynamic_shapes_reach_variadic_arguments() -> None:
    def model(*xs: Any, **more: Any) -> Any:
        return xs, more

    arguments = described(model, X, X, z=X, dynamic={"xs": [None, B], "z": B})
    assert [t.shape[0] for t in arguments.tensors] == [4, "b", "b"]


def test_a_torch_dim_is_taken_in_place_of_ours() -> None:
    axis = torch.export.Dim("b", min=2, max=8)
    (made,) = described(two, X, X, dynamic={"x": {0: axis}}).axes
    assert made == Dim("b", min=2, max=8)


def test_a_torch_dim_without_min_starts_at_one() -> None:
    (made,) = described(two, X, X, dynamic={"x": {0: torch.export.Dim("b", max=8)}}).axes
    assert made == Dim("b", min=1, max=8)


def test_a_torch_dim_without_max_is_refused() -> None:
    with pytest.raises(OptionsError, match=r"x: torch.export.Dim 'b' has no max"):
        described(two, X, X, dynamic={"x": {0: torch.export.Dim("b")}})


def test_dimensions_of_torch_may_follow_from_others() -> None:
    root = torch.export.Dim("b", min=1, max=4)
    found = described(
        two, X, torch.zeros(2, 4), dynamic={"x": {0: 2 * root}, "y": {0: 2 * root - 2}}
    )
    assert [spec.shape[0] for spec in found.tensors] == [
        DerivedSize((("b", 2),)), DerivedSize((("b", 2),), -2),
    ]  # fmt: skip
    assert found.axes == (Dim("b", min=1, max=4),)
    assert found.example_sizes == {"b": 2}


def test_dimensions_may_follow_from_several() -> None:
    a, b = Dim("a", max=8), Dim("b", max=8)
    dynamic = {"x": {0: a + b + 1}, "y": {0: a, 1: b - 1}}
    found = described(two, torch.zeros(7, 4), torch.zeros(2, 3), dynamic=dynamic)
    assert str(found.tensors[0]) == "torch.float32 [a + b + 1, 4] on cpu"
    assert found.example_sizes == {"a": 2, "b": 4}
    with pytest.raises(OptionsError, match="x: dimension 0 of the example is 6, takes 7, which a"):
        described(two, torch.zeros(6, 4), torch.zeros(2, 3), dynamic=dynamic)
    with pytest.raises(OptionsError, match=r"as a \+ b \+ 1: no other dimension tells 'b' alone"):
        described(two, torch.zeros(7, 4), X, dynamic={"x": {0: a + b + 1}, "y": {0: a}})


@pytest.mark.parametrize(
    ("dynamic", "message"),
    [
        ({"x": {0: 3 * Dim("b", max=8)}}, "the example is 4, takes 3\\*b for a whole number 'b'"),
        ({"x": {0: Dim("b", max=8) - 2}}, "x: b - 2 is -1 at least, takes 0 or more"),
        ({"x": {0: 2 * Dim("b", max=1)}}, "is 4, so that 'b' in 2\\*b is 2, outside Dim 'b'"),
        (
            {"x": {0: Dim("b", max=8), 1: Dim("b", max=8) + 5}},
            r"'b' in b \+ 5 is 3, but axis 'b' is 4",
        ),
        ({"x": {0: Dim("b", max=8) + 5}}, "outside Dim 'b'"),
        ({"z": B}, "no tensor argument named z .* there are: x, y"),
        ({"x": {2: Dim("b", max=8)}}, "x has 2 dimensions, no dimension 2"),
        ({"x": {-3: Dim("b", max=8)}}, "x has 2 dimensions, no dimension -3"),
        ({"x": {0: Dim("b", max=3)}}, "dimension 0 of the example is 4, outside Dim 'b'"),
        ({"x": {0: Dim("b", max=8)}, "y": {0: Dim("b", max=9)}}, "'b' is declared twice"),
        ({"x": {0: Dim("b", max=8), 1: Dim("b", max=8)}}, "axis 'b' is 4 elsewhere"),
        ({"x": {0: "b"}}, "takes hotstart.Dim or torch.export.Dim"),
        ({"x": 3}, "x takes a mapping from dimension to hotstart.Dim, got 3"),
        ({"x": {0: torch.export.Dim.AUTO}}, "takes hotstart.Dim or torch.export.Dim"),
    ],
)
def test_declarations_that_make_no_sense_are_refused(dynamic: Any, message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        described(two, X, X, dynamic=dynamic)


@pytest.mark.parametrize(
    ("value", "dims"),
    [
        ({"a": X}, {"b": B}),
        (Pair(X, X), {"middle": B}),
        ([X, X], [B]),
        (3, B),
    ],
)
def test_nested_declarations_must_fit_the_argument(value: Any, dims: Any) -> None:
    with pytest.raises(OptionsError, match="dynamic_shapes: v "):
        described(lambda v: v, value, dynamic={"v": dims})
