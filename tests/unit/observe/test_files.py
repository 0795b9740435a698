"""Calls in files: written, read and checked."""

from __future__ import annotations

import collections
import enum
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart.errors import ArtifactError, OptionsError
from tests.capturing import EAGER


class Kind(enum.Enum):
    FULL = "full"


class Flags(enum.Flag):
    A = 1
    B = 2


class Pair(NamedTuple):
    left: Tensor
    right: Tensor | None


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(4, 4)

    def forward(self, x: Tensor, state: Any = None, default: Any = object, **more: Any) -> Tensor:
        return self.up(x) if state is None else self.up(x) + state["pair"].left


CONSTANTS = {
    "a": 1, "b": 2.5, "c": float("inf"), "d": None, "e": "text", "f": b"bytes", "g": ...,
    "h": slice(1, None, 2), "i": torch.float32, "j": torch.device("cpu"), "k": Kind.FULL,
    "l": Flags.A | Flags.B, "m": dict, "n": True, "o": 1 << 70, "p": range(3), "q": 1j,
    "r": torch.channels_last, "s": torch.Size((1, 2)),
}  # fmt: skip


def observed() -> hotstart.ObservedCalls:
    model = Encoder().eval().requires_grad_(False)
    with hotstart.observe(model) as calls:
        for batch in (2, 5):
            state = collections.OrderedDict(pair=Pair(torch.zeros(batch, 4), None), c=CONSTANTS)
            model(torch.zeros(batch, 4), state=state, extra=[1, torch.zeros(batch)])
        model(torch.zeros(3, 4), None)
    return calls


def test_what_is_read_proposes_what_was_written(tmp_path: Path) -> None:
    calls = observed()
    calls.save(tmp_path / "calls.json")
    again = hotstart.ObservedCalls.load(tmp_path / "calls.json")
    assert str(again) == str(calls)
    for name, call in calls.propose().items():
        other = again.propose()[name]
        assert other.dynamic_shapes == call.dynamic_shapes
        assert repr((other.args, other.kwargs)) == repr((call.args, call.kwargs))
    program = hotstart.compile(calls.model, calls=again, options=EAGER)
    x = torch.randn(4, 4)
    assert torch.equal(program(x), calls.model(x))


class Scaled(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x * y


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device that is missing is CUDA's")
def test_calls_of_a_device_that_is_not_here_are_shown_and_refused(tmp_path: Path) -> None:
    model, file = Scaled(), tmp_path / "calls.json"
    with hotstart.observe(model) as calls:
        for size in (3, 5):
            model(torch.ones(size), torch.ones(1))
    calls.save(file)
    data = json.loads(file.read_text())
    for call in data["targets"][""]["calls"]:
        call["tensors"][1]["device"] = "cuda:0"
    file.write_text(json.dumps(data))
    elsewhere = hotstart.ObservedCalls.load(file)
    assert "cuda:0" in str(elsewhere)
    with pytest.raises(OptionsError, match="expected a device of this machine, found cuda:0"):
        hotstart.compile(model, calls=elsewhere, options=EAGER)


def test_a_file_knows_no_model(tmp_path: Path) -> None:
    observed().save(tmp_path / "calls.json")
    with pytest.raises(OptionsError, match=r"compile\(model, calls=calls\)"):
        hotstart.compile(hotstart.ObservedCalls.load(tmp_path / "calls.json"), options=EAGER)


def test_an_object_of_no_name_is_left_out_where_it_is_the_default(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor, mark: Any = object()) -> Tensor:  # noqa: B008
            return x

    with hotstart.observe(Odd().eval()) as calls:
        calls.model(torch.zeros(2))
    calls.save(tmp_path / "calls.json")
    assert len(hotstart.ObservedCalls.load(tmp_path / "calls.json")) == 1


def test_a_class_that_a_function_defines_cannot_be_written(tmp_path: Path) -> None:
    class Local:
        def __init__(self) -> None:
            self.x = 1

    with hotstart.observe(Encoder().eval()) as calls:
        calls.model(torch.zeros(2, 4), local=Local())
    with pytest.raises(OptionsError, match="top level of a module"):
        calls.save(tmp_path / "calls.json")


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="No such file"):
        observed().save(tmp_path / "none" / "calls.json")


