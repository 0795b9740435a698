"""Trace with the numbers in non-persistent buffers known: strides, paddings and other settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from hotstart._torch.dynamo.full_graph import FullGraph
from hotstart._torch.graphs.writes import was_mutated
from hotstart.capture.refusals import not_one_graph
from hotstart.errors import CaptureError
from hotstart.model import ModelIndex

Known = Mapping[int, torch.Tensor]
"""Buffers whose numbers a trace may know, by identity."""


def with_numbers_of_buffers(index: ModelIndex, trace: Callable[[Known], FullGraph]) -> FullGraph:
    """Trace; where that fails, trace again with the numbers of buffers known.

    Checks of these numbers are in the graph then, so a model that traces without them gets none.

    Raises:
        CaptureError: neither works, or forward writes to one of them.
    """
    try:
        return trace({})
    except CaptureError:
        known = _settings(index)
        if not known:
            raise
        traced = trace(known)
    for node in traced.module.graph.find_nodes(op="placeholder"):
        example = node.meta.get("example_value")
        if any(example is each for each in traced.known) and was_mutated(example):
            raise not_one_graph(
                "",
                f"forward writes to {traced.name_of(node)}, and what it does depends on what that "
                "holds",
                "keep the number in an attribute, or pass it as an argument",
            )
    return traced


def _settings(index: ModelIndex) -> dict[int, torch.Tensor]:
    """The whole numbers that modules keep in buffers which are not saved with weights."""
    found: dict[int, torch.Tensor] = {}
    for module in index.modules.values():
        for name in sorted(module._non_persistent_buffers_set):
            buffer = module._buffers.get(name)
            if type(buffer) is torch.Tensor and _is_number(buffer):
                found[id(buffer)] = buffer
    return found


def _is_number(buffer: torch.Tensor) -> bool:
    whole = not buffer.is_floating_point() and not buffer.is_complex()
    return buffer.ndim == 0 and whole and buffer.device.type == "cpu"
