"""Map the arguments of a call to parameters, and back. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hotstart.records.contract import Parameter

MISSING = object()
"""Stands for a missing argument without a default."""


def bind_arguments(
    parameters: Sequence[Parameter], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[list[Any], list[Any], dict[str, Any]]:
    """The value of every parameter, positional arguments beyond them, and unknown keyword ones.

    Raises:
        TypeError: a parameter is given twice.
    """
    left, unknown = list(args), dict(kwargs)
    values: list[Any] = []
    variadic = False
    for p in parameters:
        if p.kind == "var_positional":
            values.append(tuple(left))
            left, variadic = [], True
        elif p.kind != "keyword" and left:
            if p.name in unknown and p.kind != "positional_only":
                raise TypeError(f"call() got multiple values for argument {p.name!r}")  # as Python
            values.append(left.pop(0))
        elif p.kind != "positional_only" and p.name in unknown:
            values.append(unknown.pop(p.name))
        else:
            values.append(p.default if p.has_default else MISSING)
    return values, [] if variadic else left, unknown


def as_passed(
    parameters: Sequence[Parameter],
    values: Sequence[Any],
    excess: Sequence[Any],
    unknown: Mapping[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments with which the model itself is called for a call that was bound."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    by_position = {"positional_only"}
    if excess or any(p.kind == "var_positional" for p in parameters):
        by_position.add("positional")
    for parameter, value in zip(parameters, values, strict=True):
        if value is MISSING:
            by_position.clear()  # further ones would take its place
        elif parameter.kind == "var_positional":
            args += value
        elif parameter.kind in by_position:
            args.append(value)
        elif not (parameter.has_default and value is parameter.default):
            kwargs[parameter.name] = value
    return (*args, *excess), {**kwargs, **unknown}
