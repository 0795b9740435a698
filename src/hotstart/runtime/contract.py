"""Say exactly what is wrong with a call that a program does not take.

The generated entry only finds out that something is wrong; this finds out what. Both read the
same contract.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree

from hotstart import _torch
from hotstart.dtypes import dtype_of
from hotstart.errors import ContractError
from hotstart.records.artifact import (
    Attributes,
    Const,
    Contract,
    Map,
    Record,
    Registered,
    Seq,
    Slot,
    TensorSpec,
    Tree,
)
from hotstart.records.layout import dense_strides, has_layout
from hotstart.records.shapes import Variant
from hotstart.records.trees import (
    attributes_of,
    containers,
    is_changeable,
    is_namedtuple,
    same_constant,
)

TENSOR_TYPES = (torch.Tensor, torch.nn.Parameter)


class Missing:
    """Stands for an argument that a call leaves out and that has no default."""

    def __repr__(self) -> str:
        return "nothing"


MISSING = Missing()


def violation(
    contract: Contract,
    variants: Sequence[Variant],
    training: bool | None,
    values: Sequence[Any],
    excess: Sequence[Any],
    unknown: Mapping[str, Any],
) -> ContractError | None:
    """The first thing about a call that the contract does not take; None if it takes the call.

    Args:
        contract: what the program takes.
        variants: the sizes the program was built for.
        training: the model's `training` flag now; None for a function.
        values: the argument of each of the contract's parameters, defaults filled in.
        excess: positional arguments beyond those forward has.
        unknown: keyword arguments that the example did not have.
    """
    return _Explainer(contract, variants).explain(training, values, excess, unknown)


class _Explainer:
    def __init__(self, contract: Contract, variants: Sequence[Variant]) -> None:
        self.contract = contract
        self.variants = variants
        self.sizes: dict[str, tuple[int, str]] = {}
        self.tensors: list[torch.Tensor] = []

    def explain(
        self,
        training: bool | None,
        values: Sequence[Any],
        excess: Sequence[Any],
        unknown: Mapping[str, Any],
    ) -> ContractError | None:
        if self.contract.training is not None and training != self.contract.training:
            return ContractError(
                "model.training",
                repr(training),
                repr(self.contract.training),
                "call model.eval() or model.train(), or compile the model in that mode",
            )
        if (autocast := _torch.autocast_state()) != self.contract.autocast:
            return ContractError(
                "autocast",
                _autocast(autocast),
                _autocast(self.contract.autocast),
                "compile the model inside the autocast region it is called in",
            )
        if excess:
            kinds = [parameter.kind for parameter in self.contract.parameters]
            count = kinds.count("positional_only") + kinds.count("positional")
            return ContractError(
                "positional arguments", str(count + len(excess)), f"at most {count}"
            )
        for name, value in unknown.items():
            return ContractError(
                name,
                _describe(value),
                "nothing: the example call did not have this argument",
                "compile with an example that passes it",
            )
        for parameter, value in zip(self.contract.parameters, values, strict=True):
            found = self._tree(parameter.tree, value, parameter.name)
            if found is not None:
                return found
        return self._sizes() or self._overlap() or self._shared(values)

    def _tree(self, tree: Tree, value: Any, path: str) -> ContractError | None:
        match tree:
            case Slot():
                return self._tensor(self.contract.tensors[tree.index], value)
            case Const(expected):
                if same_constant(expected, value):
                    return None
                return ContractError(
                    path,
                    _describe(value),
                    f"{expected!r}, as in the example",
                    "compile with an example that passes this value",
                )
            case Seq(cls, items):
                if not _is_a(value, cls) or len(value) != len(items):
                    return self._structure(path, value, f"a {cls.__name__} of {len(items)}")
                names = (
                    [f"{path}.{n}" for n in value._fields]
                    if is_namedtuple(cls)
                    else [f"{path}[{i}]" for i in range(len(items))]
                )
                return self._children(items, list(value), names)
            case Map(cls, entries):
                keys = [key for key, _ in entries]
                if not _is_a(value, cls) or list(value) != keys:
                    return self._structure(path, value, f"a {cls.__name__} with keys {keys}")
                return self._children(
                    [item for _, item in entries],
                    [value[key] for key in keys],
                    [f"{path}[{key!r}]" for key in keys],
                )
            case Record(cls, fields) | Attributes(cls, fields):
                names = [name for name, _ in fields]
                have = attributes_of(value) if _is_a(value, cls) else {}
                if not _is_a(value, cls) or have.keys() != set(names):
                    takes = f"a {cls.__name__} with attributes {', '.join(names)}"
                    return self._structure(path, value, takes)
                return self._children(
                    [item for _, item in fields],
                    [have[name] for name in names],
                    [f"{path}.{n}" for n in names],
                )
            case Registered(cls, context, items):
                if not _is_a(value, cls):
                    return self._structure(path, value, f"a {cls.__name__}")
                children, found = pytree.SUPPORTED_NODES[cls].flatten_fn(value)
                if found != context or len(children) != len(items):
                    return self._structure(path, value, f"a {cls.__name__} like the example's")
                names = [f"{path}.<{i}>" for i in range(len(items))]
                return self._children(items, children, names)

    def _children(
        self, trees: Sequence[Tree], values: Sequence[Any], paths: Sequence[str]
    ) -> ContractError | None:
        for tree, value, path in zip(trees, values, paths, strict=True):
            found = self._tree(tree, value, path)
            if found is not None:
                return found
        return None

    @staticmethod
    def _structure(path: str, value: Any, takes: str) -> ContractError:
        return ContractError(path, _describe(value), takes)

    def _tensor(self, spec: TensorSpec, value: Any) -> ContractError | None:
        takes = _describe_spec(spec)
        if type(value) not in TENSOR_TYPES:
            return ContractError(spec.path, _describe(value), takes)
        if value.layout is not torch.strided or is_lazy_view(value):
            return ContractError(
                spec.path, _describe(value), takes, "call .to_dense() or .resolve_conj() first"
            )
        fits = (
            value.dtype == dtype_of(spec.dtype)
            and value.device == torch.device(spec.device)
            and value.ndim == len(spec.shape)
            and all(isinstance(w, str) or s == w for s, w in zip(value.shape, spec.shape))  # noqa: B905
        )
        if not fits:
            return ContractError(spec.path, _describe(value), takes)
        self.tensors.append(value)
        for dim, axis in enumerate(spec.shape):
            if not isinstance(axis, str):
                continue
            size, where = self.sizes.setdefault(axis, (value.shape[dim], spec.path))
            if size != value.shape[dim]:
                return ContractError(
                    spec.path,
                    f"size {value.shape[dim]} in dimension {dim}",
                    f"size {size} there, the size of axis {axis!r} in {where}",
                )
        return _layout(spec, value)

    def _sizes(self) -> ContractError | None:
        sizes = {axis: size for axis, (size, _) in self.sizes.items()}
        for dim in self.contract.axes:
            if not dim.serves(sizes[dim.name]):
                return ContractError(
                    self.sizes[dim.name][1],
                    f"axis {dim.name!r} of size {sizes[dim.name]}",
                    f"{dim}",
                    "declare a larger Dim, or pad or split the input",
                )
        if not any(variant.covers(sizes) for variant in self.variants):
            return ContractError("sizes", str(sizes), " or ".join(v.name for v in self.variants))
        return None

    def _shared(self, values: Sequence[Any]) -> ContractError | None:
        """The first container that a call passes twice, if it changes containers."""
        parameters = self.contract.parameters if self.contract.changed else ()
        seen: dict[int, str] = {}
        for parameter, value in zip(parameters, values, strict=bool(parameters)):
            for path, tree, container in containers(parameter.tree, value, parameter.name):
                if is_changeable(tree) and id(container) in seen:
                    return ContractError(
                        path,
                        f"a {tree.cls.__name__} that is {seen[id(container)]}, too",
                        "one of its own, since the model changes what it is given",
                        "pass a copy",
                    )
                seen[id(container)] = path
        return None

    def _overlap(self) -> ContractError | None:
        for slot in self.contract.mutated_args:
            for other, tensor in enumerate(self.tensors):
                if other != slot and share_memory(self.tensors[slot], tensor):
                    return ContractError(
                        self.contract.tensors[slot].path,
                        f"a tensor that shares memory with {self.contract.tensors[other].path}",
                        "a tensor of its own, since the model writes to it",
                        "pass a .clone()",
                    )
        return None


def shared(containers: Sequence[Any]) -> bool:
    """Whether one container is passed in two places."""
    return len(set(map(id, containers))) < len(containers)


def _layout(spec: TensorSpec, tensor: torch.Tensor) -> ContractError | None:
    """The error of a tensor whose strides forward would read, if they are not the compiled ones."""
    if has_layout(tensor, spec.dim_order, spec.layout):
        return None
    return ContractError(
        spec.path,
        f"strides {tuple(tensor.stride())}",
        f"strides {dense_strides(tensor.shape, spec.dim_order)}, since what forward does depends "
        "on them",
        f"pass {spec.path}{dense_copy(spec.dim_order)}, or compile with an example of this layout",
    )


def dense_copy(dim_order: Sequence[int]) -> str:
    """The method call that brings a tensor into an order of dimensions, without gaps."""
    formats = {(0, 2, 3, 1): "channels_last", (0, 2, 3, 4, 1): "channels_last_3d"}
    if tuple(dim_order) == tuple(range(len(dim_order))):
        return ".clone(memory_format=torch.contiguous_format)"
    if tuple(dim_order) in formats:
        return f".clone(memory_format=torch.{formats[tuple(dim_order)]})"
    back = tuple(dim_order.index(dim) for dim in range(len(dim_order)))
    return f".permute{tuple(dim_order)}.clone(memory_format=torch.contiguous_format).permute{back}"


def is_lazy_view(tensor: torch.Tensor) -> bool:
    """Whether a tensor stands for the conjugate or the negative of what is in its memory."""
    return tensor.is_conj() or tensor.is_neg()


def overlap(tensors: Sequence[torch.Tensor], written: Sequence[int]) -> bool:
    """Whether a tensor that is written to, by number, is kept in one storage with another."""
    if len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == len(tensors):
        return False
    return any(
        number != other and share_memory(tensors[number], tensor)
        for number in written
        for other, tensor in enumerate(tensors)
    )


def share_memory(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether two tensors are kept in one storage."""
    if left.device.type == "meta" or left.numel() == 0 or right.numel() == 0:
        return False
    return left.untyped_storage().data_ptr() == right.untyped_storage().data_ptr()


def _is_a(value: Any, cls: type) -> bool:
    return type(value) is cls


def _describe(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        kind = "" if type(value) in TENSOR_TYPES else f"{type(value).__qualname__} "
        layout = "" if value.layout is torch.strided else f" of layout {value.layout}"
        return f"{kind}{value.dtype} {list(value.shape)} on {value.device}{layout}"
    if isinstance(value, Missing):
        return "nothing"
    if isinstance(value, list | tuple | dict):
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else f"a {type(value).__qualname__}"


def _describe_spec(spec: TensorSpec) -> str:
    shape = ", ".join(str(size) for size in spec.shape)
    return f"torch.{spec.dtype} [{shape}] on {spec.device}"


def _autocast(state: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{kind} to torch.{dtype}" for kind, dtype in state) or "off"
