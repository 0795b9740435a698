"""Generate the function a program is called through.

It has the parameters of the model's forward, so that Python itself binds the arguments; it checks
them against the contract, picks the variant, and calls it. Whatever does not fit goes to `miss`
with everything the call passed; nothing has run by then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
import torch.utils._pytree as pytree

from hotstart import _torch
from hotstart.ir import Const, Contract, Map, Record, Registered, Seq, Slot, TensorSpec, Tree
from hotstart.names import Names
from hotstart.runtime.contract import MISSING, share_memory
from hotstart.runtime.layout import dense_strides
from hotstart.shapes import Variant
from hotstart.trees import is_namedtuple

_SINGLETONS = (type(None), bool, type(...), torch.dtype, torch.layout, torch.memory_format)


class Host(Protocol):
    """What an entry asks of the program it belongs to."""

    model: Any

    def bound(self) -> Sequence[Callable[..., Any]]:
        """The variants' functions."""
        ...

    def miss(self, values: Sequence[Any], excess: Sequence[Any], unknown: Mapping[str, Any]) -> Any:
        """Answer a call that does not fit."""
        ...

    def relayout(self, tensor: torch.Tensor, dim_order: Sequence[int], path: str) -> torch.Tensor:
        """The tensor in the compiled layout."""
        ...


