"""Let generated code compute linears by hotstart's kernel, where that is faster.

A compile chooses the library that multiplies, for the size that a range is tuned for. With few rows
and a small weight, the overhead of any library exceeds the time of the product; with AVX2, the
kernel is faster at any size. It reads weights as they are, so what was packed for no other reader
is not packed. `docs/performance.md` has the measurements behind the numbers.
"""

from __future__ import annotations

import ast
import dataclasses
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hotstart._torch.inductor.compile_fx import InductorOutput
from hotstart._torch.inductor.joined_kernels import AskedKernel
from hotstart._torch.kernels.linear import ACROSS
from hotstart.compilers.inductor.found_linears import Linear, Matrix, find_linear, matrix_of
from hotstart.compilers.inductor.made_of import MadeOf, Part, is_dense, is_row
from hotstart.compilers.inductor.packing_rule import Processor
from hotstart.compilers.inductor.unread import without_unread
from hotstart.compilers.inductor.variables import FLOAT32, Known, Variables, arguments_of
from hotstart.compilers.job import Job
from hotstart.runtime.code.identifiers import Names

KERNEL = "linear_kernel"
"""The name that generated code has for the kernel."""

MOST_ROWS = ((1 << 14, 64), (1 << 16, 16), (1 << 18, 4))
"""Elements of a weight up to which the kernel is faster than oneDNN on a packed weight, and rows up
to which it is, but with AVX2."""

MOST_ROWS_UNPACKED = ((1 << 14, 64), (1 << 16, 32), (1 << 18, 8), (1 << 20, 4))
"""The same beside the library that torch calls for weights that are not packed."""


@dataclass(frozen=True)
class Given:
    """The job, inputs and weights that a module was compiled for.

    Attributes:
        job: what the code serves.
        inputs: example inputs of the module, sizes first.
        weights: positions of those that are weights and not written to.
    """

    job: Job
    inputs: Sequence[Any]
    weights: Collection[int]


def with_linears(
    given: Given,
    output: InductorOutput,
    kernel: Callable[[], AskedKernel],
    processor: Processor,
    *,
    unpacked_too: bool,
) -> InductorOutput:
    """Give Inductor's code a call of the kernel at each linear that gains by it.

    Args:
        given: what the code was made for.
        output: what Inductor made of the module.
        kernel: writes the kernel.
        processor: decides for how many rows the kernel is faster.
        unpacked_too: compute linears on packed weights by it, too.
    """
    module = ast.parse(output.source)
    limits = _Limits(processor, unpacked_too)
    for function in ast.walk(module):
        if isinstance(function, ast.FunctionDef) and function.name == "call":
            more = _Writer(given, output, limits, function).rewrite()
            if more is not None:
                changed = dataclasses.replace(
                    output,
                    kernels={**output.kernels, KERNEL: kernel()},
                    kept=(*output.kept, *more),
                )
                changed = without_unread(changed, function)
                source = ast.unparse(ast.fix_missing_locations(module))
                return dataclasses.replace(changed, source=source)
    return output


@dataclass(frozen=True)
class _Product:
    """A linear that the kernel can compute.

    Attributes:
        linear: the same.
        rows: the rows.
        parts: the weights that give its columns.
        made: the result.
    """

    linear: Linear
    rows: Matrix
    parts: Sequence[Part]
    made: Matrix


@dataclass(frozen=True)
class _Limits:
    """Numbers of rows up to which the kernel is used.

    Attributes:
        processor: the one that code is made for.
        unpacked_too: it may compute linears on packed weights, too.
    """

    processor: Processor
    unpacked_too: bool

    def most_rows(self, product: _Product) -> float:
        """Compute up to how many rows the kernel is faster; 0: it never is, or may not be used."""
        packed, size = product.linear.packed, product.made.columns * product.rows.columns
        if packed and not self.unpacked_too:
            return 0
        if self.processor.vectors == 256:
            return math.inf
        if any(part.across for part in product.parts):
            return 0
        table = MOST_ROWS if packed else MOST_ROWS_UNPACKED
        return next((most for limit, most in table if size <= limit), 0)


