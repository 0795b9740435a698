"""Define how entries check tensor arguments and run variants on them. Imports no torch."""

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
        checks: checks of everything but its shape and its strides.
        other: makes the error of an argument that does not fit the contract.
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
    """Checks arguments of one kind (tensors or arrays), and passes them to a variant's function.

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
        """Tell whether a value equals a constant of the contract."""

    @abstractmethod
    def state(self, contract: Contract, scope: Scope, /) -> Iterable[Check]:
        """Check the state that a call depends on besides its arguments."""

    @abstractmethod
    def looked_at(self, spec: TensorSpec, name: str, scope: Scope, /) -> Looked:
        """Look at the value of a variable in the place of a tensor."""

    @abstractmethod
    def writable(self, spec: TensorSpec, name: str, /) -> Sequence[Check]:
        """Check that a tensor can be written to."""

    @abstractmethod
    def run(self, served: Served, /) -> Iterator[str]:
        """Write statements that call the function, copy mutations back, and return the result."""
