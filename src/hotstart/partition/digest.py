"""Hash everything about a run of nodes that reaches a compiler.

Two runs get the same digest only if a compiler cannot tell them apart: the same operators with
full names and overloads, the same constants with their types, the same nesting of arguments, the
same dtypes, devices, shapes, strides and aliasing of inputs, the same offsets where they count, the
same expressions over axes up to the names of the axes. Names of nodes, weights and modules do not
count. A digest is one part of a piece's key: see `compilers/piece_key`.
"""

from __future__ import annotations

import enum
import hashlib
import importlib
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from hotstart._torch.graphs.nodes import attribute_of
from hotstart._torch.graphs.operator_types import HigherOrderOperator, OpOverload, OpOverloadPacket
from hotstart._torch.graphs.symbols import axis_symbol, is_fake
from hotstart._torch.graphs.values import storage_of
from hotstart._torch.inductor.compile_fx import pass_token
from hotstart.capture.captured import example_of
from hotstart.errors import OptionsError, PartitionError
from hotstart.model import contents
from hotstart.partition.graph import movable
from hotstart.records.groups import GroupName

if TYPE_CHECKING:
    import sympy

    from hotstart.partition.graph import Graph

Token = str | int | tuple["Token", ...]


class Canonical:
    """Turns a run of nodes into tokens that do not depend on names.

    Args:
        graph: the graph the run is of.
        targets: tokens of what nodes call, kept from run to run of a graph.
    """

    def __init__(self, graph: Graph, targets: dict[Any, Token] | None = None) -> None:
        self._graph = graph
        self._targets = {} if targets is None else targets
        self._numbers: dict[fx.Node, int] = {}
        self._storages: dict[int, int] = {}
        self._groups: dict[int, int] = {}
        self._renamed: dict[sympy.Symbol, sympy.Symbol] = {}
        self._expressions: dict[sympy.Expr, Token] = {}

    @property
    def axes(self) -> tuple[str, ...]:
        """List the axes met so far, in order; the n-th is called `a<n>` in the tokens."""
        return tuple(map(str, self._renamed))

    def run(
        self, nodes: Sequence[fx.Node], inputs: Sequence[fx.Node], outputs: Sequence[fx.Node]
    ) -> Token:
        """Describe a run with its inputs and outputs."""
        anywhere = movable(nodes, inputs)
        return (
            tuple(self.input(node, node in anywhere) for node in inputs),
            tuple(self.node(node) for node in nodes),
            tuple(self._numbers[node] for node in outputs),
        )

    def input(self, node: fx.Node, anywhere: bool) -> Token:
        """Number an input and describe its tensor; `anywhere` leaves its storage offset out.

        Raises:
            PartitionError: it is a nested tensor, whose sizes no expression says.
        """
        if getattr(example_of(node), "is_nested", False):
            raise PartitionError(
                f"{node.name} is a nested tensor that crosses a cut, takes plain tensors there. "
                "Cut elsewhere, or pass its values on with .values()."
            )
        self._numbers[node] = len(self._numbers)
        tensor = example_of(node)
        if node in self._graph.flowing:
            return ("number",)
        offset = 0 if anywhere else self._number(tensor.storage_offset())
        return (int(self._graph.is_weight(node)), self.tensor(tensor), offset)

    def node(self, node: fx.Node) -> Token:
        """Number a node and describe what it computes."""
        graph = self._graph
        tokens: Token = (
            node.op,
            self.attribute(node) if node.op == "get_attr" else self._target(node.target),
            argument_token(graph.args(node), self._leaf),
            argument_token(graph.kwargs(node), self._leaf),
        )
        self._numbers[node] = len(self._numbers)
        return tokens

    def tensor(self, tensor: torch.Tensor) -> Token:
        """Describe an input tensor, but for its contents and its storage offset."""
        shared = self._storages.setdefault(storage_of(tensor), len(self._storages))
        return (
            str(tensor.dtype),
            str(tensor.device),
            str(tensor.layout),
            tuple(map(self._number, tensor.shape)),
            tuple(map(self._number, tensor.stride())),
            int(tensor.is_conj()),
            int(tensor.is_neg()),
            shared,
        )

    def attribute(self, node: fx.Node) -> Token:
        """Describe a constant of the graph: a tensor by its contents, a sub-graph by its nodes."""
        return _held_token(attribute_of(self._graph.captured.module, str(node.target)))

    def _target(self, target: Any) -> Token:
        known = self._targets.get(target)
        if known is None:
            known = self._targets[target] = _target_token(target)
        return known

    def _number(self, number: int | torch.SymInt) -> Token:
        if type(number) is int:
            return number
        return argument_token(self._graph.expression(number), self._leaf)

    def _leaf(self, value: Any) -> Token:
        """Describe a node by number, an expression with axes renamed, a constant with its type."""
        if isinstance(value, fx.Node):
            return ("node", self._numbers[value])
        if isinstance(value, GroupName):
            number = self._groups.setdefault(value.slot.number, len(self._groups))
            return ("group", number, value.size)
        if hasattr(value, "free_symbols"):
            return self._expression(value)
        return constant_token(value)

    def _expression(self, expr: sympy.Expr) -> Token:
        known = self._expressions.get(expr)
        if known is None:
            import sympy

            for symbol in sorted(expr.free_symbols, key=self._graph.axis_number):
                if symbol not in self._renamed:
                    self._renamed[symbol] = axis_symbol(f"a{len(self._renamed)}")
            known = ("expr", sympy.srepr(expr.xreplace(self._renamed)))
            self._expressions[expr] = known
        return known


