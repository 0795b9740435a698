"""Write the functions of units and variants as one program in C++, and what binds them in Python.

Binding stays Python's: the code that takes weights and chooses bodies is kept, and where it defined
the function of a call it makes a body of the program with what that function closed over.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from hotstart.native.operators import NotNative
from hotstart.native.steps import Callee, Steps, Surroundings
from hotstart.records.artifact import CompiledUnit, Kernel, Stitched

_OPERATOR = re.compile(r"torch\.ops\.[\w.]+")


@dataclass(frozen=True)
class NativeUnit:
    """A unit in C++.

    Attributes:
        source: defines `bind` as the unit's code does, given `native`, which makes a bound body.
        callee: what it is called like.
    """

    source: str
    callee: Callee


@dataclass
class Program:
    """What is written of a program.

    Attributes:
        kernels: those that it calls, in the order of its table.
        bodies: the functions, in order.
        shapes: of each, how many sizes, tensors and results it has.
    """

    kernels: dict[str, Kernel] = field(default_factory=dict)
    bodies: list[str] = field(default_factory=list)
    shapes: list[tuple[int, int, int]] = field(default_factory=list)
    _declared: dict[str, None] = field(default_factory=dict)
    _units: dict[tuple[str, int], NativeUnit] = field(default_factory=dict)

    def unit(self, unit: CompiledUnit, sizes: int) -> NativeUnit:
        """Translate a unit, which is called with so many sizes before its tensors.

        Raises:
            NotNative: a step of it has no native form.
        """
        key = unit.key, sizes
        if key not in self._units:
            self._units[key] = _UnitWriter(self, unit, sizes).written()
        return self._units[key]

    def variant(
        self, stitched: Stitched, units: Sequence[CompiledUnit], axes: int, tensors: int
    ) -> str:
        """Translate the function of a variant; the Python that binds and calls it.

        Args:
            stitched: the variant.
            units: those that it calls, by position.
            axes: how many of its parameters are sizes.
            tensors: how many of those after them are tensors.

        Raises:
            NotNative: a step of it has no native form.
        """
        return _VariantWriter(self, stitched, units, axes, tensors).written()

    def units(self) -> list[tuple[str, str]]:
        """The units that were translated: their keys, and the code that binds them."""
        return [(key, unit.source) for (key, _), unit in self._units.items()]

    def add(self, lines: Iterable[str], shape: tuple[int, int, int]) -> int:
        """Add a body; its number."""
        number = len(self.bodies)
        head = f"void body_{number}(const Bound& b, const int64_t* n, Tensor* a, Tensor* r) {{"
        self.bodies.append("\n".join([head, *(f"  {line}" for line in lines), "}"]))
        self.shapes.append(shape)
        return number

    def declare(self, line: str) -> None:
        """Note a declaration of a function of torch's."""
        self._declared[line] = None

    def kernel_number(self, kernel: Kernel) -> int:
        """The number of a kernel in the table."""
        self.kernels.setdefault(kernel.name, kernel)
        return list(self.kernels).index(kernel.name)

    def source(self) -> str:
        """The program as one file."""
        shapes = ", ".join(f"{{{sizes}, {args}, {made}}}" for sizes, args, made in self.shapes)
        bodies = ", ".join(f"body_{number}" for number in range(len(self.bodies)))
        return "\n\n".join(
            [
                _text("program.cpp"),
                "\n".join(self._declared),
                "namespace {",
                f"void* kernels[{max(len(self.kernels), 1)}];",
                *self.bodies,
                f"const Body bodies[] = {{{bodies}}};",
                f"const Shape shapes[] = {{{shapes}}};",
                "}  // namespace",
                f"constexpr int kernel_count = {len(self.kernels)}, "
                f"body_count = {len(self.bodies)};",
                _text("module.cpp"),
            ]
        )


def _text(name: str) -> str:
    return (Path(__file__).parent / name).read_text()


