"""The checks of a call's arguments, from a contract. Imports no torch.

The generated entry joins their conditions. To explain a call that it refused, the same conditions
are evaluated one at a time.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from types import CodeType
from typing import Any

from hotstart.errors import ContractError
from hotstart.records.contract import Contract, TensorSpec
from hotstart.records.dims import axes_of
from hotstart.records.nested import (
    Attributes,
    Const,
    Container,
    Map,
    Record,
    Registered,
    Seq,
    Slot,
    Tree,
    children,
    is_changeable,
    slot_names,
)
from hotstart.records.shapes import Variant, has_layout
from hotstart.runtime.code.identifiers import assignment, written_tuple
from hotstart.runtime.entry.argument_kind import ArgumentKind, Looked
from hotstart.runtime.entry.by_parameter import MISSING
from hotstart.runtime.entry.entry_check import Check, Explain, Found
from hotstart.runtime.entry.refusal_words import (
    not_as_written,
    not_laid_out,
    other_structure,
    overlaps_itself,
    passed_twice,
    same_object,
    shares_a_weight,
    shares_memory,
    too_many,
    unknown_argument,
)
from hotstart.runtime.entry.signature import Signature
from hotstart.runtime.entry.sizes import Place, Sizes
from hotstart.runtime.shared_memory import Meeting, elements_are_apart

_SINGLETONS = (type(None), bool, type(...))


class Checks:
    """The checks of a contract, in order, and the variables of an entry that they read and fill.

    Attributes:
        steps: the checks of all but the choice of a variant, and statements that take containers
            apart between the checks of one and of its parts.
        tensors: the variables of tensor arguments, by slot.
        containers: every container with its variable and path, from the outermost on.
        sizes: the variables of axes, and the choice of a variant.
        last: the check after the choice of a variant, if there is one: the only one that needs the
            weights.
    """

    def __init__(
        self,
        contract: Contract,
        variants: Sequence[Variant],
        kind: ArgumentKind,
        signature: Signature,
        meeting: Meeting | None,
    ) -> None:
        self._contract = contract
        self._kind = kind
        self._signature = signature
        self._scope = signature.scope
        self.steps: list[Check | str] = []
        self.tensors: list[str] = []
        self.containers: list[tuple[Container, str, str]] = []
        self.sizes = Sizes(contract, variants, self._scope)
        self._no_more()
        self.steps += kind.state(contract, self._scope)
        self._sums: list[Place] = []
        for parameter, name in zip(contract.parameters, signature.variables, strict=True):
            self._tree(parameter.tree, name, parameter.name)
        self.steps += map(self.sizes.agrees, self._sums)  # by now every axis is known
        self._apart()
        self.last = None if meeting is None else self._beside_weights(meeting)

    def failed(
        self, values: Sequence[Any], excess: Sequence[Any], unknown: Mapping[str, Any]
    ) -> Callable[[], ContractError] | None:
        """Find the first check that a bound call fails; the function returned makes its error."""
        signature = self._signature
        found = {**self._scope.objects, **dict(zip(signature.variables, values, strict=True))}
        found |= {signature.excess: excess, signature.unknown: unknown}
        for step, code in self._compiled:
            result = eval(code, found)  # None where the step is a statement
            if isinstance(step, Check) and not result:
                return partial(step.explain, found)
        return None

    @cached_property
    def _compiled(self) -> list[tuple[Check | str, CodeType]]:
        return [
            (step, compile(step.source, "hotstart/check", "eval"))
            if isinstance(step, Check)
            else (step, compile(step, "hotstart/check", "exec"))
            for step in [*self.steps, self.sizes.served(), *([self.last] if self.last else [])]
        ]

    def _require(self, explain: Explain, *conditions: str) -> None:
        self.steps += [Check(condition, explain) for condition in conditions]

    # --- the call as a whole ----------------------------------------------------------------------

    def _no_more(self) -> None:
        """Check that there are no arguments that forward or the example did not have."""
        excess, unknown = self._signature.excess, self._signature.unknown
        parameters = self._contract.parameters

        def not_known(found: Found) -> ContractError:
            name, value = next(iter(found[unknown].items()))
            return unknown_argument(name, self._kind.describe(value), parameters)

        def more(found: Found) -> ContractError:
            return too_many(parameters, len(found[excess]))

        self._require(not_known, f"not {unknown}")
        if all(parameter.kind != "var_positional" for parameter in parameters):
            self._require(more, f"not {excess}")

    def _apart(self) -> None:
        """Check that no container which a call changes is passed in two places."""
        specs, written = self._contract.tensors, self._contract.mutated_args
        tensors = self.tensors
        held = [container for container in self.containers if is_changeable(container[0])]

        def spread(slot: int, found: Found) -> ContractError:
            return overlaps_itself(specs[slot].path, found[tensors[slot]].stride())

        def overlapping(found: Found) -> ContractError:
            slot, other = self._kind.overlap([found[name] for name in tensors], written)
            return shares_memory(specs[slot].path, specs[other].path)

        def twice(found: Found) -> ContractError:
            first, again = same_object([found[name] for _, name, _ in held])
            tree, _, path = held[again]
            return passed_twice(path, tree.cls, held[first][2])

        for slot in written:
            if specs[slot].shape and specs[slot].layout == "copied":
                name, check = tensors[slot], self._scope.refer("is_apart", elements_are_apart)
                apart = f"({name}.is_contiguous() or {check}({name}))"
                self._require(partial(spread, slot), apart)
        if written and len(tensors) > 1:
            check = self._scope.refer("overlap", self._kind.overlap)
            self._require(overlapping, f"not {check}({written_tuple(tensors)}, {written!r})")
        if self._contract.changed and len(held) > 1:
            check = self._scope.refer("shared", same_object)
            names = written_tuple(name for _, name, _ in held)
            self._require(twice, f"not {check}({names})")

    def _beside_weights(self, meeting: Meeting) -> Check:
        """Check that no argument lies where a weight does, if a call writes to one of them."""
        specs, written, tensors = self._contract.tensors, self._contract.mutated_args, self.tensors

        def beside(found: Found) -> ContractError:
            met = meeting([found[name] for name in tensors], written)
            slot, weight = met or (0, "weights")  # which another thread has replaced meanwhile
            return shares_a_weight(specs[slot].path, weight)

        check = self._scope.refer("meeting", meeting)
        met = f"{check}({written_tuple(tensors)}, {written!r})"
        return Check(f"{met} is None", beside)

    # --- structure --------------------------------------------------------------------------------

    def _tree(self, tree: Tree, name: str, path: str) -> None:
        match tree:
            case Slot(index=slot):  # in the order of their numbers
                self.tensors.append(self._tensor(slot, name))
            case Const(value):

                def other_value(found: Found) -> ContractError:
                    return not_as_written(path, self._kind.describe(found[name]), value)

                self._require(other_value, self._is_constant(name, value))
            case _:
                self.containers.append((tree, name, path))
                self._container(tree, name, path)

    def _is_constant(self, name: str, value: Any) -> str:
        constant = self._scope.constant(value, f"{name}_expected")
        if isinstance(value, (*_SINGLETONS, *self._kind.singletons)):
            return f"{name} is {constant}"
        kind = type(value)
        # Floats that are equal are the same, but for nan and the two zeros.
        if kind in (int, str, bytes) or (kind is float and value and value == value):
            return f"{name}.__class__ is {self._scope.class_name(kind)} and {name} == {constant}"
        compare = self._scope.refer("same_constant", self._kind.same_constant)
        if constant not in self._scope.objects:
            return f"{compare}({name}, {constant})"
        return f"({name} is {constant} or {compare}({name}, {constant}))"

    def _container(self, tree: Container, name: str, path: str) -> None:
        fits, parts = self._opened(tree, name)

        def other_form(found: Found) -> ContractError:
            return other_structure(path, self._kind.describe(found[name]), tree)

        is_a = f"{name}.__class__ is {self._scope.class_name(tree.cls)}"
        self._require(other_form, is_a, *fits)
        inner = children(tree, path)
        names = [self._scope.new(f"{name}_{child.key}") for child in inner]
        if names:
            self.steps.append(assignment(names, parts))
        for variable, child in zip(names, inner, strict=True):
            self._tree(child.value, variable, child.path)

    def _opened(self, tree: Container, name: str) -> tuple[list[str], str]:
        """Conditions on a container's form, and an expression of its parts."""
        length = self._scope.builtin("len")
        match tree:
            case Seq(_, items):
                return [f"{length}({name}) == {len(items)}"], name
            case Map(_, entries):
                keys = [key for key, _ in entries]
                expected = self._scope.constant(keys, f"{name}_keys")
                fits = [f"{self._scope.builtin('list')}({name}) == {expected}"]
                return fits, f"{name}.values()"
            case Record(cls, fields) | Attributes(cls, fields):
                names = [field for field, _ in fields]
                parts = written_tuple(self._attribute(name, cls, field) for field in names)
                fits = list(self._has_attributes(name, cls, names))
                return fits, parts
            case Registered(cls, context, items):
                from torch.utils._pytree import SUPPORTED_NODES  # where it is registered

                flatten = self._scope.refer("flatten", SUPPORTED_NODES[cls].flatten_fn)
                flat = self._scope.new(f"{name}_flat")
                expected = self._scope.constant(context, f"{name}_context")
                fits = [
                    f"({flat} := {flatten}({name}))[1] == {expected}",
                    f"{length}({flat}[0]) == {len(items)}",
                ]
                return fits, f"{flat}[0]"

    def _has_attributes(self, name: str, cls: type, wanted: Sequence[str]) -> Iterator[str]:
        """An object has no other attributes, and all of these that are not in slots."""
        slotted = slot_names(cls)
        if cls.__dictoffset__:
            kept = frozenset(wanted).difference(slotted)
            yield f"{name}.__dict__.keys() == {self._scope.constant(kept, f'{name}_attributes')}"
        for field in slotted:
            if field not in wanted:
                yield f"not {self._scope.builtin('hasattr')}({name}, {field!r})"

    def _attribute(self, name: str, cls: type, field: str) -> str:
        if field in slot_names(cls):  # and may be missing
            missing = self._scope.refer("MISSING", MISSING)
            return f"{self._scope.builtin('getattr')}({name}, {field!r}, {missing})"
        plain = field.isidentifier() and not keyword.iskeyword(field)
        return f"{name}.{field}" if plain else f"{name}.__dict__[{field!r}]"

    # --- tensors ----------------------------------------------------------------------------------

    def _tensor(self, slot: int, name: str) -> str:
        """Check an argument in the place of a tensor; the variable of the tensor."""
        spec = self._contract.tensors[slot]
        looked = self._kind.looked_at(spec, name, self._scope)
        self.steps += looked.checks
        self._shape(spec, looked)
        if spec.layout != "copied" and spec.shape:
            self._layout(spec, looked.variable)
        if slot in self._contract.mutated_args:
            self.steps += self._kind.writable(spec, looked.variable)
        return looked.variable

    def _shape(self, spec: TensorSpec, looked: Looked) -> None:
        name, other = looked.variable, looked.other
        if all(isinstance(size, int) for size in spec.shape):
            self._require(other, f"{name}.shape == {written_tuple(map(str, spec.shape))}")
            return
        shape = self._scope.new(f"{name}_shape")
        rank = f"{self._scope.builtin('len')}({shape} := {name}.shape)"
        self._require(other, f"{rank} == {len(spec.shape)}")
        for dim, size in enumerate(spec.shape):
            if isinstance(size, int):
                self._require(other, f"{shape}[{dim}] == {size}")
            elif len(axes_of(size)) == 1:
                self.steps += self.sizes.checks(Place(spec.path, dim, size, shape))
            else:
                self._sums.append(Place(spec.path, dim, size, shape))

    def _layout(self, spec: TensorSpec, name: str) -> None:
        """Check the strides of a tensor whose strides forward reads."""
        order = spec.dim_order

        def other_strides(found: Found) -> ContractError:
            return not_laid_out(spec, found[name].shape, found[name].stride())

        check = self._scope.refer("has_layout", has_layout)
        plain = order == tuple(range(len(order))) and spec.layout == "fixed"
        self._require(
            other_strides,
            f"{name}.is_contiguous()" if plain else f"{check}({name}, {order!r}, {spec.layout!r})",
        )
