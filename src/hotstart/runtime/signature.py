"""Arguments of a call by parameter, as the generated entry binds them, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hotstart.records.artifact import Contract, Parameter
from hotstart.records.trees import build, containers
from hotstart.runtime.contract import MISSING


def bind(
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
                raise TypeError(f"got multiple values for argument {p.name!r}")
            values.append(left.pop(0))
        elif p.kind != "positional_only" and p.name in unknown:
            values.append(unknown.pop(p.name))
        else:
            values.append(p.default if p.has_default else MISSING)
    return values, [] if variadic else left, unknown


def passed_objects(contract: Contract, tensors: Sequence[Any]) -> list[Any]:
    """The containers that a program is given of a call with these tensors."""
    values = (build(p.tree, lambda slot: tensors[slot.index]) for p in contract.parameters)
    pairs = zip(contract.parameters, values, strict=True)
    found = [one for p, value in pairs for one in containers(p.tree, value, p.name)]
    return [found[number][-1] for number in contract.objects]


def as_passed(
    parameters: Sequence[Parameter],
    values: Sequence[Any],
    excess: Sequence[Any],
    unknown: Mapping[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments with which the model itself is called for a call that was bound."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    variadic = any(p.kind == "var_positional" for p in parameters)
    for parameter, value in zip(parameters, values, strict=True):
        if value is MISSING:
            continue
        if parameter.kind == "var_positional":
            args += value
        elif parameter.kind == "positional_only" or (
            parameter.kind == "positional" and (variadic or excess)
        ):
            args.append(value)
        elif not (parameter.has_default and value is parameter.default):
            kwargs[parameter.name] = value
    return (*args, *excess), {**kwargs, **unknown}
