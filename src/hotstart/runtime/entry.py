"""Generate the function a program is called through.

It has the parameters of the model's forward, so that Python itself binds the arguments; it checks
them against the contract, picks the variant, and calls it. Whatever does not fit goes to `miss`
with everything the call passed; nothing has run by then.
"""

from __future__ import annotations

import builtins
import keyword
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import torch
import torch.utils._pytree as pytree

from hotstart import _torch
from hotstart.records.artifact import (
    Attributes,
    Const,
    Contract,
    Map,
    Parameter,
    Record,
    Registered,
    Seq,
    Slot,
    TensorSpec,
    Tree,
)
from hotstart.records.layout import has_layout
from hotstart.records.shapes import Variant
from hotstart.records.trees import is_changeable, same_constant, slot_names
from hotstart.runtime.contract import MISSING, TENSOR_TYPES, overlap, shared
from hotstart.runtime.names import Names

_SINGLETONS = (type(None), bool, type(...), torch.dtype, torch.layout, torch.memory_format)


class Hooks(msgspec.Struct, frozen=True):
    """What an entry calls.

    Attributes:
        model: the model, for its `training` flag.
        bound: gives the functions of all variants of all calls.
        relayout: gives a tensor in the compiled layout; takes its order of dimensions and its path.
    """

    model: Any
    bound: Callable[[], Sequence[Callable[..., Any]]]
    relayout: Callable[[torch.Tensor, Sequence[int], str], torch.Tensor]


