"""Advise what to declare where a condition on sizes does not hold for all that is declared."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from hotstart._torch.graphs.symbols import axis_symbol
from hotstart.partition.conditions import SCANNED, counterexample, where_it_holds
from hotstart.records.dims import DerivedSize
from hotstart.records.shapes import Interval

if TYPE_CHECKING:
    import sympy

LISTED = 4
"""The largest number of places that are listed."""

FACTORS = 64
"""The largest number whose multiples are tried."""


class Domain(NamedTuple):
    """The sizes for which a condition would have to hold.

    Attributes:
        part: the sizes of each axis where it was found.
        declared: all that are declared of each.
        hints: sizes that it does hold for.
    """

    part: Mapping[str, Interval]
    declared: Mapping[str, Interval]
    hints: Mapping[str, int]


def advise_several(condition: sympy.Basic, domain: Domain) -> str:
    """Advise on several axes."""
    import sympy

    axes = " and ".join(map(repr, domain.part))
    if isinstance(condition, sympy.Eq) and all(side.is_Symbol for side in condition.args):
        return f"give {axes} the same Dim: the model needs them equal"
    if derived := _derived(condition):
        axis, size = derived
        return f"declare {axis!r} as {size}, computed of those Dims"
    if multiples := _multiples(condition, domain):
        return f"declare {multiples}"
    return f"declare ranges of {axes} in which it holds throughout"


def advise(axis: str, condition: sympy.Basic, domain: Domain) -> str:
    """Advise on one axis."""
    interval = domain.part[axis]
    parts = _holding(axis, condition, interval)
    if not parts:
        return f"no size in {interval} meets the condition; declare other sizes"
    if steps := _steps(axis, parts, domain) or (len(parts) > 1 and _multiples(condition, domain)):
        return f"declare {steps}"
    if all(part.lo == part.hi for part in parts):
        listed = [part.lo for part in parts[:LISTED]]
        such_as = ", such as" if len(parts) >= LISTED else ":"
        return f"declare the sizes you need one by one{such_as} sizes={listed}, ranges=[]"
    if len(parts) > 1:
        listed_ranges = ", ".join(map(str, parts[:LISTED]))
        return f"it holds for {listed_ranges}, ...; declare one of those, or a call for each"
    (part,) = parts
    left_out = [*range(interval.lo, part.lo)[:3], *range(part.hi + 1, interval.hi + 1)[:3]]
    if len(left_out) <= 2:
        return f"give Dim({axis!r}, ..., sizes={left_out}): a variant of its own for each"
    return f"declare {axis!r} as {part}, or split it there with ranges=[...]"


def advise_leaving_out(axis: str, condition: sympy.Basic, domain: Domain) -> str:
    """Advise on one axis where the model cannot be captured unless the condition holds."""
    parts = _holding(axis, condition, domain.part[axis])
    several = ", ..." if len(parts) >= LISTED else ""
    steps = _steps(axis, parts, domain) or (len(parts) > 1 and _multiples(condition, domain))
    listed = f"{axis!r} as {' or '.join(map(str, parts[:LISTED]))}{several}"
    return (
        f"declare {steps or listed}; for other sizes the model cannot be captured, as the error "
        "that this one comes from says"
    )


def _holding(axis: str, condition: sympy.Basic, interval: Interval) -> list[Interval]:
    scanned = Interval(interval.lo, min(interval.hi, interval.lo + SCANNED))
    return where_it_holds(condition, axis_symbol(axis), scanned)


def _steps(axis: str, parts: Sequence[Interval], domain: Domain) -> str:
    """Write the declaration of sizes that lie equally far apart; empty if they do not."""
    apart = {after.lo - before.lo for before, after in itertools.pairwise(parts)}
    if len(parts) < LISTED - 1 or len(apart) > 1 or any(part.lo != part.hi for part in parts):
        return ""
    (factor,) = apart
    return _multiple(axis, factor, parts[0].lo % factor, domain.declared[axis])


def _multiple(axis: str, factor: int, plus: int, interval: Interval) -> str:
    """Write the declaration of the sizes in an interval that are a number above a multiple."""
    low, high = -(-(interval.lo - plus) // factor), (interval.hi - plus) // factor
    size = f"{factor} * Dim({axis!r}, min={low}, max={high})"
    return f"{axis!r} as {size} + {plus}" if plus else f"{axis!r} as {size}"


def _derived(condition: sympy.Basic) -> tuple[str, DerivedSize] | None:
    """The axis that a condition makes a sum of others, and that sum; None if it makes none."""
    import sympy

    if not isinstance(condition, sympy.Eq):
        return None
    difference = sympy.expand(condition.lhs - condition.rhs)
    terms = difference.as_coefficients_dict()
    if not all(part.is_Symbol or part == 1 for part in terms):
        return None
    for axis, own in terms.items():
        others = {part: -number / own for part, number in terms.items() if part != axis}
        factors = {str(part): number for part, number in others.items() if part != 1}
        whole = all(number.is_integer for number in others.values())
        if axis != 1 and whole and factors and all(number > 0 for number in factors.values()):
            plus = int(others.get(sympy.Integer(1), 0))
            ordered = tuple((name, int(factors[name])) for name in sorted(factors))
            return str(axis), DerivedSize(ordered, plus)
    return None


def _multiples(condition: sympy.Basic, domain: Domain) -> str:
    """Write the declaration of multiples for which a condition holds; empty without any.

    Of one axis if that is enough, else the same of all.
    """
    axes = list(domain.part)
    for chosen in [*([axis] for axis in axes), *([axes] if len(axes) > 1 else [])]:
        if factor := _factor(condition, chosen, domain):
            each = (_multiple(axis, factor, 0, domain.declared[axis]) for axis in chosen)
            return " and ".join(each)
    return ""


def _factor(condition: sympy.Basic, axes: Sequence[str], domain: Domain) -> int | None:
    """The least number for whose multiples of some axes a condition holds; None without any."""
    import sympy

    if not isinstance(condition, sympy.Eq):
        return None
    for factor in range(2, FACTORS + 1):
        if any(domain.hints[axis] % factor for axis in axes):
            continue
        made = {axis_symbol(axis): factor * axis_symbol(axis) for axis in axes}
        within = {axis_symbol(axis): each for axis, each in domain.declared.items()}
        for axis in axes:
            each = domain.declared[axis]
            multiples = Interval(-(-each.lo // factor), each.hi // factor)
            if multiples.lo >= multiples.hi:
                return None
            within[axis_symbol(axis)] = multiples
        if counterexample(condition.xreplace(made), within) is None:
            return factor
    return None
