"""A program that runs as native code in a process without Python's torch."""

from __future__ import annotations

import ast
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from hotstart.artifact.disk import OpenFile
from hotstart.errors import ContractError
from hotstart.records.artifact import (
    Artifact,
    Code,
    CompiledUnit,
    Const,
    NativeProgram,
    Parameter,
    Slot,
    Stitched,
    TensorSpec,
)
from hotstart.records.shapes import dense_strides, layout_fits, spanned, strides_match
from hotstart.runtime.generated import run_code
from hotstart.runtime.libraries import load_program
from hotstart.runtime.results import result_classes
from hotstart.runtime.served import in_words, not_served, other_size, shares_a_weight
from hotstart.torchfree.arrays import Array, Given, given
from hotstart.torchfree.library import Libtorch, capsules, size_of
from hotstart.torchfree.weights import Weights

_MISSING = object()


def bound(artifact: Artifact, torch: Libtorch, weights: str | os.PathLike[str]) -> TorchFreeProgram:
    """Make a program of an artifact and prepared weights.

    Raises:
        ArtifactError: as `hotstart.load`.
    """
    with OpenFile(os.fspath(weights)) as source:
        prepared = Weights(torch, source)
    prepared.require_fit(artifact)
    program = TorchFreeProgram(artifact, torch, prepared)
    prepared.require_whole()
    return program


def needs_torch(artifact: Artifact) -> str:
    """Say what of a program takes Python's torch; empty if nothing does."""
    native = artifact.native
    if native is None or None in native.runs:
        return "a variant runs as Python"
    codes = [*native.runs, *(code for _, code in native.units)]
    if any(code is not None and "torch" in code.text.split("def bind", 1)[0] for code in codes):
        return "code around the native program mentions it"
    if any(code is not None and _uses_tensors(code) for code in native.runs):
        return "what is left of a variant in Python uses tensors"
    if artifact.requirements.operators:
        return "there are operators that did not come with torch"
    if artifact.captured or any(unit.constants for unit in artifact.units):
        return "the file holds tensors"
    if len(artifact.calls) != 1:
        return "the program has several calls"
    (call,) = artifact.calls
    contract = call.contract
    if contract.mutated_args or contract.objects:
        return "a call changes what it is given"
    if contract.autocast:
        return "it was built under autocast"
    if any(stitched.owners or stitched.constants for stitched in call.stitched):
        return "a call sets attributes, or has constants"
    for parameter in contract.parameters:
        if parameter.kind == "var_positional" or not _is_plain(parameter):
            return f"the argument {parameter.name} is no tensor or plain constant"
    return ""


def _uses_tensors(code: Code) -> bool:
    """Tell whether code around a native program does more with tensors than to hand them on.

    Attributes of them are views, and names of `bind` are weights, which are numbers here.
    """
    (bind,) = [each for each in ast.parse(code.text).body if isinstance(each, ast.FunctionDef)]
    (run,) = [each for each in bind.body if isinstance(each, ast.FunctionDef)]
    outside = [each for each in bind.body if each is not run]
    names = [node for part in outside for node in ast.walk(part) if isinstance(node, ast.Name)]
    bound = {node.id for node in names if isinstance(node.ctx, ast.Store)} - {"body"}
    tensors = {argument.arg for argument in run.args.args}
    for node in ast.walk(run):
        match node:
            case ast.Assign(targets=[target], value=ast.Call(func=ast.Name(id="tensors"))):
                tensors |= {each.id for each in ast.walk(target) if isinstance(each, ast.Name)}
    for node in ast.walk(run):
        match node:
            case ast.Name(id=name) if name in bound:
                return True
            case ast.Attribute() if _root(node) in tensors:
                return True
    return False


def _root(value: ast.expr) -> str:
    """The name that attributes and calls of attributes begin with; empty if there is none."""
    while isinstance(value, ast.Attribute | ast.Call | ast.Subscript):
        value = value.func if isinstance(value, ast.Call) else value.value
    return value.id if isinstance(value, ast.Name) else ""


def _is_plain(parameter: Parameter) -> bool:
    if parameter.has_default and _constant(parameter.default) is _MISSING:
        return False
    match parameter.tree:
        case Slot(kind="arg", views=()):
            return True
        case Const(value):
            return _constant(value) is not _MISSING
    return False


def _constant(written: Any) -> Any:
    """Read a constant as manifests have it; `_MISSING` for one that is not plain."""
    match written:
        case None | bool() | int() | str():
            return written
        case {"float": str() as text} if len(written) == 1:
            return float(text)
    return _MISSING


class _Body:
    """A function of the native program with what it runs on; it lives as long as its capsule."""

    __slots__ = ("capsule", "held", "written")

    def __init__(self, capsule: Any, held: tuple[Any, ...]) -> None:
        self.capsule = capsule
        self.held = held
        self.written: tuple[Any, ...] = ()