class _UnitWriter:
    """Translates one unit."""

    def __init__(self, program: Program, unit: CompiledUnit, sizes: int) -> None:
        self._program = program
        self._sizes = sizes
        self._module = ast.parse(unit.source)
        self._kernels = {name: program.kernel_number(kernel) for name, kernel in unit.kernels}
        self._constants = {name for name, _ in unit.constants}
        self._operators = _aliases(self._module.body)
        self._callees: list[Callee] = []

    def written(self) -> NativeUnit:
        """Replace the functions of calls by bodies of the program."""
        for function in _functions(self._module.body):
            if function.name.startswith(("bind", "bound")):
                self._replace(function)
        if not self._callees:
            raise NotNative("the unit defines no function of calls")
        results = {callee.results for callee in self._callees}
        written = frozenset().union(*(callee.written for callee in self._callees))
        writes_bound = any(callee.writes_bound for callee in self._callees)
        if len(results) != 1:
            raise NotNative("bodies of the unit differ in what they return")
        return NativeUnit(_source(self._module), Callee(results.pop(), written, writes_bound))

    def _replace(self, bind: ast.FunctionDef) -> None:
        """Replace what a function that binds defines as `call`."""
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
            bound=frozenset(_defined(bind)) | self._constants,
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
        return _made(number, steps.held, names)

    def _choice(self, call: ast.FunctionDef, bind: ast.FunctionDef) -> ast.stmt | None:
        """Translate a function that chooses a body by size; None if it is none."""
        match call.body:
            case [ast.Return(value=ast.IfExp(test=test, body=one, orelse=other))]:
                names = [_called_with_args(each) for each in (one, other)]
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
                listed = _assigned(bind, table)
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
        return _made(number, held, [])

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


class _VariantWriter:
    """Translates the function of one variant."""

    def __init__(
        self,
        program: Program,
        stitched: Stitched,
        units: Sequence[CompiledUnit],
        axes: int,
        tensors: int,
    ) -> None:
        self._program = program
        self._module = ast.parse(stitched.source)
        self._axes, self._tensors = axes, tensors
        (self._bind,) = _functions(self._module.body)
        (self._run,) = _functions(self._bind.body)
        self._units = dict(zip(_unpacked(self._bind, "units"), units, strict=True))
        self._pieces = self._find_pieces()
        constants = zip(_unpacked(self._bind, "constants"), stitched.constants, strict=True)
        self._other = {
            *(each.arg for each in self._bind.args.args),
            *_unpacked(self._bind, "owners"),
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
        """Translate statements from one on; where that ended, and why if it was too early."""
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
            operators=_aliases(self._module.body),
            bound=frozenset(_defined(self._bind)) - self._other,
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
        """The names that are mentioned after the last piece, and those that they are assigned."""
        last = max(number for number, each in enumerate(self._run.body) if self._piece_of(each))
        shown = {name for each in self._run.body[last + 1 :] for name in _mentioned(each)}
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
        """The tensors that are still there, as they were passed, when a statement comes."""
        names = [each.arg for each in self._run.args.args]
        changed = {
            name
            for statement in self._run.body[:start]
            for name in (*_names(statement, ast.Store), *_names(statement, ast.Del))
        }
        tensors = names[self._axes : self._axes + self._tensors]
        return [name for name in tensors if name not in changed]

    def _joined(self, steps: Steps, start: int, end: int) -> str:
        """Write `run` anew: what stays Python before, the call, and what stays Python after."""
        run, given = self._run, self._given(start)
        before, after = run.body[:start], run.body[end:]
        inside = {name for each in run.body[start:end] for name in _stored(each)}
        read = dict.fromkeys(name for each in after for name in _mentioned(each))
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
        self._bind.body.insert(place, _made(number, steps.held, steps.written_names(), "body"))
        return _source(self._module)

    def _find_pieces(self) -> dict[str, NativeUnit]:
        """The pieces that are bound, by name, each with its unit, translated."""
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
        for statement in self._run.body:
            match statement:
                case ast.Assign(targets=[ast.Name(id="args")], value=ast.List(elts=items)):
                    listed = sum(isinstance(i, ast.Name) and i.id in axes for i in items)
            name = _called_with_args(getattr(statement, "value", None))
            if name in unit_of:
                sizes[name] = listed
        return {name: self._program.unit(unit, sizes[name]) for name, unit in unit_of.items()}

    def _piece_of(self, statement: ast.stmt) -> bool:
        return _called_with_args(getattr(statement, "value", None)) in self._pieces


# --- reading generated code -------------------------------------------------------------------


def _made(number: int, held: Sequence[str], written: Sequence[str], name: str = "call") -> ast.stmt:
    """The statement that makes a bound body, which writes to some of what it is bound to."""
    arguments = [str(number), *held]
    if written:
        arguments.append(f"written=({', '.join(written)},)")
    return ast.parse(f"{name} = native({', '.join(arguments)})").body[0]


def _with_arguments(lines: Iterable[str], used: Sequence[int]) -> list[str]:
    """Renumber the tensors that a function is given, of which only some are used."""
    places = {number: place for place, number in enumerate(used)}
    unused = re.compile(r"a\[(\d+)\]\.reset\(\);")
    kept = [
        line for line in lines if not (found := unused.fullmatch(line)) or int(found[1]) in places
    ]
    return [re.sub(r"\ba\[(\d+)\]", lambda n: f"a[{places[int(n[1])]}]", line) for line in kept]


def _source(module: ast.Module) -> str:
    """Write a module without the imports and short names that it has no use for any more.

    What is left of `torch` and of views of weights is found in the scope that it runs in.
    """
    body = list(module.body)
    for statement in reversed(module.body):
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)]):
                names = [name]
            case ast.Import(names=imported) | ast.ImportFrom(names=imported):
                names = [alias.asname or alias.name for alias in imported]
            case _:
                continue
        used = {name for other in body if other is not statement for name in _mentioned(other)}
        if not used & set(names) or names == ["reinterpret_tensor"]:
            body.remove(statement)
    return ast.unparse(ast.fix_missing_locations(ast.Module(body, []))) + "\n"


