"""Find linears, and matrices of known layout, in code that Inductor generated."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass

from hotstart._torch.kernels.linear import ACTIVATIONS, ADDS, HAS_BIAS, MULTIPLIES
from hotstart.compilers.inductor.variables import Strided

_ONEDNN = "torch.ops.mkldnn._linear_pointwise."
_COMBINED = {"add": ADDS, "mul": MULTIPLIES}


@dataclass(frozen=True)
class Matrix:
    """A tensor of two dimensions whose rows lie dense.

    Attributes:
        rows: how many, an expression.
        columns: how many.
        stride: elements from a row to the next.
    """

    rows: str
    columns: int
    stride: int

    @property
    def lies(self) -> Strided:
        """The same as expressions of the code."""
        return Strided((self.rows, str(self.columns)), (str(self.stride), "1"))


@dataclass(frozen=True)
class Linear:
    """A product of rows and a weight.

    Attributes:
        rows: the rows.
        weight: what they are multiplied by.
        packed: whether that is packed for oneDNN; if not, it is laid out as for `addmm`.
        made: the name of the result.
        what: number of the epilogue in hotstart's kernel.
        bias: added to each row; None for nothing.
        other: second operand of the epilogue; None for nothing.
    """

    rows: ast.expr
    weight: ast.expr
    packed: bool
    made: str
    what: int
    bias: ast.expr | None = None
    other: ast.expr | None = None


def find_linear(statement: ast.stmt) -> Linear | None:
    """The linear that a statement computes, if it is one that hotstart's kernel can."""
    match statement:
        case ast.Assign(targets=[ast.Name(id=made)], value=ast.Call(func=function, args=args)):
            called = ast.unparse(function)
            if called == f"{_ONEDNN}default":
                return _pointwise(made, args)
            if called == f"{_ONEDNN}binary":
                return _binary(made, args)
        case ast.Expr(value=ast.Call(func=function, args=args, keywords=keywords)):
            given = {each.arg: each.value for each in keywords}
            match ast.unparse(function), given.pop("out", None), args:
                case "extern_kernels.mm", ast.Name(id=made), [rows, weight] if not given:
                    return Linear(rows, weight, False, made, 0)
                case "extern_kernels.addmm", ast.Name(id=made), [bias, rows, weight] if all(
                    ast.unparse(each) == "1" for each in given.values()
                ):
                    return Linear(rows, weight, False, made, HAS_BIAS, bias)
    return None


def _pointwise(made: str, args: Sequence[ast.expr]) -> Linear | None:
    match args:
        case [rows, weight, bias, ast.Constant(value=str() as name), scalars, algorithm]:
            kind = ast.literal_eval(algorithm) or ""
            number = ACTIVATIONS.get((name, kind))
            if number is not None and ast.unparse(scalars) in ("[]", "[-1]"):
                return _packed(made, rows, weight, bias, number)
    return None


def _binary(made: str, args: Sequence[ast.expr]) -> Linear | None:
    match args:
        case [rows, other, weight, bias, ast.Constant(value=str() as name)] if name in _COMBINED:
            return _packed(made, rows, weight, bias, _COMBINED[name], other)
    return None


def _packed(
    made: str,
    rows: ast.expr,
    weight: ast.expr,
    bias: ast.expr,
    what: int,
    other: ast.expr | None = None,
) -> Linear:
    if ast.unparse(bias) == "None":
        return Linear(rows, weight, True, made, what, None, other)
    return Linear(rows, weight, True, made, what | HAS_BIAS, bias, other)


def matrix_of(lies: Strided) -> Matrix | None:
    """A tensor as a matrix; None if it is none, or its rows do not lie dense."""
    match lies.sizes, lies.strides:
        case (rows, columns), (stride, "1") if columns.isdecimal() and stride.isdecimal():
            if int(stride) >= int(columns) or rows == "1":
                return Matrix(rows, int(columns), max(int(stride), int(columns)))
    return None
