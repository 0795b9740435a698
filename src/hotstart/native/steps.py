"""Write the straight-line Python of units and variants as C++, statement by statement.

Generated Python is a list of steps in a small language: allocations, views, calls of kernels,
operators and pieces, deletions. Any other step has no native form.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from hotstart._torch.graphs.operator_types import OpOverload
from hotstart._torch.native.c_shims import c_constant, is_real, result_kinds
from hotstart.native.operands import (
    Arguments,
    Number,
    Piece,
    Place,
    Several,
    gives_reals,
)
from hotstart.native.operator_arguments import Written
from hotstart.native.operators import NotNative, call_of
from hotstart.native.reading import keywords_of, operator_at
from hotstart.native.values import Values


@dataclass
class Steps(Values):
    """Translates statements in order.

    Attributes:
        shown: names of values that the caller may get.
        written: places that kernels write to without raising the tensor's version.
    """

    shown: frozenset[str] = frozenset()
    written: list[Place] = field(default_factory=list)

    def statement(self, statement: ast.stmt) -> None:
        """Translate a statement that is no `return`.

        Raises:
            NotNative: it has no native form. `lines` has nothing of it then.
        """
        before = len(self.lines)
        held = len(self.held)
        try:
            self._statement(statement)
        except NotNative as error:
            del self.lines[before:], self.held[held:]
            if error.args[0].startswith("`"):
                raise
            raise NotNative(f"`{_first_line(statement)}`: {error}") from None

    def written_names(self) -> list[str]:
        """The bound tensors that are written to without raising their version."""
        roots = [place.root for place in self.written]
        return list(dict.fromkeys(self.held[root.bound] for root in roots if root.held))

    def written_numbers(self) -> list[int]:
        """The numbers of arguments that are written to without raising their version."""
        given = [place.root.given for place in self.written]
        return list(dict.fromkeys(number for number in given if number is not None))

    def results(self, value: ast.expr | None) -> int:
        """Translate the returned tuple of tensors; return its length.

        Raises:
            NotNative: it is something else.
        """
        if not isinstance(value, ast.Tuple):
            raise NotNative("it does not return a tuple")
        places = [self._tensor(each) for each in value.elts]
        for number, place in enumerate(places):
            again = any(place is later for later in places[number + 1 :])
            self.lines.append(f"r[{number}] = {self._handed_over(place, again)};")
        return len(places)

    # --- statements -------------------------------------------------------------------------------

    def _statement(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self._assign(name, value)
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Call() as call):
                names = [each.id for each in targets if isinstance(each, ast.Name)]
                self._call_piece(names, call)
            case ast.Delete(targets=targets):
                for target in targets:
                    if not isinstance(target, ast.Name):
                        raise NotNative("it deletes something other than a variable")
                    self._forget(target.id)
            case ast.Expr(value=ast.Call(func=ast.Name(id=name)) as call) if (
                name in self.around.pieces
            ):
                self._call_piece([], call)
            case ast.Expr(value=ast.Call() as call):
                self._effect(call)
            case ast.If(test=test, body=[ast.Assign(value=ast.Call() as call)], orelse=[]):
                self._fitted(test, call)
            case ast.If(test=test, body=one, orelse=[*other]) if other:
                self._either(test, one, other)
            case _:
                raise NotNative("such a statement has no form in C++")

    def _assign(self, name: str, value: ast.expr) -> None:
        match value:
            case ast.Name(id=other):
                found = self._lookup(other)
                if isinstance(found, Place):
                    found.names += 1
                self._define(name, found)
            case ast.List(elts=items):
                values = [self._argument(item) for item in items]
                for each in values:
                    if isinstance(each, Place):
                        each.names += 1
                self._define(name, Arguments(values))
            case ast.Subscript(value=ast.Name(id=other), slice=ast.Constant(value=int() as number)):
                several = self._lookup(other)
                if not isinstance(several, Several):
                    raise NotNative("it indexes something other than results")
                several.places[number].names += 1
                self._define(name, several.places[number])
            case ast.Call():
                self._define_call(name, value)
            case ast.Subscript(value=ast.Call() as call, slice=ast.Constant(value=int() as number)):
                made = f"{name} of several"
                self._define_call(made, call)
                self._assign(name, ast.Subscript(ast.Name(made), ast.Constant(number)))
                self._forget(made)
            case _:
                self._define(name, Number(self._new_number(self.number(value))))

    def _define_call(self, name: str, call: ast.Call) -> None:
        function = ast.unparse(call.func)
        match function, call.args:
            case "empty_strided_cpu", [sizes, strides, dtype]:
                shape = f"{self._numbers(sizes)}, {self._numbers(strides)}"
                made = f"empty({shape}, {self._dtype(dtype)})"
                real = is_real(ast.unparse(dtype))
                self._define(name, Place(self._new_tensor(made), names=1, real=real))
            case "reinterpret_tensor", _:
                base, written = self._view(call)
                made = self._new_tensor(written)
                self._define(name, Place(made, names=1, viewed=base, real=base.real))
            case _ if self._as_strided(name, call):
                pass
            case _:
                self._operator(name, call)

    def _dtype(self, value: ast.expr) -> str:
        """Write the number that C functions have for a dtype."""
        code = c_constant("ScalarType", ast.unparse(value))
        if code is None:
            raise NotNative(f"torch's C functions do not have {ast.unparse(value)}")
        self.around.declare(f'extern "C" int32_t {code};')
        return code

    def _as_strided(self, name: str, call: ast.Call) -> bool:
        """Translate `x.detach().as_strided(sizes, strides)`, at the offset of x or from there."""
        match call:
            case ast.Call(
                func=ast.Attribute(
                    value=ast.Call(func=ast.Attribute(value=base, attr="detach"), args=[]),
                    attr="as_strided",
                ),
                args=[sizes, strides, *offset],
            ):
                place = self._tensor(base)
                shape = f"{self._numbers(sizes)}, {self._numbers(strides)}"
                if name in self.shown:  # writes to it count as writes to what it shows
                    at = self.number(offset[0]) if offset else f"offset({place.handle})"
                    made = f"strided({place.handle}, {shape}, {at})"
                else:
                    further = f"{self.number(offset[0])} - offset({place.handle})" if offset else 0
                    made = f"viewed({place.handle}, {shape}, {further})"
                self._define(name, Place(self._new_tensor(made), names=1, viewed=place))
                return True
        return False

    def _call_piece(self, names: Sequence[str], call: ast.Call) -> None:
        match call:
            case ast.Call(func=ast.Name(id=piece), args=[ast.Name(id=listed)]):
                pass
            case _:
                raise NotNative("it takes several results of something other than a piece")
        found, arguments = self._lookup(piece), self.names.get(listed)
        if not isinstance(found, Piece) or not isinstance(arguments, Arguments):
            raise NotNative(f"{piece} is not a piece")
        callee = self.around.pieces[piece]
        if callee.results != len(names):
            raise NotNative(f"{piece} returns {callee.results} tensors")
        numbers = [each.cpp for each in arguments.values if isinstance(each, Number)]
        places = [each for each in arguments.values if isinstance(each, Place)]
        self.written += (places[number] for number in callee.written)
        del self.names[listed]
        for place in places:
            place.names -= 1
        given = [
            f"std::move({place.cpp})"
            if place.names == 0 and not place.held and places.count(place) == 1
            else f"Tensor({place.handle}, false)"
            for place in places
        ]
        made = [Place(self._new_variable("Tensor v"), names=1) for _ in names]
        self.lines += [
            *(f"Tensor {place.cpp};" for place in made),
            "{",
            f"  const int64_t sizes[] = {{{', '.join(numbers) or '0'}}};",
            f"  Tensor given[] = {{{', '.join(given) or 'Tensor()'}}};",
            f"  Tensor made[{max(len(made), 1)}];",
            f"  b.others[{found.place}]->run(sizes, given, made);",
            *(f"  {place.cpp} = std::move(made[{n}]);" for n, place in enumerate(made)),
            "}",
        ]
        twice = {p.cpp: p for p in places if p.names == 0 and not p.held and places.count(p) > 1}
        self.lines += (f"{cpp}.reset();" for cpp in twice)
        for name, place in zip(names, made, strict=True):
            self._define(name, place)

    def _effect(self, call: ast.Call) -> None:
        function = ast.unparse(call.func)
        match function, call.args:
            case "args.clear", []:
                pass
            case "assert_size_stride", [tensor, sizes, strides, *made_by]:
                given = f"{self._numbers(sizes)}, {self._numbers(strides)}, {_text(made_by)}"
                self.lines.append(f"require_layout({self._tensor(tensor).handle}, {given});")
            case "assert_tensor_metadata", [tensor, sizes, strides, dtype, *made_by]:
                handle = self._tensor(tensor).handle
                given = f"{self._numbers(sizes)}, {self._numbers(strides)}, {_text(made_by)}"
                self.lines.append(f"require_layout({handle}, {given});")
                self.lines.append(
                    f"require_dtype({handle}, {self._dtype(dtype)}, {_text(made_by)});"
                )
            case "assert_alignment", [tensor, ast.Constant(value=int() as count), *made_by]:
                handle = self._tensor(tensor).handle
                self.lines.append(f"require_aligned({handle}, {count}, {_text(made_by)});")
            case "torch.autograd.graph.increment_version", [ast.ListComp(generators=[found])]:
                assert isinstance(found.iter, ast.Tuple)
                self.written += map(self._tensor, found.iter.elts)
            case _ if function in self.around.kernels:
                self._kernel(self.around.kernels[function], call.args)
            case _:
                self._operator(None, call)

    def _kernel(self, number: int, args: Sequence[ast.expr]) -> None:
        values = [self._argument(arg) for arg in args]
        types = ", ".join("int64_t" if isinstance(v, Number) else "void*" for v in values)
        given = ", ".join(v.cpp if isinstance(v, Number) else v.pointer for v in values)
        call = f"reinterpret_cast<void (*)({types})>(kernels[{number}])({given});"
        self._with_temporaries([call])

    def _operator(self, name: str | None, call: ast.Call) -> None:
        operator = self._called(call)
        write = Written(
            lambda value: self._argument_tensor(value).handle, self.number, self._is_real
        )
        made = call_of(operator, call.args, keywords_of(call), write)
        self.around.declare(made.declared)
        self.written += map(self._tensor, made.written)
        shown = None if made.shown is None else self._tensor(made.shown)
        places = tuple(
            Place(self._new_variable("Tensor v"), viewed=shown, real=gives_reals(operator))
            for _ in range(made.results)
        )
        lines = [_with_results(line, places) for line in made.lines]
        self.lines += (f"Tensor {place.cpp};" for place in places)
        self._with_temporaries(lines)
        if name is None:
            self.lines += (f"{place.cpp}.reset();" for place in places)
            return
        if not places:
            if shown is None:
                raise NotNative(f"{operator} returns nothing here")
            shown.names += 1
            self._define(name, shown)
            return
        if len(result_kinds(operator)) == 1:
            places[0].names = 1
            self._define(name, places[0])
        else:
            for place in places:
                place.names = 1
            self._define(name, Several(places))

    def _called(self, call: ast.Call) -> OpOverload:
        path = ast.unparse(call.func)
        path = self.around.operators.get(path, path)
        found = operator_at(path, call)
        if found is None:
            raise NotNative(f"{path} is Python, and C++ calls operators of torch.ops only")
        return found

    def _fitted(self, test: ast.expr, call: ast.Call) -> None:
        """Translate `if x.stride() != (...): x = fit(x, (...))`."""
        match test, call.args:
            case ast.Compare(ops=[ast.NotEq()]), [ast.Name(id=name), strides] if (
                ast.unparse(test.left) == f"{name}.stride()"
            ):
                place = self._tensor(ast.Name(name, ast.Load()))
                if place.held:
                    raise NotNative("it lays out a weight")
                self.lines.append(f"fit({place.cpp}, {self._numbers(strides)});")
            case _:
                raise NotNative("it decides something in the call")

    def _either(self, test: ast.expr, one: Sequence[ast.stmt], other: Sequence[ast.stmt]) -> None:
        """Translate a branch on sizes whose sides define the same variable, or none."""
        defined = {_defined(one), _defined(other)}
        if len(defined) != 1 or self._temporary:
            raise NotNative("what it defines depends on sizes")
        (name,) = defined
        if name in self.names or not all(map(_is_simple, (*one, *other))):
            raise NotNative("a choice by sizes does more than to define a variable")
        made = None if name is None else Place(self._new_tensor(""), names=1, real=True)
        for start, side in ((f"if ({self.condition(test)}) {{", one), ("} else {", other)):
            self.lines.append(start)
            before = len(self.lines)
            for statement in side:
                self._statement(statement)
            if made is not None and name is not None:
                self._hand_on(name, made)
            self.lines[before:] = [f"  {line}" for line in self.lines[before:]]
        self.lines.append("}")
        if made is not None and name is not None:
            self._define(name, made)

    def _hand_on(self, name: str, to: Place) -> None:
        """Move the variable that one side of a branch defined to the variable of both."""
        place = self.names.pop(name)
        if not isinstance(place, Place) or place.names != 1 or place.root.given is not None:
            raise NotNative("what it defines is more than a tensor")
        if place.viewed is not None or place.held:
            raise NotNative("what it defines is more than a tensor")
        to.real = to.real and place.real
        self.lines.append(f"{to.cpp} = std::move({place.cpp});")


def _with_results(line: str, places: Sequence[Place]) -> str:
    return re.sub(r"result_(\d+)", lambda found: f"{places[int(found[1])].cpp}.result()", line)


def _text(made_by: Sequence[ast.expr]) -> str:
    match made_by:
        case [ast.Constant(value=str() as text)] if text.isprintable() and '"' not in text:
            return f'"{text}"'
    return '"an operator"'


def _is_simple(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Assign | ast.Expr)


def _defined(statements: Sequence[ast.stmt]) -> str | None:
    """The variable that statements define; None if none.

    Raises:
        NotNative: there are several.
    """
    names = {
        target.id
        for statement in statements
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    if len(names) > 1:
        raise NotNative("it defines several variables")
    return next(iter(names), None)


def _first_line(statement: ast.stmt) -> str:
    return ast.unparse(statement).partition("\n")[0]
