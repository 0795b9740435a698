"""Calls that a program takes or refuses, and what there is to see of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from msgspec.structs import replace
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from qualification.compare import Did, Inputs, observe, unchanged
from qualification.fuzz import programs
from qualification.fuzz.programs import Program

LAYOUTS = ("plain", "transposed", "expanded", "repeated", "gaps", "offset", "channels_last")

Calls = Mapping[str, Inputs]
"""Arguments of calls by what is odd about them."""


@dataclass(frozen=True)
class Seen:
    """What a call did, as far as it is to be the same after a load.

    Attributes:
        did: None where it raised.
        error: class and text.
        results: of each tensor of the result: shape, strides, offset, and its other marks.
        memory: of each tensor that the call took, found in the model or returned, the first of them
            that has the same memory.
        drawn: the state of the generator of random numbers afterwards.
    """

    did: Did | None
    error: tuple[str, str] | None
    results: list[tuple[Any, ...]]
    memory: list[int]
    drawn: bytes


def calls(program: Program) -> Calls:
    """The program's own calls, and some that it may refuse."""
    given = {f"call {at}": programs.arguments(program, c) for at, c in enumerate(program.calls)}
    given |= dict(_odd(program))
    return given


def _odd(program: Program) -> Iterator[tuple[str, Inputs]]:
    first = program.calls[0]
    for call in program.calls[:3]:
        for at, one in enumerate(program.inputs):
            for layout in LAYOUTS:
                if layout != one.layout:
                    sizes = ",".join(map(str, call.sizes.values()))
                    yield f"{layout} {one.name} of {sizes}", _with(program, call, at, layout=layout)
    for axis, (lo, hi) in program.axes.items():
        for size in (lo - 1, hi + 1, 2 * hi):
            if size >= 0:
                sizes = {**first.sizes, axis: size}
                yield f"{axis} = {size}", programs.arguments(program, replace(first, sizes=sizes))
    usual = programs.arguments(program, first)
    for at, one in enumerate(program.inputs):
        other = "float64" if one.dtype != "float64" else "int64"
        yield f"{other} {one.name}", _with(program, first, at, dtype=other)
        yield f"one more dimension {one.name}", _with(program, first, at, shape=(1, *one.shape))
        for place, size in enumerate(one.shape):
            larger = (*one.shape[:place], first.sizes.get(size, size) + 1, *one.shape[place + 1 :])  # type: ignore[call-overload]
            yield f"larger at {place} {one.name}", _with(program, first, at, shape=larger)
        tensor = usual.args[at]
        others: dict[str, Any] = {"number": 3.0, "nothing": None, "list": [tensor]}
        others["on meta"] = tensor.to("meta")
        others["sparse"] = tensor.to_sparse()
        if tensor.is_floating_point():
            others["parameter"] = nn.Parameter(tensor)
            others["requires grad"] = tensor.clone().requires_grad_()
        if tensor.is_complex():
            others["conjugate"] = tensor.conj()
        for name, value in others.items():
            yield f"{name} {one.name}", _args(usual, at, value)
        for place in range(at):
            yield f"{one.name} is x{place}", _args(usual, at, usual.args[place])
    kwargs = dict(usual.kwargs)
    yield "one more", Inputs((*usual.args, 1), kwargs)
    yield "one less", Inputs(usual.args[:-1], kwargs)
    yield "unknown", Inputs(usual.args, {**kwargs, "other": 1})
    by_name = dict(zip((one.name for one in program.inputs), usual.args, strict=True))
    yield "by name", Inputs((), {**by_name, **kwargs})
    yield "twice", Inputs(usual.args, {**by_name, **kwargs})
    for name, value in kwargs.items():
        for other in (None, 3, -2.0, 2.5, True, 0.0, "half", (1, 2), {"a": 0}, usual.args[0]):
            yield f"{name} = {type(other).__name__}", Inputs(usual.args, {**kwargs, name: other})
        yield f"without {name}", Inputs(usual.args, {k: v for k, v in kwargs.items() if k != name})
        if isinstance(value, dict):
            yield f"more in {name}", Inputs(usual.args, {**kwargs, name: {**value, "b": 1}})


def _args(given: Inputs, at: int, value: Any) -> Inputs:
    return Inputs((*given.args[:at], value, *given.args[at + 1 :]), given.kwargs)


def _with(program: Program, call: programs.Call, at: int, **changes: Any) -> Inputs:
    changed = replace(program.inputs[at], **changes)
    inputs = (*program.inputs[:at], changed, *program.inputs[at + 1 :])
    return programs.arguments(replace(program, inputs=inputs), call)


def seen(called: Callable[..., Any], model: nn.Module, given: Calls) -> Iterator[tuple[str, Seen]]:
    """What calls do."""
    for name, inputs in given.items():
        yield name, _seen(called, model, inputs)


def _seen(called: Callable[..., Any], model: nn.Module, given: Inputs) -> Seen:
    marks: list[tuple[Any, ...]] = []
    memory: list[int] = []

    def noting(*args: Any, **kwargs: Any) -> Any:
        result = programs.plain(called(*args, **kwargs))
        results = _tensors(result)
        marks.extend(map(_marks, results))
        places = [*_tensors((args, kwargs)), *model.parameters(), *model.buffers(), *results]
        memory.extend(_first_of_memory(places))
        return result

    with unchanged(model):
        try:
            did = observe(noting, model, given)
        except Exception as error:  # noqa: BLE001  whatever is raised is to be the same
            return Seen(None, (type(error).__name__, str(error)), [], [], b"")
        finally:
            drawn = torch.get_rng_state().numpy().tobytes()
    return Seen(did, None, marks, memory, drawn)


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, Tensor)]


def _marks(tensor: Tensor) -> tuple[Any, ...]:
    kind = (type(tensor).__name__, str(tensor.dtype), str(tensor.device), str(tensor.layout))
    if tensor.layout is not torch.strided:
        return (*kind, tuple(tensor.shape))
    layout = (tuple(tensor.shape), tensor.stride(), tensor.storage_offset())
    flags = (tensor.requires_grad, tensor.is_conj(), tensor.is_neg(), tensor.is_inference())
    return (*kind, *layout, *flags)


def _first_of_memory(tensors: list[Tensor]) -> list[int]:
    known: dict[int, int] = {}
    return [
        -1
        if tensor.layout is not torch.strided or not tensor.untyped_storage().data_ptr()
        else known.setdefault(tensor.untyped_storage().data_ptr(), at)
        for at, tensor in enumerate(tensors)
    ]
