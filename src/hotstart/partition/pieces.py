"""The pieces of a cut graph: runs of nodes with their inputs, outputs and digest."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import fx

from hotstart._torch.graphs.symbols import is_fake
from hotstart._torch.graphs.values import storage_of
from hotstart.capture.captured import example_of
from hotstart.partition.blocks import paths_of
from hotstart.partition.cut import Run
from hotstart.partition.digest import Canonical
from hotstart.partition.graph import Graph
from hotstart.partition.tokens import Token, hash_token, is_portable

LAYERS = 8
"""A piece from more submodules is listed under the one that holds them all."""


@dataclass(frozen=True)
class Piece:
    """A sub-graph between two cuts.

    Attributes:
        name: `piece_0`, `piece_1`, ... in the order of execution.
        kind: `"compiled"`, or `"inlined"`: splitting operators, which stitched code calls itself.
        nodes: its nodes in the graph's order.
        inputs: tensors it reads from outside, in the order it first uses them.
        outputs: its tensors that later pieces or the caller use, in the order they are made.
        views: further outputs that are views of inputs, with the input. They are made outside of
            the unit, since a compiler need not return them in the memory of the input.
        axes: the axes its shapes and arguments depend on, in the order it first uses them.
        layers: paths of the submodules its nodes came from, outermost repeated block first.
        digest: hash of everything about it that reaches a compiler, before ranges are chosen.
        portable: whether the digest means the same in every process.
    """

    name: str
    kind: Literal["compiled", "inlined"]
    nodes: tuple[fx.Node, ...] = field(repr=False)
    inputs: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]
    axes: tuple[str, ...]
    layers: tuple[str, ...]
    digest: str
    portable: bool = False
    views: Mapping[fx.Node, fx.Node] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A captured graph, cut.

    Attributes:
        graph: the graph with the numbers in it taken out: see `Graph`.
        pieces: the pieces in order.
        different: the first compiled piece of every digest.
    """

    graph: Graph
    pieces: tuple[Piece, ...]

    @property
    def different(self) -> tuple[Piece, ...]:
        """The first compiled piece of every digest."""
        first: dict[str, Piece] = {}
        for piece in self.pieces:
            if piece.kind == "compiled":
                first.setdefault(piece.digest, piece)
        return tuple(first.values())


def make_plan(graph: Graph, runs: Sequence[Run], prefix: str = "") -> Plan:
    """Describe and digest the pieces that runs of nodes become; `prefix` starts their names."""
    return Plan(graph, tuple(_pieces(graph, runs, prefix)))


def _pieces(graph: Graph, runs: Sequence[Run], prefix: str) -> Iterable[Piece]:
    last_use = {
        read: index
        for index, run in enumerate(runs)
        for node in run.nodes
        for read in graph.reads(node)
    }
    returned = set(graph.returned())
    targets: dict[Any, Token] = {}
    sizes = Counter(path for node in graph.nodes for path in paths_of(node))
    for index, run in enumerate(runs):
        inputs = graph.inputs_of(run.nodes)
        used = tuple(
            node
            for node in run.nodes
            if (isinstance(example_of(node), torch.Tensor) or node in graph.flowing)
            and (node in returned or last_use.get(node, index) > index)
        )
        views = {} if run.inlined else _views(used, inputs)
        outputs = tuple(node for node in used if node not in views)
        canonical = Canonical(graph, targets)
        tokens: Token = canonical.run(run.nodes, inputs, outputs)
        yield Piece(
            name=f"{prefix}piece_{index}",
            kind="inlined" if run.inlined else "compiled",
            nodes=run.nodes,
            inputs=inputs,
            outputs=outputs,
            axes=canonical.axes,
            layers=_layers(run.nodes, sizes),
            digest=hash_token(tokens),
            portable=is_portable(tokens),
            views=views,
        )


def _views(nodes: Sequence[fx.Node], inputs: Sequence[fx.Node]) -> dict[fx.Node, fx.Node]:
    """Find the nodes whose tensors are views of an input's memory, with the input."""
    bases = {_memory(example_of(node)): node for node in reversed(inputs)}
    found = ((node, bases.get(_memory(example_of(node)))) for node in nodes)
    return {node: base for node, base in found if base is not None}


def _memory(tensor: torch.Tensor) -> Hashable:
    """Make a key that two tensors share if `as_strided` makes one of the other."""
    if not is_fake(tensor):
        return id(tensor)
    return storage_of(tensor), tensor.dtype, tensor.is_conj(), tensor.is_neg()


def _layers(run: Sequence[fx.Node], sizes: Mapping[str, int]) -> tuple[str, ...]:
    """List the submodules a run came from: the one that it is the whole of, or the outermost."""
    stacks = [stack for node in run if (stack := paths_of(node))]
    common = _common_start(stacks)
    inside = sum(len(stack) >= len(common) for stack in stacks)
    parts = dict.fromkeys(stack[len(common)] for stack in stacks if len(stack) > len(common))
    whole = bool(common) and sizes[common[-1]] == inside
    if whole or not parts or len(parts) > LAYERS:
        return tuple(common[-1:])
    return tuple(parts)


def _common_start(stacks: Sequence[list[str]]) -> list[str]:
    same = itertools.takewhile(lambda paths: len(set(paths)) == 1, zip(*stacks, strict=False))
    return [paths[0] for paths in same]
