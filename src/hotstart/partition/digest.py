"""A hash of everything about a run of nodes that reaches a compiler.

Two runs get the same digest only if a compiler cannot tell them apart: the same operators with
full names and overloads, the same constants with their types, the same nesting of arguments, the
same dtypes, devices, shapes, strides, offsets and aliasing of inputs, the same expressions over
axes up to the names of the axes. Names of nodes, weights and modules do not count.
"""

from __future__ import annotations

import ctypes
import enum
import hashlib
import importlib
import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from hotstart import _torch

if TYPE_CHECKING:
    import sympy

    from hotstart.partition.plan import Graph

Token = str | int | tuple["Token", ...]


class Canonical:
    """Turns a run of nodes into tokens that do not depend on names."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._numbers: dict[fx.Node, int] = {}
        self._storages: dict[int, int] = {}
        self._renamed: dict[sympy.Symbol, sympy.Symbol] = {}
        self._expressions: dict[sympy.Expr, Token] = {}

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes met so far, in order; the n-th is called `a<n>` in the tokens."""
        return tuple(map(str, self._renamed))

    def run(
        self, nodes: Sequence[fx.Node], inputs: Sequence[fx.Node], outputs: Sequence[fx.Node]
    ) -> Token:
        """Tokens for a run with its inputs and outputs."""
        return (
            tuple(self.input(node) for node in inputs),
            tuple(self.node(node) for node in nodes),
            tuple(self._numbers[node] for node in outputs),
        )

    def input(self, node: fx.Node) -> Token:
        """Number an input and describe its tensor."""
        from hotstart.partition.plan import example_of

        self._numbers[node] = len(self._numbers)
        return self.tensor(example_of(node))

    def node(self, node: fx.Node) -> Token:
        """Number a node and describe what it computes."""
        graph = self._graph
        tokens: Token = (
            node.op,
            self.attribute(node) if node.op == "get_attr" else target_token(node.target),
            self.argument(graph.args(node)),
            self.argument(graph.kwargs(node)),
        )
        self._numbers[node] = len(self._numbers)
        return tokens

    def tensor(self, tensor: torch.Tensor) -> Token:
        """Everything about an input tensor but its contents."""
        shared = self._storages.setdefault(_torch.storage_of(tensor), len(self._storages))
        expression = self._graph.expression
        return (
            str(tensor.dtype),
            str(tensor.device),
            str(tensor.layout),
            tuple(self.argument(expression(size)) for size in tensor.shape),
            tuple(self.argument(expression(stride)) for stride in tensor.stride()),
            self.argument(expression(tensor.storage_offset())),
            int(tensor.is_conj()),
            int(tensor.is_neg()),
            shared,
        )

    def attribute(self, node: fx.Node) -> Token:
        """A constant the graph holds: a tensor by its contents, a sub-graph by its own tokens."""
        value = _torch.attribute_of(self._graph.captured.module, str(node.target))
        if isinstance(value, torch.Tensor):
            return ("constant", self.tensor(value), contents(value))
        if isinstance(value, fx.GraphModule):
            return ("graph", subgraph_token(value))
        return ("object", id(value))

    def argument(self, value: Any) -> Token:
        """A constant with its type, an expression with its axes renamed, or a node by number."""
        import sympy

        if isinstance(value, fx.Node):
            return ("node", self._numbers[value])
        if isinstance(value, sympy.Basic):
            return self._expression(value)
        if isinstance(value, Mapping):
            items = sorted(value.items(), key=lambda item: str(item[0]))
            return ("dict", *((str(key), self.argument(item)) for key, item in items))
        if isinstance(value, list):
            return ("list", *(self.argument(item) for item in value))
        if type(value) is tuple or isinstance(value, torch.Size):
            return ("tuple", *(self.argument(item) for item in value))
        if isinstance(value, tuple):
            return (type(value).__qualname__, *(self.argument(item) for item in value))
        if isinstance(value, slice):
            return ("slice", *(self.argument(v) for v in (value.start, value.stop, value.step)))
        return constant_token(value)

    def _expression(self, expr: sympy.Expr) -> Token:
        known = self._expressions.get(expr)
        if known is None:
            import sympy

            for symbol in sorted(expr.free_symbols, key=str):
                if symbol not in self._renamed:
                    self._renamed[symbol] = _torch.axis_symbol(f"a{len(self._renamed)}")
            known = ("expr", sympy.srepr(expr.xreplace(self._renamed)))
            self._expressions[expr] = known
        return known


