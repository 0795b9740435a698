"""The records of a call: what it must satisfy, and its tensors. Nothing here imports torch."""

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from hotstart.records.dims import Dim, Size, size_at
from hotstart.records.nested import Tree, Value

Layout: TypeAlias = Literal["copied", "fixed", "exact"]
"""The part of a layout that a call must bring: see `TensorSpec`."""


class TensorSpec(msgspec.Struct, frozen=True):
    """The dtype, shape and layout of a tensor argument.

    Attributes:
        path: how a user would write it: `input_ids`, `batch['mask']`, `states[0]`.
        dtype: its name, such as `float32`.
        device: its name, such as `cpu` or `cuda:0`.
        shape: a size for a static dimension, an axis name for a dynamic one, or what follows from
            axes.
        dim_order: dimensions from the outermost to the innermost in memory; the compiled layout.
        layout: what happens to a tensor of another layout, which is one with other strides where a
            size is above one: `"copied"` copies it; `"fixed"` takes none, since forward reads
            strides; `"exact"` asks for the same strides in dimensions of size one, too.
    """

    path: str
    dtype: str
    device: str
    shape: tuple[Size, ...]
    dim_order: tuple[int, ...]
    layout: Layout = "copied"

    def __str__(self) -> str:
        """Such as `torch.float32 [batch, 3] on cpu`."""
        return f"torch.{self.dtype} [{', '.join(map(str, self.shape))}] on {self.device}"

    def shape_at(self, sizes: Mapping[str, Any]) -> list[Any]:
        """The shape where each axis has the size that `sizes` gives it."""
        return [size_at(size, sizes) for size in self.shape]


class Parameter(msgspec.Struct, frozen=True):
    """One parameter of the model's forward.

    Attributes:
        kind: as in `inspect`: positional-only, positional or keyword, *args, keyword-only; what
            the example passed through **kwargs is keyword-only here.
        default: what the call stands for when it leaves the argument out.
    """

    name: str
    kind: Literal["positional_only", "positional", "var_positional", "keyword"]
    tree: Tree
    has_default: bool = False
    default: Value = None


class Contract(msgspec.Struct, frozen=True):
    """The requirements of a call.

    Attributes:
        parameters: the forward's parameters, in order, with the tree each must match.
        tensors: the tensor arguments, by slot number.
        axes: the dynamic dimensions.
        training: the model's `training` flag; None for a function.
        autocast: (device type, name of the dtype) of the autocast region the build ran in, if any.
        mutated_args: slots of tensor arguments that the graph writes to.
        given: slots of tensor arguments that a result contains as they were passed.
        objects: numbers of the caller's containers that a result contains, or that a call changes.
        changed: numbers of those that a call changes.
        default_dtype: torch's at the build, if what the graph computes depends on it.
        default_device: the type of torch's at the build, if the graph makes tensors there.
    """

    parameters: tuple[Parameter, ...]
    tensors: tuple[TensorSpec, ...]
    axes: tuple[Dim, ...]
    training: bool | None
    autocast: tuple[tuple[str, str], ...]
    mutated_args: tuple[int, ...]
    given: tuple[int, ...]
    objects: tuple[int, ...] = ()
    changed: tuple[int, ...] = ()
    default_dtype: str | None = None
    default_device: str | None = None
