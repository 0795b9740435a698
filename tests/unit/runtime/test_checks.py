"""A call outside the contract is refused with the argument, what it got and what it takes."""

from __future__ import annotations

import collections
import functools
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn

import hotstart
from hotstart import ContractError, Dim
from tests.unit.runtime.refusals import EAGER, Batch, assert_consistent

Pair = collections.namedtuple("Pair", ["left", "right"])


class Model(nn.Module):
    def forward(self, x, y, tree=None, mode="sum", scale=2.0, *, mask=None):
        out = x + y * scale
        if tree is not None:
            out = out + tree["a"][0].left + tree["b"].ids
        if mode == "sum":
            out = out * 2
        return out if mask is None else out * mask


def tree(**changes: Any) -> dict[str, Any]:
    parts = {"left": torch.ones(4), "right": None, "ids": torch.ones(4), "flag": True} | changes
    return {
        "a": [Pair(parts["left"], parts["right"])],
        "b": Batch(parts["ids"], parts["flag"]),
    }


@pytest.fixture(scope="module")
def program() -> hotstart.Program:
    batch = Dim("batch", min=2, max=8, ranges=[(2, 3), (4, 8)], sizes=[4])
    return hotstart.compile(
        Model().eval(),
        (torch.randn(3, 4), torch.randn(3, 4)),
        {"tree": tree(), "mask": torch.ones(3, 1)},
        dynamic_shapes={"x": {0: batch}, "y": {0: batch}, "mask": {0: batch}},
        options=EAGER,
    )


def arguments(size: int = 3, **changes: Any) -> dict[str, Any]:
    x, y, mask = torch.randn(size, 4), torch.randn(size, 4), torch.ones(size, 1)
    return {"x": x, "y": y, "tree": tree(), "mask": mask} | changes


@pytest.mark.parametrize("size", [2, 3, 4, 5, 8])
def test_calls_within_the_contract_run(program: hotstart.Program, size: int) -> None:
    call = arguments(size)
    assert torch.equal(program(**call), program.model(**call))


T = torch.randn
REFUSED = [
    # what changes, the argument at fault, part of what it got, part of what it takes
    ({"x": T(3, 4).double()}, "x", "float64", "float32"),
    ({"x": T(3, 4, device="meta")}, "x", "meta", "cpu"),
    ({"x": T(12)}, "x", "[12]", "[batch, 4]"),
    ({"x": T(3, 4, 1)}, "x", "[3, 4, 1]", "[batch, 4]"),
    ({"x": T(3, 5)}, "x", "[3, 5]", "[batch, 4]"),
    ({"x": T(())}, "x", "[]", "[batch, 4]"),
    ({"x": T(3, 4).to_sparse()}, "x", "sparse", "float32"),
    ({"x": T(3, 4, dtype=torch.complex64)}, "x", "complex64", "float32"),
    ({"x": T(3, 4, dtype=torch.complex64).conj().imag}, "x", "float32", "float32"),
    ({"x": torch.nn.utils.rnn.PackedSequence}, "x", "PackedSequence", "float32"),
    ({"x": [1.0]}, "x", "list", "float32"),
    ({"x": None}, "x", "None", "float32"),
    ({"y": T(2, 4)}, "y", "size 2", "size 3"),
    ({"mask": T(2, 1)}, "mask", "size 2", "axis 'batch'"),
    ({"mask": None}, "mask", "None", "float32"),
    ({"mode": "mean"}, "mode", "'mean'", "'sum'"),
    ({"scale": 2}, "scale", "2", "2.0"),
    ({"scale": 2.5}, "scale", "2.5", "2.0"),
    ({"scale": True}, "scale", "True", "2.0"),
    ({"tree": None}, "tree", "None", "dict"),
    ({"tree": {}}, "tree", "dict of 0", "['a', 'b']"),
    ({"tree": dict(reversed(tree().items()))}, "tree", "dict of 2", "['a', 'b']"),
    ({"tree": collections.OrderedDict(tree())}, "tree", "OrderedDict", "dict"),
    ({"tree": tree(left=T(5))}, "tree['a'][0].left", "[5]", "[4]"),
    ({"tree": tree(right=1)}, "tree['a'][0].right", "1", "None"),
    ({"tree": tree(ids=T(4).half())}, "tree['b'].ids", "float16", "float32"),
    ({"tree": tree(flag=False)}, "tree['b'].flag", "False", "True"),
    ({"tree": {**tree(), "a": [(T(4), None)]}}, "tree['a'][0]", "tuple", "Pair"),
    ({"tree": {**tree(), "a": []}}, "tree['a']", "list of 0", "list of 1"),
    ({"tree": {**tree(), "b": Pair(1, 2)}}, "tree['b']", "Pair", "Batch"),
    ({"unheard": 1}, "unheard", "1", "no argument 'unheard'"),
]


