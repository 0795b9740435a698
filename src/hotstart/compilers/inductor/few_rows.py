"""Let generated code compute linears of few rows by hotstart's kernel, where that is faster.

A compile chooses the library that multiplies, for the size that a range is tuned for. With few rows
and a small weight, the overhead of any library exceeds the time of the product; with AVX2, all are
slow at few rows, whatever the weight. So a call with few rows runs hotstart's kernel, which reads
weights unpacked. `docs/performance.md` has the measurements behind the numbers.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hotstart._torch.inductor.compile_fx import InductorOutput
from hotstart._torch.inductor.joined_kernels import AskedKernel
from hotstart.compilers.inductor import packing_rule
from hotstart.compilers.inductor.found_linears import Linear, Matrix, find_linear, matrix_of
from hotstart.compilers.inductor.made_of import MadeOf, is_dense, is_row
from hotstart.compilers.inductor.packing_rule import Processor
from hotstart.compilers.inductor.variables import FLOAT32, Known, Variables, arguments_of
from hotstart.compilers.job import Job
from hotstart.runtime.code.identifiers import Names

KERNEL = "few_rows"
"""The name that generated code has for the kernel."""

MOST_ROWS = ((1 << 14, 64), (1 << 16, 16), (1 << 18, 4))
"""Elements of a weight up to which the kernel is faster than oneDNN on a packed weight, and rows up
to which it is, but with AVX2."""

MOST_ROWS_UNPACKED = ((1 << 14, 64), (1 << 16, 32), (1 << 18, 8), (1 << 20, 4))
"""The same beside the library that torch calls for weights that are not packed."""

MOST_KEPT = 1 << 22
"""Elements of a packed weight up to which it is read unpacked, too, with AVX2. What is larger can
be released, so that a program takes as much memory as its packed weights."""


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


def with_few_rows(
    given: Given,
    output: InductorOutput,
    kernel: Callable[[], AskedKernel],
    processor: Processor,
    *,
    unpacked_too: bool,
) -> InductorOutput:
    """Give Inductor's code a branch for few rows at each linear that gains by it.

    Args:
        given: what the code was made for.
        output: what Inductor made of the module.
        kernel: writes the kernel.
        processor: which decides how many rows are few.
        unpacked_too: give linears on packed weights a branch, too; it reads those weights unpacked,
            so they cannot be released.
    """
    module = ast.parse(output.source)
    limits = _Limits(processor, unpacked_too)
    for function in ast.walk(module):
        if isinstance(function, ast.FunctionDef) and function.name == "call":
            more = _Writer(given, output, limits, function).rewrite()
            if more is not None:
                return dataclasses.replace(
                    output,
                    source=ast.unparse(ast.fix_missing_locations(module)),
                    kernels={**output.kernels, KERNEL: kernel()},
                    kept=(*output.kept, *more),
                )
    return output


@dataclass(frozen=True)
class _Product:
    """A linear that the kernel can compute.

    Attributes:
        linear: the same.
        rows: the rows.
        parts: positions of the weights whose concatenated rows are its columns.
        made: the result.
    """

    linear: Linear
    rows: Matrix
    parts: Sequence[int]
    made: Matrix


@dataclass(frozen=True)
class _Limits:
    """Numbers of rows up to which the kernel is used.

    Attributes:
        processor: the one that code is made for.
        unpacked_too: linears on packed weights have a branch, too.
    """

    processor: Processor
    unpacked_too: bool

    def most_rows(self, product: _Product) -> int:
        """Compute up to how many rows the kernel is faster; 0: it never is, or may not be used."""
        packed, size = product.linear.packed, product.made.columns * product.rows.columns
        if packed and (size > MOST_KEPT or not self.unpacked_too):
            return 0
        if self.processor.vectors == 256:
            return packing_rule.MOST_ROWS
        table = MOST_ROWS if packed else MOST_ROWS_UNPACKED
        return next((most for limit, most in table if size <= limit), 0)


class _Writer:
    """Writes the branches of a function."""

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
        """Write branches into the function, if there is a linear that gains by one.

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

    def _parts(self, linear: Linear) -> list[int]:
        """The weights whose concatenated rows are a linear's columns; none if unknown."""
        number = self._recipe_number(linear.weight)
        found: list[int] | None = None
        if number is not None:
            found = self._made_of.rows(number, packed=linear.packed)
        elif not linear.packed:
            match linear.weight:
                case ast.Call(args=[of, sizes, strides, ast.Constant(value=0)]):
                    position, example = self._position(of), self._example(of)
                    if is_dense(example) and example.dim() == 2 and position is not None:
                        rows, columns = example.shape
                        shown = ast.unparse(sizes), ast.unparse(strides)
                        same = shown == (f"({columns}, {rows})", f"(1, {columns})")
                        found = [position] if same else None
        plain = all(position in self._given.weights for position in found or ())
        return [] if found is None or not plain else found

    def _product(self, linear: Linear) -> _Product | None:
        """A linear with rows, weights and result; None if one of them is not known."""
        rows, parts = self._matrix(linear.rows), self._parts(linear)
        weights = [self._given.inputs[position] for position in parts]
        if rows is None or not weights:
            return None
        if not all(is_dense(w) and w.dim() == 2 and w.shape[1] == rows.columns for w in weights):
            return None
        columns = sum(int(weight.shape[0]) for weight in weights)
        return _Product(linear, rows, parts, Matrix(rows.rows, columns, columns))

    # --- branches ---------------------------------------------------------------------------------

    def _branch(self, product: _Product, otherwise: ast.stmt) -> list[ast.stmt]:
        """Statements that call the kernel if there are few rows; none if it is never faster."""
        linear, rows = product.linear, product.rows
        most = self._limits.most_rows(product)
        number = ast.parse(rows.rows, mode="eval").body
        fixed = isinstance(number, ast.Constant)
        least = self._variables.of(number).least
        if least is None or least > most or most == 0 or (fixed and linear.packed):
            return []
        if not self._is_combined(product):
            return []
        few = ast.parse("\n".join(self._few(product))).body
        if fixed:
            return few
        test = ast.parse(f"{rows.rows} <= {most}", mode="eval").body
        return [ast.If(test, few, [otherwise])]

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

    def _few(self, product: _Product) -> Iterator[str]:
        """Write the call of the kernel for each of the weights."""
        linear, rows, made = product.linear, product.rows, product.made
        name, columns = linear.made, made.columns
        if linear.packed:
            shape = f"({made.rows}, {columns}), ({columns}, 1)"
            yield f"{name} = empty_strided_cpu({shape}, torch.float32)"
        bias = name if linear.bias is None else ast.unparse(linear.bias)
        other = name if linear.other is None else ast.unparse(linear.other)
        first = 0
        for position in product.parts:
            count = int(self._given.inputs[position].shape[0])
            tensors = f"{ast.unparse(linear.rows)}, {self._weight(position)}, {bias}, {other}"
            sizes = f"{made.rows}, {count}, {rows.columns}, {rows.stride}, {columns}"
            yield f"{KERNEL}({tensors}, {name}, {sizes}, {first}, {linear.what})"
            first += count

    def _weight(self, position: int) -> str:
        """The name of a weight, which becomes an argument if it is none."""
        if position in self._kept:
            return self._variables.arguments[self._kept.index(position)]
        if position not in self._added:
            self._added[position] = self._names.new("few")
        return self._added[position]
