"""Take tensor subclasses in a graph apart: their inner tensors, and the operators they call.

A tensor subclass that says what it is made of (`__tensor_flatten__`) computes with its inner
tensors, in Python that runs below Dynamo. Dynamo's graph has it as one input, and one node for what
is called with it. Here that node is traced once more with the subclass made of fake inner tensors,
and what it calls takes the node's place.

Private names, of torch 2.11 to 2.15: `enable_python_dispatcher`, without which sizes become
constants, and `AttrSource`, Dynamo's name of an attribute.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import fx

from hotstart._torch.graphs.symbols import is_fake
from hotstart._torch.subclasses.inner_tensors import inner_names
from hotstart._torch.subclasses.subclass_calls import Call, Parts, cannot, is_wrapper

_MOST_NUMBERS = 64
"""Numbers of a constant tensor that are written into a graph."""

Origin = tuple[int, tuple[str, ...]]
"""The number of an input of Dynamo's, and the attributes that lead from it to an inner tensor."""


@dataclass(frozen=True)
class TakenApart:
    """Origins of the inputs of a graph among those that Dynamo gave it.

    Attributes:
        origins: of each input.
        codes: the code that ran for the operators of subclasses.
    """

    origins: tuple[Origin, ...]
    codes: frozenset[types.CodeType] = frozenset()


def take_apart(module: fx.GraphModule, described: Callable[[torch.Tensor], Hashable]) -> TakenApart:
    """Have a graph of Dynamo's read inner tensors in the place of inputs that are of subclasses.

    Args:
        module: the graph.
        described: says what a tensor of a subclass is, without the contents of inner tensors.

    Raises:
        NotTakenApartError: something in it cannot be done with inner tensors; says where.
    """
    placeholders = module.graph.find_nodes(op="placeholder")
    apart = [n for n in placeholders if is_wrapper(n.meta.get("example_value"))]
    if not apart:
        return TakenApart(tuple((number, ()) for number, _ in enumerate(placeholders)))
    return _Taking(module.graph, described).made(placeholders)


