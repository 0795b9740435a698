"""Pass the arguments of a call as its parameters take them. Imports no torch."""

from collections.abc import Sequence
from typing import Any

from hotstart.records.contract import Parameter
from hotstart.records.nested import Const, Seq


def passed(
    parameters: Sequence[Parameter], values: Sequence[Any], by_position: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call, given the value of each parameter.

    The first `by_position` are passed by position, as in the example: hooks of the model see the
    difference.
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    # Once *args is filled, everything before it has to be passed by position.
    empty = Seq(tuple, ())
    variadic = any(p.kind == "var_positional" and p.tree != empty for p in parameters)
    for number, (p, value) in enumerate(zip(parameters, values, strict=True)):
        if p.kind == "var_positional":
            args.extend(value)
        elif p.kind == "positional_only" or (
            p.kind == "positional" and (variadic or number < by_position)
        ):
            args.append(value)
        elif not (p.has_default and isinstance(p.tree, Const) and p.tree.value is p.default):
            kwargs[p.name] = value
    return tuple(args), kwargs
