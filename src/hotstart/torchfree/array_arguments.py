"""Arrays as arguments: how generated entries look at them, and run a variant on them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hotstart.errors import ContractError
from hotstart.records.contract import Contract, TensorSpec
from hotstart.records.nested import same_constant
from hotstart.records.shapes import dense_strides
from hotstart.runtime.code.identifiers import Scope, written_tuple
from hotstart.runtime.entry.argument_kind import ArgumentKind, Looked, Served
from hotstart.runtime.entry.by_parameter import MISSING
from hotstart.runtime.entry.entry_check import Check, Found
from hotstart.runtime.entry.refusal_words import in_words, left_out, to_fit
from hotstart.torchfree.arrays import Array, ArrayMemory, described
from hotstart.torchfree.contracts import OfTorch
from hotstart.torchfree.libtorch import Libtorch
from hotstart.torchfree.memory import laid_out, write
from hotstart.torchfree.taken import read, read_memory

Copied = Callable[[str, Sequence[int]], None]
"""Is told the path and the strides of every argument that is copied, since those do not fit."""


class ArrayArguments(ArrayMemory, ArgumentKind):
    """Arguments that are arrays, or lists of numbers.

    Args:
        torch: the library.
        copied: is told of copies.
    """

    make_one = "pass an array of this dtype"

    def __init__(self, torch: Libtorch, copied: Copied) -> None:
        self._torch = torch
        self._copied = copied

    @staticmethod
    def describe(value: Any) -> str:
        """Describe any value that a call passed in a few words."""
        if (torch := sys.modules.get("torch")) is not None and isinstance(value, torch.Tensor):
            from hotstart.runtime.tensors import (
                describe_tensor,  # imports torch, which is there
            )

            return describe_tensor(value)
        if value is not MISSING and not isinstance(value, _NO_MEMORY):
            array = read_memory(value)
            if array is not None:
                return described(array)
        return in_words(value)

    @staticmethod
    def same_constant(value: Any, expected: Any) -> bool:
        """Tell whether a value is as good as a constant of the contract."""
        if isinstance(expected, OfTorch):
            return bool(expected == value)
        return same_constant(value, expected)

    @staticmethod
    def state(_: Contract, __: Scope) -> Sequence[Check]:
        """Check nothing: there is neither a model nor autocast."""
        return ()

    def looked_at(self, spec: TensorSpec, name: str, scope: Scope) -> Looked:
        """Read an array."""
        array = scope.new(f"{name}_read")

        def other(found: Found) -> ContractError:
            value = found[name]
            listed = found[array] if isinstance(value, list | tuple) else None
            got = self.describe(value) if listed is None else described(listed)
            there = found[array]
            if there is None:
                hint = left_out(value) or self.make_one
            else:
                hint = to_fit(spec, there.dtype, there.shape)
            return ContractError(spec.path, got, str(spec), hint)

        reading = f"({array} := {scope.refer('read', read)}({name}, {spec.dtype!r})) is not None"
        return Looked(
            array, [Check(reading, other), Check(f"{array}.dtype == {spec.dtype!r}", other)], other
        )

    @staticmethod
    def writable(spec: TensorSpec, name: str) -> Sequence[Check]:
        """Check that an array is the caller's own memory, which may be written to."""

        def only_read(found: Found) -> ContractError:
            return ContractError(
                spec.path,
                f"{described(found[name])} that cannot be written to",
                f"{spec}, which the model writes to",
                "pass an array that shares its memory and is not read-only",
            )

        return [Check(f"{name}.writable and not {name}.copied", only_read)]

    def run(self, served: Served) -> Iterator[str]:
        """Call the variant's function, and copy mutations of copies back."""
        run = served.scope.refer("run_on_arrays", self._run)
        contract = served.scope.refer("contract", served.contract)
        sizes = written_tuple(served.sizes[dim.name] for dim in served.contract.axes)
        arrays, objects = written_tuple(served.tensors), written_tuple(served.objects)
        yield f"return {run}({contract}, {served.function}, {sizes}, {arrays}, {objects})"

    def _run(
        self,
        contract: Contract,
        function: Callable[..., Any],
        sizes: Sequence[int],
        passed: Sequence[Array],
        objects: Sequence[Any],
    ) -> Any:
        arrays = list(map(self._laid_out, contract.tensors, passed))
        given = [passed[slot] for slot in contract.given]
        result = function(*sizes, *arrays, *given, *objects)
        for slot in contract.mutated_args:
            if arrays[slot].address != passed[slot].address:
                write(self._torch, passed[slot], arrays[slot])
        return result

    def _laid_out(self, spec: TensorSpec, array: Array) -> Array:
        """Lay an argument out as it was compiled, where the contract allows that."""
        if not spec.shape or spec.layout != "copied":
            return array
        made = laid_out(self._torch, array, dense_strides(array.shape, spec.dim_order))
        if made.address != array.address:
            self._copied(spec.path, array.strides)
        return made


_NO_MEMORY = (list, tuple, dict, str, int, float, bytes)
"""Classes of values that are said by what they hold, also where they have a buffer."""
