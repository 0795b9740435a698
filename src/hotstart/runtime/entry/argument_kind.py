"""Define what entries know of arguments in the places of tensors. Imports no torch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from hotstart.records.contract import Contract, TensorSpec
from hotstart.runtime.code.identifiers import Scope
from hotstart.runtime.entry.entry_check import Check, Explain
from hotstart.runtime.shared_memory import Memory


class Looked(msgspec.Struct, frozen=True):
    """Source that looks at an argument in the place of a tensor.

    Attributes:
        variable: of the tensor, which has `shape`, `stride()` and `is_contiguous()`.
        checks: of all but its shape and its strides.
        other: explains that the argument is not what the contract says.
    """

    variable: str
    checks: Sequence[Check]
    other: Explain


class Served(msgspec.Struct, frozen=True):
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


class ArgumentKind(Memory):
    """Says how arguments of one kind are looked at, and given to the function of a variant.

    Attributes:
        singletons: classes of constants of which there is one object for each value.
        make_one: advice on a value that is neither a tensor nor an array.
    """

    singletons: tuple[type, ...] = ()
    make_one: str

    @abstractmethod
    def describe(self, value: Any, /) -> str:
        """Describe any value that a call passed in a few words."""

    @abstractmethod
    def same_constant(self, value: Any, expected: Any, /) -> bool:
        """Tell whether a value is as good as a constant of the contract."""

    @abstractmethod
    def state(self, contract: Contract, scope: Scope, /) -> Iterable[Check]:
        """Check what a call depends on besides its arguments."""

    @abstractmethod
    def looked_at(self, spec: TensorSpec, name: str, scope: Scope, /) -> Looked:
        """Look at the value of a variable in the place of a tensor."""

    @abstractmethod
    def writable(self, spec: TensorSpec, name: str, /) -> Sequence[Check]:
        """Check that a tensor can be written to."""

    @abstractmethod
    def run(self, served: Served, /) -> Iterator[str]:
        """Return what a function gives, after copying mutations of copies back; statements."""