class _Writer:
    """Writes the calls of the kernel in a function."""

    def __init__(
        self,
        given: Given,
        output: InductorOutput,
        limits: _Limits,
        call: ast.FunctionDef,
    ) -> None:
        self._given = given
        self._kept = output.kept
        self._made_of = MadeOf(output.recipes, given.inputs)
        self._limits = limits
        self._call = call
        lows = dict(enumerate(bound.low for bound in given.job.bounds.values()))
        self._variables = Variables(call, output.kept, given.inputs, lows)
        self._names = Names(node.id for node in ast.walk(call) if isinstance(node, ast.Name))
        self._added: dict[int, str] = {}  # names of weights that become arguments, by position

    def rewrite(self) -> list[int] | None:
        """Write calls into the function, if there is a linear that gains by one.

        Returns:
            The positions of weights that the function takes in addition.
        """
        taken = arguments_of(self._call)
        if taken is None or len(taken.elts) < len(self._kept):
            return None
        branches: dict[int, list[ast.stmt]] = {}
        for number, statement in enumerate(self._call.body):
            linear = find_linear(statement)
            product = None if linear is None else self._product(linear)
            if product is not None:
                branches[number] = self._branch(product, statement)
            self._variables.see(statement)
            if product is not None and product.linear.packed:
                known = Known(dtype=FLOAT32, lies=product.made.lies)
                self._variables.note(product.linear.made, known)
        body = enumerate(self._call.body)
        self._call.body = [s for n, each in body for s in branches.get(n) or [each]]
        first = len(self._kept)
        taken.elts[first:first] = [ast.Name(name, ast.Store()) for name in self._added.values()]
        return list(self._added) if any(branches.values()) else None

    # --- what the code has ------------------------------------------------------------------------

    def _matrix(self, value: ast.expr) -> Matrix | None:
        """A float32 operand or result of a linear as a matrix; None if its layout is unknown."""
        known = self._variables.of(value)
        if known.dtype not in (None, FLOAT32) or known.lies is None:
            return None
        return matrix_of(known.lies)

    def _position(self, value: ast.expr) -> int | None:
        """The position of a plain input of the module; None for anything else."""
        number = self._variables.of(value).argument
        return None if number is None or number >= len(self._kept) else self._kept[number]

    def _recipe_number(self, value: ast.expr) -> int | None:
        """The number of the recipe that makes an argument; None if none does."""
        number = self._variables.of(value).argument
        return None if number is None or number < len(self._kept) else number - len(self._kept)

    def _example(self, value: ast.expr) -> Any:
        position = self._position(value)
        return None if position is None else self._given.inputs[position]

    def _parts(self, linear: Linear) -> Sequence[Part]:
        """The weights that give a linear's columns; none if unknown."""
        number = self._recipe_number(linear.weight)
        if number is not None:
            found = self._made_of.parts(number, packed=linear.packed) or []
        else:
            found = [] if linear.packed else self._plain_part(linear.weight)
        known = all(part.position in self._given.weights for part in found)
        return found if known else []

    def _plain_part(self, value: ast.expr) -> list[Part]:
        """The weight that `addmm` reads as it is, or transposed; none if it is another value."""
        match value:
            case ast.Name():
                position = self._position(value)
                return [] if position is None else [Part(position, across=True)]
            case ast.Call(args=[of, sizes, strides, ast.Constant(value=0)]):
                position, example = self._position(of), self._example(of)
                if position is not None and is_dense(example) and example.dim() == 2:
                    rows, columns = example.shape
                    shown = ast.unparse(sizes), ast.unparse(strides)
                    if shown == (f"({columns}, {rows})", f"(1, {columns})"):
                        return [Part(position, across=False)]
        return []

    def _product(self, linear: Linear) -> _Product | None:
        """A linear with rows, weights and result; None if one of them is not known."""
        rows, parts = self._matrix(linear.rows), self._parts(linear)
        weights = [self._given.inputs[part.position] for part in parts]
        if rows is None or not weights:
            return None
        if not all(is_dense(weight) and weight.dim() == 2 for weight in weights):
            return None
        sizes = [self._sizes(part) for part in parts]
        if any(inputs != rows.columns for _, inputs in sizes):
            return None
        columns = sum(outputs for outputs, _ in sizes)
        return _Product(linear, rows, parts, Matrix(rows.rows, columns, columns))

    def _sizes(self, part: Part) -> tuple[int, int]:
        """Count the columns of a result that a weight gives, and the inputs of each."""
        one, other = map(int, self._given.inputs[part.position].shape)
        return (other, one) if part.across else (one, other)

    # --- calls ------------------------------------------------------------------------------------

    def _branch(self, product: _Product, otherwise: ast.stmt) -> list[ast.stmt]:
        """Statements that call the kernel where it is faster; none if it never is."""
        linear, rows = product.linear, product.rows
        most = self._limits.most_rows(product)
        if most == 0 or not self._is_combined(product):
            return []
        call = ast.parse("\n".join(self._call_of(product))).body
        if most == math.inf:
            return call
        number = ast.parse(rows.rows, mode="eval").body
        fixed = isinstance(number, ast.Constant)
        least = self._variables.of(number).least
        if least is None or least > most or (fixed and linear.packed):
            return []
        if fixed:
            return call
        test = ast.parse(f"{rows.rows} <= {most}", mode="eval").body
        return [ast.If(test, call, [otherwise])]

    def _is_combined(self, product: _Product) -> bool:
        """Tell whether the kernel can do a linear's epilogue, and write to the same result."""
        linear, made = product.linear, product.made
        if not linear.packed and self._matrix(ast.Name(linear.made, ast.Load())) != made:
            return False
        if linear.other is not None and self._matrix(linear.other) != made:
            return False
        if linear.bias is None:
            return True
        number, example = self._recipe_number(linear.bias), self._example(linear.bias)
        if number is not None:
            return self._made_of.row(number) == made.columns
        return is_row(example) and example.shape[0] == made.columns

    def _call_of(self, product: _Product) -> Iterator[str]:
        """Write the call of the kernel for each of the weights."""
        linear, rows, made = product.linear, product.rows, product.made
        name, columns = linear.made, made.columns
        if linear.packed:
            shape = f"({made.rows}, {columns}), ({columns}, 1)"
            yield f"{name} = empty_strided_cpu({shape}, torch.float32)"
        bias = name if linear.bias is None else ast.unparse(linear.bias)
        other = name if linear.other is None else ast.unparse(linear.other)
        first = 0
        for part in product.parts:
            count, inputs = self._sizes(part)
            what = linear.what | (ACROSS if part.across else 0)
            tensors = f"{ast.unparse(linear.rows)}, {self._weight(part.position)}, {bias}, {other}"
            sizes = f"{made.rows}, {count}, {inputs}, {rows.stride}, {columns}"
            yield f"{KERNEL}({tensors}, {name}, {sizes}, {first}, {what})"
            first += count

    def _weight(self, position: int) -> str:
        """The name of a weight, which becomes an argument if it is none."""
        if position in self._kept:
            return self._variables.arguments[self._kept.index(position)]
        if position not in self._added:
            self._added[position] = self._names.new("plain")
        return self._added[position]