def argument_token(value: Any, leaf: Callable[[Any], Token]) -> Token:
    """Describe an argument by the nesting and types of its containers, and the rest by `leaf`."""
    kind = type(value)
    if kind in _LEAVES:
        return leaf(value)
    if isinstance(value, Mapping):
        pairs = [(constant_token(k), argument_token(v, leaf)) for k, v in value.items()]
        return ("dict", *sorted(pairs, key=repr))
    if isinstance(value, list):
        return ("list", *(argument_token(item, leaf) for item in value))
    if kind is tuple or isinstance(value, torch.Size):
        return ("tuple", *(argument_token(item, leaf) for item in value))
    if isinstance(value, tuple):
        return (kind.__module__, kind.__qualname__, *(argument_token(v, leaf) for v in value))
    if isinstance(value, slice):
        ends = (value.start, value.stop, value.step)
        return ("slice", *(argument_token(end, leaf) for end in ends))
    return leaf(value)


_LEAVES = frozenset({fx.Node, int, float, bool, str, type(None), torch.dtype, torch.device})


def _held_token(value: Any) -> Token:
    """Describe an attribute of a module: a sub-graph by its nodes, a tensor by its contents."""
    if isinstance(value, fx.GraphModule):
        return ("graph", subgraph_token(value))
    if isinstance(value, torch.Tensor):
        layout = (str(value.dtype), str(value.device), tuple(value.shape), tuple(value.stride()))
        return ("constant", layout, constant(value))
    return ("object", id(value))


def subgraph_token(module: fx.GraphModule) -> Token:
    """Describe the body of a higher-order operator."""
    numbers = {node: index for index, node in enumerate(module.graph.nodes)}

    def leaf(value: Any) -> Token:
        return ("node", numbers[value]) if isinstance(value, fx.Node) else constant_token(value)

    def target(node: fx.Node) -> Token:
        if node.op == "get_attr":
            return _held_token(attribute_of(module, str(node.target)))
        return () if node.op in ("placeholder", "output") else _target_token(node.target)

    return tuple(
        (node.op, target(node), argument_token(node.args, leaf), argument_token(node.kwargs, leaf))
        for node in module.graph.nodes
    )


def _target_token(target: Any) -> Token:
    """Describe the target of a node: a method's name, an overload, a function's import path.

    A function without an import path is described by its identity.
    """
    if isinstance(target, str):
        return target
    if isinstance(target, OpOverload):
        return ("op", f"{target._schema.name}.{target._overloadname}")
    if isinstance(target, OpOverloadPacket | HigherOrderOperator):
        return ("op", str(target))
    path = import_path(target)
    return ("function", *path) if path is not None else ("object", id(target))


def import_path(obj: Any) -> tuple[str, str] | None:
    """Find the (module, qualified name) that `obj` can be imported by; None if there is none."""
    qualified = getattr(obj, "__qualname__", None)
    short = getattr(obj, "__name__", None)
    home = getattr(obj, "__module__", None)
    for module in (home, *_MODULES):
        for name in dict.fromkeys((qualified, short)):
            if module and name and _lookup(module, name) is obj:
                return module, name
    return None


_MODULES = (
    "torch",
    "torch._C._nn",
    "torch._C._special",
    "torch._C._fft",
    "torch._C._linalg",
    "torch.nn.functional",
)
"""Modules to look in for functions whose `__module__` is not set."""


def _lookup(module: str, name: str) -> Any:
    found = _import(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        parent, _, last = name.rpartition(".")
        return getattr(importlib.import_module(parent), last, None) if parent else None


def constant_token(value: Any) -> Token:
    """Describe a constant with its type; one of an unknown type by its identity."""
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


def setting_token(value: Any) -> Token:
    """Identify a setting: a custom pass by its `uuid()`, containers item by item.

    Raises:
        OptionsError: a custom pass without a `uuid()`.
    """
    if isinstance(value, Mapping):
        return ("dict", *((str(k), setting_token(v)) for k, v in value.items()))
    if isinstance(value, list | tuple):
        return (type(value).__name__, *map(setting_token, value))
    token = pass_token(value)
    if token is not None:
        return ("pass", type(value).__qualname__, token)
    known = constant_token(value)
    if isinstance(known, tuple) and known[0] == "object":
        raise OptionsError(
            f"inductor: {value!r} has no uuid(), so builds with it cannot be told apart. "
            "Derive it from torch._inductor.custom_graph_pass.CustomGraphPass."
        )
    return known


def constant(tensor: torch.Tensor) -> Token:
    """Hash a constant tensor's values; use its identity where they cannot be read."""
    found = None if is_fake(tensor) else contents(tensor)
    return ("object", id(tensor)) if found is None else hash_bytes(found)


def is_portable(token: Token) -> bool:
    """Tell whether tokens mean the same in every process.

    They do not if an identity is among them, or if a node calls something that did not come with
    torch or Python: its name does not say which version of it is meant.
    """
    if not isinstance(token, tuple):
        return True
    match token:
        case ("object", *_):
            return False
        case ("op", str(name)):
            return came_with_torch(name)
        case ("function" | "enum", str(module), *_):
            return module.partition(".")[0] in _GIVEN
    return all(map(is_portable, token))


def came_with_torch(operator: str) -> bool:
    """Tell whether an operator came with torch, so that its name identifies it."""
    return operator.partition("::")[0] in _NAMESPACES or "::" not in operator


_NAMESPACES = frozenset({"aten", "prims", "prim", "mkldnn", "mkl", "quantized", "onednn",
                         "_c10d_functional", "_c10d_functional_autograd"})  # fmt: skip
_GIVEN = frozenset({"torch", "operator", "_operator", "math", "builtins"})


def hash_token(token: Token) -> str:
    """Hash tokens."""
    return hash_bytes(repr(token).encode())


def hash_bytes(data: bytes) -> str:
    """SHA-256, in hex."""
    return hashlib.sha256(data).hexdigest()
