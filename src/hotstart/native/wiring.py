"""Find out what generated Python binds and returns, by running it on stand-ins.

The Python around a native program only passes tensors on. It is executed once with stand-ins for
weights, arguments and results; where these end up is the wiring.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

import torch

from hotstart.artifact.weights_compatibility import table_digest, unit_digests
from hotstart.native.conditions import write_where
from hotstart.native.operators import NotNative
from hotstart.records.artifact import (
    Code,
    CompiledUnit,
    NativeProgram,
    Preparation,
    Requirements,
    Stitched,
    StitchedCall,
)
from hotstart.records.contract import Contract
from hotstart.records.nested import is_namedtuple
from hotstart.records.trees import CONSTANT_TYPES
from hotstart.records.wiring import (
    Bound,
    Function,
    Held,
    MadeTensor,
    View,
    Weight,
    WiredCall,
    WiredResult,
    WiredVariant,
    Wiring,
)
from hotstart.runtime.code.generated import run_code
from hotstart.runtime.results import Plain, result_classes


def make_wiring(
    native: NativeProgram,
    requirements: Requirements,
    calls: Sequence[StitchedCall],
    units: Sequence[CompiledUnit],
) -> Wiring:
    """Find the wiring of a native program; a wiring with a reason if it needs Python."""
    try:
        _require_native(native, requirements, calls)
        return _Recorder(native, requirements, calls, units).wiring()
    except _TakesPython as reason:
        return Wiring(reason=str(reason))
    except Exception as error:  # noqa: BLE001  generated code that does more than to hand on
        kind = type(error).__name__  # and not its text, which may differ from build to build
        return Wiring(reason=f"the code around the native program does not run alone: {kind}")


class _TakesPython(Exception):
    """A step that needs Python; the message names it."""


def _require_native(
    native: NativeProgram, requirements: Requirements, calls: Sequence[StitchedCall]
) -> None:
    if None in native.runs:
        raise _TakesPython("a variant runs as Python")
    if requirements.operators:
        raise _TakesPython("there are operators that did not come with torch")
    if any(spec.overlaps for spec in requirements.weights):
        raise _TakesPython("weights that calls write to share memory")
    for call in calls:
        contract = call.contract
        if contract.changed:
            raise _TakesPython("a call changes containers that it is given")
        if contract.autocast:
            raise _TakesPython("it was built under autocast")
        if contract.default_dtype not in (None, "float32"):
            raise _TakesPython("it was built under another default dtype than float32")
        if contract.default_device not in (None, "cpu"):
            raise _TakesPython("it was built under another default device than the CPU")
        if any(stitched.owners for stitched in call.stitched):
            raise _TakesPython("a call sets attributes of modules")


# --- stand-ins ------------------------------------------------------------------------------------


class _StandIn:
    """Stands for a tensor. Code may only pass it on."""

    __slots__ = ("kind", "number")

    def __init__(self, kind: str, number: int) -> None:
        self.kind = kind
        self.number = number

    def detach(self) -> _StandIn:
        """Return itself: nothing is differentiated."""
        return self

    def numpy(self) -> _StandIn:
        """Return itself: what Python returns as an array is memory as any other."""
        return self

    def __getattr__(self, name: str) -> NoReturn:
        raise _TakesPython("what is left of a variant in Python uses tensors")

    def __bool__(self) -> NoReturn:
        raise _TakesPython("what is left of a variant in Python decides by a tensor")


class _Size(int):
    """Stands for the size of an axis, and is recognised by identity."""


class _Bound:
    """Stands for a function with what it runs on."""

    __slots__ = ("capsule", "number", "written")

    def __init__(self, number: int) -> None:
        self.number = number
        self.capsule = self
        self.written = ()


class _Called:
    """Call that a variant made: the function and its arguments."""

    def __init__(self) -> None:
        self.function: int | None = None
        self.arguments: tuple[int, ...] = ()


# --- the recorder ---------------------------------------------------------------------------------


class _Recorder:
    """Runs the code of one native program on stand-ins, and keeps what it did."""

    def __init__(
        self,
        native: NativeProgram,
        requirements: Requirements,
        calls: Sequence[StitchedCall],
        units: Sequence[CompiledUnit],
    ) -> None:
        self._native = native
        self._requirements = requirements
        self._calls = calls
        self._units = {unit.key: unit for unit in units}
        self._tensors: dict[Bound, int] = {}
        self._functions: list[Function] = []
        codes = dict(native.units)
        self._binds = {key: self._binding(self._units[key], codes[key]) for key in codes}

    def wiring(self) -> Wiring:
        """Run the code of all variants, and describe what it binds and returns."""
        codes = iter(self._native.runs)
        calls = tuple(
            self._call(call, [next(codes) for _ in call.stitched]) for call in self._calls
        )
        return Wiring(
            units=unit_digests(tuple(self._units.values())),
            specs=table_digest(self._requirements),
            tensors=tuple(self._tensors),
            functions=tuple(self._functions),
            calls=calls,
        )

    def _call(self, call: StitchedCall, codes: Sequence[Code | None]) -> WiredCall:
        pairs = zip(call.stitched, codes, strict=True)
        variants = tuple(self._variant(call.contract, each, code) for each, code in pairs if code)
        names = {tuple(result.name for result in variant.results) for variant in variants}
        if len(names) > 1:
            raise _TakesPython("variants differ in what they return")
        return WiredCall(tuple(str(dim) for dim in call.contract.axes), variants)

    # --- tensors and functions --------------------------------------------------------------------

    def _tensor(self, bound: Bound) -> _StandIn:
        return _StandIn("bound", self._tensors.setdefault(bound, len(self._tensors)))

    def _viewed(
        self, of: Any, shape: Sequence[int], stride: Sequence[int], further: int
    ) -> _StandIn:
        return self._tensor(View(_number(of, "bound"), tuple(shape), tuple(stride), further))

    def _function(self, body: int, *held: Any, written: Any = ()) -> _Bound:
        numbers = tuple(
            -1 - each.number if isinstance(each, _Bound) else _number(each, "bound")
            for each in held
        )
        self._functions.append(Function(body, numbers))
        return _Bound(len(self._functions) - 1)

    def _binding(self, unit: CompiledUnit, code: Code) -> Callable[..., Any]:
        """The function that binds a unit to weights, some of them prepared."""
        constants = {name: self._tensor(Held(unit.key, name)) for name, _ in unit.constants}
        scope = {
            "native": self._function,
            "reinterpret_tensor": self._viewed,
            "raise_versions": lambda _: None,
            **constants,
        }
        bind = run_code(code, scope)["bind"]
        made = [(each, _results_of(each)) for each in unit.preparations]

        def bound(*weights: Any) -> Any:
            kept = weights if unit.kept is None else [weights[number] for number in unit.kept]
            prepared = [
                self._prepared(each, number, weights) if there else None
                for each, results in made
                for number, there in enumerate(results)
            ]
            return bind(*kept, *prepared)

        return bound

    def _prepared(self, preparation: Preparation, number: int, weights: Sequence[Any]) -> _StandIn:
        taken = tuple(_number(weights[each], "bound") for each in preparation.weights)
        return self._tensor(MadeTensor(preparation.code.filename, taken, number))

    # --- variants ---------------------------------------------------------------------------------

    def _variant(self, contract: Contract, stitched: Stitched, code: Code) -> WiredVariant:
        """Run the code of a variant, and describe what it called and returned."""
        if any(isinstance(each, torch.Tensor) for each in stitched.constants):
            raise _TakesPython("a variant has tensors as constants")
        try:
            write_where(stitched.variant, contract.axes)
        except NotNative as error:
            raise _TakesPython(f"a condition has no native form: {error}") from None
        intervals = stitched.variant.intervals()
        sizes = [_Size(intervals[dim.name].hi) for dim in contract.axes]
        called = _Called()
        run = self._bound(stitched, code, partial(self._record, called, sizes))
        numbers = range(len(contract.tensors))
        arguments = [_StandIn("argument", number) for number in numbers]
        given = [_StandIn("argument", -1 - slot) for slot in contract.given]
        objects = [_Object() for _ in contract.objects]
        found = run(*sizes, *arguments, *given, *objects)
        if called.function is None:
            raise _TakesPython("a variant calls no native function")
        return WiredVariant(
            name=stitched.variant.name,
            intervals=tuple((intervals[d.name].lo, intervals[d.name].hi) for d in contract.axes),
            function=called.function,
            arguments=called.arguments,
            results=tuple(_result(name, each) for name, each in _tensors_in(found)),
        )

    def _bound(
        self, stitched: Stitched, code: Code, call: Callable[..., Any]
    ) -> Callable[..., Any]:
        """The function of a variant, bound to stand-ins."""
        results = _results_called(code)
        scope: Mapping[str, Any] = {
            "native": self._function,
            "reinterpret_tensor": self._viewed,
            "raise_versions": lambda _: None,
            "handles": lambda given: [_number(each, "argument") for each in given],
            "call": call,
            "tensors": lambda _: [_StandIn("made", number) for number in range(results)],
            **result_classes(stitched.types, "plain"),
        }
        bind = run_code(code, scope)["bind"]
        weights = [self._tensor(Weight(slot)) for slot in stitched.weights]
        units = [self._binds[key] for key in stitched.units]
        run: Callable[..., Any] = bind(weights, units, stitched.constants, ())
        return run

    @staticmethod
    def _record(called: _Called, sizes: Sequence[_Size], body: _Bound, *given: Any) -> None:
        *passed, arguments = given
        same = len(passed) == len(sizes) and all(map(_is_same, passed, sizes))
        if called.function is not None or not same:
            raise _TakesPython("a variant calls native functions in another way than once")
        called.function, called.arguments = body.number, tuple(arguments)


class _Object:
    """Stands for a container of the caller's."""


