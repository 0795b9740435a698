"""Arguments of torch's operators in C++: as C functions take them, and as the dispatcher does."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hotstart._torch.native.c_shims import c_constant

TensorOf = Callable[[ast.expr], str]
"""Writes the handle of a tensor."""

NumberOf = Callable[[ast.expr], str]
"""Writes an integer."""

IsReal = Callable[[ast.expr], bool]
"""Tells whether a tensor is known to hold floating-point numbers."""


@dataclass(frozen=True)
class Written:
    """Write the values of an operator's call as the function that it stands in has them."""

    tensor: TensorOf
    number: NumberOf
    is_real: IsReal


@dataclass(frozen=True, eq=False)
class Argument:
    """An argument as C functions take it: its types, and a value for each.

    Attributes:
        types: C types, without `const`.
        values: expressions.
        before: lines that define what those refer to.
    """

    types: tuple[str, ...]
    values: tuple[str, ...]
    before: tuple[str, ...] = ()


def argument_of(number: int, kind: str, value: ast.expr, write: Written) -> Argument | None:
    """Write an argument of a C function; None if these take no such argument."""
    if kind.startswith("Optional["):
        return _optional(number, kind[len("Optional[") : -1], value, write)
    if kind.startswith("List["):
        return _listed(number, kind[len("List[") : -1], value, write)
    plain = _plain(kind, value, write)
    return None if plain is None else Argument((plain[0],), (plain[1],))


def _optional(number: int, kind: str, value: ast.expr, write: Written) -> Argument | None:
    if kind.startswith("List[") or kind == "Device":
        return None
    plain = _plain(kind, value, write) if not is_none(value) else (_C_TYPES.get(kind), "")
    if plain is None or plain[0] is None:
        return None
    if is_none(value):
        return Argument((f"{plain[0]}*",), ("nullptr",))
    name = f"given_{number}"
    before = f"{_variable(plain[0])} {name} = {plain[1]};"
    return Argument((f"{plain[0]}*",), (f"&{name}",), (before,))


def _listed(number: int, kind: str, value: ast.expr, write: Written) -> Argument | None:
    if not isinstance(value, ast.List | ast.Tuple):
        return None
    name, count = f"given_{number}", str(len(value.elts))
    if kind.startswith("Optional["):
        inner = kind[len("Optional[") : -1]
        c_type = _C_TYPES.get(inner)
        if c_type is None:
            return None
        before, places = [], []
        for place, each in enumerate(value.elts):
            if is_none(each):
                places.append("nullptr")
                continue
            plain = _plain(inner, each, write)
            if plain is None:
                return None
            before.append(f"{c_type} {name}_{place} = {plain[1]};")
            places.append(f"&{name}_{place}")
        before.append(f"const {c_type}* {name}[] = {{{', '.join(places) or 'nullptr'}}};")
        return Argument((f"{c_type}**", "int64_t"), (name, count), tuple(before))
    items = [_plain(kind, each, write) for each in value.elts]
    c_type = _C_TYPES.get(kind)
    if c_type is None or any(item is None for item in items):
        return None
    written = ", ".join(item[1] for item in items if item is not None)
    array = f"{c_type} {name}[] = {{{written or '0'}}};"
    return Argument((f"{c_type}*", "int64_t"), (name, count), (array,))


def _variable(c_type: str) -> str:
    """The type of a variable that is passed by its address."""
    return f"const {c_type}" if c_type == "char*" else c_type


_C_TYPES = {
    "Tensor": "Handle", "int": "int64_t", "SymInt": "int64_t", "float": "double",
    "number": "double", "Scalar": "double", "bool": "int32_t", "str": "char*",
    "ScalarType": "int32_t", "Layout": "int32_t", "MemoryFormat": "int32_t",
}  # fmt: skip


def _plain(kind: str, value: ast.expr, write: Written) -> tuple[str, str] | None:
    """The C type of a value that is neither a list nor optional, and the value."""
    c_type = _C_TYPES.get(kind)
    if c_type is None or is_none(value):
        return None
    if kind == "Tensor":
        return c_type, write.tensor(value)
    if c_type == "int64_t":
        return c_type, write.number(value)
    if c_type == "double":
        return c_type, _real(value, write)
    if kind == "str":
        text = _constant(value)
        return ("char*", _quoted(text)) if isinstance(text, str) else None
    if kind == "bool":
        flag = _constant(value)
        return (c_type, str(int(flag))) if isinstance(flag, bool | int) else None
    name = c_constant(kind, ast.unparse(value))
    return None if name is None else (c_type, name)


def _real(value: ast.expr, write: Written) -> str:
    match value:
        case ast.Constant(value=bool() as flag):
            return str(float(flag))
        case ast.Constant(value=int() | float() as number):
            return _double(float(number))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return f"-{_real(operand, write)}"
        case ast.Call(func=ast.Name(id="float"), args=[ast.Constant(value=str() as text)]):
            return _double(float(text))
    return f"static_cast<double>({write.number(value)})"


def _double(number: float) -> str:
    if number != number:
        return '__builtin_nan("")'
    if number in (float("inf"), float("-inf")):
        return "-__builtin_inf()" if number < 0 else "__builtin_inf()"
    return number.hex()


def _quoted(text: str) -> str:
    return '"' + "".join(c if c.isalnum() or c in "_ .:" else f"\\{ord(c):03o}" for c in text) + '"'


def _constant(value: ast.expr) -> Any:
    return value.value if isinstance(value, ast.Constant) else None


def is_none(value: ast.expr) -> bool:
    """Tell whether a value is a written None."""
    return isinstance(value, ast.Constant) and value.value is None


def word_of(kind: str, value: ast.expr, write: Written) -> str | None:
    """Write an argument as one number of the dispatcher's."""
    if kind.startswith("Optional["):
        if is_none(value):
            return "0"
        word = word_of(kind[len("Optional[") : -1], value, write)
        return None if word is None else f"boxed({word})"
    if kind == "Tensor":
        return f"shared({write.tensor(value)})"
    if kind in ("int", "SymInt"):
        return f"static_cast<uint64_t>({write.number(value)})"
    if kind.startswith("List["):
        return _row(kind[len("List[") : -1], value, write)
    plain = _plain(kind, value, write)
    if plain is None:
        return None
    if kind == "float":
        return f"bits({plain[1]})"
    if kind in ("bool", "ScalarType", "Layout", "MemoryFormat"):
        return f"static_cast<uint64_t>({plain[1]})"
    return None


def _row(kind: str, value: ast.expr, write: Written) -> str | None:
    """Write a list of the dispatcher's."""
    if kind not in ("int", "SymInt", "Tensor") or not isinstance(value, ast.List | ast.Tuple):
        return None
    words = [word_of(kind, each, write) for each in value.elts]
    return f"listed({{{', '.join(map(str, words))}}})"
