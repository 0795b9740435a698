"""Describe the pieces of a cut graph: what flows in and out, and a digest of each."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from hotstart import _torch
from hotstart.capture.captured import example_of
from hotstart.partition.blocks import paths_of
from hotstart.partition.cut import Run
from hotstart.partition.digest import Canonical, Token, hash_token, is_portable
from hotstart.partition.plan import Graph, Piece, Plan

LAYERS = 8
"""A piece from more submodules is listed under the one that holds them all."""


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
            if isinstance(example_of(node), torch.Tensor)
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
    if not _torch.is_fake(tensor):
        return id(tensor)
    return _torch.storage_of(tensor), tensor.dtype, tensor.is_conj(), tensor.is_neg()


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