def _functions(body: Iterable[ast.stmt]) -> list[ast.FunctionDef]:
    return [statement for statement in body if isinstance(statement, ast.FunctionDef)]


def _aliases(body: Iterable[ast.stmt]) -> dict[str, str]:
    """What a module calls by a short name: `view = torch.ops.aten.view.default`."""
    found = {}
    for statement in body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Attribute() as path):
                if _OPERATOR.fullmatch(ast.unparse(path)):
                    found[name] = ast.unparse(path)
    return found


def _defined(bind: ast.FunctionDef) -> list[str]:
    """The names that a function that binds defines, its parameters included."""
    names = [argument.arg for argument in bind.args.args]
    for statement in bind.body:
        if not isinstance(statement, ast.FunctionDef):
            names += _stored(statement)
    return names


def _names(statement: ast.AST, context: type[ast.expr_context]) -> list[str]:
    return [
        node.id
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, context)
    ]


def _stored(statement: ast.AST) -> list[str]:
    return _names(statement, ast.Store)


def _mentioned(statement: ast.AST) -> list[str]:
    return _names(statement, ast.expr_context)


def _unpacked(bind: ast.FunctionDef, source: str) -> list[str]:
    """The names that `bind` takes one of its parameters apart into."""
    for statement in bind.body:
        match statement:
            case ast.Assign(targets=[ast.Tuple() as names], value=ast.Name(id=name)):
                if name == source:
                    return _stored(names)
    return []


def _assigned(bind: ast.FunctionDef, name: str) -> ast.expr:
    for statement in bind.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=found)], value=value) if found == name:
                return value
    raise NotNative(f"{name} is unknown")


def _called_with_args(value: ast.expr | None) -> str:
    """The name of the function in `function(args)`; empty for other expressions."""
    match value:
        case ast.Call(func=ast.Name(id=name), args=[ast.Name(id="args")]):
            return name
    return ""
