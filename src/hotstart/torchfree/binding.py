"""The functions of a program's variants, bound to arrays: native code, and the Python around it."""

from __future__ import annotations

import builtins
import importlib
import threading
import types
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from hotstart.artifact.file_tensors import FileTensors
from hotstart.artifact.manifest import Manifest
from hotstart.errors import CorruptArtifact
from hotstart.options import Outputs
from hotstart.records import nested
from hotstart.records.artifact import Code, CompiledUnit
from hotstart.runtime.code.generated import run_code
from hotstart.runtime.code.libraries import load_program
from hotstart.runtime.heap import keep_freed_memory
from hotstart.runtime.results import result_classes
from hotstart.torchfree.array_weights import Held
from hotstart.torchfree.arrays import Array
from hotstart.torchfree.contracts import NamesOfTorch, decode
from hotstart.torchfree.libtorch import Libtorch, capsules
from hotstart.torchfree.mapped_arrays import Opaque, Weights
from hotstart.torchfree.memory import array_of, handle_of, laid_out

Run = Callable[..., Any]


class Body:
    """A function of the native program with what it runs on; it lives as long as its capsule."""

    __slots__ = ("capsule", "held", "written")

    def __init__(self, capsule: Any, held: tuple[Any, ...]) -> None:
        self.capsule = capsule
        self.held = held
        self.written: tuple[Any, ...] = ()


class Binding:
    """Hands out the variants' functions, bound to the weights that there are now.

    Args:
        artifact: what to bind.
        torch: the library.
        weights: prepared ones.
        tensors: those that the artifact's file holds.
        outputs: the classes of results.

    Attributes:
        held: the weights.

    Raises:
        NeedsTorch: something of it takes Python's torch.
        ArtifactError: a class is not there.
    """

    def __init__(
        self,
        artifact: Manifest,
        torch: Libtorch,
        weights: Weights,
        tensors: FileTensors[Array],
        outputs: Outputs,
    ) -> None:
        assert artifact.native is not None
        self._torch = torch
        self._weights = weights
        self.held = Held(artifact, torch, weights, tensors)
        self._capsule, self._handle_in = capsules()
        self._bind, call = load_program(artifact.native)
        scope: dict[str, Any] = {
            "__builtins__": {**vars(builtins), "__import__": self._import},
            "native": self._bound,
            "call": partial(_called, call),
            "handles": self._handles,
            "tensors": self._arrays,
            "reinterpret_tensor": Array.as_strided,
            "raise_versions": lambda _: None,
        }
        units = {unit.key: unit for unit in artifact.units}
        binds = {
            key: self._unit(units[key], code, scope, tensors) for key, code in artifact.native.units
        }
        self._binders: list[Callable[[], Run]] = []
        stitched = (each for call in artifact.calls for each in call.stitched)
        for each, code in zip(stitched, artifact.native.runs, strict=True):
            assert code is not None
            bind = run_code(code, {**scope, **result_classes(each.types, outputs)})["bind"]
            constants = [_constant(value, tensors) for value in each.constants]
            called = [binds[key] for key in each.units]
            self._binders.append(
                partial(self._run, bind, each.weights, called, constants, each.owners)
            )
        self._changes = -1
        self._runs: list[Run] = []
        self._calling = threading.local()

    def __call__(self) -> Sequence[Run]:
        """Return the functions, in the order of the calls and their variants.

        They are called in the same thread.

        Raises:
            ModelMismatch: a call has set what does not fit.
        """
        changes, runs = self.held.changes, self._runs
        if changes != self._changes:
            self.held.require_fit()
            runs = [bind() for bind in self._binders]
            keep_freed_memory()
            self._runs, self._changes = runs, changes
        self._calling.runs = runs
        return runs

    def _run(
        self,
        bind: Callable[..., Run],
        slots: Sequence[int],
        units: Sequence[Callable[..., Body]],
        constants: Sequence[Any],
        owners: Sequence[str],
    ) -> Run:
        weights = [self.held.tensors[slot] for slot in slots]
        return bind(weights, units, constants, self.held.owners(owners))

    def _unit(
        self, unit: CompiledUnit, code: Code, scope: Mapping[str, Any], tensors: FileTensors[Array]
    ) -> Callable[..., Body]:
        constants = {name: tensors.find(tensor) for name, tensor in unit.constants}
        bind = run_code(code, {**scope, **constants})["bind"]
        return lambda *weights: bind(*self._weights.of_unit(unit, weights))

    def _bound(self, body: int, *held: Any, written: Sequence[Any] = ()) -> Body:
        """Bind a body of the program to tensors and other bodies, in the order of its places."""
        row = [each.capsule if isinstance(each, Body) else self._held(each) for each in held]
        return Body(self._bind(body, row), held)

    def _held(self, tensor: Any) -> Any:
        if isinstance(tensor, Array):
            return self._capsule(handle_of(self._torch, tensor))
        assert isinstance(tensor, Opaque), "bodies run on no weights without values"
        try:
            handle = self._torch.over(tensor.address, tensor.shape, (), tensor.dtype, tensor.layout)
        except RuntimeError as error:
            expected = "layouts as hotstart writes them"
            raise CorruptArtifact(self._weights.where, "table", expected, str(error)) from error
        return self._capsule(handle)

    # --- what generated code calls ----------------------------------------------------------------

    def _handles(self, arrays: Sequence[Array]) -> Row:
        row = Row(self._capsule(handle_of(self._torch, array)) for array in arrays)
        row.given = arrays
        return row

    def _arrays(self, made: Row) -> list[Array]:
        # Functions keep what they are bound to, which results may be views of.
        keeps = (self._calling.runs,)
        handles = [self._torch.resolved(self._handle_in(capsule)) for capsule in made]
        return [array_of(self._torch, handle, made.given, keeps) for handle in handles]

    def _import(self, name: str, *given: Any) -> Any:
        """Import what generated code does; what is torch's elsewhere is done with arrays here."""
        match name:
            case "torch":
                return NamesOfTorch()
            case "hotstart.records.layout":
                return types.SimpleNamespace(fit=partial(laid_out, self._torch))
            case "hotstart.records.nested" | "hotstart.records.trees":
                return nested
        return importlib.__import__(name, *given)


class Row(list[Any]):
    """Capsules of handles, and the arrays that the call was given."""

    given: Sequence[Array] = ()


def _called(call: Callable[..., list[Any]], body: Any, *given: Any) -> Row:
    results = Row(call(body, *given))
    results.given = given[-1].given
    return results


def _constant(value: Any, tensors: FileTensors[Array]) -> Any:
    match value:
        case {"tensor": str() as name} if len(value) == 1:
            return tensors.find(name)
    return decode(value)