# --- files that are none --------------------------------------------------------------------------


Change = Callable[[dict[str, Any]], None]


def first_call(data: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = data["targets"][""]["calls"][0]
    return found


def constant(value: Any) -> Change:
    def change(data: dict[str, Any]) -> None:
        first_call(data)["parameters"][-1]["tree"]["items"][0]["value"] = value

    return change


def within_first(**values: Any) -> Change:
    return lambda data: first_call(data).update(values)


def first_tensor(**values: Any) -> Change:
    return lambda data: first_call(data)["tensors"][0].update(values)


def container_class(cls: str) -> Change:
    return lambda data: first_call(data)["parameters"][-1]["tree"].update(cls=cls)


def version(number: Any) -> Change:
    return lambda data: data.update(hotstart_calls=number)


RUNS = "subprocess:Popen"
CHANGES = {
    "version": (version(2), "format 1, found 2"),
    "no version": (version("1"), "Observe again"),
    "unknown field": (lambda data: data.update(more=1), "more"),
    "dataclass": (constant({"dataclass": [RUNS, ["args", "true"]]}), "kind dataclass"),
    "nested": (constant({"tuple": [{"namedtuple": [RUNS, "true"]}]}), "kind namedtuple"),
    "enum": (constant({"enum": [RUNS, "args"]}), "in the place of an enum"),
    "enum's class": (constant({"enum": [5, "x"]}), "5 in the place of an enum"),
    "enum's member": (constant({"enum": [f"{__name__}:Kind", "HALF"]}), "'HALF'"),
    "tensor": (constant({"tensor": "t"}), "kind tensor"),
    "not imported": (container_class("antigravity:List"), "Import antigravity"),
    "no class": (container_class("json:nothing"), "found none"),
    "sequence": (container_class(RUNS), "Popen in the place of a Seq"),
    "count": (within_first(count=0), "count"),
    "a count without end": (within_first(count=1 << 60), "count"),
    "nothing": (lambda data: data["targets"].clear(), "nothing that was observed"),
    "strides": (within_first(strides=[]), "do not fit"),
    "dtype": (first_tensor(dtype="nn"), "no dtype 'nn'"),
    "device": (first_tensor(device="toaster"), "no device 'toaster'"),
    "size": (first_tensor(shape=[-1, 4]), "sizes"),
    "axis": (first_tensor(shape=["a", 4]), "sizes"),
    "rank": (first_tensor(dim_order=[0]), "another rank"),
    "autocast": (within_first(autocast=[["cpu", "nothing"]]), "no dtype 'nothing'"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_files_that_do_not_hold_together_are_refused(tmp_path: Path, name: str) -> None:
    change, message = CHANGES[name]
    file = tmp_path / "calls.json"
    observed().save(file)
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))
    with pytest.raises(ArtifactError, match=message):
        hotstart.ObservedCalls.load(file)
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("text", ["", "{", "[]", '{"targets": {}}', "\xff", "[" * 100_000])
def test_files_of_something_else_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "calls.json").write_bytes(text.encode("latin1"))
    with pytest.raises(ArtifactError, match=r"calls\.json"):
        hotstart.ObservedCalls.load(tmp_path / "calls.json")
    with pytest.raises(ArtifactError, match="cannot be read"):
        hotstart.ObservedCalls.load(tmp_path / "none.json")


def test_observed_calls_stand_alone_in_a_key_as_in_a_build() -> None:
    calls = observed()
    x = torch.randn(4, 4)
    with pytest.raises(OptionsError, match="got args, kwargs or dynamic_shapes besides"):
        hotstart.compute_key(calls.model, (x,), calls=calls)
    with pytest.raises(OptionsError, match="got args, kwargs or dynamic_shapes besides"):
        hotstart.compile(calls.model, (x,), calls=calls, options=EAGER)
