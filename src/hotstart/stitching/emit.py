"""Write nodes of a graph as Python source."""

from __future__ import annotations

import ast
import dataclasses
import enum
import keyword
import math
import operator
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from hotstart._torch.graphs.operator_types import OpOverload, OpOverloadPacket
from hotstart._torch.graphs.symbols import axis_symbol, python_source
from hotstart._torch.running.numpy_calls import numpy_call
from hotstart._torch.running.operators import registering_modules
from hotstart.errors import HotstartError
from hotstart.partition.tokens import import_path
from hotstart.records.groups import GroupName
from hotstart.records.nested import is_namedtuple
from hotstart.runtime.code.identifiers import Names, written_tuple

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
# Higher-order operators that run their body once; what else they are for is autograd's or the
# compiler's. Strings among their arguments name the body.
_CALLS_ITS_BODY = frozenset({"tag_activation_checkpoint", "invoke_subgraph", "wrap"})
_NAME = re.compile(r"[A-Za-z_][\w.]*")
_ATOMS = (ast.Name, ast.Attribute, ast.Call, ast.Subscript, ast.Tuple, ast.List, ast.Dict)
# Where a user would import a function from, before where it says it lives.
_PUBLIC_HOMES = (
    ("torch.nn.functional", torch.nn.functional), ("torch", torch), ("operator", operator),
    ("torch.linalg", torch.linalg), ("torch.fft", torch.fft), ("torch.special", torch.special),
)  # fmt: skip


class NotExpressible(HotstartError):
    """A node or constant that cannot be written as Python source."""


def comment(text: str) -> str:
    """Escape text so that it stays a one-line comment."""
    return f"# {text if text.isprintable() else ascii(text)}"


