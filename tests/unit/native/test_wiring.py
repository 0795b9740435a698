"""What is found out by running the Python around a native program on stand-ins."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest

from hotstart.native.wiring import make_wiring
from hotstart.records.artifact import (
    Blob,
    CompiledUnit,
    Kernel,
    NativeProgram,
    Preparation,
    Requirements,
    Stitched,
    StitchedCall,
    WeightSpec,
)
from hotstart.records.contract import Contract, TensorSpec
from hotstart.records.dims import Dim
from hotstart.records.shapes import Interval, Variant
from hotstart.records.standalone import ResultType
from hotstart.records.wiring import Function, MadeTensor, View, Weight, WiredResult, Wiring
from hotstart.runtime.code.generated import code_of

UNIT = """
def bind(w_0, made_0, made_1):
    call = native(0, w_0, made_0)
    return call
"""

PREPARE = """
def prepare(weight):
    return (weight + 1, None)
"""

RUN = """
def bind(weights, units, constants, owners):
    weight, bias = weights
    unit_0, = units
    half = reinterpret_tensor(bias, (2,), (1,), 2)
    piece_0 = unit_0(weight)
    body = native(1, piece_0, half)

    def run(rows, x, y, y_as_given):
        one, two = tensors(call(body.capsule, rows, handles([y, x])))
        return {result}
    return run
"""


def code(text: str) -> Any:
    return code_of("test", textwrap.dedent(text))


def spec(path: str) -> TensorSpec:
    return TensorSpec(path, "float32", "cpu", ("rows", 4), (0, 1))


def weight(name: str) -> WeightSpec:
    return WeightSpec(name, "parameter", "float32", "cpu", (4,), (1,))


def wiring(result: str = "one", run: str = RUN, where: str = "", **more: Any) -> Wiring:
    """The wiring of a program of one unit, whose variant gives what `result` says."""
    variant = Variant((("rows", Interval(1, 8)),), where)
    axes = (Dim("rows", min=1, max=8),)
    contract = {
        "parameters": (), "tensors": (spec("x"), spec("y")), "axes": axes, "training": None,
        "autocast": (), "mutated_args": (), "given": (1,),
    }  # fmt: skip
    stitched = Stitched(variant, code("pass"), ("unit",), (), (0, 1), **more.pop("stitched", {}))
    call = StitchedCall("", "", Contract(**{**contract, **more}), (stitched,))
    preparation = Preparation(code(PREPARE), (0,), packs=True)
    unit = CompiledUnit("unit", code("pass"), kept=(0,), preparations=(preparation,))
    native = NativeProgram(
        Kernel("library"), Blob("source"), (), (("unit", code(more.pop("unit", UNIT))),),
        (code(run.format(result=result)),),
    )  # fmt: skip
    requirements = Requirements((weight("weight"), weight("bias")), (), (), (), ())
    return make_wiring(native, requirements, (call,), (unit,))


def test_tensors_and_functions_are_found_in_the_places_they_are_bound_to() -> None:
    found = wiring()
    assert found.reason == ""
    assert found.tensors == (
        Weight(0),
        Weight(1),
        View(1, (2,), (1,), 2),
        MadeTensor("hotstart/test.py", (0,), 0),
    )
    assert found.functions == (Function(0, (0, 3)), Function(1, (-1, 2)))
    (call,) = found.calls
    (variant,) = call.variants
    assert call.axes == ("1..8",)
    assert (variant.name, variant.intervals) == ("rows=1..8", ((1, 8),))
    assert (variant.function, variant.arguments) == (1, (1, 0))


@pytest.mark.parametrize(
    ("result", "names"),
    [
        ("one", ["result"]),
        ("(one, two)", ["[0]", "[1]"]),
        ("{'a': [one, {'b': two}], 3: one}", ["a[0]", "a[1]['b']", "[3]"]),
        ("(rows * 2, None, 1.5, 'text', two)", ["[4]"]),
        ("Output(logits=one, states=(two,), loss=None)", ["logits", "states[0]"]),
    ],
)
def test_results_are_named_as_a_user_would_write_them(result: str, names: list[str]) -> None:
    types = (("Output", ResultType("some.where:Output", "mapping", ("logits", "states", "loss"))),)
    found = wiring(result, stitched={"types": types})
    assert found.reason == ""
    assert [each.name for each in found.calls[0].variants[0].results] == names


def test_results_may_be_arguments_and_weights() -> None:
    results = wiring("(two, y_as_given, bias, half)").calls[0].variants[0].results
    assert results == (
        WiredResult("[0]", "made", 1),
        WiredResult("[1]", "argument", 1),
        WiredResult("[2]", "bound", 1),
        WiredResult("[3]", "bound", 2),
    )


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ("one.mT", "what is left of a variant in Python uses tensors"),
        ("one if one else two", "what is left of a variant in Python decides by a tensor"),
        ("y", "a result is an argument that may have been laid out anew"),
        ("object()", "a result holds a object"),
        ("unknown", "the code around the native program does not run alone"),
        (
            "tensors(call(body.capsule, rows, handles([x])))",
            "calls native functions in another way",
        ),
        ("tensors(call(body.capsule, 3, handles([x])))", "calls native functions in another way"),
    ],
)
def test_code_that_does_more_than_to_hand_on_is_a_reason(result: str, reason: str) -> None:
    found = wiring(result)
    assert reason in found.reason
    assert (found.tensors, found.functions, found.calls) == ((), (), ())


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"autocast": (("cpu", "bfloat16"),)}, "it was built under autocast"),
        ({"changed": (0,)}, "a call changes containers that it is given"),
        ({"stitched": {"owners": ("layer",)}}, "a call sets attributes of modules"),
        ({"where": "math.floor(rows) > 2"}, "a condition has no native form"),
    ],
)
def test_programs_that_take_python_say_so(more: dict[str, Any], reason: str) -> None:
    assert reason in wiring(**more).reason


def test_a_condition_over_sizes_is_no_reason() -> None:
    found = wiring(where="rows % 3 == 0 and rows > 1")
    assert found.reason == ""
    assert found.calls[0].variants[0].name == "rows=1..8 where rows % 3 == 0 and rows > 1"
