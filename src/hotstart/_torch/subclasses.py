"""Take tensor subclasses in a graph apart: their inner tensors, and the operators they call.

A tensor subclass that says what it is made of (`__tensor_flatten__`) computes with its inner
tensors, in Python that runs below Dynamo. Dynamo's graph has it as one input, and one node for what
is called with it. Here that node is traced once more with the subclass made of fake inner tensors,
and what it calls takes the node's place.

Private names, of torch 2.11 to 2.15: `is_traceable_wrapper_subclass`; `make_fx`, which traces what
a subclass calls; `enable_python_dispatcher`, without which sizes become constants; `AttrSource`,
Dynamo's name of an attribute.
"""

from __future__ import annotations

import contextlib
import os
import sys
import types
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import fx

from hotstart._torch.block_call import described_value, modes_of_torch
from hotstart._torch.graphs import line_of, storage_of
from hotstart._torch.inner_tensors import inner_names, put_together


Origin = tuple[int, tuple[str, ...]]
"""The number of an input of Dynamo's, and the attributes that lead from it to an inner tensor."""


@dataclass(frozen=True)
class TakenApart:
    """How the inputs of a graph come from those that Dynamo gave it.

    Attributes:
        origins: of each input.
        codes: the code that ran for the operators of subclasses.
    """

    origins: tuple[Origin, ...]
    codes: frozenset[types.CodeType] = frozenset()


class NotTakenApartError(Exception):
    """A tensor subclass is used in a way that its inner tensors cannot stand for."""


@dataclass(frozen=True)
class _Parts:
    """A tensor of a subclass in a graph.

    Attributes:
        like: the tensor, of fake inner tensors.
        inner: by attribute, the node of an inner tensor, or the parts of one that is of a subclass.
    """

    like: torch.Tensor
    inner: dict[str, fx.Node | _Parts]

    def nodes(self) -> Iterator[fx.Node]:
        """List the nodes of all inner tensors."""
        for part in self.inner.values():
            if isinstance(part, _Parts):
                yield from part.nodes()
            else:
                yield part

    def made_of(self, values: Iterator[torch.Tensor]) -> torch.Tensor:
        """Put such a tensor together of others in the places of `nodes`."""
        inner = {
            name: part.made_of(values) if isinstance(part, _Parts) else next(values)
            for name, part in self.inner.items()
        }
        return put_together(self.like, inner)


def take_apart(
    module: fx.GraphModule, described: Callable[[torch.Tensor], Hashable]
) -> TakenApart:
    """Have a graph of Dynamo's read inner tensors in the place of inputs that are of subclasses.

    Args:
        module: the graph.
        described: says what a tensor of a subclass is, without the contents of inner tensors.

    Raises:
        NotTakenApartError: something in it cannot be done with inner tensors; says where.
    """
    placeholders = module.graph.find_nodes(op="placeholder")
    apart = [n for n in placeholders if _is_wrapper(n.meta.get("example_value"))]
    if not apart:
        return TakenApart(tuple((number, ()) for number, _ in enumerate(placeholders)))
    return _Taking(module.graph, described).made(placeholders)


def _is_wrapper(value: Any) -> bool:
    from torch.utils._python_dispatch import is_traceable_wrapper_subclass

    return isinstance(value, torch.Tensor) and is_traceable_wrapper_subclass(value)


