"""Make one unit of two that compute the same, with a choice by size in every call."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import msgspec

from hotstart import _torch
from hotstart.compilers.job import Job
from hotstart.records.artifact import CompiledUnit
from hotstart.runtime.generated import unit_code

if TYPE_CHECKING:
    import sympy


def two_bodies(
    job: Job, one: CompiledUnit, other: CompiledUnit, condition: sympy.Basic
) -> CompiledUnit:
    """Join two units of a job.

    Args:
        job: what they serve.
        one: runs where the condition holds, unless its weights are not to be packed.
        other: runs otherwise.
        condition: over axes.
    """
    first, second = _Body(one, "one"), _Body(other, "other")
    kept = sorted({*first.kept, *second.kept})
    arguments = [*map(_weight, kept), *first.made, *second.made]
    named = {
        _torch.axis_symbol(axis): _torch.axis_symbol(f"args[{number}]")
        for number, axis in enumerate(job.bounds)
    }
    holds = _torch.python_source(condition.xreplace(named))
    source = "\n".join(
        [
            *dict.fromkeys((*first.imports, *second.imports)),
            first.text,
            second.text,
            f"def bind({', '.join(arguments)}):",
            f"    other = {second.call}",
            f"    if any(made is None for made in ({''.join(f'{m}, ' for m in first.made)})):",
            "        return other",
            f"    one = {first.call}",
            "    def call(args):",
            f"        return one(args) if {holds} else other(args)",
            "    return call",
        ]
    )
    return msgspec.structs.replace(
        other,
        code=unit_code(job.key, source + "\n"),
        kernels=(*first.kernels, *second.kernels),
        constants=(*first.constants, *second.constants),
        loose=tuple(sorted({*one.loose, *other.loose})),
        kept=tuple(kept),
        preparations=(*one.preparations, *other.preparations),
    )


class _Body:
    """A unit under other names.

    Attributes:
        imports: its import statements.
        text: the rest of its code.
        kept: weights that it runs with as they are, by number.
        made: names for what its preparations make.
        call: an expression that binds it.
        kernels: as in `CompiledUnit`.
        constants: as in `CompiledUnit`.
    """

    def __init__(self, unit: CompiledUnit, name: str) -> None:
        kernels, constants = dict(unit.kernels), dict(unit.constants)
        names = {each: f"{name}_{each}" for each in (*kernels, *constants)}
        module = ast.parse(unit.source)
        for node in ast.walk(module):
            if isinstance(node, ast.Name):
                node.id = names.get(node.id, node.id)
        (bind,) = (s for s in module.body if isinstance(s, ast.FunctionDef) and s.name == "bind")
        bind.name = f"bind_{name}"
        statements = module.body
        imports = [s for s in statements if isinstance(s, ast.Import | ast.ImportFrom)]
        others = [s for s in statements if s not in imports]
        assert unit.kept is not None  # units that run op by op are none of two
        self.kept = unit.kept
        self.imports = list(map(ast.unparse, imports))
        self.text = "\n".join(map(ast.unparse, others))
        self.made = [f"{name}_{n}" for n in range(len(bind.args.args) - len(self.kept))]
        self.call = f"{bind.name}({', '.join([*map(_weight, self.kept), *self.made])})"
        self.kernels = tuple((names[each], kernel) for each, kernel in kernels.items())
        self.constants = tuple((names[each], value) for each, value in constants.items())


def _weight(number: int) -> str:
    return f"weight_{number}"