@pytest.mark.parametrize(
    ("changes", "argument", "got", "takes"), REFUSED, ids=[f"{r[1]}-{r[2]}" for r in REFUSED]
)
def test_a_refusal_names_argument_what_it_got_and_what_it_takes(
    program: hotstart.Program, changes: dict[str, Any], argument: str, got: str, takes: str
) -> None:
    with pytest.raises(ContractError) as caught:
        program(**arguments(**changes))
    error = caught.value
    assert error.argument == argument
    assert got in error.got
    assert takes in error.takes
    assert argument in str(error)
    assert isinstance(error, TypeError)


ADVICE = [
    ({"x": T(3, 4).double()}, "convert it, as by .to(torch.float32), or compile with an example"),
    ({"x": T(3, 4, device="meta")}, "move it, as by .to('cpu')"),
    ({"x": T(3, 4, 1)}, "pass 2 dimensions, or compile with an example of 3"),
    ({"tree": tree(left=T(4, 1))}, "pass 1 dimension, or compile with an example of 2"),
    ({"x": T(3, 5)}, "pass 4 in dimension 1, or declare a Dim for it in dynamic_shapes"),
    ({"x": [1.0]}, "make a tensor of it, as by torch.as_tensor"),
    ({"mask": None}, "pass it, or compile with an example without it"),
    ({"y": T(2, 4)}, "pass equal sizes, or declare another Dim there"),
    ({"tree": []}, "pass it as in the example, or compile with an example of this form"),
    ({"scala": 2.0}, "only x, y, tree, mode, scale, mask; pass 'scale', or compile with"),
    ({"unheard": 1}, "; leave it out, or compile with an example that has it"),
]


@pytest.mark.parametrize(("changes", "advice"), ADVICE, ids=[a[:24] for _, a in ADVICE])
def test_a_refusal_says_what_to_do(
    program: hotstart.Program, changes: dict[str, Any], advice: str
) -> None:
    with pytest.raises(ContractError) as caught:
        program(**arguments(**changes))
    assert advice in str(caught.value)


@pytest.mark.parametrize("size", [0, 1, 9, 100])
def test_sizes_outside_every_range_are_refused(program: hotstart.Program, size: int) -> None:
    with pytest.raises(ContractError, match=f"axis 'batch' of size {size}") as caught:
        program(**arguments(size))
    assert "8" in caught.value.takes


def test_a_missing_argument_is_named(program: hotstart.Program) -> None:
    call = arguments()
    del call["y"]
    with pytest.raises(ContractError) as caught:
        program(**call)
    assert (caught.value.argument, caught.value.got) == ("y", "nothing")


def test_excess_arguments_are_counted(program: hotstart.Program) -> None:
    call = arguments()
    del call["x"], call["y"], call["tree"]
    with pytest.raises(ContractError, match="got 6, takes at most 5"):
        program(T(3, 4), T(3, 4), tree(), "sum", 2.0, "too many", **call)


def test_a_tensor_subclass_is_refused(program: hotstart.Program) -> None:
    class Fancy(torch.Tensor):
        pass

    with pytest.raises(ContractError) as caught:
        program(**arguments(x=T(3, 4).as_subclass(Fancy)))
    assert "Fancy" in caught.value.got


def test_a_parameter_is_a_tensor(program: hotstart.Program) -> None:
    call = arguments(x=nn.Parameter(T(3, 4)))
    assert torch.equal(program(**call), program.model(**call))


def test_a_conjugate_view_is_refused_and_its_copy_taken() -> None:
    def model(x):
        return x.sin()

    program = hotstart.compile(model, (T(3, dtype=torch.complex64),), options=EAGER)
    x = T(3, dtype=torch.complex64)
    with pytest.raises(ContractError, match="resolve_conj"):
        program(x.conj())
    assert torch.equal(program(x.conj().resolve_conj()), x.conj().sin())


def test_the_training_flag_is_part_of_the_contract(program: hotstart.Program) -> None:
    program.model.train()
    try:
        with pytest.raises(ContractError, match=r"model.training: got True, takes False"):
            program(**arguments())
    finally:
        program.model.eval()


def test_autocast_is_part_of_the_contract(program: hotstart.Program) -> None:
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(ContractError, match=r"autocast: got cpu to torch\.bfloat16, takes off"),
    ):
        program(**arguments())


