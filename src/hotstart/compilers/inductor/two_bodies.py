"""Make one unit of two that compute the same, with a choice by size in every call."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from hotstart._torch.graphs.symbols import axis_symbol, python_source
from hotstart.compilers.job import Job
from hotstart.partition.tokens import hash_bytes
from hotstart.records.artifact import CompiledUnit, Preparation
from hotstart.runtime.code.generated import code_of, unit_code

if TYPE_CHECKING:
    import sympy

_AS_IT_IS = """def prepare(weight):
    return (None,)


def unpacked(weight):
    return (weight,)
"""


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
    named = {
        axis_symbol(axis): axis_symbol(f"args[{number}]") for number, axis in enumerate(job.bounds)
    }
    holds = python_source(condition.xreplace(named))
    chosen = f"one(args) if {holds} else other(args)"
    first, second = _Body(one, "one"), _Body(other, "other")
    made = [*first.made, *second.made]
    lines = [
        f"    other = {second.call}",
        *_unless_packed(first, "other"),
        f"    one = {first.call}",
        "    def call(args):",
        f"        return {chosen}",
        "    return call",
    ]
    kept = sorted({*first.kept, *second.kept})
    return _joined(first, second, kept, made, (*one.preparations, *other.preparations), lines)


def with_fallback(one: CompiledUnit, other: CompiledUnit) -> CompiledUnit:
    """Join two units of a job, of which the second runs where weights are not to be packed.

    Weights of the second alone come from preparations that make nothing where weights are packed.
    """
    first, second = _Body(one, "one"), _Body(other, "other")
    more = [number for number in second.kept if number not in first.kept]
    preparations = (
        *one.preparations,
        *map(_as_it_is, more),
        *map(_where_unpacked, other.preparations),
    )
    made = [*first.made, *map(_weight, more), *second.made]
    lines = [*_unless_packed(first, second.call), f"    return {first.call}"]
    return _joined(first, second, first.kept, made, preparations, lines)


def _unless_packed(body: _Body, instead: str) -> list[str]:
    """Lines that return the fallback of a body where its weights are not packed."""
    made = "".join(f"{name}, " for name in body.made)
    return [f"    if any(made is None for made in ({made})):", f"        return {instead}"]


def _joined(
    one: _Body,
    other: _Body,
    kept: Sequence[int],
    made: Sequence[str],
    preparations: tuple[Preparation, ...],
    lines: Sequence[str],
) -> CompiledUnit:
    """Make a unit of two bodies, given what it takes and the lines that choose one."""
    source = [
        *dict.fromkeys((*one.imports, *other.imports)),
        one.text,
        other.text,
        f"def bind({', '.join([*map(_weight, kept), *made])}):",
        *lines,
    ]
    key = one.unit.key
    return CompiledUnit(
        key=key,
        code=unit_code(key, "\n".join(source) + "\n"),
        kernels=(*one.kernels, *other.kernels),
        constants=(*one.constants, *other.constants),
        loose=tuple(sorted({*one.unit.loose, *other.unit.loose})),
        kept=tuple(kept),
        preparations=preparations,
    )


def _as_it_is(weight: int) -> Preparation:
    """A preparation that gives a weight as it is, and nothing where weights are packed."""
    return Preparation(code_of("prepare_as_it_is", _AS_IT_IS), (weight,), packs=True)


def _where_unpacked(preparation: Preparation) -> Preparation:
    """A preparation that makes nothing where weights are packed."""
    module = ast.parse(preparation.code.text)
    functions = {s.name: s for s in module.body if isinstance(s, ast.FunctionDef)}
    last = functions.get("unpacked", functions["prepare"])
    (*_, result) = last.body
    assert isinstance(result, ast.Return)
    assert isinstance(result.value, ast.Tuple)
    others = [s for s in module.body if s not in functions.values()]
    last.name = "unpacked"
    (nothing,) = ast.parse(
        f"def prepare(*weights):\n    return {(None,) * len(result.value.elts)}"
    ).body
    source = ast.unparse(ast.Module([*others, nothing, last], [])) + "\n"
    digest = hash_bytes(source.encode())
    return replace(preparation, code=code_of(f"prepare_{digest[:16]}", source), packs=True)


class _Body:
    """A unit under other names.

    Attributes:
        unit: as given.
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
        self.unit = unit
        self.kept = unit.kept
        self.imports = list(map(ast.unparse, imports))
        self.text = "\n".join(map(ast.unparse, others))
        self.made = [f"{name}_{n}" for n in range(len(bind.args.args) - len(self.kept))]
        self.call = f"{bind.name}({', '.join([*map(_weight, self.kept), *self.made])})"
        self.kernels = tuple((names[each], kernel) for each, kernel in kernels.items())
        self.constants = tuple((names[each], value) for each, value in constants.items())


def _weight(number: int) -> str:
    return f"weight_{number}"
