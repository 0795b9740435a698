"""Describe the arguments of a call: what is a tensor, what is constant, which sizes are dynamic."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from hotstart import _torch
from hotstart.dtypes import dtype_of, name_of
from hotstart.errors import CaptureError, OptionsError
from hotstart.records.artifact import Const, Parameter, Seq, Slot, TensorSpec, Tree
from hotstart.records.layout import dense_strides
from hotstart.records.shapes import Dim
from hotstart.records.trees import (
    CONSTANT_TYPES,
    NotATree,
    Part,
    build,
    children_of,
    containers,
    describe,
    is_changeable,
    kind_of,
    parts_of,
)

Kind = Literal["positional_only", "positional", "var_positional", "keyword"]


@dataclass(frozen=True)
class Arguments:
    """The arguments of an example call, described.

    Attributes:
        parameters: forward's parameters with the tree each argument has.
        tensors: what each tensor argument must be.
        axes: the dynamic dimensions, in order of first use.
        example_sizes: the size each axis has in the example.
        by_position: how many arguments the example passed by position.
        shared: paths of a container that the example passed in two places; empty if there is none.
        strides: those of the example's tensors; they may have gaps, which `tensors` have not.
    """

    parameters: tuple[Parameter, ...]
    tensors: tuple[TensorSpec, ...]
    axes: tuple[Dim, ...]
    example_sizes: Mapping[str, int]
    by_position: int = 0
    shared: tuple[str, ...] = ()
    strides: tuple[tuple[int, ...], ...] = ()

    def values(self, tensors: Sequence[Any]) -> list[Any]:
        """The value of each parameter in a call with these tensors."""
        return [build(p.tree, lambda slot: tensors[slot.index]) for p in self.parameters]

    def call_with(self, tensors: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call with these tensors."""
        return self.passed(self.values(tensors))

    def passed(self, values: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call, given the value of each parameter.

        They are passed by position where the example passed them so: hooks of the model see the
        difference.
        """
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        # Once *args is filled, everything before it has to be passed by position.
        empty = Seq(tuple, ())
        variadic = any(p.kind == "var_positional" and p.tree != empty for p in self.parameters)
        for number, (p, value) in enumerate(zip(self.parameters, values, strict=True)):
            by_position = variadic or number < self.by_position
            if p.kind == "var_positional":
                args.extend(value)
            elif p.kind == "positional_only" or (by_position and p.kind == "positional"):
                args.append(value)
            elif not (p.has_default and isinstance(p.tree, Const) and p.tree.value is p.default):
                kwargs[p.name] = value
        return tuple(args), kwargs


def describe_arguments(
    model: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    dynamic_shapes: Mapping[str, Any] | None,
    device: torch.device,
) -> Arguments:
    """Describe an example call of `model`.

    Args:
        model: a module or a function.
        args: positional example inputs; tensors may be real, fake or on the meta device.
        kwargs: keyword example inputs.
        dynamic_shapes: by parameter name, which dimensions are dynamic.
        device: stands in for the meta device.

    Raises:
        CaptureError: the arguments do not fit the signature, or hold something unsupported.
        OptionsError: `dynamic_shapes` does not fit the arguments.
    """
    signature = _signature(model)
    try:
        bound = _bind(signature, args, kwargs)
    except TypeError as error:
        raise CaptureError(
            f"the example inputs do not fit the model's signature {signature}: {error}. "
            f"Pass what a call would pass, as args=(...) and kwargs={{...}}."
        ) from error
    reader = _Reader(device)
    wanted = dict(dynamic_shapes or {})
    parameters: list[Parameter] = []
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            for key, value in bound.arguments.get(name, {}).items():
                tree = reader.read(key, value, wanted.pop(key, None))
                parameters.append(Parameter(key, "keyword", tree))
            continue
        has_default = parameter.default is not inspect.Parameter.empty
        if name in bound.arguments:
            tree = reader.read(name, bound.arguments[name], wanted.pop(name, None))
        elif parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            tree = Seq(tuple, ())
        else:
            tree = Const(parameter.default)
        parameters.append(
            Parameter(
                name,
                _KINDS[parameter.kind],
                tree,
                has_default,
                parameter.default if has_default else None,
            )
        )
    if wanted:
        given = ", ".join(sorted(wanted))
        known = ", ".join(p.name for p in parameters if not isinstance(p.tree, Const))
        raise OptionsError(
            f"dynamic_shapes: no tensor argument named {given} in the example; there are: {known}"
        )
    return Arguments(
        tuple(parameters),
        tuple(reader.tensors),
        tuple(reader.axes.values()),
        dict(reader.sizes),
        len(args),
        reader.shared,
        tuple(reader.strides),
    )


def _bind(
    signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> inspect.BoundArguments:
    """`signature.bind`, which in 3.13.0 lets a positional-only argument be missing before **kwargs.

    Raises:
        TypeError: the arguments do not fit.
    """
    bound = signature.bind(*args, **kwargs)
    for name, parameter in signature.parameters.items():
        needed = parameter.kind is inspect.Parameter.POSITIONAL_ONLY
        if needed and parameter.default is inspect.Parameter.empty and name not in bound.arguments:
            raise TypeError(f"missing a required argument: {name!r}")
    return bound


def _signature(model: Callable[..., Any]) -> inspect.Signature:
    if _torch.is_compiled(model):
        raise CaptureError(
            "model: got what torch.compile returned, takes what it was given. Pass the module or "
            "function itself; a compiled module has it as _orig_mod."
        )
    called = model.forward if isinstance(model, torch.nn.Module) else model
    if inspect.isfunction(called) or inspect.ismethod(called):
        _require_plain(called)
        return inspect.signature(called)
    if called is not model:
        if isinstance(called, torch.nn.Module):
            return inspect.signature(called.forward)
        raise CaptureError(
            f"model.forward: got {type(called).__qualname__}, takes a function or a method. Wrap "
            "the model in a module whose forward calls it, or take out what replaced its forward, "
            "such as hooks of accelerate, with remove_hook_from_module(model, recurse=True)."
        )
    raise CaptureError(
        f"model: got a {type(model).__qualname__}, takes a torch.nn.Module, a function or a "
        "method. Pass a method of the object, or a function that calls it."
    )


def _require_plain(function: Callable[..., Any]) -> None:
    """Raise if a call gives a generator or a coroutine, which runs later."""
    plain = inspect.unwrap(function)
    later = (inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    if any(kind(plain) for kind in later):
        raise CaptureError(
            f"{plain.__qualname__}: got a generator or coroutine function, takes one that returns "
            "its results. Return a tuple or list, or compile what it calls."
        )


_KINDS: dict[Any, Kind] = {
    inspect.Parameter.POSITIONAL_ONLY: "positional_only",
    inspect.Parameter.POSITIONAL_OR_KEYWORD: "positional",
    inspect.Parameter.VAR_POSITIONAL: "var_positional",
    inspect.Parameter.KEYWORD_ONLY: "keyword",
}


class _Reader:
    """Reads argument values one after the other, numbering tensors and collecting axes."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.tensors: list[TensorSpec] = []
        self.strides: list[tuple[int, ...]] = []
        self.axes: dict[str, Dim] = {}
        self.sizes: dict[str, int] = {}
        self.shared: tuple[str, ...] = ()
        self._held: dict[int, tuple[str, Any]] = {}

    def read(self, path: str, value: Any, dims: Any) -> Tree:
        wanted = {at: dims for at, _, dims in _flat_dims(path, value, dims)}

        def leaf(at: str, found: Any) -> Tree | None:
            if not isinstance(found, torch.Tensor):
                return None
            self.tensors.append(self._spec(at, found, wanted.pop(at, {})))
            self.strides.append(tuple(map(int, found.stride())))
            return Slot("arg", len(self.tensors) - 1)

        try:
            tree = describe(value, path, leaf)
        except NotATree as error:
            raise CaptureError(
                f"{error.path}: got {error.found}, takes tensors, plain constants, tuples, lists, "
                "dicts, dataclasses, objects that are their attributes, and types registered with "
                "torch.utils._pytree, built from what they hold alone. Pass its tensors as "
                "arguments of their own."
            ) from error
        for at, inner, container in containers(tree, value, path):
            first, _ = self._held.setdefault(id(container), (at, container))
            if is_changeable(inner) and first != at:
                self.shared = (first, at)
        return tree

    def _spec(self, path: str, tensor: torch.Tensor, dims: Mapping[int, Dim]) -> TensorSpec:
        if tensor.is_nested:
            raise CaptureError(
                f"{path}: got a nested tensor, takes a plain torch.Tensor; pass its values and "
                "offsets, and make it in forward with torch.nested.nested_tensor_from_jagged"
            )
        if tensor.layout is not torch.strided or tensor.is_quantized:
            kind = "quantized values" if tensor.is_quantized else f"layout {tensor.layout}"
            raise CaptureError(
                f"{path}: got a tensor of {kind}, takes torch.strided; convert it with "
                ".to_dense() or .dequantize() before the call"
            )
        plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) or _torch.is_fake(tensor)
        if not plain:
            raise CaptureError(
                f"{path}: got a {type(tensor).__qualname__}, takes a plain torch.Tensor"
            )
        shape: list[int | str] = list(map(int, tensor.shape))
        for dim, declared in dims.items():
            at = dim + tensor.ndim if dim < 0 else dim
            if not 0 <= at < tensor.ndim:
                raise OptionsError(
                    f"dynamic_shapes: {path} has {tensor.ndim} dimensions, no dimension {dim}"
                )
            self._note_axis(path, at, declared, int(tensor.shape[at]))
            shape[at] = declared.name
        return TensorSpec(
            path=path,
            dtype=name_of(tensor.dtype),
            device=str(self.device if tensor.device.type == "meta" else tensor.device),
            shape=tuple(shape),
            dim_order=dim_order(tensor),
        )

    def _note_axis(self, path: str, dim: int, declared: Dim, size: int) -> None:
        known = self.axes.setdefault(declared.name, declared)
        if known != declared:
            raise OptionsError(
                f"Dim {declared.name!r} is declared twice with different bounds: "
                f"{known} and {declared}"
            )
        if not declared.serves(size):
            raise OptionsError(
                f"{path}: dimension {dim} of the example is {size}, outside Dim "
                f"{declared.name!r}, which serves {declared}"
            )
        if self.sizes.setdefault(declared.name, size) != size:
            raise OptionsError(
                f"{path}: dimension {dim} of the example is {size}, but axis {declared.name!r} is "
                f"{self.sizes[declared.name]} elsewhere in the example"
            )


