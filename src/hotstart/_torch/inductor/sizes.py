"""Keep torch from deciding by sizes where that is needless, and notice at once where it does."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from hotstart._torch.graphs.source_lines import line_being_compiled
from hotstart._torch.graphs.symbols import Condition, Symbols, guard_source
from hotstart._torch.in_between import in_between, replaced, with_entries
from hotstart._torch.inductor.exact import (
    indices_from_zero,
    operators_called_whole,
    products_left_out,
)

if TYPE_CHECKING:
    import sympy

BATCHES = (1, 15, 16)
"""Batch sizes on either side of every bound by which a convolution picks its CPU backend."""


class Narrowing(Exception):
    """A compile assumed something that does not hold for every size that it is for.

    Attributes:
        condition: what it assumed, over the symbols of its shape environment.
    """

    def __init__(self, condition: Condition) -> None:
        self.condition = condition


class _AsksForSize(Exception):
    """A lowering is about to make a constant of a size."""


@contextlib.contextmanager
def watched(
    symbols: Symbols, holds: Callable[[sympy.Basic], bool]
) -> Iterator[dict[Any, Callable[..., Any]]]:
    """Stop a compile at the first guard that narrows it, and run operators as they are instead.

    Many lowerings of Inductor (2.11 to 2.15: adaptive pooling, nearest upsampling, and others that
    call `sizevars.guard_int`) put a size into the code they generate, so that every size needs a
    compile of its own. Such an operator is called whole instead, as Inductor does with those it has
    no lowering for (`fallback_handler`). A decomposition that asks if one size divides another
    leaves its operator as it is. So are `operators_called_whole`. Guards are noticed in
    `ShapeEnv.evaluate_expr`, which all of them go through; `uninteresting_files` are those that no
    guard is said to come from. Bounds of a slice are compared with what it is taken from by
    `SizeVarAllocator.guard_or_false`, which knows ranges of sizes; without size assumptions an
    answer that they do not give is none, and the lowering fails.

    Args:
        symbols: the shape environment of the compile.
        holds: tells if a condition holds for every size that the compile is for.

    Yields:
        The decompositions to compile with.

    Raises:
        Narrowing: with the first condition that does not.
    """
    from torch._inductor.decomposition import select_decomp_table
    from torch._inductor.graph import GraphLowering
    from torch._inductor.lowering import lowerings
    from torch._inductor.sizevars import SizeVarAllocator
    from torch.fx.experimental.symbolic_shapes import uninteresting_files

    uninteresting_files().add(__file__)
    watch = _Watch(symbols, holds)
    whole = operators_called_whole()
    lower: Any = GraphLowering.call_function

    def call_function(graph: Any, target: Any, args: Any, kwargs: Any) -> Any:
        if target in whole:
            return _called_whole(target)(*args, **kwargs)
        if _is_of_numbers(target, args):
            return target(*args)  # lowerings take symbols for granted, such as that of remainders
        lowering = lowerings.get(target)
        if target is torch.ops.aten.slice.Tensor:
            with in_between(SizeVarAllocator, "guard_or_false", watch.known):
                return lower(graph, target, args, kwargs)
        if lowering is None or not _can_be_whole(target):
            return lower(graph, target, args, kwargs)
        asking = watch.unless_asked(_value_asked_for, lowering, _called_whole(target))
        with with_entries(lowerings, {target: asking}):
            return lower(graph, target, args, kwargs)

    known = select_decomp_table()
    decompositions = {
        target: watch.unless_asked(_remainder_asked_for, decompose, lambda *_, **__: NotImplemented)
        if target in lowerings and _can_be_whole(target)
        else decompose
        for target, decompose in {
            **known,
            **indices_from_zero(known),
            **products_left_out(known),
        }.items()
        if target not in whole
    }
    with (
        replaced(symbols.env, "evaluate_expr", watch.evaluate),
        replaced(GraphLowering, "call_function", call_function),
    ):
        try:
            yield decompositions
        except Exception:
            if watch.narrowing is not None:
                raise watch.narrowing from None  # torch wraps what is raised while it compiles
            raise


_Question = Callable[[Symbols, "sympy.Basic"], "sympy.Basic | None"]
"""Finds the assumption, of one kind, that evaluating an expression would make."""


class _Watch:
    """Evaluates expressions for a compile, and notices what it assumes of sizes.

    Attributes:
        narrowing: the first condition that does not hold for every size; None if there is none.
    """

    def __init__(self, symbols: Symbols, holds: Callable[[sympy.Basic], bool]) -> None:
        self._symbols = symbols
        self._holds = holds
        self._env: Any = symbols.env
        self._evaluate = self._env.evaluate_expr
        self._question: _Question | None = None
        self.narrowing: Narrowing | None = None

    def evaluate(self, expr: sympy.Basic, *args: Any, **kwargs: Any) -> Any:
        """Evaluate as the shape environment does.

        Raises:
            Narrowing: a guard came of it that does not hold for every size.
            _AsksForSize: what asks can be done otherwise.
        """
        assumed = None if self._question is None else self._question(self._symbols, expr)
        if assumed is not None and not self._holds(assumed):
            raise _AsksForSize
        known = len(self._env.guards)
        result = self._evaluate(expr, *args, **kwargs)
        for guard in self._env.guards[known:]:
            if self.narrowing is None and not self._holds(guard.expr):
                line = line_being_compiled() or guard_source(guard)
                self.narrowing = Narrowing(Condition(guard.expr, line))
        if self.narrowing is not None:
            raise self.narrowing
        return result

    def known(self, decide: Callable[..., bool], sizevars: Any, expr: Any) -> bool:
        """Tell whether a condition holds for every size, by ranges or else by trying them."""
        return decide(sizevars, expr) or (not isinstance(expr, bool) and self._holds(expr))

    def unless_asked(self, question: _Question, first: Any, otherwise: Any) -> Callable[..., Any]:
        """Return a function that does something else where the first asks for a size."""

        def call(*args: Any, **kwargs: Any) -> Any:
            outer, self._question = self._question, question
            try:
                return first(*args, **kwargs)
            except _AsksForSize:
                self._question = outer
                return otherwise(*args, **kwargs)
            finally:
                self._question = outer

        return call


def _is_of_numbers(target: Any, args: Any) -> bool:
    """Tell whether a node computes with plain integers, as sizes are that have one value left."""
    module = getattr(target, "__module__", "")
    return module == "_operator" and bool(args) and all(type(each) is int for each in args)


def _called_whole(target: Any) -> Callable[..., Any]:
    """A lowering that calls an operator as it is."""
    from torch._inductor.lowering import fallback_handler

    made: Callable[..., Any] = fallback_handler(target, add_to_fallback_set=False)
    return made


def _value_asked_for(symbols: Symbols, expr: sympy.Basic) -> sympy.Basic | None:
    """The equation that makes a constant of a size, if evaluating `expr` comes to that.

    Sizes 0 and 1 are left out: they are special to operators, whatever runs them.
    """
    import sympy

    value = symbols.at_hints(expr)
    if value is None:
        return None
    if value.is_Integer:
        return sympy.Eq(expr, value) if value > 1 else None
    equal = isinstance(expr, sympy.Eq) and value == sympy.true
    numbers = [side for side in expr.args if side.is_Integer and side > 1] if equal else []
    return expr if numbers else None


def _remainder_asked_for(symbols: Symbols, expr: sympy.Basic) -> sympy.Basic | None:
    """The assumption about a remainder that evaluating `expr` makes; None if it makes none."""
    import sympy
    from torch.utils._sympy.functions import Mod, PythonMod

    value = symbols.at_hints(expr) if expr.has(Mod, PythonMod, sympy.Mod) else None
    if value not in (sympy.true, sympy.false):
        return None
    return expr if value == sympy.true else sympy.Not(expr)


def _can_be_whole(target: Any) -> bool:
    """Tell whether an operator makes its results anew, from tensors that it leaves as they are."""
    return (
        isinstance(target, torch._ops.OpOverload)
        and not target._schema.is_mutable
        and not any(one.alias_info for one in (*target._schema.arguments, *target._schema.returns))
    )


@contextlib.contextmanager
def convolutions_of_any_batch() -> Iterator[None]:
    """Decide about a convolution's memory format without a guard on its batch size.

    The fake implementation of convolutions (2.11 to 2.15) asks `torch._C._select_conv_backend` and
    `torch._C._conv_determine_backend_memory_format` for the strides of the result. The first picks
    an algorithm by `batch < 16` among other things, and the second compares the batch with 1 to no
    effect. Both are asked for batches of known size instead, and again as they were where those
    differ in the format, since then the batch does decide.
    """
    private: Any = torch._C
    select, determine = private._select_conv_backend, private._conv_determine_backend_memory_format

    def backend(*args: Any, **kwargs: Any) -> Any:
        named = "input" in kwargs
        given, weight = (kwargs["input"], kwargs["weight"]) if named else args[:2]

        def select_for(shown: Any) -> Any:
            if named:
                return select(*args, **{**kwargs, "input": shown})
            return select(shown, *args[1:], **kwargs)

        if _has_a_batch(given, weight):
            found = [(shown, select_for(shown)) for shown in _batches(given)]
            if len({_format(determine, shown, weight, one) for shown, one in found}) == 1:
                return found[0][1]
        return select_for(given)

    def memory_format(given: Any, weight: Any, chosen: Any) -> Any:
        if _has_a_batch(given, weight):
            formats = [determine(shown, weight, chosen) for shown in _batches(given)]
            if len(set(formats)) == 1:
                return formats[0]
        return determine(given, weight, chosen)

    with (
        replaced(private, "_select_conv_backend", backend),
        replaced(private, "_conv_determine_backend_memory_format", memory_format),
    ):
        yield


def _has_a_batch(given: Any, weight: torch.Tensor) -> bool:
    """Tell whether an input of a convolution has a symbolic batch size, and elements."""
    return (
        given.ndim == weight.ndim
        and isinstance(given.shape[0], torch.SymInt)
        and given.device.type == "cpu"
        and bool(given.numel() != 0)  # a convolution of nothing has a backend of its own
    )


def _batches(given: torch.Tensor) -> list[torch.Tensor]:
    return [
        torch.empty_strided(
            (batch, *given.shape[1:]), given.stride(), dtype=given.dtype, device=given.device
        )
        for batch in BATCHES
    ]


def _format(determine: Any, given: torch.Tensor, weight: torch.Tensor, chosen: Any) -> Any:
    if weight.ndim == 3:  # as the fake implementation does before it asks
        given, weight = given.contiguous().unsqueeze(2), weight.unsqueeze(2)
    return determine(given, weight, chosen)


def decompositions_of_any_size() -> contextlib.AbstractContextManager[None]:
    """Compute shapes of what `unbind` and complex `mean` give, whatever is known of sizes.

    The decomposition of `unbind` (2.11 to 2.15) squeezes parts of a split, whose sizes may be
    symbols that are not known to be 1, and then keep a dimension. That of `mean` makes a complex
    number of how many there are, which is then a constant.
    """
    from torch._decomp import decomposition_table

    aten = torch.ops.aten

    def unbind(given: torch.Tensor, dim: int = 0) -> tuple[torch.Tensor, ...]:
        return tuple(given.select(dim, at) for at in range(given.shape[dim]))

    def with_complex(mean: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def of_any_size(
            given: torch.Tensor, *settings: Any, dtype: torch.dtype | None = None
        ) -> torch.Tensor:
            if not (dtype or given.dtype).is_complex:
                return mean(given, *settings, dtype=dtype)
            total = given.sum(*settings, dtype=dtype)
            each = given.numel() // torch.sym_max(total.numel(), 1)
            return total / torch.scalar_tensor(each, dtype=torch.int64)

        return of_any_size

    means = (aten.mean.default, aten.mean.dim)
    entries = {mean: with_complex(decomposition_table[mean]) for mean in means}
    return with_entries(decomposition_table, {aten.unbind.int: unbind, **entries})


def strides_by_expansion() -> contextlib.AbstractContextManager[None]:
    """Find strides of an index by expanding it, not by `sympy.simplify`.

    Inductor's C++ backend asks for the stride of each index in each loop, and
    `_inductor.sizevars` (2.13 to 2.15) takes the difference of two indices and calls
    `sympy.simplify`, which takes half a second where sizes are quotients of symbols. Divisions and
    remainders are opaque to sympy, so a difference without them is a polynomial, and is constant
    exactly if it is so when expanded.
    """
    import types

    import sympy
    from torch._inductor import sizevars

    names: Any = types.ModuleType("sympy")
    vars(names).update(vars(sympy))
    names.simplify = simplified
    return replaced(sizevars, "sympy", names)


def simplified(expr: sympy.Expr) -> sympy.Expr:
    """A sum of products, where an index is made of those; else what sympy makes of it."""
    import sympy
    from torch.utils._sympy.functions import FloorDiv, ModularIndexing

    opaque: dict[sympy.Basic, sympy.Dummy] = {}

    def plain(part: sympy.Basic) -> sympy.Basic | None:
        """A part of a polynomial, with a symbol for every quotient and remainder."""
        if part.is_Symbol or part.is_Integer:
            return part
        if isinstance(part, FloorDiv | ModularIndexing):
            return opaque.setdefault(part, sympy.Dummy(integer=True))
        if part.is_Add or part.is_Mul or (part.is_Pow and part.exp.is_Integer and part.exp > 0):
            args = [plain(arg) for arg in part.args]
            return None if None in args else part.func(*args)
        return None

    polynomial = plain(sympy.sympify(expr))
    if polynomial is None:
        return sympy.simplify(expr)
    return sympy.expand(polynomial).xreplace({symbol: part for part, symbol in opaque.items()})
