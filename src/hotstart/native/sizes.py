"""Write integers and conditions over sizes in C++, as Python computes them."""

from __future__ import annotations

import ast
from collections.abc import Callable

from hotstart.native.operators import NotNative

Known = Callable[[ast.expr], "str | None"]
"""Writes a name or another operand of arithmetic in C++; None if it is no integer."""

_ORDERINGS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
}  # fmt: skip


def write_number(value: ast.expr, known: Known) -> str:
    """Write an integer.

    Raises:
        NotNative: it is none, or not computed as sizes are.
    """
    match value:
        case ast.Constant(value=bool() as flag):
            return str(int(flag))
        case ast.Constant(value=int() as constant) if abs(constant) < 1 << 62:
            return f"{constant}LL" if abs(constant) >= 1 << 31 else str(constant)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return f"(-{write_number(operand, known)})"
        case ast.BinOp(left=left, op=op, right=right):
            return _arithmetic(write_number(left, known), op, write_number(right, known), right)
        case ast.Call(func=ast.Name(id="max" | "min" as which), args=[first, *others]):
            function = "larger" if which == "max" else "smaller"
            written = write_number(first, known)
            for other in others:
                written = f"{function}({written}, {write_number(other, known)})"
            return written
    found = known(value)
    if found is None:
        raise NotNative(f"{ast.unparse(value)} is not a number made of sizes")
    return found


def _arithmetic(left: str, op: ast.operator, right: str, value: ast.expr) -> str:
    match op:
        case ast.Add():
            return f"({left} + {right})"
        case ast.Sub():
            return f"({left} - {right})"
        case ast.Mult():
            return f"({left} * {right})"
        case ast.FloorDiv():
            return f"floor_divided({left}, {right})"
        case ast.Mod():
            return f"modulo({left}, {right})"
        case ast.Pow() if isinstance(value, ast.Constant) and value.value == 2:
            return f"({left} * {left})"
    raise NotNative(f"{type(op).__name__} of sizes has no form in C++")


def write_condition(value: ast.expr, known: Known) -> str:
    """Write a condition over integers.

    Raises:
        NotNative: it is none.
    """
    match value:
        case ast.BoolOp(op=joins, values=values):
            word = " && " if isinstance(joins, ast.And) else " || "
            return f"({word.join(write_condition(each, known) for each in values)})"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return f"!{write_condition(operand, known)}"
        case ast.Compare(left=left, ops=ops, comparators=others) if _ORDERINGS.keys() >= {
            type(op) for op in ops
        }:
            numbers = [write_number(each, known) for each in (left, *others)]
            parts = [
                f"{numbers[place]} {_ORDERINGS[type(op)]} {numbers[place + 1]}"
                for place, op in enumerate(ops)
            ]
            return f"({' && '.join(parts)})"
        case ast.Constant(value=bool() as flag):
            return str(flag).lower()
    raise NotNative(f"{ast.unparse(value)} is not a condition on sizes")
