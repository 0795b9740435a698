"""Fake tensors, symbols, and expressions over them."""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from hotstart._torch.in_between import in_between, replaced

if TYPE_CHECKING:
    import sympy
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv


def fake_mode(shape_env: ShapeEnv | None = None) -> FakeTensorMode:
    """A mode in which tensors have metadata and no storage."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode(shape_env=shape_env, allow_non_fake_inputs=True)


def is_fake(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor has metadata only, under some fake mode."""
    from torch._subclasses.fake_tensor import FakeTensor

    return isinstance(tensor, FakeTensor)


@contextlib.contextmanager
def failures_unlogged() -> Iterator[None]:
    """Keep torch from logging an error where a call with fake tensors fails, as is expected.

    `torch._subclasses.fake_tensor` (2.11 to 2.15) logs what its operators raise.
    """
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


@dataclass(frozen=True)
class Symbols:
    """A shape environment with one symbol for each axis, bounds known.

    Attributes:
        env: the environment; guards put during a compile are found in it.
        by_name: the symbol that stands for each name.
        hints: the size each name was given as a hint.
    """

    env: ShapeEnv
    by_name: Mapping[str, sympy.Symbol]
    hints: Mapping[str, int]

    def integer(self, expr: sympy.Expr) -> int | torch.SymInt:
        """A size for an expression over this environment's symbols; an int where it is constant."""
        import sympy

        expr = sympy.sympify(expr)
        if expr.is_number:
            return int(expr)
        hint = int(
            expr.xreplace({s: sympy.Integer(self.hints[n]) for n, s in self.by_name.items()})
        )
        return self.env.create_symintnode(expr, hint=hint)

    def at_hints(self, expr: sympy.Basic) -> sympy.Basic | None:
        """The value of an expression at the hints; None if it is constant or of other symbols."""
        import sympy

        if not expr.free_symbols or not expr.free_symbols <= set(self.by_name.values()):
            return None
        return expr.xreplace({s: sympy.Integer(self.hints[n]) for n, s in self.by_name.items()})


def make_symbols(bounds: Mapping[str, tuple[int, int, int]]) -> Symbols:
    """Symbols for names, given (low, high, hint) for each. Sizes 0 and 1 are not assumed away.

    They are named `s_0`, `s_1`, and so on. Inductor's template for FlexAttention on CPU names sizes
    `ks0`, `ks1` by counting, or `k` and the name of a symbol, and replaces one of these names as
    text: `ks1` in `ks13`, or in the `ks1` of another size. torch numbers symbols by a hash
    (`ShapeEnv._generate_unique_id`, 2.11 to 2.15), so both happen.
    """
    from torch._dynamo.source import ConstantSource
    from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StrictMinMaxConstraint
    from torch.utils._sympy.value_ranges import ValueRanges

    env = ShapeEnv()
    named: Any = env
    numbers = itertools.count()
    named._generate_unique_id = lambda source: f"_{next(numbers)}"
    made = {}
    with sizes_that_may_be_zero():
        for name, (low, high, hint) in bounds.items():
            made[name] = env.create_symbol(
                hint,
                ConstantSource(name),
                DimDynamic.DYNAMIC,
                StrictMinMaxConstraint(warn_only=False, vr=ValueRanges(low, high)),
                do_not_specialize_zero_one=True,
            )
    return Symbols(env, made, {name: hint for name, (_, _, hint) in bounds.items()})


@dataclass(frozen=True)
class Condition:
    """Something a trace or a compile assumed about symbols.

    Attributes:
        expr: a boolean expression that was taken to be true.
        source: the line of the model or of torch it came from, as text; may be empty.
    """

    expr: sympy.Basic
    source: str


def conditions(env: ShapeEnv) -> list[Condition]:
    """List everything a shape environment has assumed so far."""
    found = [Condition(guard.expr, guard_source(guard)) for guard in env.guards]
    for asserts in env.deferred_runtime_asserts.values():
        found += [Condition(a.expr, str(a.msg or "")) for a in asserts]
    return found


def assume(env: ShapeEnv, known: Sequence[sympy.Basic]) -> frozenset[sympy.Basic]:
    """Let an environment take conditions for true; what it has assumed after that.

    The conditions hold for the environment's hints.
    """
    for condition in known:
        env.evaluate_expr(condition)
    return frozenset(condition.expr for condition in conditions(env))


def guard_source(guard: Any) -> str:
    """The line of the model that a guard came from, else that of torch, as text; may be empty.

    `ShapeGuard.sloc` (2.11 to 2.15) has both.
    """
    where = getattr(guard, "sloc", None)
    return str(getattr(where, "maybe_user_loc", None) or where or "")


