"""Describe what a replay of Dynamo's bytecode gives as a tree that generated code can build."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from msgspec.structs import replace
from torch import fx
from torch.overrides import TorchFunctionMode

from hotstart._torch.graphs.symbols import expression, python_source
from hotstart._torch.graphs.values import storage_of
from hotstart.capture.weight_table import WeightTable
from hotstart.errors import CaptureError
from hotstart.records.nested import Slot, Tree
from hotstart.records.trees import Leaf, NotATree, classes, describe

if TYPE_CHECKING:
    import sympy


class _Size(int):
    """Stands in for an integer the graph returns; recognised by identity."""


class _Real(float):
    """Stands in for a floating-point number that the graph computes.

    Attributes:
        node: computes it.
    """

    node: fx.Node


class Leaves:
    """Recognises what results are made of: outputs of the graph, sizes, arguments and weights.

    Attributes:
        outputs: stand-ins for what the graph returns.
        views: the mode to replay under.
        sizes: expressions over axis symbols, and nodes that are numbers, that results need and the
            graph does not return; they are numbered as if they followed the graph's own outputs.
    """

    def __init__(
        self,
        returned: Sequence[str | None],
        written: Mapping[int, Slot],
        reals: Mapping[int, fx.Node],
        axes: Mapping[sympy.Symbol, sympy.Symbol],
        arguments: Sequence[torch.Tensor],
        container: Callable[[Any], Slot | None],
        weights: WeightTable,
    ) -> None:
        """Make the stand-ins.

        Args:
            returned: for each output of the graph, the expression of an integer, or None.
            written: outputs that are an argument or weight itself.
            reals: outputs that are tensors of a number, with the node that the number is of.
            axes: the symbol of an axis, by the one that `arguments` have.
            arguments: the tensors that are passed.
            container: the slot of a container that is passed; None for anything else.
            weights: the table of tensors the graph reads.
        """
        self.outputs: list[Any] = [torch.empty(0) if e is None else _Size(7) for e in returned]
        self._reals = {id(self.outputs[number]): node for number, node in reals.items()}
        self.views = Views(self._reals)
        self.sizes: list[sympy.Expr | fx.Node] = []
        self._axes = axes
        self._container = container
        self._weights = weights
        self._memory = {storage_of(s) for s in self.outputs if isinstance(s, torch.Tensor)}
        self._slots = {id(tensor): Slot("arg", slot) for slot, tensor in enumerate(arguments)}
        for index, (stand_in, expr) in enumerate(zip(self.outputs, returned, strict=True)):
            slot = Slot("out", index) if expr is None else Slot("size", index, expr)
            self._slots[id(stand_in)] = written.get(index, slot)

    def slot(self, path: str, value: Any) -> Slot | None:
        """The slot of a value; None for a container that is made in the call, or a constant.

        Raises:
            CaptureError: a tensor that no call has.
        """
        known = self._slots.get(id(value))
        if known is not None:
            return known
        if isinstance(value, _Real):
            self.sizes.append(value.node)
            return Slot("size", len(self.outputs) + len(self.sizes) - 1, value.node.name)
        if isinstance(value, torch.SymInt):
            expr = expression(value).xreplace(self._axes)
            self.sizes.append(expr)
            return Slot("size", len(self.outputs) + len(self.sizes) - 1, python_source(expr))
        found = self.views.base_of(value)
        if found is None and not isinstance(value, torch.Tensor):
            return self._container(value)
        if found is not None:
            base, attribute = found
            slot = self.slot(path, base)
            assert slot is not None
            return replace(slot, views=(*slot.views, attribute))
        if storage_of(value) in self._memory:
            raise CaptureError(
                f"{path} is a {type(value).__qualname__} that wraps a result of the graph. Return "
                "the plain tensor, and wrap it outside."
            )
        if self.views.made(value):
            raise CaptureError(
                f"{path} is a tensor that is made when the result is built, by code that is no "
                "part of the graph. Compute it in forward, or outside."
            )
        return Slot("weight", self._weights.slot(value, path))


class Views(TorchFunctionMode):
    """Notes every tensor that bytecode makes, with the base if it is a view by attribute.

    Where bytecode can reach `x`, Dynamo does not return `x.mT` from the graph: the bytecode makes
    the view. It makes arrays of numpy's, too.
    """

    def __init__(self, reals: Mapping[int, fx.Node]) -> None:
        """Make the mode.

        Args:
            reals: the node that a tensor is the number of, by the tensor's identity.
        """
        super().__init__()
        self._reals = reals
        self._taken: dict[int, tuple[Any, torch.Tensor, str]] = {}
        self._made: dict[int, torch.Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") == "item" and id(args[0]) in self._reals:
            number = _Real()
            number.node = self._reals[id(args[0])]
            return number
        made = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") == "numpy":
            self._taken[id(made)] = (made, args[0], "numpy()")
        if not isinstance(made, torch.Tensor) or any(made is arg for arg in args):
            return made
        self._made[id(made)] = made
        if getattr(func, "__name__", "") == "__get__" and storage_of(made) == storage_of(args[0]):
            self._taken[id(made)] = (made, args[0], func.__self__.__name__)
        return made

    def made(self, tensor: torch.Tensor) -> bool:
        """Tell whether bytecode has made a tensor."""
        return id(tensor) in self._made

    def base_of(self, view: Any) -> tuple[torch.Tensor, str] | None:
        """The tensor and the attribute, or call, that gave a view; None for anything else."""
        taken = self._taken.get(id(view))
        return None if taken is None else taken[1:]


def describe_result(value: Any, path: str, leaf: Leaf) -> Tree:
    """Describe a value that a call leaves behind.

    Raises:
        CaptureError: it holds something that generated code cannot build.
    """
    try:
        tree = describe(value, path, leaf)
    except NotATree as error:
        raise CaptureError(
            f"{error.path} is {error.found}, which cannot be rebuilt from tensors. Return tensors, "
            "constants, tuples, lists, dicts, dataclasses, objects that are their attributes, or "
            "types registered with torch.utils._pytree. Make a set of them outside."
        ) from error
    for cls in classes(tree):
        if not _importable(cls):
            raise CaptureError(
                f"{path} holds a {cls.__qualname__}, which no import leads to. Define the class at "
                "the top of a module."
            )
    return tree


def _importable(cls: type) -> bool:
    """Tell whether an import leads to a class, so that generated code can name it."""
    found: Any = sys.modules.get(cls.__module__)
    for part in cls.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is cls