def example_tensor(spec: TensorSpec, sizes: Mapping[str, Any]) -> torch.Tensor:
    """An uninitialised tensor that fits a specification, in its compiled layout."""
    shape = [sizes[s] if isinstance(s, str) else s for s in spec.shape]
    strides = dense_strides(shape, spec.dim_order)
    return torch.empty_strided(shape, strides, dtype=dtype_of(spec.dtype), device=spec.device)


def dim_order(tensor: torch.Tensor) -> tuple[int, ...]:
    """Dimensions from outermost to innermost in memory; contiguous where memory has gaps."""
    plain = tuple(range(tensor.ndim))
    if tensor.is_contiguous():
        return plain
    strides = tensor.stride()
    order = tuple(sorted(plain, key=lambda d: (-strides[d], d)))
    expected = 1
    for d in reversed(order):
        if tensor.shape[d] != 1 and strides[d] != expected:
            return plain
        expected *= int(tensor.shape[d])
    return order


_FlatDims = list[tuple[str, torch.Tensor, dict[int, Dim]]]


def _flat_dims(path: str, value: Any, dims: Any) -> _FlatDims:
    """Match a nested `dynamic_shapes` entry with the argument it is for, part by part.

    Parts of a type that is registered with pytree may also be numbered as it flattens, even where
    they are known by its attributes.
    """
    if dims is None:
        return []
    if isinstance(value, torch.Tensor):
        return [(path, value, _tensor_dims(path, dims))]
    parts = parts_of(value, path)
    numbered = not isinstance(dims, Mapping) or all(isinstance(key, int) for key in dims)
    flattened = children_of(value, path) if kind_of(value) == "object" and numbered else None
    if flattened is not None:
        paths = {id(tensor): at for at, tensor in _tensors(value, path)}
        found = _matched(path, value, flattened, dims)
        return [(paths.get(id(tensor), at), tensor, own) for at, tensor, own in found]
    return _matched(path, value, parts, dims)