class Emitter:
    """Writes expressions and statements, and keeps what they need: imports, aliases, constants.

    Attributes:
        constants: objects without a literal; the source refers to them by position.
    """

    def __init__(self, names: Names) -> None:
        self.names = names
        # Literals mention these two, so nothing else may be called so.
        self._modules = {names.exactly(module): False for module in ("math", "torch")}
        self.constants: list[Any] = []
        self._constant_names: dict[int, str] = {}
        self._imports: dict[tuple[str, str], str] = {}
        self._aliases: dict[str, str] = {}
        self._nodes: dict[fx.Node, str] = {}
        self._axes: dict[sympy.Symbol, str] = {}

    # --- names ------------------------------------------------------------------------------------

    def define(self, node: fx.Node, wanted: str | None = None) -> str:
        """Make a variable for a node."""
        self._nodes[node] = self.names.new(wanted or node.name)
        return self._nodes[node]

    def let(self, node: fx.Node, name: str) -> None:
        """Bind a node to a variable that exists."""
        self._nodes[node] = name

    def axis(self, axis: str, name: str) -> None:
        """Bind the size of an axis to a variable."""
        self.number(axis_symbol(axis), name)

    def number(self, symbol: sympy.Symbol, name: str) -> None:
        """Bind the symbol of a number to a variable."""
        self._axes[symbol] = name

    def variable(self, node: fx.Node) -> str:
        """Look up the variable of a node."""
        return self._nodes[node]

    # --- header -----------------------------------------------------------------------------------

    def header(self) -> list[str]:
        """Write the imports and aliases that the emitted code needs."""
        lines = [f"import {module}" for module, used in self._modules.items() if used]
        for (module, name), alias in sorted(self._imports.items()):
            renamed = f" as {alias}" if alias != name else ""
            lines.append(f"from {module} import {name}{renamed}")
        if self._aliases:
            lines += ["", *(f"{alias} = {path}" for path, alias in self._aliases.items())]
        return lines

    def constant_names(self) -> list[str]:
        """The names of `constants`, by position."""
        return list(self._constant_names.values())

    def imported(self, obj: Any) -> str:
        """Import something under a name, and return the name.

        Raises:
            NotExpressible: no import path leads to it.
        """
        path = _public_path(obj) or import_path(obj)
        if path is None:
            raise NotExpressible(f"{obj!r} cannot be imported by any name")
        module, name = path
        if module == "builtins":
            return name
        outer, *inner = name.split(".")
        key = (module, outer)
        if key not in self._imports:
            self._imports[key] = self.names.new(outer)
        if not inner:
            return self._imports[key]
        return self._alias(".".join([self._imports[key], *inner]), inner[-1])

    def _alias(self, path: str, wanted: str) -> str:
        if path not in self._aliases:
            self._aliases[path] = self.names.new(wanted)
        return self._aliases[path]

    def _module(self, name: str) -> str:
        self._modules[name] = True
        return name

    # --- statements -------------------------------------------------------------------------------

    def statement(
        self, node: fx.Node, args: Sequence[Any], kwargs: Mapping[str, Any], used: bool
    ) -> str:
        """Write the statement that computes a node; it assigns nothing if the value is not used.

        Raises:
            NotExpressible: the node calls or mentions something that source cannot express.
        """
        if node.target is operator.setitem and len(args) == 3 and not used:
            target, key, value = args
            return f"{self._operand(target)}[{self.index(key)}] = {self.value(value)}"
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
        if getattr(target, "__name__", "") in _CALLS_ITS_BODY and _is_higher_order(target):
            body, *rest = args
            operands = [arg for arg in rest if not isinstance(arg, str)]
            return f"{self._operand(body)}({self._arguments(operands, {})})"
        if getattr(target, "__name__", "") == "autograd_function_apply":
            raise NotExpressible(
                f"node {node.name} differentiates a torch.autograd.Function, whose backward only "
                "Inductor's code has. Use Options(compiler='inductor')"
            )
        if target in _INFIX and len(args) == 2 and not kwargs:
            return f"{self._number(args[0])} {_INFIX[target]} {self._number(args[1])}"
        if target in _PREFIX and len(args) == 1 and not kwargs:
            return f"{_PREFIX[target]}{self._number(args[0])}"
        of_numpy = numpy_call(target, args)
        if of_numpy is not None:
            target, first = of_numpy
            args = [*first, *args]
        return f"{self.function(target)}({self._arguments(args, kwargs)})"

    def function(self, target: Any) -> str:
        """Name the function that a node calls."""
        if isinstance(target, OpOverload | OpOverloadPacket):
            path = str(target)
        elif _is_higher_order(target):
            path = f"higher_order.{target.__name__}"
        else:
            return self.imported(target)
        for module in registering_modules([target]):
            self._module(module)
        wanted = path.removesuffix(".default").split(".", 1)[1].replace(".", "_")
        return self._alias(f"{self._module('torch')}.ops.{path}", wanted)

    def _arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        parts = [self.value(arg) for arg in args]
        named = {name: self.value(arg) for name, arg in kwargs.items()}
        if all(name.isidentifier() and not keyword.iskeyword(name) for name in named):
            return ", ".join([*parts, *(f"{name}={arg}" for name, arg in named.items())])
        pairs = ", ".join(f"{name!r}: {arg}" for name, arg in named.items())
        return ", ".join([*parts, f"**{{{pairs}}}"])

    # --- expressions ------------------------------------------------------------------------------

    def _operand(self, value: Any) -> str:
        """Write a value, in parentheses if an attribute, index or operator could not follow it."""
        source = self.value(value)
        return source if _is_atom(source) else f"({source})"

    def _number(self, value: Any) -> str:
        """Write an operand of an operator; numbers need no parentheses there."""
        source = self.value(value)
        return source if source[0].isdigit() and _is_literal(source) else self._operand(value)

    def index(self, value: Any) -> str:
        """Write an index, without its square brackets."""
        if isinstance(value, slice):
            return self._slice(value)
        if type(value) is tuple and value:
            parts = [self._slice(v) if isinstance(v, slice) else self.value(v) for v in value]
            return ", ".join(parts) + ("," if len(parts) == 1 else "")
        return self.value(value)

    def _slice(self, value: slice) -> str:
        start, stop = ("" if v is None else self.value(v) for v in (value.start, value.stop))
        step = "" if value.step is None else f":{self.value(value.step)}"
        return f"{start}:{stop}{step}"

    def value(self, value: Any) -> str:
        """Write an argument: nested containers of variables, sizes and constants.

        Raises:
            NotExpressible: a constant that source cannot express.
        """
        import sympy

        if isinstance(value, fx.Node):
            return self._nodes[value]
        if isinstance(value, sympy.Basic):
            return self.size(value)
        if isinstance(value, slice):
            parts = (value.start, value.stop, value.step)
            return f"slice({', '.join(map(self.value, parts))})"
        if isinstance(value, dict):
            pairs = (f"{self.value(key)}: {self.value(item)}" for key, item in value.items())
            return f"{{{', '.join(pairs)}}}"
        if isinstance(value, torch.Size):
            return f"{self._module('torch')}.Size([{', '.join(map(self.value, value))}])"
        if is_namedtuple(type(value)):
            return f"{self.imported(type(value))}({', '.join(map(self.value, value))})"
        if isinstance(value, tuple):
            return written_tuple(map(self.value, value))
        if isinstance(value, list):
            return f"[{', '.join(map(self.value, value))}]"
        return self.literal(value)

    def size(self, expr: sympy.Basic) -> str:
        """Write a size as an expression over the variables of the axes."""
        import sympy

        renamed = {s: sympy.Symbol(v, **s.assumptions0) for s, v in self._axes.items()}
        source = python_source(expr.xreplace(renamed))
        if "math." in source:
            self._module("math")
        return source

    def literal(self, value: Any) -> str:
        """Write a constant.

        Raises:
            NotExpressible: it has no literal and no import path.
        """
        cls = type(value)
        if cls is GroupName:
            return self.constant(value.slot, value.key)
        if value is None or cls in (bool, int, str, bytes, range):
            return repr(value)
        if value is ...:
            return "..."
        if cls is float:
            return repr(value) if math.isfinite(value) else f"float({str(value)!r})"
        if cls is complex:
            return f"complex({self.literal(value.real)}, {self.literal(value.imag)})"
        if isinstance(value, enum.Flag):
            return f"{self.imported(cls)}({value.value!r})"
        if isinstance(value, enum.Enum) or _is_enumerator(value):
            return f"{self.imported(cls)}.{value.name}"
        if isinstance(value, torch.dtype | torch.layout | torch.memory_format | torch.qscheme):
            self._module("torch")
            return str(value)
        if isinstance(value, torch.device):
            return f"{self._module('torch')}.{value!r}"
        if isinstance(value, torch.Tensor):
            return self.constant(value, "constant")
        plain = _plain(value)
        if plain is not None:
            return f"{self.imported(cls)}({self.literal(plain)})"
        if dataclasses.is_dataclass(cls):
            return self._dataclass(value)
        if callable(value):
            return self.imported(value)
        raise NotExpressible(f"a constant of type {cls.__qualname__} has no source")

    def _dataclass(self, value: Any) -> str:
        fields = (field.name for field in dataclasses.fields(value) if field.init)
        parts = (f"{name}={self.value(getattr(value, name))}" for name in fields)
        return f"{self.imported(type(value))}({', '.join(parts)})"

    def constant(self, value: Any, wanted: str) -> str:
        """Name an object that the generated code is given by position."""
        if id(value) not in self._constant_names:
            self._constant_names[id(value)] = self.names.new(wanted)
            self.constants.append(value)
        return self._constant_names[id(value)]