class _Taking:
    """Takes the subclasses of one graph apart."""

    def __init__(
        self, graph: fx.Graph, described: Callable[[torch.Tensor], Hashable]
    ) -> None:
        self._graph = graph
        self._described = described
        self._traced: dict[Hashable, tuple[fx.GraphModule, list[Any]]] = {}
        self._held: dict[fx.Node, Any] = {}  # by node, its value with parts of subclasses in it
        self._codes: set[types.CodeType] = set()
        self._regions: list[Any] = []

    def made(self, placeholders: Sequence[fx.Node]) -> TakenApart:
        """Change the graph."""
        origins: dict[fx.Node, Origin] = {}
        for number, node in enumerate(placeholders):
            if _is_wrapper(node.meta.get("example_value")):
                value = node.meta["example_value"]
                self._held[node] = self._inputs(node, value, (number, ()), origins)
            else:
                origins[node] = number, ()
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
    ) -> _Parts:
        """Put inputs for the inner tensors of one before it."""
        from torch._dynamo.source import AttrSource

        parts: dict[str, fx.Node | _Parts] = {}
        number, path = origin
        source = node.meta.get("_hotstart_source", getattr(node, "_dynamo_source", None))
        for name in inner_names(value):
            inner = getattr(value, name)
            with self._graph.inserting_before(node):
                made = self._graph.placeholder(f"{node.name}_{name}")
            made.meta = {**node.meta, "example_value": inner}
            if source is not None:
                made._dynamo_source = AttrSource(source, name)  # type: ignore[attr-defined]
            there = number, (*path, name)
            if _is_wrapper(inner):
                parts[name] = self._inputs(made, inner, there, origins)
                self._graph.erase_node(made)
            else:
                origins[made] = there
                parts[name] = made
        return _Parts(value, parts)

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
            raise _cannot(node, "the model returns one")
        if node.op not in ("call_function", "call_method"):
            raise _cannot(node, f"a {node.op} takes one")
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            raise _cannot(node, f"{node.target.name()} runs a graph of its own with one")
        given = fx.node.map_aggregate((node.args, node.kwargs), self._part_of)
        leaves, spec = pytree.tree_flatten(given, is_leaf=lambda leaf: isinstance(leaf, _Parts))
        inputs: dict[fx.Node, None] = {}
        for leaf in leaves:
            if isinstance(leaf, _Parts):
                inputs.update(dict.fromkeys(leaf.nodes()))
            elif isinstance(leaf, fx.Node):
                inputs[leaf] = None
        call = _Call(node, leaves, spec, tuple(inputs))
        key = call.key(self._described)
        if key not in self._traced:
            self._traced[key] = call.traced(self._codes)
        traced, shape = self._traced[key]
        value = self._inlined(node, traced, call.inputs, shape)
        if _has_parts(value):
            self._held[node] = value
        else:
            node.replace_all_uses_with(value)
            self._graph.erase_node(node)

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
            if each.op == "get_attr":
                raise _cannot(node, "its operators read a constant tensor")
            if each.op == "call_function":
                with self._graph.inserting_before(node):
                    made = self._graph.node_copy(each, here.__getitem__)
                made.meta = {k: v for k, v in node.meta.items() if k != "example_value"}
                made.meta["example_value"] = _computed(made)
                here[each] = made
        (output,) = traced.graph.find_nodes(op="output")
        values = iter([here.get(each, each) for each in output.args[0]])
        return pytree.tree_map(lambda taken: taken.of(values), shape[0])


def _cannot(node: fx.Node, why: str) -> NotTakenApartError:
    return NotTakenApartError(why, line_of(node))


def _has_parts(value: Any) -> bool:
    leaves = pytree.tree_leaves(value, is_leaf=lambda leaf: isinstance(leaf, _Parts))
    return any(isinstance(leaf, _Parts) for leaf in leaves)


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


