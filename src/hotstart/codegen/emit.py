"""Write nodes of a graph as Python source."""

from __future__ import annotations

import enum
import keyword
import math
import operator
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from hotstart import _torch
from hotstart.errors import HotstartError
from hotstart.names import Names
from hotstart.partition.digest import import_path
from hotstart.trees import is_namedtuple

if TYPE_CHECKING:
    import sympy

_INFIX = {
    operator.add: "+", operator.sub: "-", operator.mul: "*", operator.truediv: "/",
    operator.floordiv: "//", operator.mod: "%", operator.pow: "**", operator.matmul: "@",
    operator.and_: "&", operator.or_: "|", operator.xor: "^", operator.lshift: "<<",
    operator.rshift: ">>", operator.eq: "==", operator.ne: "!=", operator.lt: "<",
    operator.le: "<=", operator.gt: ">", operator.ge: ">=",
}  # fmt: skip
_PREFIX = {operator.neg: "-", operator.pos: "+", operator.invert: "~"}
_ATOM = re.compile(r"[\w.]+|\(.*\)")


class NotExpressible(HotstartError):
    """A node or constant that no Python source stands for."""


class Emitter:
    """Writes expressions and statements, and keeps what they need: imports, aliases, constants.

    Attributes:
        constants: objects that no literal says; the source calls them by position.
    """

    def __init__(self, names: Names) -> None:
        self.names = names
        self.constants: list[Any] = []
        self._constant_names: dict[int, str] = {}
        self._modules: dict[str, None] = {}
        self._aliases: dict[str, str] = {}
        self._nodes: dict[fx.Node, str] = {}
        self._axes: dict[sympy.Symbol, str] = {}

    # --- names ------------------------------------------------------------------------------------

    def define(self, node: fx.Node, wanted: str | None = None) -> str:
        """Give a node a variable."""
        self._nodes[node] = self.names.new(wanted or node.name)
        return self._nodes[node]

    def let(self, node: fx.Node, name: str) -> None:
        """Say that a node is in a variable that exists."""
        self._nodes[node] = name

    def axis(self, axis: str, name: str) -> None:
        """Say which variable holds an axis' size."""
        self._axes[_torch.axis_symbol(axis)] = name

    def variable(self, node: fx.Node) -> str:
        """The variable a node is in."""
        return self._nodes[node]

    # --- header -----------------------------------------------------------------------------------

    def header(self) -> list[str]:
        """Import statements and aliases for everything that was emitted."""
        roots = sorted(self._modules)
        lines = [f"import {module}" for module in roots]
        if self._aliases:
            lines += ["", *(f"{alias} = {path}" for path, alias in self._aliases.items())]
        return lines

    def constant_names(self) -> list[str]:
        """The names of `constants`, by position."""
        return list(self._constant_names.values())

    def imported(self, obj: Any) -> str:
        """A name for something that can be imported.

        Raises:
            NotExpressible: no import path leads to it.
        """
        path = import_path(obj)
        if path is None:
            raise NotExpressible(f"{obj!r} cannot be imported by any name")
        module, name = path
        self._modules.setdefault(_importable(module))
        return self._alias(f"{module}.{name}")

    def _alias(self, path: str) -> str:
        if path not in self._aliases:
            self._aliases[path] = self.names.new(path.rpartition(".")[2])
        return self._aliases[path]

    # --- statements -------------------------------------------------------------------------------

    def statement(
        self, node: fx.Node, args: Sequence[Any], kwargs: Mapping[str, Any], used: bool
    ) -> str:
        """The statement that computes a node; without an assignment if nothing uses its value.

        Raises:
            NotExpressible: the node calls or mentions something that source cannot say.
        """
        if node.target is operator.setitem:
            target, key, value = (self.value(arg) for arg in args)
            return f"{target}[{key}] = {value}"
        expression = self._call(node, args, kwargs)
        return f"{self.define(node)} = {expression}" if used else expression

    def _call(self, node: fx.Node, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        target = node.target
        if node.op == "call_method":
            owner, *rest = args
            return f"{self._operand(owner)}.{target}({self._arguments(rest, kwargs)})"
        if node.op != "call_function":
            raise NotExpressible(f"node {node.name} is a {node.op}")
        if target is operator.getitem and len(args) == 2 and not kwargs:
            return f"{self._operand(args[0])}[{self.index(args[1])}]"
        if target in _INFIX and len(args) == 2 and not kwargs:
            return f"{self._operand(args[0])} {_INFIX[target]} {self._operand(args[1])}"
        if target in _PREFIX and len(args) == 1 and not kwargs:
            return f"{_PREFIX[target]}{self._operand(args[0])}"
        return f"{self.function(target)}({self._arguments(args, kwargs)})"

    def function(self, target: Any) -> str:
        """A name for what a node calls."""
        if isinstance(target, torch._ops.OpOverload):
            self._modules.setdefault("torch")
            namespace, name = target._schema.name.split("::")
            return self._alias(f"torch.ops.{namespace}.{name}.{target._overloadname}")
        if isinstance(target, torch._ops.OpOverloadPacket):
            self._modules.setdefault("torch")
            return self._alias(f"torch.ops.{target._qualified_op_name.replace('::', '.')}")
        if isinstance(target, torch._ops.HigherOrderOperator):
            self._modules.setdefault("torch")
            return self._alias(f"torch.ops.higher_order.{target.name()}")
        return self.imported(target)

    def _arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        parts = [self.value(arg) for arg in args]
        named = {name: self.value(arg) for name, arg in kwargs.items()}
        if all(name.isidentifier() and not keyword.iskeyword(name) for name in named):
            return ", ".join([*parts, *(f"{name}={arg}" for name, arg in named.items())])
        pairs = ", ".join(f"{name!r}: {arg}" for name, arg in named.items())
        return ", ".join([*parts, f"**{{{pairs}}}"])

    # --- expressions ------------------------------------------------------------------------------

    def _operand(self, value: Any) -> str:
        source = self.value(value)
        return source if _ATOM.fullmatch(source) and not source[0].isdigit() else f"({source})"

    def index(self, value: Any) -> str:
        """What stands between square brackets."""
        if isinstance(value, slice):
            return self._slice(value)
        if type(value) is tuple and value:
            parts = [self.index(v) if isinstance(v, slice) else self.value(v) for v in value]
            return ", ".join(parts) + ("," if len(parts) == 1 else "")
        return self.value(value)

    def _slice(self, value: slice) -> str:
        start, stop = ("" if v is None else self.value(v) for v in (value.start, value.stop))
        step = "" if value.step is None else f":{self.value(value.step)}"
        return f"{start}:{stop}{step}"

    def value(self, value: Any) -> str:
        """An expression for an argument: nested containers of variables, sizes and constants.

        Raises:
            NotExpressible: a constant of a type that source cannot say.
        """
        import sympy

        if isinstance(value, fx.Node):
            return self._nodes[value]
        if isinstance(value, sympy.Basic):
            return self.size(value)
        if isinstance(value, slice):
            parts = ", ".join(self.value(v) for v in (value.start, value.stop, value.step))
            return f"slice({parts})"
        if isinstance(value, Mapping):
            return "{" + ", ".join(f"{k!r}: {self.value(v)}" for k, v in value.items()) + "}"
        if isinstance(value, tuple) and not isinstance(value, torch.Size) and is_namedtuple(type(value)):
            return f"{self.imported(type(value))}({', '.join(map(self.value, value))})"
        if isinstance(value, tuple):
            inside = ", ".join(map(self.value, value))
            return f"({inside},)" if len(value) == 1 else f"({inside})"
        if isinstance(value, list):
            return f"[{', '.join(map(self.value, value))}]"
        return self.literal(value)

    def size(self, expr: sympy.Basic) -> str:
        """An expression over the variables that hold the axes."""
        import sympy

        renamed = {s: sympy.Symbol(v, integer=True, nonnegative=True) for s, v in self._axes.items()}
        source = _torch.python_source(expr.xreplace(renamed))
        if "math." in source:
            self._modules.setdefault("math")
        return source

    def literal(self, value: Any) -> str:
        """An expression for a constant.

        Raises:
            NotExpressible: nothing says it.
        """
        if isinstance(value, enum.Enum):
            return f"{self.imported(type(value))}.{value.name}"
        if value is None or value is ... or isinstance(value, bool | int | str | bytes):
            return "..." if value is ... else repr(value)
        if isinstance(value, float):
            return repr(value) if math.isfinite(value) else f"float({str(value)!r})"
        if isinstance(value, complex):
            return f"complex({self.literal(value.real)}, {self.literal(value.imag)})"
        if isinstance(value, range):
            return repr(value)
        if isinstance(value, torch.dtype | torch.layout | torch.memory_format):
            self._modules.setdefault("torch")
            return str(value)
        if isinstance(value, torch.device):
            self._modules.setdefault("torch")
            return f"torch.{value!r}"
        if isinstance(value, torch.Tensor):
            return self.constant(value, "constant")
        if callable(value):
            return self.imported(value)
        raise NotExpressible(f"a constant of type {type(value).__qualname__} has no source")

    def constant(self, value: Any, wanted: str) -> str:
        """A name for an object that is handed to the generated code by position."""
        if id(value) not in self._constant_names:
            self._constant_names[id(value)] = self.names.new(wanted)
            self.constants.append(value)
        return self._constant_names[id(value)]


def _importable(module: str) -> str:
    """The module to import so that its dotted path resolves: `torch` for `torch._C._nn`."""
    return "torch" if module.startswith("torch._C") or module == "torch" else module
