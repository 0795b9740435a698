"""A piece as the source of one function, op by op: what the `eager` compiler makes."""

from __future__ import annotations

from collections.abc import Iterable

from torch import fx

from hotstart import _torch
from hotstart.codegen.emit import Emitter, assignment, comment, written_tuple
from hotstart.ir import CompiledUnit
from hotstart.names import Names
from hotstart.partition import Graph, Piece
from hotstart.partition.blocks import path_of


def last_uses(
    graph: Graph, nodes: tuple[fx.Node, ...], keep: set[fx.Node]
) -> dict[fx.Node, list[fx.Node]]:
    """For each node, what nobody needs once it has run; values in `keep` are always needed."""
    dying: dict[fx.Node, list[fx.Node]] = {}
    seen = set(keep)
    for node in reversed(nodes):
        for value in dict.fromkeys(graph.reads(node)):
            if value not in seen:
                seen.add(value)
                dying.setdefault(node, []).append(value)
    return dying


def emit_nodes(graph: Graph, piece: Piece, emitter: Emitter, keep: set[fx.Node]) -> list[str]:
    """Statements that compute a piece's nodes; each value is deleted right after its last use.

    Raises:
        NotExpressible: see `Emitter.statement`.
    """
    dying = last_uses(graph, piece.nodes, keep)
    read = {value for node in piece.nodes for value in graph.reads(node)} | set(piece.outputs)
    lines: list[str] = []
    for node in piece.nodes:
        if node.op == "get_attr":
            held = _torch.attribute_of(graph.captured.module, str(node.target))
            emitter.let(node, emitter.literal(held))
            continue
        statement = emitter.statement(node, graph.args(node), graph.kwargs(node), node in read)
        path = path_of(node)
        lines.append(f"{statement}  {comment(path)}" if path else statement)
        dead = [emitter.variable(v) for v in dying.get(node, ()) if v.op != "get_attr"]
        if dead:
            lines.append(f"del {', '.join(dead)}")
    return lines


def piece_as_source(graph: Graph, piece: Piece, dynamic: tuple[str, ...], key: str) -> CompiledUnit:
    """A unit that runs a piece op by op.

    Args:
        graph: the graph the piece is of.
        piece: the piece.
        dynamic: the axes whose sizes the unit is called with, before the tensors.
        key: the unit's key.

    Raises:
        NotExpressible: see `Emitter.statement`.
    """
    names = Names(["bind", "call", "args"])
    emitter = Emitter(names)
    inputs = []
    for axis in dynamic:
        inputs.append(names.new(axis))
        emitter.axis(axis, inputs[-1])
    weights = {node: emitter.define(node) for node in piece.inputs if graph.is_weight(node)}
    inputs += [emitter.define(node) for node in piece.inputs if node not in weights]
    body = emit_nodes(graph, piece, emitter, {*piece.outputs, *weights})
    if inputs:
        body = [assignment(inputs, "args"), "args.clear()", *body]
    outputs = written_tuple(map(emitter.variable, piece.outputs))
    lines = [*emitter.header(), "", ""]
    lines += bound(weights.values(), [], [*body, f"return {outputs}"])
    constants = tuple(zip(emitter.constant_names(), emitter.constants, strict=True))
    return CompiledUnit(key, "\n".join(lines) + "\n", (), constants)


def bound(weights: Iterable[str], once: Iterable[str], body: Iterable[str]) -> list[str]:
    """A function that, given its weights, makes the function of a unit.

    Args:
        weights: names of the weights.
        once: lines that run when weights are bound.
        body: lines that run in every call.
    """
    return [
        f"def bind({', '.join(weights)}):",
        *(f"    {line}" for line in once),
        "    def call(args):",
        *(f"        {line}" for line in body),
        "    return call",
    ]
