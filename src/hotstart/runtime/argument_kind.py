"""Define what entries know of arguments in the places of tensors. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from hotstart.records.contract import Contract, TensorSpec
from hotstart.runtime.entry_check import Check, Explain
from hotstart.runtime.names import Scope


class Looked(NamedTuple):
    """Source that looks at an argument in the place of a tensor.

    Attributes:
        variable: of the tensor, which has `shape`, `stride()` and `is_contiguous()`.
        checks: of all but its shape and its strides.
        other: explains that the argument is not what the contract says.
    """

    variable: str
    checks: Sequence[Check]
    other: Explain


class Served(NamedTuple):
    """The variables of an entry that has checked a call.

    Attributes:
        contract: of the call.
        scope: names of what the entry refers to.
        function: the variable of the function of the variant.
        sizes: the variable of each axis, by its name.
        tensors: the variables of tensors, by slot.
        objects: those of the containers that the function takes.
    """

    contract: Contract
    scope: Scope
    function: str
    sizes: Mapping[str, str]
    tensors: Sequence[str]
    objects: Sequence[str]


class ArgumentKind(Protocol):
    """Says how arguments of one kind are looked at, and given to the function of a variant."""

    @property
    def singletons(self) -> tuple[type, ...]:
        """Classes of constants of which there is one object for each value."""

    def describe(self, value: Any, /) -> str:
        """Describe any value that a call passed in a few words."""

    def same_constant(self, value: Any, expected: Any, /) -> bool:
        """Tell whether a value is as good as a constant of the contract."""

    def overlap(self, tensors: Sequence[Any], written: Collection[int], /) -> tuple[int, ...]:
        """Two tensors in one memory, by number, the first of them written to; empty without."""

    def state(self, contract: Contract, scope: Scope, /) -> Iterable[Check]:
        """Check what a call depends on besides its arguments."""

    def looked_at(self, spec: TensorSpec, name: str, scope: Scope, /) -> Looked:
        """Look at the value of a variable in the place of a tensor."""

    def writable(self, spec: TensorSpec, name: str, /) -> Sequence[Check]:
        """Check that a tensor can be written to."""

    def run(self, served: Served, /) -> Iterator[str]:
        """Return what a function gives, after copying mutations of copies back; statements."""