class TorchFreeProgram:
    """A program in a process that has not imported torch.

    It is called as the model's forward is. Tensors are whatever has an array interface, DLPack or a
    buffer, such as numpy's arrays, or lists of numbers; results have `hotstart.torchfree.Array` in
    the places of tensors, which `numpy.asarray` reads without a copy, in plain records.

    Attributes:
        artifact: what it was made from.
    """

    def __init__(self, artifact: Artifact, torch: Libtorch, weights: Weights) -> None:
        assert artifact.native is not None
        self.artifact = artifact
        self._torch = torch
        self._weights = weights
        self._capsule, self._handle_of = capsules()
        self._bind, call = load_program(artifact.native)
        self._scope: dict[str, Any] = {
            "native": self._bound,
            "call": partial(_called, call),
            "handles": self._handles,
            "tensors": self._arrays,
            "reinterpret_tensor": weights.viewed,
            "raise_versions": lambda _: None,
        }
        (self._call,) = artifact.calls
        self._runs = self._variants(artifact, artifact.native)
        self._written = list(self._where_calls_write(artifact))

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run the model on arrays.

        Raises:
            ContractError: the program was not built for such a call.
            TypeError: an argument is given twice.
        """
        arrays, sizes = self._checked(args, kwargs)
        for stitched, run in self._runs:
            if _serves(stitched, sizes):
                contract = self._call.contract
                axes = [sizes[dim.name] for dim in contract.axes]
                passed = [self._shown(arrays[slot]) for slot in contract.given]
                return run(*axes, *arrays, *passed)
        names = " or ".join(stitched.variant.name for stitched, _ in self._runs)
        raise ContractError("sizes", str(sizes), names)

    def __repr__(self) -> str:
        return f"TorchFreeProgram({len(self._runs)} variants)"

    # --- binding ----------------------------------------------------------------------------------

    def _variants(
        self, artifact: Artifact, native: NativeProgram
    ) -> list[tuple[Stitched, Callable[..., Any]]]:
        """Bind the variants, the most specific first."""
        units = {unit.key: unit for unit in artifact.units}
        codes = dict(native.units)
        binds = {
            key: self._unit(units[key], run_code(code, self._scope)["bind"])
            for key, code in codes.items()
        }
        slots = [
            self._weights.table.weights.get(spec.name) for spec in artifact.requirements.weights
        ]
        found = []
        for stitched, code in zip(self._call.stitched, native.runs, strict=True):
            assert code is not None
            scope = {**self._scope, **result_classes(stitched.types, "plain")}
            bind = run_code(code, scope)["bind"]
            weights = [slots[slot] for slot in stitched.weights]
            found.append((stitched, bind(weights, [binds[key] for key in stitched.units], (), ())))
        return found[::-1]

    def _where_calls_write(self, artifact: Artifact) -> Iterator[tuple[range, str]]:
        """Where the weights lie that calls write to, with their names."""
        table = self._weights.table
        for spec in artifact.requirements.weights:
            slot = table.weights.get(spec.name)
            if spec.mutated and slot is not None and table.tensors[slot].stretch is not None:
                address, dtype, shape, strides = self._torch.described(self._weights.handle(slot))
                yield _bytes_of(Given(address, dtype, shape, strides, None)), spec.name

    def _unit(self, unit: CompiledUnit, bind: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *weights: bind(*self._weights.of_unit(unit, weights))

    def _bound(self, body: int, *held: Any, written: Sequence[int] = ()) -> _Body:
        row = [
            each.capsule
            if isinstance(each, _Body)
            else self._capsule(self._torch.again(self._weights.handle(each)))
            for each in held
        ]
        return _Body(self._bind(body, row), held)

    # --- calls ------------------------------------------------------------------------------------

    def _handles(self, arrays: Sequence[Given | Array]) -> _Row:
        given = [a.given() if isinstance(a, Array) else a for a in arrays]
        row = _Row(self._capsule(self._over(a)) for a in given)
        row.keeps = (*given, self._weights)
        return row

    def _over(self, given: Given) -> int:
        return self._torch.over(given.address, given.shape, given.strides, given.dtype)

    def _shown(self, given: Given) -> Array:
        """An argument as it is in results: an array of the memory that the caller has passed."""
        return Array(self._torch, self._over(given), (given,), given.writable)

    def _arrays(self, made: _Row) -> list[Array]:
        handles = [self._torch.resolved(self._handle_of(capsule)) for capsule in made]
        return [Array(self._torch, handle, made.keeps) for handle in handles]

    def _checked(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[list[Given], dict[str, int]]:
        """Check arguments; return arrays, laid out as they are compiled for, and sizes of axes."""
        contract = self._call.contract
        arrays: dict[int, Given] = {}
        sizes: dict[str, int] = {}
        for parameter, value in _bound_values(contract.parameters, args, kwargs):
            match parameter.tree:
                case Const(written):
                    expected = _constant(written)
                    if type(value) is not type(expected) or value != expected:
                        raise ContractError(
                            parameter.name,
                            _described(value),
                            f"{expected!r}, as in the example",
                            "compile with an example that passes this value",
                        )
                case Slot(index=slot):
                    arrays[slot] = self._array(contract.tensors[slot], value, sizes)
        return [arrays[slot] for slot in range(len(contract.tensors))], sizes

    def _array(self, spec: TensorSpec, value: Any, sizes: dict[str, int]) -> Given:
        """Check an argument in the place of a tensor; note the sizes of its axes."""
        found = given(value, spec.dtype)
        if found is None or found.dtype != spec.dtype or len(found.shape) != len(spec.shape):
            raise ContractError(spec.path, str(found or _described(value)), str(spec))
        contract, variants = self._call.contract, [s.variant for s, _ in self._runs]
        for dim, (size, wanted) in enumerate(zip(found.shape, spec.shape, strict=True)):
            if isinstance(wanted, int):
                if size != wanted:
                    raise ContractError(spec.path, str(found), str(spec))
            elif sizes.setdefault(wanted, size) != size:
                raise other_size(contract, spec.path, dim, wanted, size, sizes[wanted])
            elif not any(size in variant.intervals()[wanted] for variant in variants):
                raise not_served(contract, variants, sizes)
        for place, weight in self._written:
            if _meet(place, _bytes_of(found)):
                raise shares_a_weight(spec.path, weight)
        dense = dense_strides(found.shape, spec.dim_order)
        if found.strides == dense or 0 in found.shape:
            return found
        if spec.layout == "copied":
            return self._laid_out(found, dense)
        if not layout_fits(found.shape, found.strides, dense, spec.layout):
            raise ContractError(
                spec.path,
                f"strides {found.strides}",
                f"strides {dense}, since what forward does depends on them",
                "pass it laid out so, or compile with an example of this layout",
            )
        return found

    def _laid_out(self, found: Given, strides: tuple[int, ...]) -> Given:
        """Copy an array into the compiled layout, unless it only says so of sizes of one."""
        if strides_match(found.shape, found.strides, strides):
            return replace(found, strides=strides)
        handle = self._over(found)
        try:
            made = self._torch.laid_out(handle, found.shape, strides, found.dtype)
        finally:
            self._torch.delete(handle)
        return Array(self._torch, made, (found,)).given()


def _bytes_of(found: Given) -> range:
    """The addresses from the first to the last byte of an array."""
    size = spanned(found.shape, found.strides) * size_of(found.dtype)
    return range(found.address, found.address + size)


def _meet(one: range, other: range) -> bool:
    return max(one.start, other.start) < min(one.stop, other.stop)


class _Row(list[Any]):
    """Capsules of handles, and what keeps the memory of the tensors that a call was given."""

    keeps: tuple[Any, ...] = ()


def _called(call: Callable[..., list[Any]], body: Any, *given: Any) -> _Row:
    results = _Row(call(body, *given))
    results.keeps = given[-1].keeps
    return results


def _serves(stitched: Stitched, sizes: Mapping[str, int]) -> bool:
    variant = stitched.variant
    within = all(sizes[axis] in interval for axis, interval in variant.intervals().items())
    # Only conditions that hotstart wrote come here, from a file that was verified.
    return within and (not variant.where or bool(eval(variant.where, {"math": math}, dict(sizes))))


def _bound_values(
    parameters: Sequence[Parameter], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Iterator[tuple[Parameter, Any]]:
    """Give every parameter its value.

    Raises:
        ContractError: there are arguments that the example did not have.
        TypeError: one is given twice.
    """
    left, named = list(args), dict(kwargs)
    found = []
    for parameter in parameters:
        value = _constant(parameter.default) if parameter.has_default else _MISSING
        if parameter.kind != "keyword" and left:
            if parameter.name in named and parameter.kind != "positional_only":
                raise TypeError(f"got multiple values for argument {parameter.name!r}")
            value = left.pop(0)
        elif parameter.kind != "positional_only":
            value = named.pop(parameter.name, value)
        found.append((parameter, value))
    if named:
        name, value = next(iter(named.items()))
        takes = "nothing: the example call did not have this argument"
        raise ContractError(
            name, _described(value), takes, "compile with an example that passes it"
        )
    if left:
        most = len(args) - len(left)
        raise ContractError("positional arguments", str(len(args)), f"at most {most}")
    yield from found


def _described(value: Any) -> str:
    return "nothing" if value is _MISSING else in_words(value)