def axis_symbol(name: str) -> sympy.Symbol:
    """The symbol that stands for an axis in expressions that outlive a shape environment."""
    import sympy

    return sympy.Symbol(name, integer=True, nonnegative=True)


def loose_symbol(name: str, like: sympy.Symbol) -> sympy.Symbol:
    """A symbol of a name for a number that may be no size, of the same kind as another symbol."""
    import sympy

    return sympy.Symbol(name, **like.assumptions0)


def substitution(sizes: Mapping[str, int]) -> dict[sympy.Symbol, sympy.Integer]:
    """Map axis symbols to numbers, for axes of known size."""
    import sympy

    return {axis_symbol(axis): sympy.Integer(size) for axis, size in sizes.items()}


def equals(axis: str, size: int) -> sympy.Basic:
    """The condition that an axis has one size."""
    import sympy

    return sympy.Eq(axis_symbol(axis), size)


def are_equal(axis: str, other: str) -> sympy.Basic:
    """The condition that two axes have the same size."""
    import sympy

    return sympy.Eq(axis_symbol(axis), axis_symbol(other))


def differ(sizes: Mapping[str, int]) -> sympy.Basic:
    """The condition that axes do not all have these sizes."""
    import sympy

    return sympy.Not(sympy.And(*(equals(axis, size) for axis, size in sizes.items())))


def holds_at(condition: sympy.Basic | bool, sizes: Mapping[str, int]) -> bool:
    """Tell whether a condition over axis symbols holds for the given sizes."""
    if isinstance(condition, bool):
        return condition
    involved = sorted(condition.free_symbols, key=str)
    return bool(as_function(condition, involved)(*(sizes[str(symbol)] for symbol in involved)))


def about(
    conditions: Sequence[sympy.Basic | bool], axes: Sequence[str], fixed: Mapping[str, int]
) -> tuple[sympy.Basic, ...]:
    """The conditions, taken apart, that some axes have to meet, given the sizes of others.

    An axis that a condition makes equal to one of them counts as that one.
    """
    import sympy

    known = set(map(axis_symbol, axes))
    sizes = substitution(fixed)
    parts = [p.xreplace(sizes) for p in sympy.And.make_args(sympy.And(*conditions))]
    equal = (p.args for p in parts if isinstance(p, sympy.Eq) and all(a.is_Symbol for a in p.args))
    others: dict[sympy.Basic, sympy.Basic] = {}
    for left, right in equal:
        if (left in known) != (right in known):
            others |= {right: left} if left in known else {left: right}
    left_over = (part.xreplace(others) for part in parts)
    return tuple(part for part in left_over if part.free_symbols and part.free_symbols <= known)


def expression(size: int | torch.SymInt | torch.SymFloat | torch.SymBool) -> sympy.Expr:
    """The expression behind a size."""
    import sympy

    node = getattr(size, "node", None)
    return sympy.sympify(size) if node is None else node.expr


def is_of_integers(expr: sympy.Basic) -> bool:
    """Tell whether all that an expression computes are integers and conditions on them."""
    import sympy

    parts = sympy.preorder_traversal(expr)
    return all(part.is_integer for part in parts if isinstance(part, sympy.Expr))


def python_source(expr: sympy.Basic) -> str:
    """A Python expression, over the symbols' names and `math`, that computes `expr`."""
    from torch.utils._sympy.printers import PythonPrinter

    return str(PythonPrinter().doprint(expr)).replace("torch.sym_float(", "float(")


def readable(condition: sympy.Basic) -> str:
    """A condition as people would write it: `0 <= rows - 4` as `rows >= 4`."""
    import sympy

    if not isinstance(condition, sympy.Rel):
        return python_source(condition)
    difference = condition.lhs - condition.rhs
    terms = sympy.Add.make_args(difference)
    subtracted = [term for term in terms if term.could_extract_minus_sign()]
    right = -sympy.Add(*subtracted)
    left = difference + right
    written = condition.func(left, right, evaluate=False)
    return python_source(written.reversed if left.is_number else written)


def expression_text(expr: sympy.Basic) -> str | None:
    """Text that `parse_expression` makes the same expression of; None if there is none."""
    import sympy

    text: str = sympy.srepr(expr)
    try:
        return text if parse_expression(text) == expr else None
    except (NameError, SyntaxError, TypeError):
        return None


