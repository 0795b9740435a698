"""Trace arguments of generated code back to the weights they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from hotstart._torch.packing.recipes import Recipe, results_of


@dataclass(frozen=True)
class Part:
    """A weight that gives columns of a linear.

    Attributes:
        position: of the weight among the inputs of the module.
        across: whether it has a row for each input, not for each output.
    """

    position: int
    across: bool


class MadeOf:
    """Follows recipes back to weights.

    Args:
        recipes: what makes the arguments, in order.
        inputs: examples of what recipes name by position.
    """

    def __init__(self, recipes: Sequence[Recipe], inputs: Sequence[Any]) -> None:
        self._recipes = recipes
        self._inputs = inputs

    def parts(self, number: int, *, packed: bool) -> list[Part] | None:
        """Find the weights that give the columns of a linear, in order.

        Args:
            number: of the argument that the linear multiplies by.
            packed: whether that is packed; if not, it is transposed.

        Returns:
            None if the argument is made in another way.
        """
        recipe, node = self._result(number, packed=packed)
        return None if node is None else self._parts(recipe, node, across=not packed)

    def row(self, number: int) -> int | None:
        """Count the elements of an argument that is a concatenation of vectors of weights.

        Returns:
            None if the argument is made in another way.
        """
        recipe, node = self._result(number, packed=False)
        return None if node is None else self._row(recipe, node)

    def _result(self, number: int, *, packed: bool) -> tuple[Recipe, fx.Node | None]:
        """The recipe of an argument, and the node that makes it, before packing."""
        for recipe in self._recipes:
            if number < recipe.outputs:
                module = recipe.plain if packed else recipe.module
                node = None if module is None else results_of(module)[number]
                return recipe, node if isinstance(node, fx.Node) else None
            number -= recipe.outputs
        raise IndexError(number)

    def _parts(self, recipe: Recipe, node: fx.Node, *, across: bool) -> list[Part] | None:
        match node.target, node.args:
            case torch.ops.aten.permute.default, (fx.Node() as of, (1, 0) | [1, 0]):
                return self._parts(recipe, of, across=not across)
            case torch.ops.aten.cat.default, (list() | tuple() as parts, *dim):
                if (dim or [0])[0] not in ((1, -1) if across else (0, -2)):
                    return None
                found: list[Part] = []
                for part in parts:
                    more = self._parts(recipe, part, across=across)
                    if more is None:
                        return None
                    found += more
                return found
        position = _position(recipe, node)
        return None if position is None else [Part(position, across)]

    def _row(self, recipe: Recipe, node: fx.Node) -> int | None:
        match node.target, node.args:
            case torch.ops.aten.cat.default, (list() | tuple() as parts, *_):
                counts = [self._row(recipe, part) for part in parts]
                known = [count for count in counts if count is not None]
                return sum(known) if len(known) == len(counts) else None
        position = _position(recipe, node)
        if position is None or not is_row(self._inputs[position]):
            return None
        return len(self._inputs[position])


def _position(recipe: Recipe, node: fx.Node) -> int | None:
    """The position of the weight that a node is; None if it is none."""
    placeholders = list(node.graph.find_nodes(op="placeholder"))
    return recipe.weights[placeholders.index(node)] if node in placeholders else None


def is_row(tensor: Any) -> bool:
    """Tell whether something is a dense tensor of one dimension, in float32."""
    return is_dense(tensor) and tensor.dim() == 1


def is_dense(tensor: Any) -> bool:
    """Tell whether something is a tensor in float32 on the CPU whose elements lie in order."""
    return (
        isinstance(tensor, torch.Tensor)
        and tensor.device.type == "cpu"
        and tensor.dtype is torch.float32
        and tensor.is_contiguous()
    )