@dataclass
class _Call:
    """A call of a node with tensors of subclasses.

    Attributes:
        node: says what is called.
        leaves, spec: what it is called with, in which nodes and parts stand for tensors.
        inputs: these nodes, and those of these parts.
    """

    node: fx.Node
    leaves: list[Any]
    spec: Any
    inputs: tuple[fx.Node, ...]
    _shape: list[Any] = field(default_factory=list)

    def key(self, described: Callable[[torch.Tensor], Hashable]) -> Hashable:
        """Return something that is equal for calls whose traces are equal."""
        numbers = {node: number for number, node in enumerate(self.inputs)}

        def leaf_key(leaf: Any) -> Hashable:
            if isinstance(leaf, fx.Node):
                return "node", numbers[leaf]
            if isinstance(leaf, _Parts):
                return "parts", described(leaf.like), tuple(numbers[n] for n in leaf.nodes())
            return type(leaf), repr(leaf)

        values = [node.meta["example_value"] for node in self.inputs]
        memory = [storage_of(v) if isinstance(v, torch.Tensor) else None for v in values]
        return (
            (self.node.op, self.node.target, str(self.spec)),
            tuple(map(leaf_key, self.leaves)),
            tuple(map(described_value, values)),
            tuple(v.storage_offset() if isinstance(v, torch.Tensor) else None for v in values),
            tuple(map(memory.index, memory)),
            modes_of_torch(),
        )

    def traced(self, codes: set[types.CodeType]) -> tuple[fx.GraphModule, list[Any]]:
        """Trace it, and say what its result is of; the code that runs is added to `codes`."""
        from torch.fx.experimental.proxy_tensor import make_fx

        examples = [node.meta["example_value"] for node in self.inputs]
        try:
            with _recording_code(codes):
                traced = make_fx(self._run)(*examples)
        except NotTakenApartError:
            raise
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise _cannot(self.node, f"what it calls cannot be traced: {said:.300}") from error
        return traced, self._shape

    def _run(self, *values: Any) -> Any:
        given = dict(zip(self.inputs, values, strict=True))
        made = {}
        for leaf in self.leaves:
            if isinstance(leaf, _Parts) and id(leaf) not in made:
                made[id(leaf)] = leaf.made_of(iter([given[node] for node in leaf.nodes()]))
        leaves = [
            given[leaf] if isinstance(leaf, fx.Node) else made.get(id(leaf), leaf)
            for leaf in self.leaves
        ]
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        target: Callable[..., Any]
        if self.node.op == "call_method":
            target = getattr(args[0], str(self.node.target))
            args = args[1:]
        else:
            target = self.node.target  # type: ignore[assignment]
        result = target(*args, **kwargs)
        for leaf in self.leaves:
            if isinstance(leaf, _Parts):
                _require_same(self.node, leaf, made[id(leaf)], given)
        returned: list[torch.Tensor] = []
        self._shape = [pytree.tree_map(lambda value: _taken(value, returned), result)]
        return returned


class _Taken:
    """A place in the result of a call: of a subclass, of a tensor, or a constant."""

    def __init__(self, value: Any, inner: dict[str, _Taken] | None, is_node: bool) -> None:
        self._value = value
        self._inner = inner
        self._is_node = is_node

    def of(self, values: Iterator[Any]) -> Any:
        """Take what stands in this place from the values that a trace returned."""
        if self._inner is not None:
            return _Parts(self._value, {n: part.of(values) for n, part in self._inner.items()})
        return next(values) if self._is_node else self._value


def _taken(value: Any, returned: list[Any]) -> _Taken:
    if _is_wrapper(value):
        inner = {name: _taken(getattr(value, name), returned) for name in inner_names(value)}
        return _Taken(value, inner, False)
    if isinstance(value, torch.Tensor | torch.SymInt | torch.SymFloat | torch.SymBool):
        returned.append(value)
        return _Taken(None, None, True)
    return _Taken(value, None, False)


def _require_same(node: fx.Node, parts: _Parts, made: Any, given: dict[fx.Node, Any]) -> None:
    """Raise if an operator gave a tensor of a subclass other inner tensors."""
    for name, part in parts.inner.items():
        inner = getattr(made, name, None)
        if isinstance(part, _Parts):
            _require_same(node, part, inner, given)
        elif inner is not given[part]:
            raise _cannot(node, f"an operator replaces its {name}")


@contextlib.contextmanager
def _recording_code(codes: set[types.CodeType]) -> Iterator[None]:
    """Collect the code of the Python functions that are called in this thread.

    Without that of tracing itself: torch, and sympy with what it needs.
    """
    import mpmath
    import sympy

    folders = tuple(
        os.path.dirname(str(module.__file__)) + os.sep for module in (torch, sympy, mpmath)
    )
    before = sys.getprofile()

    def called(frame: types.FrameType, event: str, _arg: Any) -> None:
        code = frame.f_code
        if event == "call" and not code.co_filename.startswith(("<", *folders)):
            if code not in codes and not _is_importing(frame):
                codes.add(code)

    sys.setprofile(called)
    try:
        yield
    finally:
        sys.setprofile(before)


def _is_importing(frame: types.FrameType | None) -> bool:
    """Tell whether a frame is run by an import, which the next process may have done before."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