class _Taking:
    """Takes the subclasses of one graph apart."""

    def __init__(self, graph: fx.Graph, described: Callable[[torch.Tensor], Hashable]) -> None:
        self._graph = graph
        self._described = described
        self._traced: dict[Hashable, tuple[fx.GraphModule, list[Any]]] = {}
        self._held: dict[fx.Node, Any] = {}  # by node, a value that is of a subclass, or several
        self._inner: dict[int, fx.Node | Parts] = {}  # by fake tensor, of inputs
        self._codes: set[types.CodeType] = set()
        self._regions: list[Any] = []

    def made(self, placeholders: Sequence[fx.Node]) -> TakenApart:
        """Change the graph."""
        origins: dict[fx.Node, Origin] = {}
        values = [node.meta.get("example_value") for node in placeholders]
        for number, (node, value) in enumerate(zip(placeholders, values, strict=True)):
            if not is_wrapper(value):
                origins[node] = number, ()
                self._inner[id(value)] = node
        for number, (node, value) in enumerate(zip(placeholders, values, strict=True)):
            if is_wrapper(value):
                self._held[node] = self._inputs(node, value, (number, ()), origins)
        with _tracing(placeholders):
            try:
                for node in list(self._graph.nodes):
                    self._keep_region(node)
                    if any(read in self._held for read in node.all_input_nodes):
                        self._replace(node)
            finally:
                while self._regions:
                    torch.amp.autocast_mode._exit_autocast(self._regions.pop())
        for node in reversed([*self._held]):
            self._graph.erase_node(node)
        for node in [node for node in origins if not node.users and origins[node][1]]:
            self._graph.erase_node(node)
        left = self._graph.find_nodes(op="placeholder")
        return TakenApart(tuple(origins[node] for node in left), frozenset(self._codes))

    def _inputs(
        self, node: fx.Node, value: Any, origin: Origin, origins: dict[fx.Node, Origin]
    ) -> Parts:
        """Put inputs for the inner tensors of one before it."""
        from torch._dynamo.source import AttrSource

        parts: dict[str, fx.Node | Parts] = {}
        number, path = origin
        source = getattr(node, "_dynamo_source", None)
        for name in inner_names(value):
            inner = getattr(value, name)
            there = number, (*path, name)
            if id(inner) in self._inner:  # the model has it elsewhere, too, or reads it itself
                parts[name] = self._inner[id(inner)]
                continue
            with self._graph.inserting_before(node):
                made = self._graph.placeholder(f"{node.name}_{name}")
            made.meta = {**node.meta, "example_value": inner}
            if source is not None:
                made._dynamo_source = AttrSource(source, name)
            if is_wrapper(inner):
                parts[name] = self._inputs(made, inner, there, origins)
                self._graph.erase_node(made)
            else:
                origins[made] = there
                parts[name] = made
            self._inner[id(inner)] = parts[name]
        return Parts(value, parts)

    # --- nodes ------------------------------------------------------------------------------------

    def _keep_region(self, node: fx.Node) -> None:
        """Enter and leave regions of autocast, in which operators of subclasses are traced, too."""
        name = getattr(node.target, "__name__", "") if node.op == "call_function" else ""
        if name == "_enter_autocast":
            self._regions.append(torch.amp.autocast_mode._enter_autocast(*node.args))
        elif name == "_exit_autocast":
            torch.amp.autocast_mode._exit_autocast(self._regions.pop())

    def _replace(self, node: fx.Node) -> None:
        """Put what a node calls in its place."""
        if node.op == "output":
            raise cannot(node, "the model returns one")
        if node.op not in ("call_function", "call_method"):
            raise cannot(node, f"a {node.op} takes one")
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            raise cannot(node, f"{node.target.name()} runs a graph of its own with one")
        given = fx.node.map_aggregate((node.args, node.kwargs), self._part_of)
        leaves, spec = pytree.tree_flatten(given, is_leaf=lambda leaf: isinstance(leaf, Parts))
        inputs: dict[fx.Node, None] = {}
        for leaf in leaves:
            if isinstance(leaf, Parts):
                inputs.update(dict.fromkeys(leaf.nodes()))
            elif isinstance(leaf, fx.Node):
                inputs[leaf] = None
        call = Call(node, leaves, spec, tuple(inputs))
        key = call.key(self._described)
        if key not in self._traced:
            self._traced[key] = call.traced(self._codes)
        traced, shape = self._traced[key]
        value = self._inlined(node, traced, call.inputs, shape)
        if isinstance(value, fx.Node):
            node.replace_all_uses_with(value)
            self._graph.erase_node(node)
        else:
            self._held[node] = value

    def _part_of(self, value: Any) -> Any:
        return self._held.get(value, value) if isinstance(value, fx.Node) else value

    def _inlined(
        self, node: fx.Node, traced: fx.GraphModule, inputs: Sequence[fx.Node], shape: list[Any]
    ) -> Any:
        """Copy a traced graph before a node; returns its value, with parts of subclasses in it."""
        here: dict[fx.Node, Any] = {}
        placeholders = traced.graph.find_nodes(op="placeholder")
        here.update(zip(placeholders, inputs, strict=True))
        for each in traced.graph.nodes:
            if each.op in ("call_function", "get_attr"):
                with self._graph.inserting_before(node):
                    if each.op == "get_attr":
                        value = getattr(traced, str(each.target))
                        made = self._graph.call_function(torch.tensor, *_written(node, value))
                    else:
                        made = self._graph.node_copy(each, here.__getitem__)
                made.meta = {k: v for k, v in node.meta.items() if k != "example_value"}
                made.meta["example_value"] = _computed(made)
                here[each] = made
        (output,) = traced.graph.find_nodes(op="output")
        values = iter([here.get(each, each) for each in output.args[0]])
        return pytree.tree_map(lambda taken: taken.of(values), shape[0])


def _written(node: fx.Node, value: Any) -> tuple[tuple[Any], dict[str, Any]]:
    """Write a tensor that code of a subclass makes of numbers as arguments of `torch.tensor`."""
    known = getattr(value, "constant", None) if is_fake(value) else value
    if not isinstance(known, torch.Tensor) or not 0 < known.numel() <= _MOST_NUMBERS:
        raise cannot(node, "its operators read a constant tensor")
    with torch.utils._python_dispatch._disable_current_modes():
        numbers = known.tolist()
    return (numbers,), {"dtype": value.dtype, "device": value.device}


def _computed(node: fx.Node) -> Any:
    """Compute the fake value of a node."""
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta["example_value"])
    return node.target(*args, **kwargs)  # type: ignore[operator]


@contextlib.contextmanager
def _tracing(placeholders: Sequence[fx.Node]) -> Iterator[None]:
    """While inside, operators compute with the fake tensors of a graph."""
    from torch._dispatch.python import enable_python_dispatcher
    from torch._guards import detect_fake_mode

    examples = [node.meta.get("example_value") for node in placeholders]
    mode = detect_fake_mode([e for e in examples if isinstance(e, torch.Tensor)])
    assert mode is not None
    with mode, enable_python_dispatcher(), torch.no_grad():
        yield