class Entry:
    """The source of an entry, and the objects it refers to.

    Attributes:
        source: defines `call`.
    """

    def __init__(
        self, contract: Contract, variants: Sequence[Variant], hooks: Hooks, first: int
    ) -> None:
        """`first` is the number of the first variant's function among those `hooks.bound` gives."""
        self._scope: dict[str, Any] = {}
        self._contract = contract
        self._variants = variants
        self._hooks = hooks
        self._first = first
        self._lines: list[str] = []
        self._conditions: list[str] = []
        self._axes: dict[str, str] = {}
        self._tensors: dict[int, str] = {}
        self._shapes: dict[int, str] = {}
        self._containers: list[tuple[Tree, str]] = []
        self._names = Names()
        # Parameters keep the names forward gives them; everything else makes way for them.
        self._by_name: list[bool] = []
        self._parameters = [self._parameter(p) for p in contract.parameters]
        self._names.exactly("call")
        self._excess, self._unknown = self._names.new("excess"), self._names.new("unknown")
        self._variadic = any(p.kind == "var_positional" for p in contract.parameters)
        excess = "()" if self._variadic else self._excess
        values = _tuple(self._parameters)
        self._miss_name = self._names.new("miss")
        self._miss = f"return {self._miss_name}({values}, {excess}, {self._unknown})"
        self._tensor_types = [self._refer(cls.__name__, cls) for cls in TENSOR_TYPES]
        self.source = self._generate()

    def scope_with(self, miss: Callable[..., Any]) -> dict[str, Any]:
        """The objects that the source's names stand for.

        Args:
            miss: answers a call that does not fit, given the parameters' values, positional
                arguments beyond those, and keyword arguments that the example did not have.
        """
        return {**self._scope, self._miss_name: miss}

    def _parameter(self, parameter: Parameter) -> str:
        """The name of a parameter; what `**kwargs` was given need not be an identifier, or free."""
        name = parameter.name
        plain = name.isidentifier() and not keyword.iskeyword(name)
        self._by_name.append(plain and not self._names.taken(name))
        return self._names.exactly(name) if self._by_name[-1] else self._names.new(name)

    def _generate(self) -> str:
        signature = self._signature()
        self._state()
        for parameter, name in zip(self._contract.parameters, self._parameters, strict=True):
            self._tree(parameter.tree, name)
        self._check_overlap()
        self._check_shared()
        run = self._choose()
        given = [self._keep(slot, "as_given") for slot in self._contract.given]
        written = {slot: self._keep(slot, "written") for slot in self._contract.mutated_args}
        for slot, name in self._tensors.items():
            self._layout(slot, self._contract.tensors[slot], name)
        self._run(run, given, written)
        body = "\n".join(f"    {line}" for line in self._lines)
        return f"def call({signature}):\n{body}\n"

    # --- signature --------------------------------------------------------------------------------

    def _signature(self) -> str:
        positional: list[str] = []
        named: list[str] = []
        variadic = f"*{self._excess}"
        only = 0
        parameters = zip(self._contract.parameters, self._parameters, self._by_name, strict=True)
        for parameter, name, by_name in parameters:
            if parameter.kind == "var_positional":
                variadic = f"*{name}"
                continue
            default = self._default(parameter, name)
            if not by_name:
                self._then(f"{name} = {self._unknown}.pop({parameter.name!r}, {default})")
                continue
            target = named if parameter.kind == "keyword" else positional
            target.append(f"{name}={default}")
            only += parameter.kind == "positional_only"
        if only:
            positional.insert(only, "/")
        return ", ".join([*positional, variadic, *named, f"**{self._unknown}"])

    def _default(self, parameter: Parameter, name: str) -> str:
        if not parameter.has_default:
            return self._refer("MISSING", MISSING)
        return self._constant(parameter.default, f"{name}_default")

    # --- checks -----------------------------------------------------------------------------------

    def _require(self, *conditions: str) -> None:
        self._conditions += conditions

    def _then(self, *lines: str) -> None:
        """Statements that come after everything that was required so far."""
        if self._conditions:
            first, *others = self._conditions
            self._lines += ["if not (", f"    {first}", *(f"    and {c}" for c in others), "):"]
            self._lines.append(f"    {self._miss}")
            self._conditions = []
        self._lines += lines

    def _state(self) -> None:
        self._require(f"not {self._unknown}")
        if not self._variadic:
            self._require(f"not {self._excess}")
        if self._contract.training is not None:
            model = self._refer("model", self._hooks.model)
            self._require(f"{model}.training is {self._contract.training}")
        if self._contract.autocast:
            state = self._refer("autocast_state", _torch.autocast_state)
            self._require(f"{state}() == {self._constant(self._contract.autocast, 'autocast')}")
        else:
            self._require(f"not {self._refer('autocast_is_on', _torch.autocast_check())}()")

    def _tree(self, tree: Tree, name: str) -> None:
        if not isinstance(tree, Slot | Const):
            self._containers.append((tree, name))
        match tree:
            case Slot():
                self._tensors[tree.index] = name
                self._tensor(tree.index, self._contract.tensors[tree.index], name)
            case Const(value):
                self._require(self._is_constant(name, value))
            case Seq(cls, items):
                self._require(self._is_a(name, cls), f"{self._len(name)} == {len(items)}")
                fields = getattr(cls, "_fields", range(len(items)))
                self._children(items, [f"{name}_{field}" for field in fields], name)
            case Map(cls, entries):
                keys = self._constant([key for key, _ in entries], f"{name}_keys")
                self._require(self._is_a(name, cls), f"{self._builtin('list')}({name}) == {keys}")
                wanted = [f"{name}_{key}" for key, _ in entries]
                self._children([item for _, item in entries], wanted, f"{name}.values()")
            case Record(cls, fields):
                self._require(self._is_a(name, cls))
                self._attributes(cls, name, [field for field, _ in fields])
                parts = _tuple([f"{name}.{field}" for field, _ in fields])
                wanted = [f"{name}_{field}" for field, _ in fields]
                self._children([item for _, item in fields], wanted, parts)
            case Attributes(cls, fields):
                self._require(self._is_a(name, cls))
                slotted = slot_names(cls)
                self._attributes(cls, name, [f for f, _ in fields if f not in slotted])
                wanted = [f"{name}_{field}" for field, _ in fields]
                read = [self._attribute(name, field, field in slotted) for field, _ in fields]
                self._children([item for _, item in fields], wanted, _tuple(read))
            case Registered(cls, context, items):
                self._require(self._is_a(name, cls))
                flatten = self._refer("flatten", pytree.SUPPORTED_NODES[cls].flatten_fn)
                children, found = self._names.new(f"{name}_children"), self._names.new("context")
                self._then(f"{children}, {found} = {flatten}({name})")
                expected = self._constant(context, f"{name}_context")
                self._require(f"{found} == {expected}", f"{self._len(children)} == {len(items)}")
                self._children(items, [f"{name}_{i}" for i in range(len(items))], children)

    def _attributes(self, cls: type, name: str, fields: Sequence[str]) -> None:
        """That an object has these attributes and no others, besides those in slots."""
        if cls.__dictoffset__:
            expected = self._constant(frozenset(fields), f"{name}_attributes")
            self._require(f"{name}.__dict__.keys() == {expected}")

    def _attribute(self, name: str, field: str, may_be_missing: bool) -> str:
        if may_be_missing:
            missing = self._refer("MISSING", MISSING)
            return f"{self._builtin('getattr')}({name}, {field!r}, {missing})"
        plain = field.isidentifier() and not keyword.iskeyword(field)
        return f"{name}.{field}" if plain else f"{name}.__dict__[{field!r}]"

    def _len(self, value: str) -> str:
        return f"{self._builtin('len')}({value})"

    def _is_a(self, name: str, cls: type) -> str:
        return f"{name}.__class__ is {self._class(cls)}"

    def _children(self, trees: Sequence[Tree], wanted: Sequence[str], source: str) -> None:
        if not trees:
            return
        names = [self._names.new(name) for name in wanted]
        self._then(f"{', '.join(names) if len(names) > 1 else _tuple(names)} = {source}")
        for tree, name in zip(trees, names, strict=True):
            self._tree(tree, name)

    def _tensor(self, slot: int, spec: TensorSpec, name: str) -> None:
        self._metadata(slot, spec, name)
        if spec.layout != "copied" and spec.shape:
            check = self._refer("has_layout", has_layout)
            plain = spec.dim_order == tuple(range(len(spec.shape)))
            self._require(
                f"{name}.is_contiguous()"
                if plain and spec.layout == "fixed"
                else f"{check}({name}, {spec.dim_order!r}, {spec.layout!r})"
            )

    def _metadata(self, slot: int, spec: TensorSpec, name: str) -> None:
        kinds = (f"{name}.__class__ is {kind}" for kind in self._tensor_types)
        self._require(
            f"({' or '.join(kinds)})",
            f"{name}.dtype is {self._torch_constant(spec.dtype)}",
            f"{name}.is_cpu"
            if spec.device.type == "cpu"
            else f"{name}.device == {self._constant(spec.device, 'device')}",
            f"{name}.layout is {self._torch_constant(torch.strided)}",
        )
        if spec.dtype.is_complex:
            self._require(f"not {name}.is_conj()")
        if spec.dtype.is_floating_point or spec.dtype.is_complex:
            self._require(f"not {name}.is_neg()")
        if all(isinstance(size, int) for size in spec.shape):
            self._require(f"{name}.shape == {_tuple(list(map(str, spec.shape)))}")
            return
        shape = self._shapes[slot] = self._names.new(f"{name}_shape")
        self._require(f"{self._len(f'{shape} := {name}.shape')} == {len(spec.shape)}")
        for dim, size in enumerate(spec.shape):
            if isinstance(size, int) or size in self._axes:
                self._require(f"{shape}[{dim}] == {self._axes.get(str(size), size)}")
            else:
                self._axes[size] = self._names.new(size)
                self._require(self._serves(size, f"({self._axes[size]} := {shape}[{dim}])"))

    def _serves(self, axis: str, value: str) -> str:
        """That some variant may serve a size; with one variant, that it does."""
        intervals = [variant.intervals()[axis] for variant in self._variants]
        low, high = min(i.lo for i in intervals), max(i.hi for i in intervals)
        return _within(value, low, high)

    def _check_overlap(self) -> None:
        written = self._contract.mutated_args
        if written and len(self._tensors) > 1:
            check = self._refer("overlap", overlap)
            tensors = _tuple([self._tensors[slot] for slot in sorted(self._tensors)])
            self._require(f"not {check}({tensors}, {written!r})")

    def _check_shared(self) -> None:
        names = [name for tree, name in self._containers if is_changeable(tree)]
        if self._contract.changed and len(names) > 1:
            self._require(f"not {self._refer('shared', shared)}({_tuple(names)})")

    # --- decision ---------------------------------------------------------------------------------

    def _choose(self) -> str:
        """Pick the variant; the expression for its function."""
        bound = self._refer("bound", self._hooks.bound)
        if len(self._variants) == 1 and not self._variants[0].where:
            self._then()
            return f"{bound}()[{self._first}]"
        chosen = self._names.new("chosen")
        keyword = "if"
        # The most specific variant that covers the call wins: single sizes come after ranges.
        for index, variant in reversed(list(enumerate(self._variants))):
            tests = [
                _within(self._axes[axis], interval.lo, interval.hi)
                for axis, interval in variant.intervals().items()
            ]
            if variant.where:
                tests.append(f"({self._condition(variant.where)})")
            test = " and ".join(tests)
            self._then(f"{keyword} {test}:", f"    {chosen} = {self._first + index}")
            keyword = "elif"
        self._then("else:", f"    {self._miss}")
        return f"{bound}()[{chosen}]"

    def _condition(self, source: str) -> str:
        """A condition on axes, over the names that their sizes have here."""
        known = dict(self._axes)
        if "math." in source:
            known["math"] = self._refer("math", math)
        return re.sub(r"(?<![.\w])[^\W\d]\w*", lambda m: known.get(m[0], m[0]), source)

    def _keep(self, slot: int, wanted: str) -> str:
        """Another name for a tensor, which goes on standing for what the caller passed."""
        name = self._names.new(f"{self._tensors[slot]}_{wanted}")
        self._then(f"{name} = {self._tensors[slot]}")
        return name

    def _layout(self, slot: int, spec: TensorSpec, name: str) -> None:
        """Copy a tensor whose layout is not the compiled one; cheap where it is."""
        if not spec.shape or spec.layout != "copied":
            return
        if spec.dim_order == tuple(range(len(spec.shape))):
            test = f"not {name}.is_contiguous()"
        elif spec.dim_order == (0, 2, 3, 1):
            channels_last = self._torch_constant(torch.channels_last)
            test = f"not {name}.is_contiguous(memory_format={channels_last})"
        else:
            test = f"{name}.stride() != {self._strides(slot, spec)}"
        relayout = self._refer("relayout", self._hooks.relayout)
        arguments = f"{name}, {spec.dim_order!r}, {spec.path!r}"
        self._then(f"if {test}:", f"    {name} = {relayout}({arguments})")

    def _strides(self, slot: int, spec: TensorSpec) -> str:
        """The strides of a tensor without gaps in the compiled order of dimensions."""
        strides = [""] * len(spec.shape)
        known, factors = 1, ""
        for dim in reversed(spec.dim_order):
            strides[dim] = f"{known}{factors}" if known != 1 or not factors else factors[3:]
            size = spec.shape[dim]
            if isinstance(size, int):
                known *= size
            else:
                factors += f" * {self._axes[size]}"
        return _tuple(strides)

    def _run(self, run: str, given: Sequence[str], written: Mapping[int, str]) -> None:
        axes = [self._axes[dim.name] for dim in self._contract.axes]
        tensors = [self._tensors[index] for index in range(len(self._tensors))]
        objects = [self._containers[number][1] for number in self._contract.objects]
        arguments = ", ".join([*axes, *tensors, *given, *objects])
        function, result = self._names.new("run"), self._names.new("result")
        answer = [f"return {function}({arguments})"]
        if written:
            answer = [f"{result} = {function}({arguments})"]
            for slot, name in written.items():
                copy = f"    {name}.copy_({self._tensors[slot]})"
                answer += [f"if {self._tensors[slot]} is not {name}:", copy]
            answer.append(f"return {result}")
        enabled = self._refer("is_grad_enabled", torch.is_grad_enabled)
        enable = self._refer("set_grad_enabled", _torch.set_grad_enabled())
        self._then(
            f"{function} = {run}",
            f"if not {enabled}():",
            *(f"    {line}" for line in answer),
            f"{enable}(False)",
            "try:",
            *(f"    {line}" for line in answer),
            "finally:",
            f"    {enable}(True)",
        )

    # --- constants --------------------------------------------------------------------------------

    def _is_constant(self, name: str, value: Any) -> str:
        constant = self._constant(value, f"{name}_expected")
        if isinstance(value, _SINGLETONS):
            return f"{name} is {constant}"
        kind = type(value)
        # Floats that are equal are the same, but for nan and the two zeros.
        if kind in (int, str, bytes) or (kind is float and value and value == value):
            return f"{name}.__class__ is {self._class(kind)} and {name} == {constant}"
        compare = self._refer("same_constant", same_constant)
        if constant not in self._scope:
            return f"{compare}({name}, {constant})"
        return f"({name} is {constant} or {compare}({name}, {constant}))"

    def _constant(self, value: Any, wanted: str) -> str:
        """An expression for an object; the object itself under a name where no literal says it."""
        if value is ...:
            return "..."
        if value is None or type(value) in (bool, int, str, bytes):
            return repr(value)
        if type(value) is float and math.isfinite(value):
            return repr(value)
        if type(value) is list and all(type(item) in (int, str) for item in value):
            return repr(value)
        return self._refer(wanted, value)

    def _torch_constant(self, value: torch.dtype | torch.layout | torch.memory_format) -> str:
        return self._refer(str(value).removeprefix("torch."), value)

    def _class(self, cls: type) -> str:
        known = getattr(builtins, cls.__name__, None) is cls
        return self._builtin(cls.__name__) if known else self._refer(cls.__name__, cls)

    def _builtin(self, name: str) -> str:
        """A builtin, under another name if one of forward's parameters has its name."""
        if name in self._parameters:
            return self._refer(name, getattr(builtins, name))
        return name

    def _refer(self, wanted: str, value: Any) -> str:
        """A name for an object."""
        for name, known in self._scope.items():
            if known is value:
                return name
        name = self._names.new(wanted)
        self._scope[name] = value
        return name


def _within(value: str, low: int, high: int) -> str:
    return f"{value} == {low}" if low == high else f"{low} <= {value} <= {high}"


def _tuple(parts: Sequence[str]) -> str:
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
