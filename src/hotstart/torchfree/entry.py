"""One of the ways to call a program without torch: its checks, and what runs then."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from hotstart.errors import ContractError
from hotstart.records.artifact import CompiledCall
from hotstart.records.contract import Contract, TensorSpec
from hotstart.records.shapes import dense_strides
from hotstart.runtime.passed import bind
from hotstart.runtime.served import shares_a_weight
from hotstart.torchfree.arrays import Array
from hotstart.torchfree.checks import Checked, Checks
from hotstart.torchfree.library import Libtorch
from hotstart.torchfree.memory import laid_out, write

Meeting = Callable[[Sequence[Array], Collection[int]], tuple[int, str] | None]
"""Finds an argument, by number, and the name of a weight, as `Held.meeting` does."""

Copied = Callable[[str, Sequence[int]], None]
"""Is told the path and the strides of every argument that is copied, since those do not fit."""


class Entry:
    """One of the ways to call a program.

    Args:
        call: what it is made from.
        contract: its contract, with constants and classes.
        first: the number, among the functions that `bound` gives, of the first of this call.
        bound: gives the functions of all variants of all calls.
        torch: the library.
        copied: is told of copies.
        meeting: finds arguments that share memory with weights; None if calls write to neither.

    Attributes:
        name: of the call.
        contract: as given.
    """

    def __init__(
        self,
        call: CompiledCall,
        contract: Contract,
        first: int,
        bound: Callable[[], Sequence[Callable[..., Any]]],
        torch: Libtorch,
        copied: Copied,
        meeting: Meeting | None,
    ) -> None:
        self.name, self.contract = call.name, contract
        self._checks = Checks(contract, [stitched.variant for stitched in call.stitched])
        self._first = first
        self._bound = bound
        self._torch = torch
        self._copied = copied
        self._meeting = meeting

    def checked(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Checked:
        """Check a call.

        Raises:
            ContractError: it is not within the contract.
            TypeError: an argument is given twice.
        """
        found = self._checks.checked(*bind(self.contract.parameters, args, kwargs))
        if self._meeting is not None:
            met = self._meeting(found.arrays, self.contract.mutated_args)
            if met is not None:
                number, weight = met
                raise shares_a_weight(self.contract.tensors[number].path, weight)
        return found

    def refusal_of(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> ContractError | None:
        """Say why a call is not within the contract; None if it is.

        Raises:
            TypeError: an argument is given twice.
        """
        try:
            self.checked(args, kwargs)
        except ContractError as error:
            return error
        return None

    def run(self, call: Checked) -> Any:
        """Run the variant that serves a call, and copy mutations of copies back."""
        contract, sizes = self.contract, call.sizes
        function = self._bound()[self._first + call.variant]
        axes = [sizes[dim.name] for dim in contract.axes]
        arrays = list(map(self._laid_out, contract.tensors, call.arrays))
        given = [call.arrays[slot] for slot in contract.given]
        objects = [call.containers[number].value for number in contract.objects]
        result = function(*axes, *arrays, *given, *objects)
        for slot in contract.mutated_args:
            if arrays[slot].address != call.arrays[slot].address:
                write(self._torch, call.arrays[slot], arrays[slot])
        return result

    def _laid_out(self, spec: TensorSpec, array: Array) -> Array:
        """Lay an argument out as it was compiled, where the contract allows that."""
        if not spec.shape or spec.layout != "copied":
            return array
        made = laid_out(self._torch, array, dense_strides(array.shape, spec.dim_order))
        if made.address != array.address:
            self._copied(spec.path, array.strides)
        return made
