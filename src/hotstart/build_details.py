"""Describe the pieces of a build: operators, shapes, lines, kernels, for its document."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import fx

from hotstart._torch.graphs.source_lines import frame_of
from hotstart._torch.graphs.symbols import python_source
from hotstart.capture.captured import example_of, tensors_in
from hotstart.dtypes import name_of
from hotstart.partition import Graph, Piece
from hotstart.partition.blocks import paths_of
from hotstart.partition.operator_names import operator_name, qualified_name
from hotstart.records.artifact import CompiledUnit, Requirements
from hotstart.records.details import Details, Line, Operation, PieceDetails
from hotstart.specialize.trace import TracedCall


def details_of(
    calls: Sequence[TracedCall], requirements: Requirements, units: Sequence[CompiledUnit]
) -> Details:
    """Describe the different pieces of calls, and list the C++ of the units' kernels."""
    found: dict[tuple[str, str], PieceDetails] = {}
    for plan in (graph.plan for call in calls for graph in call.graphs):
        for piece in plan.pieces:
            if (piece.kind, piece.digest) not in found:
                found[piece.kind, piece.digest] = _described(plan.graph, piece, requirements)
    kernels = {
        kernel.file_name.format(kernel.name): kernel.source
        for unit in units
        for _, kernel in unit.kernels
        if kernel.source
    }
    return Details(tuple(found.values()), kernels)


def _described(graph: Graph, piece: Piece, requirements: Requirements) -> PieceDetails:
    lines: dict[Line | None, int] = {None: -1}
    operations = []
    for node in piece.nodes:
        line = _line(node)
        number = lines.setdefault(line, len(lines) - 1)
        layer = next(iter(paths_of(node)[::-1]), "")
        operations.append(Operation(_name(node), _tensors(graph, node), layer, number))
    weights = [node for node in piece.inputs if graph.is_weight(node)]
    named = ((requirements.weights[graph.placeholders[n].index].name, n) for n in weights)
    return PieceDetails(
        digest=piece.digest,
        kind=piece.kind,
        inputs=_all_tensors(graph, [node for node in piece.inputs if node not in weights]),
        weights=tuple((name, ", ".join(_tensors(graph, node))) for name, node in named),
        outputs=_all_tensors(graph, [*piece.outputs, *piece.views]),
        operations=tuple(operations),
        lines=tuple(line for line in lines if line is not None),
    )


def _name(node: fx.Node) -> str:
    """Name what a node calls, as a user would."""
    if node.op == "call_method":
        return f"Tensor.{node.target}"
    return operator_name(node.target) or qualified_name(node.target)


def _all_tensors(graph: Graph, nodes: Sequence[fx.Node]) -> tuple[str, ...]:
    return tuple(text for node in nodes for text in _tensors(graph, node))


def _tensors(graph: Graph, node: fx.Node) -> tuple[str, ...]:
    """Write the tensors of a node: dtype, and sizes over axes."""
    return tuple(_tensor(graph, tensor) for tensor in tensors_in(example_of(node)))


def _tensor(graph: Graph, tensor: torch.Tensor) -> str:
    sizes = [_size(graph.expression(size)) for size in tensor.shape]
    return f"{name_of(tensor.dtype)} ({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def _size(size: Any) -> str:
    return str(size) if isinstance(size, int) else python_source(size)


def _line(node: fx.Node) -> Line | None:
    frame = frame_of(node)
    if frame is None or frame.lineno is None:
        return None
    return Line(_short(frame.filename), frame.lineno, frame.name, frame.line or "")


@lru_cache(maxsize=1024)
def _short(file: str) -> str:
    """Name a file from the innermost folder that Python finds modules in."""
    folders = [Path(folder) for folder in sys.path if folder and folder != "/"]
    inside = [folder for folder in folders if Path(file).is_relative_to(folder)]
    if not inside:
        return file
    innermost = max(inside, key=lambda folder: len(folder.parts))
    return str(Path(file).relative_to(innermost))