def test_autocast_for_another_kind_of_device_is_named(program: hotstart.Program) -> None:
    torch.set_autocast_enabled("xpu", True)
    try:
        with pytest.raises(ContractError, match=r"autocast: got xpu to torch\.float16, takes off"):
            program(**arguments())
    finally:
        torch.set_autocast_enabled("xpu", False)


def test_a_program_built_under_autocast_runs_there_only() -> None:
    model, x = nn.Linear(4, 4).eval(), T(2, 4)
    with torch.autocast("cpu", torch.bfloat16):
        program = hotstart.compile(model, (x,), options=EAGER)
        assert torch.equal(program(x), model(x))
        assert program(x).dtype == torch.bfloat16
    with pytest.raises(ContractError, match="autocast: got off"):
        program(x)
    with torch.autocast("cpu", torch.float16), pytest.raises(ContractError, match="float16"):
        program(x)


@pytest.mark.parametrize(
    ("default", "same", "other"),
    [
        (float("nan"), float("nan"), 1.0),
        (0.0, 0.0, -0.0),
        (1e30, 1e30, 1e31),
        (1, 1, True),
        (True, True, 1),
        (torch.float32, torch.float32, torch.float64),
        ("a'b", "a'b", "a"),
        (None, None, 0),
        (torch.device("cpu"), torch.device("cpu"), torch.device("meta")),
        (slice(1, 2), slice(1, 2), slice(1, 3)),
        (1 + 2j, 1 + 2j, 1 - 2j),
        (b"x", b"x", "x"),
        (range(3), range(3), range(4)),
    ],
    ids=repr,
)
def test_constants_are_compared_by_type_and_value(default: Any, same: Any, other: Any) -> None:
    def model(x, option=default):
        return x + 1

    program = hotstart.compile(model, (T(2),), options=EAGER)
    x = T(2)
    for call in ({}, {"option": default}, {"option": same}):
        assert torch.equal(program(x, **call), x + 1)
    with pytest.raises(ContractError) as caught:
        program(x, option=other)
    assert caught.value.argument == "option"


# --- the entry refuses a call exactly if there is a reason ----------------------------------------


@functools.cache  # a strategy is checked when it is first drawn from
def tensors() -> st.SearchStrategy[Any]:
    sizes = st.sampled_from([1, 2, 3, 4, 4, 8, 9])
    shapes = st.one_of(
        st.tuples(sizes, st.just(4)), st.tuples(sizes, sizes), st.lists(sizes, max_size=3)
    )
    dtypes = st.sampled_from([torch.float32] * 5 + [torch.float64, torch.int64, torch.complex64])
    devices = st.sampled_from(["cpu"] * 5 + ["meta"])
    made = st.builds(
        lambda shape, dtype, device: torch.zeros(tuple(shape), dtype=dtype, device=device),
        shapes,
        dtypes,
        devices,
    )
    changed = st.sampled_from(
        [lambda t: t] * 6
        + [lambda t: t.t() if t.ndim == 2 else t, lambda t: t.to_sparse(), nn.Parameter]
    )
    floats = made.filter(lambda t: t.is_floating_point() and t.device.type == "cpu")
    return st.one_of(made, st.builds(lambda t, f: f(t), floats, changed))


@functools.cache
def anything() -> st.SearchStrategy[Any]:
    leaves = st.one_of(
        tensors(), st.sampled_from([None, True, 0, 1, 2.0, "sum", float("nan"), torch.float32])
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=2),
            st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
            st.builds(Pair, inner, inner),
            st.builds(Batch, inner, inner),
        ),
        max_leaves=4,
    )


def mostly(fitting: Any, other: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.just(fitting), st.just(fitting), other)


@pytest.mark.thorough
@settings(max_examples=80)
@given(data=st.data())
def test_any_arguments_are_taken_or_refused_for_a_reason(
    program: hotstart.Program, data: Any
) -> None:
    size = data.draw(st.sampled_from([1, 2, 3, 4, 5, 8, 9]))
    call = {name: data.draw(mostly(value, anything())) for name, value in arguments(size).items()}
    call["mode"] = data.draw(mostly("sum", anything()))
    call["scale"] = data.draw(mostly(2.0, anything()))
    for name in data.draw(st.lists(st.sampled_from(list(call)), max_size=1)):
        del call[name]
    if data.draw(st.integers(0, 9)) == 0:
        call["unknown"] = data.draw(anything())
    assert_consistent(program, call)
