"""Translate the bodies of a unit to C++; the code that binds them stays Python."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass

from hotstart.native.operands import Callee, Surroundings
from hotstart.native.operators import NotNative
from hotstart.native.program import Program
from hotstart.native.reading import (
    aliases,
    assigned,
    called_with_args,
    defined,
    functions,
    made_body,
    source_of,
)
from hotstart.native.steps import Steps
from hotstart.records.artifact import CompiledUnit


@dataclass(frozen=True)
class NativeUnit:
    """A unit in C++.

    Attributes:
        source: defines `bind` as the unit's code does, given `native`, which makes a bound body.
        callee: what it is called like.
    """

    source: str
    callee: Callee


def translate_unit(program: Program, unit: CompiledUnit, sizes: int) -> NativeUnit:
    """Translate a unit, which is called with so many sizes before its tensors.

    Raises:
        NotNative: a step of it has no native form.
    """
    return _UnitWriter(program, unit, sizes).written()


class _UnitWriter:
    """Translates one unit."""

    def __init__(self, program: Program, unit: CompiledUnit, sizes: int) -> None:
        self._program = program
        self._sizes = sizes
        self._module = ast.parse(unit.source)
        self._kernels = {name: program.kernel_number(kernel) for name, kernel in unit.kernels}
        self._constants = {name for name, _ in unit.constants}
        self._operators = aliases(self._module.body)
        self._callees: list[Callee] = []

    def written(self) -> NativeUnit:
        """Replace the functions of calls by bodies of the program."""
        for function in functions(self._module.body):
            if function.name.startswith(("bind", "bound")):
                self._replace(function)
        if not self._callees:
            raise NotNative("the unit defines no function of calls")
        results = {callee.results for callee in self._callees}
        written = frozenset().union(*(callee.written for callee in self._callees))
        writes_bound = any(callee.writes_bound for callee in self._callees)
        if len(results) != 1:
            raise NotNative("bodies of the unit differ in what they return")
        return NativeUnit(source_of(self._module), Callee(results.pop(), written, writes_bound))

    def _replace(self, bind: ast.FunctionDef) -> None:
        """Replace the inner function `call` of a function that binds."""
        for place, statement in enumerate(bind.body):
            if isinstance(statement, ast.FunctionDef) and statement.name != "call":
                self._replace(statement)
            elif isinstance(statement, ast.FunctionDef):
                bind.body[place] = self._body(statement, bind)

    def _body(self, call: ast.FunctionDef, bind: ast.FunctionDef) -> ast.stmt:
        choice = self._choice(call, bind)
        if choice is not None:
            return choice
        around = Surroundings(
            kernels=self._kernels,
            operators=self._operators,
            bound=frozenset(defined(bind)) | self._constants,
            pieces={},
            declare=self._program.declare,
        )
        steps = Steps(around)
        body = list(call.body)
        tensors = 0
        match body[0]:
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Name(id="args")):
                names = [target.id for target in targets if isinstance(target, ast.Name)]
                tensors = len(names) - self._sizes
                for number, name in enumerate(names[: self._sizes]):
                    steps.given_number(name, f"n[{number}]")
                for number, name in enumerate(names[self._sizes :]):
                    steps.given_tensor(name, f"a[{number}]", number)
                del body[0]
        *others, last = body
        for statement in others:
            steps.statement(statement)
        if not isinstance(last, ast.Return):
            raise NotNative("the unit ends without a result")
        results = steps.results(last.value)
        names = steps.written_names()
        self._callees.append(Callee(results, frozenset(steps.written_numbers()), bool(names)))
        number = self._program.add(steps.lines, (self._sizes, tensors, results))
        return made_body(number, steps.held, names)

    def _choice(self, call: ast.FunctionDef, bind: ast.FunctionDef) -> ast.stmt | None:
        """Translate a function that chooses a body by size; None if it is none."""
        match call.body:
            case [ast.Return(value=ast.IfExp(test=test, body=one, orelse=other))]:
                names = [called_with_args(each) for each in (one, other)]
                chosen = f"{self._steps().condition(_Sizes().visit(test))} ? 0 : 1"
                held = names
            case [
                ast.Return(
                    value=ast.Call(
                        func=ast.Subscript(
                            value=ast.Name(id=bodies),
                            slice=ast.Subscript(value=ast.Name(id=table), slice=index),
                        )
                    )
                )
            ]:
                listed = assigned(bind, table)
                entries = ast.literal_eval(listed)
                number = self._steps().number(_Sizes().visit(index))
                numbers = ", ".join(map(str, entries))
                chosen = f"table[{number}]"
                held = [f"*{bodies}"]
                lines = [f"static const int table[] = {{{numbers}}};"]
                return self._chosen(lines, chosen, held)
            case _:
                return None
        return self._chosen([], chosen, held)

    def _chosen(self, lines: list[str], chosen: str, held: Sequence[str]) -> ast.stmt:
        shape = self._program.shapes[-1]
        number = self._program.add([*lines, f"b.others[{chosen}]->run(n, a, r);"], shape)
        return made_body(number, held, [])

    def _steps(self) -> Steps:
        around = Surroundings({}, {}, frozenset(), {}, self._program.declare)
        steps = Steps(around)
        for number in range(self._sizes):
            steps.given_number(f"size_{number}", f"n[{number}]")
        return steps


class _Sizes(ast.NodeTransformer):
    """Replaces `args[0]` by the name of a size."""

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        match node:
            case ast.Subscript(value=ast.Name(id="args"), slice=ast.Constant(value=number)):
                return ast.Name(f"size_{number!r}", ast.Load())
        return self.generic_visit(node)
