"""Describe the arguments of a call: its tensors, its constants, its dynamic sizes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from hotstart.capture.dynamic_shapes import flat_dims
from hotstart.capture.example_axes import ExampleAxes
from hotstart.capture.plain import oddity, require_plain
from hotstart.capture.signature import bind_example
from hotstart.dtypes import dtype_of, name_of
from hotstart.errors import CaptureError, OptionsError
from hotstart.records.contract import Parameter, TensorSpec
from hotstart.records.dims import DerivedDim, Dim, Size
from hotstart.records.nested import Const, Seq, Slot, Tree, is_changeable
from hotstart.records.passing import passed
from hotstart.records.shapes import dense_strides
from hotstart.records.trees import NotATree, build, containers, describe

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
        strides: strides of the example's tensors, which may have gaps; those in `tensors` have
            none.
        unnamed: number of parameters at the end that forward takes by `**kwargs`.
    """

    parameters: tuple[Parameter, ...]
    tensors: tuple[TensorSpec, ...]
    axes: tuple[Dim, ...]
    example_sizes: Mapping[str, int]
    by_position: int = 0
    shared: tuple[str, ...] = ()
    strides: tuple[tuple[int, ...], ...] = ()
    unnamed: int = 0

    def values(self, tensors: Sequence[Any]) -> list[Any]:
        """The value of each parameter in a call with these tensors."""
        return [build(p.tree, lambda slot: tensors[slot.index]) for p in self.parameters]

    def call_with(self, tensors: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call with these tensors."""
        return self.passed(self.values(tensors))

    def passed(self, values: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call, given the value of each parameter.

        They are passed by position where the example passed them so.
        """
        return passed(self.parameters, values, self.by_position)


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
    bound = bind_example(model, args, kwargs)
    reader = _Reader(device)
    wanted = dict(dynamic_shapes or {})
    parameters: list[Parameter] = []
    unnamed: Mapping[str, Any] = {}
    for name, parameter in bound.signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            unnamed = bound.arguments.get(name, {})
            for key, value in unnamed.items():
                tree = reader.read(key, value, wanted.pop(key, None))
                parameters.append(Parameter(key, "keyword", tree))
        elif name in bound.arguments:
            tree = reader.read(name, bound.arguments[name], wanted.pop(name, None))
            parameters.append(_described(parameter, tree))
        else:
            parameters.append(_described(parameter, _tree_of_default(parameter)))
    if wanted:
        given = ", ".join(sorted(wanted))
        known = ", ".join(p.name for p in parameters if not isinstance(p.tree, Const))
        raise OptionsError(
            f"dynamic_shapes: no tensor argument named {given} in the example; there are: {known}"
        )
    reader.axes.complete()
    return Arguments(
        tuple(parameters),
        tuple(reader.tensors),
        tuple(reader.axes.declared.values()),
        dict(reader.axes.sizes),
        len(args),
        reader.shared,
        tuple(reader.strides),
        len(unnamed),
    )


def _tree_of_default(parameter: inspect.Parameter) -> Tree:
    """Describe a parameter that a call leaves out."""
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        return Seq(tuple, ())
    return Const(parameter.default)


def _described(parameter: inspect.Parameter, tree: Tree) -> Parameter:
    has_default = parameter.default is not inspect.Parameter.empty
    default = parameter.default if has_default else None
    return Parameter(parameter.name, _KINDS[parameter.kind], tree, has_default, default)


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
        self.axes = ExampleAxes()
        self.shared: tuple[str, ...] = ()
        self._held: dict[int, tuple[str, Any]] = {}

    def read(self, path: str, value: Any, dims: Any) -> Tree:
        wanted = {at: dims for at, _, dims in flat_dims(path, value, dims)}

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

    def _spec(self, path: str, tensor: torch.Tensor, dims: Mapping[int, DerivedDim]) -> TensorSpec:
        if oddity(tensor) != "lazy":
            require_plain(path, tensor)
        shape: list[Size] = list(map(int, tensor.shape))
        for dim, declared in dims.items():
            at = dim + tensor.ndim if dim < 0 else dim
            if not 0 <= at < tensor.ndim:
                raise OptionsError(
                    f"dynamic_shapes: {path} has {tensor.ndim} dimensions, no dimension {dim}"
                )
            self.axes.add(path, at, int(tensor.shape[at]), declared)
            shape[at] = declared.size
        return TensorSpec(
            path=path,
            dtype=name_of(tensor.dtype),
            device=str(self.device if tensor.device.type == "meta" else tensor.device),
            shape=tuple(shape),
            dim_order=dim_order(tensor),
        )


def example_tensor(spec: TensorSpec, sizes: Mapping[str, Any]) -> torch.Tensor:
    """An uninitialised tensor that fits a specification, in its compiled layout."""
    shape = spec.shape_at(sizes)
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
