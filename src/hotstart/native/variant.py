"""Translate the part of a variant's function that calls pieces to C++; the rest stays Python."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Sequence

import torch

from hotstart.native.operands import Surroundings
from hotstart.native.operators import NotNative
from hotstart.native.program import Program
from hotstart.native.reading import (
    aliases,
    called_with_args,
    defined,
    functions,
    made_body,
    mentioned,
    names_in,
    reads_number,
    source_of,
    stored,
    unpacked,
)
from hotstart.native.steps import Steps
from hotstart.native.unit import NativeUnit
from hotstart.records.artifact import CompiledUnit, Stitched

TranslatedUnit = Callable[[CompiledUnit, int], NativeUnit]
"""Translates a unit that is called with so many sizes, once for all variants."""


def translate_variant(
    program: Program,
    stitched: Stitched,
    units: Sequence[CompiledUnit],
    translated: TranslatedUnit,
    axes: int,
    tensors: int,
) -> str:
    """Translate the function of a variant; return the Python that binds and calls it.

    Args:
        program: gets the bodies.
        stitched: the variant.
        units: those that it calls, by position.
        translated: translates a unit.
        axes: how many of its parameters are sizes.
        tensors: how many of those after them are tensors.

    Raises:
        NotNative: a step of it has no native form.
    """
    return _VariantWriter(program, stitched, units, translated, axes, tensors).written()


class _VariantWriter:
    """Translates the function of one variant."""

    def __init__(
        self,
        program: Program,
        stitched: Stitched,
        units: Sequence[CompiledUnit],
        translated: TranslatedUnit,
        axes: int,
        tensors: int,
    ) -> None:
        self._program = program
        self._translated = translated
        self._module = ast.parse(stitched.source)
        self._axes, self._tensors = axes, tensors
        (self._bind,) = functions(self._module.body)
        (self._run,) = functions(self._bind.body)
        self._units = dict(zip(unpacked(self._bind, "units"), units, strict=True))
        self._pieces = self._find_pieces()
        constants = zip(unpacked(self._bind, "constants"), stitched.constants, strict=True)
        self._other = {
            *(each.arg for each in self._bind.args.args),
            *unpacked(self._bind, "owners"),
            *(name for name, value in constants if not isinstance(value, torch.Tensor)),
            *self._pieces,
            *self._units,
        }

    def written(self) -> str:
        """Replace the part of `run` that calls pieces by a call of a body."""
        body = self._run.body
        calls = [number for number, each in enumerate(body) if self._piece_of(each)]
        if not calls:
            raise NotNative("the variant calls no compiled piece")
        start = 0
        while True:
            steps, end, failed = self._translate(start, calls[-1])
            if failed is None:
                return self._joined(steps, start, end)
            if end >= calls[0]:
                raise failed
            start = end + 1  # what comes before any piece may stay Python

    def _translate(self, start: int, last: int) -> tuple[Steps, int, NotNative | None]:
        """Translate statements from a given one; return where that ended, and why if too early."""
        steps = self._steps(start)
        body = self._run.body
        for number in range(start, len(body)):
            if isinstance(body[number], ast.Return):
                return steps, number, None
            try:
                steps.statement(body[number])
            except NotNative as error:
                return steps, number, error if number <= last else None
        raise AssertionError("the function of a variant returns its result")

    def _steps(self, start: int) -> Steps:
        around = Surroundings(
            kernels={},
            operators=aliases(self._module.body),
            bound=frozenset(defined(self._bind)) - self._other,
            pieces={name: unit.callee for name, unit in self._pieces.items()},
            declare=self._program.declare,
        )
        steps = Steps(around, shown=self._shown())
        for number, name in enumerate(self._sizes):
            steps.given_number(name, f"n[{number}]")
        for number, name in enumerate(self._given(start)):
            steps.given_tensor(name, f"a[{number}]", number)
        return steps

    def _shown(self) -> frozenset[str]:
        """The names that code after the last piece uses, and those that are assigned to them."""
        last = max(number for number, each in enumerate(self._run.body) if self._piece_of(each))
        shown = {name for each in self._run.body[last + 1 :] for name in mentioned(each)}
        for statement in reversed(self._run.body):
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Name(id=other)):
                    if name in shown:
                        shown.add(other)
        return frozenset(shown)

    @property
    def _sizes(self) -> list[str]:
        return [each.arg for each in self._run.args.args[: self._axes]]

    def _given(self, start: int) -> list[str]:
        """The arguments that no statement before a given one has deleted or replaced."""
        names = [each.arg for each in self._run.args.args]
        changed = {
            name
            for statement in self._run.body[:start]
            for name in (*names_in(statement, ast.Store), *names_in(statement, ast.Del))
        }
        tensors = names[self._axes : self._axes + self._tensors]
        return [name for name in tensors if name not in changed]

    def _joined(self, steps: Steps, start: int, end: int) -> str:
        """Write `run` as Python before the call of the body, that call, and Python after it."""
        run, given = self._run, self._given(start)
        before, after = run.body[:start], run.body[end:]
        inside = {name for each in run.body[start:end] for name in stored(each)}
        read = dict.fromkeys(name for each in after for name in mentioned(each))
        results = [name for name in read if name in inside]
        last = ast.Return(ast.Tuple([ast.Name(name, ast.Load()) for name in results], ast.Load()))
        steps.results(last.value)
        used = [number for number, name in enumerate(given) if name in steps.read]
        lines = _with_arguments(steps.lines, used)
        number = self._program.add(lines, (self._axes, len(used), len(results)))
        tensors = ", ".join(given[number] for number in used)
        passed = ", ".join(["body.capsule", *self._sizes, f"handles([{tensors}])"])
        call = f"tensors(call({passed}))"
        target = f"({', '.join(results)},) = " if results else ""
        called = ast.parse(f"{target}{call}").body
        written = [given[each] for each in steps.written_numbers()]
        if any(unit.callee.writes_bound for unit in self._pieces.values()) or steps.written_names():
            written.append("*body.written")
        if written:  # also where a later step fails
            raised = ast.parse(f"raise_versions(({', '.join(written)},))").body
            called = [ast.Try(called, [], [], raised)]
        run.body = [*before, *called, *after]
        place = self._bind.body.index(run)
        self._bind.body.insert(place, made_body(number, steps.held, steps.written_names(), "body"))
        return source_of(self._module)

    def _find_pieces(self) -> dict[str, NativeUnit]:
        """Translate the units of the bound pieces, by the pieces' names.

        Raises:
            NotNative: a piece takes a data-dependent number.
        """
        unit_of = {}
        for statement in self._bind.body:
            match statement:
                case ast.Assign(
                    targets=[ast.Name(id=name)], value=ast.Call(func=ast.Name(id=unit))
                ) if unit in self._units:
                    unit_of[name] = self._units[unit]
        sizes: dict[str, int] = {}
        listed = 0
        axes = set(self._sizes)
        of_data: set[str] = set()
        for statement in self._run.body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if reads_number(value):
                    of_data.add(name)
                case ast.Assign(targets=[ast.Name(id="args")], value=ast.List(elts=items)):
                    passed = [i.id for i in items if isinstance(i, ast.Name) and i.id in of_data]
                    if passed:
                        raise NotNative(f"a piece takes {passed[0]}, which depends on data")
                    listed = sum(isinstance(i, ast.Name) and i.id in axes for i in items)
            name = called_with_args(getattr(statement, "value", None))
            if name in unit_of:
                sizes[name] = listed
        return {name: self._translated(unit, sizes[name]) for name, unit in unit_of.items()}

    def _piece_of(self, statement: ast.stmt) -> bool:
        return called_with_args(getattr(statement, "value", None)) in self._pieces


def _with_arguments(lines: Iterable[str], used: Sequence[int]) -> list[str]:
    """Leave out unused arguments of a function, and number the others anew."""
    places = {number: place for place, number in enumerate(used)}
    unused = re.compile(r"a\[(\d+)\]\.reset\(\);")
    kept = [
        line for line in lines if not (found := unused.fullmatch(line)) or int(found[1]) in places
    ]
    return [re.sub(r"\ba\[(\d+)\]", lambda n: f"a[{places[int(n[1])]}]", line) for line in kept]
