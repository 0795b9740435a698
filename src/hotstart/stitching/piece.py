"""Write a piece as the source of one function, op by op, as the `op_by_op` compiler does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import fx

from hotstart._torch.graphs.nodes import attribute_of, has_no_effect
from hotstart._torch.graphs.sides import keeps_to_side
from hotstart.capture.captured import example_of, tensors_in
from hotstart.partition import Graph, Piece
from hotstart.partition.blocks import path_of
from hotstart.partition.graph import NodeArguments
from hotstart.records.artifact import CompiledUnit
from hotstart.records.sides import OtherSide, leaves
from hotstart.runtime.code.generated import unit_code
from hotstart.runtime.code.identifiers import Names, assignment, written_tuple
from hotstart.stitching.data_numbers import DataNumbers
from hotstart.stitching.emit import Emitter, comment
from hotstart.stitching.regions import Statements, in_order

Look = Callable[[fx.Node], NodeArguments]
"""Looks up the arguments of a node."""


def _own(node: fx.Node) -> NodeArguments:
    """The arguments of a node as they are in its graph, numbers included."""
    return NodeArguments(node.args, node.kwargs, tuple(node.all_input_nodes))


def _last_uses(
    look: Look, nodes: Sequence[fx.Node], keep: set[fx.Node]
) -> dict[fx.Node, list[fx.Node]]:
    """List for each node the values it uses last; those in `keep` are never listed."""
    dying: dict[fx.Node, list[fx.Node]] = {}
    seen = set(keep)
    for node in reversed(nodes):
        for value in dict.fromkeys(look(node).reads):
            if value not in seen:
                seen.add(value)
                dying.setdefault(node, []).append(value)
    return dying


def emit_nodes(graph: Graph, piece: Piece, emitter: Emitter, keep: set[fx.Node]) -> list[str]:
    """Write statements that compute a piece's nodes; each value is deleted after its last use.

    Raises:
        NotExpressible: see `Emitter.statement`.
    """
    module = graph.captured.module
    numbers = DataNumbers(graph, emitter)
    return _emit(module, piece.nodes, graph.arguments, emitter, keep, set(piece.outputs), numbers)


def _emit(
    module: fx.GraphModule,
    nodes: Sequence[fx.Node],
    look: Look,
    emitter: Emitter,
    keep: set[fx.Node],
    outputs: set[fx.Node],
    numbers: DataNumbers | None = None,
) -> list[str]:
    nodes = in_order(nodes)
    # A call that leaves at a branch is not to meet checks of what is on this side.
    last = max((place for place, node in enumerate(nodes) if keeps_to_side(node)), default=0)
    asked_later, checks = set(nodes[:last]), list[str]()
    if numbers is not None:
        keep = keep | (numbers.makers & asked_later)
    dying = _last_uses(look, nodes, keep)
    read = {value for node in nodes for value in look(node).reads} | outputs
    wanted = read | keep
    if numbers is not None:
        read |= numbers.makers
    statements = Statements(nodes)
    for node in nodes:
        if node.op == "get_attr":
            held = attribute_of(module, str(node.target))
            if isinstance(held, fx.GraphModule):
                statements.add(_function(held, emitter.define(node), emitter))
            else:
                emitter.let(node, emitter.literal(held))
            continue
        args, kwargs, _ = look(node)
        if keeps_to_side(node):
            statements.add(_leaving(emitter, *args))
            if node not in asked_later:
                statements.add(checks)
                checks = []
            statements.add(_forgetting(emitter, dying.get(node, ())))
            continue
        statement = emitter.statement(node, args, kwargs, node in read)
        path = path_of(node)
        statements.add_node(node, f"{statement}  {comment(path)}" if path else statement)
        if numbers is not None:
            statements.add(numbers.read(node))
            checks += numbers.checks(node)
        if node not in asked_later:
            statements.add(checks)
            checks = []
        dead = list(dying.get(node, ()))
        if numbers is not None and node in numbers.makers - wanted:
            dead.append(node)
        statements.add(_forgetting(emitter, dead))
    return statements.lines()


def _forgetting(emitter: Emitter, dead: Iterable[fx.Node]) -> list[str]:
    """Delete the values of nodes."""
    names = [emitter.variable(node) for node in dead if node.op != "get_attr"]
    return [f"del {', '.join(names)}"] if names else []


def _leaving(
    emitter: Emitter, condition: str, operands: Iterable[Any], side: bool, other: tuple[bool, ...]
) -> list[str]:
    """End a call that takes the other side of a branch, which another variant begins anew."""
    asked, result = emitter.imported(leaves), emitter.imported(OtherSide)
    numbers = []
    for each in operands:
        is_tensor = isinstance(each, fx.Node) and tensors_in(example_of(each))
        numbers.append(f"{emitter.value(each)}.item()" if is_tensor else f"({emitter.value(each)})")
    return [
        f"if {asked}({condition.format(*numbers)}, {side}):",
        f"    return {result}({emitter.value(other)})",
    ]


def _function(module: fx.GraphModule, name: str, emitter: Emitter) -> list[str]:
    """Write a function that computes the body of a higher-order operator."""
    found = [node for node in module.graph.nodes if not has_no_effect(node)]
    parameters = [emitter.define(node) for node in found if node.op == "placeholder"]
    nodes = [node for node in found if node.op not in ("placeholder", "output")]
    (output,) = module.graph.find_nodes(op="output")
    outputs = set(output.all_input_nodes)
    keep = {*outputs, *module.graph.find_nodes(op="placeholder")}
    body = _emit(module, nodes, _own, emitter, keep, outputs)
    body.append(f"return {emitter.value(output.args[0])}")
    return [f"def {name}({', '.join(parameters)}):", *(f"    {line}" for line in body)]


def functions_as_source(functions: Mapping[str, fx.GraphModule]) -> str:
    """Write modules as functions of the given names.

    Raises:
        NotExpressible: see `Emitter.statement`.
    """
    emitter = Emitter(Names(functions))
    lines = [_function(module, name, emitter) for name, module in functions.items()]
    body = [line for function in lines for line in ("", "", *function)]
    assert not emitter.constants, "graphs of Inductor's passes have no constants but numbers"
    return "\n".join([*emitter.header(), *body]) + "\n"


def piece_as_source(graph: Graph, piece: Piece, dynamic: tuple[str, ...], key: str) -> CompiledUnit:
    """Make a unit that runs a piece op by op.

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
    return CompiledUnit(key, unit_code(key, "\n".join(lines) + "\n"), (), constants)


def bound(weights: Iterable[str], once: Iterable[str], body: Iterable[str]) -> list[str]:
    """Write a function that takes weights and returns the function of a unit.

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
