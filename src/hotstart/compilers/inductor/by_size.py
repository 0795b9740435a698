"""Bind the code of a unit to weights in several layouts, with a choice by size in every call."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec.structs import replace

from hotstart._torch.graphs.symbols import axis_symbol
from hotstart._torch.packing.recipes import BySize
from hotstart.compilers.job import Job
from hotstart.records.artifact import CompiledUnit, Preparation
from hotstart.runtime.code.generated import unit_code

if TYPE_CHECKING:
    import sympy

    Instead = tuple[Mapping[int, Preparation], ...]


def with_choice(
    job: Job, unit: CompiledUnit, by_size: BySize, axis: sympy.Symbol, instead: Instead
) -> CompiledUnit:
    """Make a unit that runs with other weights for some sizes.

    Args:
        job: what it serves.
        unit: the unit, bound to the weights of the size that it is tuned for.
        by_size: the choice.
        axis: the axis whose size decides.
        instead: as in `by_size`, as preparations.
    """
    module = ast.parse(unit.source)
    (bind,) = (s for s in module.body if isinstance(s, ast.FunctionDef) and s.name == "bind")
    names = [arg.arg for arg in bind.args.args]
    first = len(unit.kept or ())
    more: list[Preparation] = []
    calls = [f"bound({', '.join(names)})"]
    for other in instead:
        given = list(names)
        for number, preparation in other.items():
            given[first + number] = f"other_{len(more)}"
            more.append(preparation)
        calls.append(f"bound({', '.join(given)})")
    (number,) = (n for n, each in enumerate(job.bounds) if axis_symbol(each) == axis)
    taken = [*names, *(f"other_{n}" for n in range(len(more)))]
    bind.name = "bound"
    others = [statement for statement in module.body if statement is not bind]
    source = [
        *map(ast.unparse, others),
        f"def bind({', '.join(taken)}):",
        *(f"    {line}" for line in ast.unparse(bind).splitlines()),
        f"    bodies = ({', '.join(calls)},)",
        f"    chosen = {by_size.chosen}",
        "    def call(args):",
        f"        return bodies[chosen[args[{number}] - {by_size.low}]](args)",
        "    return call",
    ]
    return replace(
        unit,
        code=unit_code(unit.key, "\n".join(source) + "\n"),
        preparations=(*unit.preparations, *more),
    )