def _is_atom(source: str) -> bool:
    """Tell whether an expression needs no parentheses anywhere."""
    if _NAME.fullmatch(source):
        return True
    parsed = ast.parse(source, mode="eval").body
    return isinstance(parsed, _ATOMS) or (
        isinstance(parsed, ast.Constant) and not source[0].isdigit()
    )


def _is_literal(source: str) -> bool:
    return isinstance(ast.parse(source, mode="eval").body, ast.Constant)


def _is_higher_order(target: Any) -> bool:
    name = getattr(target, "__name__", None)
    return name is not None and getattr(torch.ops.higher_order, name, None) is target


def _plain(value: Any) -> int | float | complex | str | bytes | None:
    """Convert a value of a subclass, such as `numpy.float64`, to the plain type."""
    match value:
        case int():
            return int(value)
        case float():
            return float(value)
        case complex():
            return complex(value)
        case str():
            return str.__str__(value)
        case bytes():
            return bytes(value)
    return None


def _is_enumerator(value: Any) -> bool:
    """Tell whether a value is of an enumeration that C++ defines, such as `SDPBackend`."""
    members = getattr(type(value), "__members__", None)
    return isinstance(members, Mapping) and getattr(value, "name", None) in members


def _public_path(obj: Any) -> tuple[str, str] | None:
    """Find the path that a user would import a function of torch by."""
    name = getattr(obj, "__name__", "")
    for path, module in _PUBLIC_HOMES:
        short = name.removeprefix(f"{path.rpartition('.')[2]}_")
        for candidate in (name, short):
            if getattr(module, candidate, None) is obj:
                return path, candidate
    if name and getattr(torch.Tensor, name, None) is obj:
        return "torch", f"Tensor.{name}"
    # Types that torch defines under a private name and exports under a public one.
    home = sys.modules.get(str(getattr(obj, "__module__", None)))
    if name.startswith("_") and getattr(home, name.lstrip("_"), None) is obj:
        return obj.__module__, name.lstrip("_")
    return None
