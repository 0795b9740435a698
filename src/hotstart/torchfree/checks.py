"""Check a call on arrays, in the order and in the words of the generated entry."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hotstart.errors import ContractError
from hotstart.records.contract import Contract, TensorSpec
from hotstart.records.nested import (
    Attributes,
    Const,
    Container,
    Map,
    Record,
    Seq,
    Slot,
    Tree,
    children,
    is_changeable,
    same_constant,
    slot_names,
)
from hotstart.records.shapes import Variant, dense_strides, layout_fits, may_overlap
from hotstart.runtime.passed import MISSING
from hotstart.runtime.served import (
    form_of,
    in_words,
    not_as_written,
    not_laid_out,
    not_served,
    other_size,
    overlaps_itself,
    passed_twice,
    positional,
    same_object,
    shares_memory,
    too_many,
    unknown_argument,
)
from hotstart.torchfree.arrays import Array, described
from hotstart.torchfree.taken import read, read_memory
from hotstart.torchfree.values import OfTorch


class Part(NamedTuple):
    """A container that a call passed."""

    tree: Container
    value: Any
    path: str


class Checked:
    """What a call passed, as far as it was checked.

    Attributes:
        arrays: in the places of tensors, by slot.
        containers: every container, from the outermost on.
        sizes: of axes, by name.
        variant: the number of the most specific one that serves these, among those of the call.
    """

    __slots__ = ("arrays", "containers", "sizes", "variant")

    def __init__(self) -> None:
        self.arrays: list[Array] = []
        self.containers: list[Part] = []
        self.sizes: dict[str, int] = {}
        self.variant = 0


class Checks:
    """The checks of a contract.

    Args:
        contract: with its constants and classes.
        variants: those that serve it.
    """

    def __init__(self, contract: Contract, variants: Sequence[Variant]) -> None:
        self._contract = contract
        self._variants = variants
        self._most = positional(contract.parameters)
        self._takes_more = any(p.kind == "var_positional" for p in contract.parameters)
        self._written = frozenset(contract.mutated_args)
        intervals = [variant.intervals() for variant in variants]
        self._bounds = {
            dim.name: (
                min(each[dim.name].lo for each in intervals),
                max(each[dim.name].hi for each in intervals),
            )
            for dim in contract.axes
        }

    def checked(
        self, values: Sequence[Any], excess: Sequence[Any], unknown: Mapping[str, Any]
    ) -> Checked:
        """Check a call that was bound to parameters.

        Raises:
            ContractError: of the first check that fails.
        """
        if unknown:
            name, value = next(iter(unknown.items()))
            raise unknown_argument(name, describe(value))
        if excess and not self._takes_more:
            raise too_many(self._most, len(excess))
        found = Checked()
        for parameter, value in zip(self._contract.parameters, values, strict=True):
            self._tree(parameter.tree, value, parameter.name, found)
        self._apart(found)
        found.variant = self._chosen(found.sizes)
        return found

    def _chosen(self, sizes: Mapping[str, int]) -> int:
        """Choose the most specific variant: sizes come after ranges."""
        for number in range(len(self._variants) - 1, -1, -1):
            if self._variants[number].covers(sizes):
                return number
        raise not_served(self._contract, self._variants, sizes)

    # --- structure --------------------------------------------------------------------------------

    def _tree(self, tree: Tree, value: Any, path: str, found: Checked) -> None:
        match tree:
            case Slot(index=slot):  # in the order of their numbers
                found.arrays.append(self._array(self._contract.tensors[slot], slot, value, found))
            case Const(expected):
                if not _is_constant(value, expected):
                    raise not_as_written(path, describe(value), expected)
            case _:
                found.containers.append(Part(tree, value, path))
                parts = _parts(tree, value)
                if parts is None:
                    raise ContractError(path, describe(value), form_of(tree))
                for child, part in zip(children(tree, path), parts, strict=True):
                    self._tree(child.value, part, child.path, found)

    def _apart(self, found: Checked) -> None:
        """Check that nothing a call changes is passed in two places."""
        tensors = self._contract.tensors
        for slot in self._contract.mutated_args:
            for other, array in enumerate(found.arrays):
                if other != slot and found.arrays[slot].overlaps(array):
                    raise shares_memory(tensors[slot].path, tensors[other].path)
        if self._contract.changed:
            held = [part for part in found.containers if is_changeable(part.tree)]
            if same := same_object([part.value for part in held]):
                first, again = (held[number] for number in same)
                raise passed_twice(again.path, again.tree.cls, first.path)

    # --- arrays -----------------------------------------------------------------------------------

    def _array(self, spec: TensorSpec, slot: int, value: Any, found: Checked) -> Array:
        """Check an argument in the place of a tensor; note the sizes of its axes."""
        array = read(value, spec.dtype)
        if array is None or array.dtype != spec.dtype or len(array.shape) != len(spec.shape):
            listed = array if isinstance(value, list | tuple) else None
            got = describe(value) if listed is None else described(listed)
            raise ContractError(spec.path, got, str(spec))
        for dim, (size, wanted) in enumerate(zip(array.shape, spec.shape, strict=True)):
            if isinstance(wanted, int):
                if size != wanted:
                    raise ContractError(spec.path, described(array), str(spec))
            else:
                self._size(spec, dim, wanted, size, found.sizes)
        if spec.layout != "copied" and spec.shape:
            dense = dense_strides(array.shape, spec.dim_order)
            if not layout_fits(array.shape, array.strides, dense, spec.layout):
                raise not_laid_out(spec, array.shape, array.strides)
        if slot in self._written and (array.copied or not array.writable):
            raise ContractError(
                spec.path,
                f"{described(array)} that cannot be written to",
                f"{spec}, which the model writes to",
                "pass an array that shares its memory and is not read-only",
            )
        if slot in self._written and may_overlap(array.shape, array.strides):
            raise overlaps_itself(spec.path, array.strides)
        return array

    def _size(
        self, spec: TensorSpec, dim: int, axis: str, size: int, sizes: dict[str, int]
    ) -> None:
        """Check that an axis has one size, which may be served."""
        if axis in sizes:
            if sizes[axis] != size:
                raise other_size(self._contract, spec.path, dim, axis, size, sizes[axis])
            return
        sizes[axis] = size
        low, high = self._bounds[axis]
        if not low <= size <= high:
            raise not_served(self._contract, self._variants, sizes)


def describe(value: Any) -> str:
    """A few words for any value that a call passed."""
    if value is MISSING:
        return "nothing"
    if (torch := sys.modules.get("torch")) is not None and isinstance(value, torch.Tensor):
        from hotstart.runtime.tensors import describe_tensor  # imports torch, which is there

        return describe_tensor(value)
    if not isinstance(value, list | tuple | dict | str | int | float | bytes):
        array = read_memory(value)
        if array is not None:
            return described(array)
    return in_words(value)


def _is_constant(value: Any, expected: Any) -> bool:
    if isinstance(expected, OfTorch):
        return bool(expected == value)
    return same_constant(value, expected)


def _parts(tree: Container, value: Any) -> Sequence[Any] | None:
    """The parts of a container; None where it is not what the tree describes."""
    if not _is_a(value, tree.cls):
        return None
    match tree:
        case Seq(_, items):
            return value if len(value) == len(items) else None
        case Map(_, entries):
            return list(value.values()) if list(value) == [key for key, _ in entries] else None
        case Record(cls, fields) | Attributes(cls, fields):
            return _attributes(cls, [name for name, _ in fields], value)
    return None


def _is_a(value: Any, cls: type) -> bool:
    return bool(value.__class__ is cls)


def _attributes(cls: type, wanted: Sequence[str], value: Any) -> Sequence[Any] | None:
    """The attributes of an object that has these, and no others but those of its class."""
    slotted = slot_names(cls)
    if cls.__dictoffset__ and value.__dict__.keys() != set(wanted).difference(slotted):
        return None
    if any(name not in wanted and hasattr(value, name) for name in slotted):
        return None
    return [
        getattr(value, name, MISSING) if name in slotted else value.__dict__[name]
        for name in wanted
    ]