def subgraph_token(module: fx.GraphModule) -> Token:
    """Tokens for the body of a higher-order operator."""
    numbers = {node: index for index, node in enumerate(module.graph.nodes)}

    def argument(value: Any) -> Token:
        if isinstance(value, fx.Node):
            return ("node", numbers[value])
        if isinstance(value, Mapping):
            return ("dict", *((str(k), argument(v)) for k, v in sorted(value.items())))
        if isinstance(value, tuple | list):
            return (type(value).__name__, *map(argument, value))
        if isinstance(value, slice):
            return ("slice", *map(argument, (value.start, value.stop, value.step)))
        return constant_token(value)

    def target(node: fx.Node) -> Token:
        if node.op != "get_attr":
            return target_token(node.target)
        held = _torch.attribute_of(module, str(node.target))
        if isinstance(held, fx.GraphModule):
            return subgraph_token(held)
        return contents(held) if isinstance(held, torch.Tensor) else ("object", id(held))

    return tuple(
        (
            node.op,
            node.op if node.op in ("placeholder", "output") else target(node),
            argument(node.args),
            argument(node.kwargs),
        )
        for node in module.graph.nodes
    )


def target_token(target: Any) -> Token:
    """What a node calls: a method's name, an operator's overload, a function's import path.

    A function that its import path does not lead to is told apart by its identity.
    """
    if isinstance(target, str):
        return target
    if isinstance(target, torch._ops.OpOverload):
        return ("op", f"{target._schema.name}.{target._overloadname}")
    if isinstance(target, torch._ops.OpOverloadPacket | torch._ops.HigherOrderOperator):
        return ("op", str(target))
    path = import_path(target)
    return ("function", *path) if path is not None else ("object", id(target))


def import_path(obj: Any) -> tuple[str, str] | None:
    """(module, qualified name) that lead to `obj` itself; None if nothing does."""
    name = getattr(obj, "__qualname__", None) or getattr(obj, "__name__", None)
    module = getattr(obj, "__module__", None)
    for candidate in ([module] if module else []) + ["torch", "torch._C._nn"]:
        found: Any = _import(candidate)
        for part in (name or "").split("."):
            found = getattr(found, part, None)
        if found is obj and name:
            return candidate, name
    short = getattr(obj, "__name__", None)
    for candidate in ("torch", "torch._C._nn", "torch._C._special", "torch._C._fft", "torch._C._linalg"):
        if short and getattr(_import(candidate), short, None) is obj:
            return candidate, short
    return None


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        parent, _, last = name.rpartition(".")
        return getattr(importlib.import_module(parent), last, None) if parent else None


def constant_token(value: Any) -> Token:
    """A constant with its type. One of a type not known here is told apart by its identity."""
    kind = type(value).__qualname__
    if isinstance(value, enum.Enum):
        return ("enum", type(value).__module__, kind, value.name)
    if isinstance(value, bool | int | str) or value is None or value is ...:
        return (kind, repr(value))
    if isinstance(value, float):
        return (kind, struct.pack("<d", value).hex())
    if isinstance(value, complex):
        return (kind, struct.pack("<dd", value.real, value.imag).hex())
    if isinstance(value, bytes):
        return (kind, value.hex())
    if isinstance(value, torch.dtype | torch.device | torch.layout | torch.memory_format | range):
        return (kind, str(value))
    if callable(value) and (path := import_path(value)) is not None:
        return ("function", *path)
    return ("object", kind, id(value))


def contents(tensor: torch.Tensor) -> Token:
    """A hash of a constant tensor's values."""
    if _torch.is_fake(tensor):
        return ("object", id(tensor))
    plain = tensor.detach().cpu().contiguous()
    return hash_bytes(ctypes.string_at(plain.data_ptr(), plain.nbytes))


def hash_token(token: Token) -> str:
    """The hash of tokens."""
    return hash_bytes(repr(token).encode())


def hash_bytes(data: bytes) -> str:
    """SHA-256, in hex."""
    return hashlib.sha256(data).hexdigest()
