"""Tell what the outputs of a traced graph are: sizes, numbers, inputs that were written, views."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from msgspec.structs import replace
from torch import fx

from hotstart._torch.graphs.nodes import view_by_attribute
from hotstart._torch.graphs.symbols import expression, python_source
from hotstart._torch.graphs.values import unbacked_in
from hotstart.capture.captured import example_of
from hotstart.errors import CaptureError
from hotstart.records.nested import Slot

if TYPE_CHECKING:
    import sympy

_VIEWS = frozenset({"mT", "T", "mH", "H", "data", "real", "imag"})
"""Attributes of a tensor that are views of it."""


def numbers_read(returned: Iterable[object]) -> dict[int, fx.Node]:
    """Find the outputs that bytecode may read a floating-point number of, by `item`.

    Dynamo has the graph return such a number as a tensor (2.11 to 2.15).
    """
    return {
        number: node.args[0]
        for number, node in enumerate(returned)
        if isinstance(node, fx.Node)
        and node.target is torch.scalar_tensor
        and isinstance(node.args[0], fx.Node)
        and unbacked_in(example_of(node.args[0]))
    }


def size_source(node: object, symbols: Mapping[sympy.Symbol, sympy.Expr]) -> str | None:
    """Source, over axis names, of an integer that the graph returns; None for a tensor."""
    value = node.meta["example_value"] if isinstance(node, fx.Node) else node
    if isinstance(value, torch.Tensor):
        return None
    if isinstance(value, int | torch.SymInt | torch.SymBool):
        return python_source(expression(value).xreplace(dict(symbols)))
    raise CaptureError(
        f"forward returns {node}, a number computed from tensor sizes that is not an integer. "
        "Return the sizes and compute it outside."
    )


def written_inputs(
    placeholders: list[fx.Node], inputs: tuple[Slot, ...], outputs: Any
) -> dict[int, Slot]:
    """The outputs that are an input after it was written to, by number."""
    slots = {
        id(node.meta["example_value"]): slot
        for node, slot in zip(placeholders, inputs, strict=True)
        if slot.kind != "size"
    }
    examples = {
        number: id(node.meta.get("example_value"))
        for number, node in enumerate(outputs)
        if isinstance(node, fx.Node)
    }
    return {number: slots[example] for number, example in examples.items() if example in slots}


def viewed_inputs(
    placeholders: list[fx.Node], inputs: tuple[Slot, ...], outputs: Any
) -> dict[int, Slot]:
    """The outputs that are a view by attribute of an input, such as `x.mT`, by number.

    They are no outputs: each call takes them of what it is passed, whatever the layout of that is.
    """
    slots = dict(zip(placeholders, inputs, strict=True))
    found: dict[int, Slot] = {}
    for number, output in enumerate(outputs):
        node: Any = output
        views: list[str] = []
        while isinstance(node, fx.Node) and node.op == "call_function":
            attribute = view_by_attribute(node)
            if attribute not in _VIEWS:
                break
            views.insert(0, attribute)
            node = node.args[0]
        if views and node in slots:
            found[number] = replace(slots[node], views=tuple(views))
    return found