def _is_same(one: object, other: object) -> bool:
    return one is other


def _number(value: Any, kind: str) -> int:
    """The number of a stand-in of some kind."""
    if isinstance(value, _StandIn) and value.kind == kind:
        return value.number
    raise _TakesPython("what is left of a variant in Python makes tensors")


def _results_of(preparation: Preparation) -> list[bool]:
    """Tell for each result of a packing preparation whether it is a tensor or None."""
    module = ast.parse(preparation.code.text)
    for statement in module.body:
        match statement:
            case ast.FunctionDef(
                name="prepare", body=[*_, ast.Return(value=ast.Tuple(elts=results))]
            ):
                return [ast.unparse(each) != "None" for each in results]
    raise _TakesPython("a preparation does not end with what it makes")


def _results_called(code: Code) -> int:
    """Count the tensors that the native part of a variant gives."""
    for node in ast.walk(ast.parse(code.text)):
        match node:
            case ast.Assign(
                targets=[ast.Tuple(elts=names)], value=ast.Call(func=ast.Name(id="tensors"))
            ):
                return len(names)
    return 0


def _result(name: str, tensor: _StandIn) -> WiredResult:
    match tensor.kind:
        case "made":
            return WiredResult(name or "result", "made", tensor.number)
        case "argument" if tensor.number < 0:  # as the caller passed it
            return WiredResult(name or "result", "argument", -1 - tensor.number)
        case "bound":
            return WiredResult(name or "result", "bound", tensor.number)
    raise _TakesPython("a result is an argument that may have been laid out anew")


def _tensors_in(value: Any, path: str = "") -> Iterator[tuple[str, _StandIn]]:
    """Every tensor in a result with its path, in order; numbers and constants are left out."""
    if isinstance(value, _StandIn):
        yield path, value
    elif isinstance(value, Plain) or is_namedtuple(type(value)):
        fields = vars(value) if isinstance(value, Plain) else value._asdict()
        for name, each in fields.items():
            yield from _tensors_in(each, f"{path}.{name}" if path else name)
    elif type(value) in (tuple, list):
        for number, each in enumerate(value):
            yield from _tensors_in(each, f"{path}[{number}]")
    elif isinstance(value, dict):
        for key, each in value.items():
            bare = isinstance(key, str) and not path
            yield from _tensors_in(each, key if bare else f"{path}[{key!r}]")
    elif isinstance(value, _Object):
        raise _TakesPython("a result holds a container that the caller passed")
    elif not isinstance(value, CONSTANT_TYPES):
        raise _TakesPython(f"a result holds a {type(value).__qualname__}")