def parse_expression(text: str) -> sympy.Basic:
    """The expression of a text, which is executed."""
    import sympy
    from torch.utils._sympy import functions

    expr: sympy.Basic = eval(text, {**vars(sympy), **vars(functions)})
    return expr


def as_function(expr: sympy.Basic, symbols: Sequence[sympy.Symbol]) -> Callable[..., Any]:
    """A plain Python function that computes `expr` for sizes of `symbols`, in that order."""
    names = ", ".join(map(str, symbols))
    function: Callable[..., Any] = eval(f"lambda {names}: {python_source(expr)}", {"math": math})
    return function


def holds_within(
    condition: sympy.Basic, bounds: Mapping[sympy.Symbol, tuple[int, int]]
) -> bool | None:
    """Decide a condition: it holds for all sizes (True), for none (False), or neither (None)."""
    from torch.utils._sympy.value_ranges import ValueRangeError, ValueRanges, bound_sympy

    ranges = {symbol: ValueRanges(low, high) for symbol, (low, high) in bounds.items()}
    try:
        found = bound_sympy(condition, ranges)
    except (AssertionError, ValueRangeError):
        return None  # it trips over some remainders of large numbers, and over negative powers
    return bool(found.lower) if found.is_singleton() else None


def without_size_assumptions() -> contextlib.AbstractContextManager[Any]:
    """Trace without assuming that dynamic sizes are neither 0 nor 1.

    torch specialises backed symbols on 0 and 1 without recording a guard; with
    `backed_size_oblivious` an assumption is made only where code asks, and leaves a guard.
    """
    import torch.fx.experimental._config as config

    patched: contextlib.AbstractContextManager[Any] = config.patch(  # type: ignore[attr-defined]
        backed_size_oblivious=True
    )
    return patched


@contextlib.contextmanager
def sizes_that_may_be_zero() -> Iterator[None]:
    """Make symbols nonnegative, where their range begins at 0, instead of positive.

    `ShapeEnv.create_symbol` (2.11 to 2.15) makes every size a positive symbol, whatever its range.
    sympy then takes `size == 0` for false and `max(size, 1)` for `size`, and no guard says so.
    """
    from torch.fx.experimental import symbolic_shapes

    env: Any = symbolic_shapes.ShapeEnv
    private: Any = symbolic_shapes
    create, make = env.create_symbol, private.make_symbol
    nonnegative = functools.partial(make, nonnegative=True)

    signature = inspect.signature(create)

    def created(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        constraint: Any = given.arguments.get("constraint_dim")
        ranged = isinstance(constraint, symbolic_shapes.StrictMinMaxConstraint)
        if not ranged or constraint.vr.lower > 0:
            return create(*args, **kwargs)
        given.arguments["positive"] = None
        with replaced(private, "make_symbol", nonnegative):
            return create(*given.args, **given.kwargs)

    with replaced(env, "create_symbol", created):
        yield


@contextlib.contextmanager
def bounded_negative_powers() -> Iterator[None]:
    """Let torch find bounds of quotients that it writes as negative powers.

    `SymPyValueRangeAnalysis.pow_by_natural` (2.11 to 2.13) raises ValueRangeError where a number
    of at least 1 has a negative exponent. sympy writes such powers when it takes a common factor
    out of a remainder, as in the remainder of two strides.
    """
    from torch.utils._sympy.value_ranges import SymPyValueRangeAnalysis, ValueRanges

    analysis: Any = SymPyValueRangeAnalysis
    original = vars(analysis)["pow_by_natural"]

    def pow_by_natural(cls: Any, base: Any, exponent: Any) -> Any:
        if ValueRanges.wrap(exponent).upper < 0:
            return ValueRanges.unknown()
        return original.__func__(cls, base, exponent)

    analysis.pow_by_natural = classmethod(pow_by_natural)
    try:
        yield
    finally:
        analysis.pow_by_natural = original


@contextlib.contextmanager
def forgetting_real_tensors() -> Iterator[None]:
    """Leave no weak reference to a tensor that is traced, whether the trace is done or fails.

    A fake mode finds again what it made of a tensor by one (`MetaTensorDescriber`, 2.11 to 2.15),
    and outlives the trace. `Module.to` swaps weights of tensor subclasses, and raises for those
    that have any.
    """
    from torch._subclasses.meta_utils import MetaTensorDescriber

    made: list[Any] = []

    def note(init: Any, self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        made.append(self)

    try:
        with in_between(MetaTensorDescriber, "__init__", note):
            yield
    finally:
        for describer in made:
            describer.lookup_tensor.clear()