class Entry:
    """The source of an entry, and the objects it refers to.

    Attributes:
        source: defines `call`.
        scope: the objects its names stand for.
    """

    def __init__(self, contract: Contract, variants: Sequence[Variant], host: Host) -> None:
        self.scope: dict[str, Any] = {}
        self._contract = contract
        self._variants = variants
        self._names = Names(["call"])
        # Parameters keep the names forward gives them; everything else makes way for them.
        self._parameters = [self._names.exactly(p.name) for p in contract.parameters]
        self._excess, self._unknown = self._names.new("excess"), self._names.new("unknown")
        self._model = self._refer("model", host.model)
        self._bound = self._refer("bound", host.bound)
        self._miss = (
            f"return {self._refer('miss', host.miss)}"
            f"(({''.join(f'{p}, ' for p in self._parameters)}), {self._excess}, {self._unknown})"
        )
        self._relayout = self._refer("relayout", host.relayout)
        self._tensor_type = self._refer("Tensor", torch.Tensor)
        self._parameter_type = self._refer("Parameter", torch.nn.Parameter)
        self._lines: list[str] = []
        self._axes: dict[str, str] = {}
        self._tensors: dict[int, str] = {}
        self.source = self._generate()

    def _generate(self) -> str:
        self._state()
        for parameter, name in zip(self._contract.parameters, self._parameters, strict=True):
            self._tree(parameter.tree, name)
        self._check_overlap()
        given = [self._keep(slot, "as_given") for slot in self._contract.given]
        written = {slot: self._keep(slot, "written") for slot in self._contract.mutated_args}
        for slot, name in self._tensors.items():
            self._layout(self._contract.tensors[slot], name)
        self._decide([self._tensors[i] for i in range(len(self._tensors))] + given, written)
        body = "\n".join(f"    {line}" for line in self._lines)
        return f"def call({self._signature()}):\n{body}\n"

    # --- signature --------------------------------------------------------------------------------

    def _signature(self) -> str:
        positional: list[str] = []
        keyword: list[str] = []
        variadic = f"*{self._excess}"
        only = 0
        for parameter, name in zip(self._contract.parameters, self._parameters, strict=True):
            if parameter.kind == "var_positional":
                variadic = f"*{name}"
                continue
            default = self._constant(parameter.default) if parameter.has_default else self._constant(MISSING)
            target = keyword if parameter.kind == "keyword" else positional
            target.append(f"{name}={default}")
            only += parameter.kind == "positional_only"
        if only:
            positional.insert(only, "/")
        if variadic != f"*{self._excess}":
            self._lines.insert(0, f"{self._excess} = ()")
        return ", ".join([*positional, variadic, *keyword, f"**{self._unknown}"])

    # --- checks -----------------------------------------------------------------------------------

    def _require(self, condition: str) -> None:
        self._lines += [f"if not ({condition}):", f"    {self._miss}"]

    def _state(self) -> None:
        conditions = [f"not {self._unknown}", f"not {self._excess}"]
        if self._contract.training is not None:
            conditions.append(f"{self._model}.training is {self._contract.training}")
        if self._contract.autocast:
            state = self._refer("autocast_state", _torch.autocast_state)
            conditions.append(f"{state}() == {self._constant(self._contract.autocast)}")
        else:
            conditions.append(f"not {self._refer('autocast_is_on', _torch.autocast_check())}()")
        self._require(" and ".join(conditions))

    def _tree(self, tree: Tree, name: str) -> None:
        match tree:
            case Slot():
                self._tensor(self._contract.tensors[tree.index], name)
                self._tensors[tree.index] = name
            case Const(value):
                self._require(self._is_constant(name, value))
            case Seq(cls, items):
                kind = self._constant(cls)
                self._require(f"{name}.__class__ is {kind} and len({name}) == {len(items)}")
                fields = cls._fields if is_namedtuple(cls) else range(len(items))  # type: ignore[attr-defined]
                self._children(items, [f"{name}_{f}" for f in fields], name)
            case Map(cls, entries):
                keys = self._constant([key for key, _ in entries])
                self._require(f"{name}.__class__ is {self._constant(cls)} and list({name}) == {keys}")
                self._children(
                    [item for _, item in entries],
                    [f"{name}_{key}" for key, _ in entries],
                    f"{name}.values()",
                )
            case Record(cls, fields):
                self._require(f"{name}.__class__ is {self._constant(cls)}")
                parts = [f"{name}.{field}" for field, _ in fields]
                self._children(
                    [item for _, item in fields],
                    [f"{name}_{field}" for field, _ in fields],
                    f"({''.join(f'{part}, ' for part in parts)})",
                )
            case Registered(cls, context, items):
                self._require(f"{name}.__class__ is {self._constant(cls)}")
                flatten = self._constant(pytree.SUPPORTED_NODES[cls].flatten_fn)
                children, found = self._names.new(f"{name}_children"), self._names.new("context")
                self._lines.append(f"{children}, {found} = {flatten}({name})")
                self._require(
                    f"{found} == {self._constant(context)} and len({children}) == {len(items)}"
                )
                self._children(items, [f"{name}_{i}" for i in range(len(items))], children)

    def _children(self, trees: Sequence[Tree], wanted: Sequence[str], source: str) -> None:
        names = [self._names.new(name) for name in wanted]
        if names:
            self._lines.append(f"{', '.join(names)}, = {source}")
        for tree, name in zip(trees, names, strict=True):
            self._tree(tree, name)

    def _tensor(self, spec: TensorSpec, name: str) -> None:
        conditions = [
            f"({name}.__class__ is {self._tensor_type} or {name}.__class__ is {self._parameter_type})",
            f"{name}.dtype is {self._constant(spec.dtype)}",
            f"{name}.is_cpu"
            if spec.device.type == "cpu"
            else f"{name}.device == {self._constant(spec.device)}",
            f"{name}.layout is {self._constant(torch.strided)}",
        ]
        if spec.dtype.is_complex:
            conditions.append(f"not {name}.is_conj()")
        if spec.dtype.is_floating_point or spec.dtype.is_complex:
            conditions.append(f"not {name}.is_neg()")
        self._require(" and ".join(conditions))
        shape = self._names.new(f"{name}_shape")
        self._lines.append(f"{shape} = {name}.shape")
        sizes = [f"len({shape}) == {len(spec.shape)}"]
        new: list[str] = []
        for dim, size in enumerate(spec.shape):
            if isinstance(size, int):
                sizes.append(f"{shape}[{dim}] == {size}")
            elif size in self._axes:
                sizes.append(f"{shape}[{dim}] == {self._axes[size]}")
            else:
                self._axes[size] = self._names.new(size)
                new.append(f"{self._axes[size]} = {shape}[{dim}]")
                if list(spec.shape).count(size) > 1:
                    sizes.append(f"{shape}[{dim}] == {shape}[{spec.shape.index(size)}]")
        first_use = [s for s in sizes if not any(f"== {n.split(' ')[0]}" in s for n in new)]
        later = [s for s in sizes if s not in first_use]
        self._require(" and ".join(first_use))
        self._lines += new
        if later:
            self._require(" and ".join(later))

    def _check_overlap(self) -> None:
        pairs = [
            f"{self._refer('share_memory', share_memory)}({self._tensors[slot]}, {name})"
            for slot in self._contract.mutated_args
            for other, name in self._tensors.items()
            if other != slot
        ]
        if pairs:
            self._require(f"not ({' or '.join(pairs)})")

    def _layout(self, spec: TensorSpec, name: str) -> None:
        """Copy a tensor whose layout is not the compiled one; cheap where it is."""
        if not spec.shape:
            return
        plain = tuple(range(len(spec.shape)))
        if spec.dim_order == plain:
            test = f"not {name}.is_contiguous()"
        elif spec.dim_order == (0, 2, 3, 1):
            test = f"not {name}.is_contiguous(memory_format={self._constant(torch.channels_last)})"
        else:
            strides = self._refer("dense_strides", dense_strides)
            test = f"{name}.stride() != {strides}({name}.shape, {spec.dim_order!r})"
        self._lines += [
            f"if {test}:",
            f"    {name} = {self._relayout}({name}, {spec.dim_order!r}, {spec.path!r})",
        ]

    # --- decision ---------------------------------------------------------------------------------

    def _keep(self, slot: int, wanted: str) -> str:
        """Another name for a tensor, which goes on standing for what the caller passed."""
        name = self._names.new(f"{self._tensors[slot]}_{wanted}")
        self._lines.append(f"{name} = {self._tensors[slot]}")
        return name

    def _decide(self, tensors: Sequence[str], written: Mapping[int, str]) -> None:
        axes = [self._axes[dim.name] for dim in self._contract.axes]
        chosen, grad, result = (self._names.new(n) for n in ("chosen", "grad", "result"))
        numbered = list(enumerate(self._variants))
        # The most specific variant that covers the call wins: single sizes come after ranges.
        for index, variant in reversed(numbered):
            test = " and ".join(
                f"{self._axes[axis]} == {choice}"
                if isinstance(choice, int)
                else f"{choice.lo} <= {self._axes[axis]} <= {choice.hi}"
                for axis, choice in variant.choices
            )
            branch = "if" if index == len(numbered) - 1 else "elif"
            self._lines += [f"{branch} {test or True}:", f"    {chosen} = {index}"]
        self._lines += ["else:", f"    {self._miss}"]
        get_grad = self._refer("is_grad_enabled", torch.is_grad_enabled)
        set_grad = self._refer("set_grad_enabled", _torch.set_grad_enabled())
        run = f"{self._bound}()[{chosen}]({', '.join([*axes, *tensors])})"
        self._lines += [f"{grad} = {get_grad}()", f"{set_grad}(False)", "try:"]
        if written:
            self._lines.append(f"    {result} = {run}")
            for slot, name in written.items():
                if self._tensors[slot] != name:
                    self._lines += [
                        f"    if {self._tensors[slot]} is not {name}:",
                        f"        {name}.copy_({self._tensors[slot]})",
                    ]
            self._lines.append(f"    return {result}")
        else:
            self._lines.append(f"    return {run}")
        self._lines += ["finally:", f"    {set_grad}({grad})"]

    # --- constants --------------------------------------------------------------------------------

    def _is_constant(self, name: str, value: Any) -> str:
        if isinstance(value, _SINGLETONS) or not isinstance(value, int | str | bytes):
            identical = f"{name} is {self._constant(value)}"
            if isinstance(value, _SINGLETONS):
                return identical
            same = self._refer("same_constant", same_constant)
            return f"({identical} or {same}({name}, {self._constant(value)}))"
        kind = type(value).__name__
        if type(value) in (int, str, bytes):
            return f"({name}.__class__ is {kind} and {name} == {value!r})"
        return f"{self._refer('same_constant', same_constant)}({name}, {self._constant(value)})"

    def _constant(self, value: Any) -> str:
        if value is None or value is ... or type(value) in (bool, int, str, bytes):
            return "..." if value is ... else repr(value)
        return self._refer("constant", value)

    def _refer(self, wanted: str, value: Any) -> str:
        """A name for an object."""
        for name, known in self.scope.items():
            if known is value:
                return name
        name = self._names.new(wanted)
        self.scope[name] = value
        return name