def _tensors(value: Any, path: str) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield path, value
    elif not isinstance(value, CONSTANT_TYPES):
        for part in parts_of(value, path) or ():
            yield from _tensors(part.value, part.path)


def _matched(path: str, value: Any, parts: Sequence[Part] | None, dims: Any) -> _FlatDims:
    if isinstance(dims, Mapping):
        wanted = dict(dims)
    elif isinstance(dims, Sequence) and parts is not None and len(dims) == len(parts):
        wanted = {part.key: entry for part, entry in zip(parts, dims, strict=True)}
    else:
        raise OptionsError(
            f"dynamic_shapes: {path} is a {type(value).__qualname__}, which {dims!r} does not fit"
        )
    found: _FlatDims = []
    for part in parts or ():
        found += _flat_dims(part.path, part.value, wanted.pop(part.key, None))
    if wanted:
        unknown = ", ".join(repr(key) for key in wanted)
        raise OptionsError(f"dynamic_shapes: {path} has no {unknown} in the example")
    return found


def _tensor_dims(path: str, dims: Any) -> dict[int, Dim]:
    if isinstance(dims, Mapping):
        items = list(dims.items())
    elif isinstance(dims, Sequence) and not isinstance(dims, str):
        items = list(enumerate(dims))
    else:
        raise OptionsError(
            f"dynamic_shapes: {path} takes a mapping from dimension to hotstart.Dim, got {dims!r}"
        )
    wrong = [dim for dim, _ in items if isinstance(dim, bool) or not isinstance(dim, int)]
    if wrong:
        raise OptionsError(f"dynamic_shapes: {path}: got dimension {wrong[0]!r}, takes an int")
    return {dim: _as_dim(path, declared) for dim, declared in items if declared is not None}


def _as_dim(path: str, declared: Any) -> Dim:
    if isinstance(declared, Dim):
        return declared
    name, low, high = (getattr(declared, a, None) for a in ("__name__", "min", "max"))
    if isinstance(name, str) and isinstance(low, int) and isinstance(high, int):
        # torch.export's default of 0 does not mean that anybody asks for size 0.
        return Dim(name, min=low or 1, max=high)
    if isinstance(name, str) and low is not None:
        raise OptionsError(f"{path}: torch.export.Dim {name!r} has no max; give it one")
    raise OptionsError(
        f"{path}: takes hotstart.Dim or torch.export.Dim(name, max=...), got {declared!r}"
    )
