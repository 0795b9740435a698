"""Track the variables of code that Inductor generated: argument, dtype, layout, least size."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

FLOAT32 = "torch.float32"
_LINEARS = "torch.ops.mkldnn._linear_pointwise."


@dataclass(frozen=True)
class Strided:
    """Sizes and strides of a tensor, as expressions of the code.

    Attributes:
        sizes: of each dimension.
        strides: the same.
    """

    sizes: tuple[str, ...]
    strides: tuple[str, ...]


@dataclass(frozen=True)
class Known:
    """The facts known of a value.

    Attributes:
        argument: its number among the arguments of the function, if it is one of them.
        dtype: of a tensor, as the code writes it.
        lies: how a tensor lies in memory.
        least: the least value, of a size.
    """

    argument: int | None = None
    dtype: str | None = None
    lies: Strided | None = None
    least: int | None = None


class Variables:
    """The variables of a function at a statement of it; `see` goes on to the next.

    Args:
        call: the function; its arguments are a list that it takes apart.
        kept: positions of the module's inputs that it takes, in order, before others.
        inputs: example inputs of the module.
        lows: the least that inputs can be which are sizes, by position.

    Attributes:
        arguments: the names that the function gives its arguments.
    """

    def __init__(
        self,
        call: ast.FunctionDef,
        kept: Sequence[int],
        inputs: Sequence[Any],
        lows: Mapping[int, int] | None = None,
    ) -> None:
        taken = arguments_of(call)
        self.arguments = [] if taken is None else [ast.unparse(each) for each in taken.elts]
        self._known = {name: Known(number) for number, name in enumerate(self.arguments)}
        for number, (name, position) in enumerate(zip(self.arguments, kept, strict=False)):
            least = None if lows is None else lows.get(position)
            self._known[name] = _argument(number, inputs[position], least)

    def see(self, statement: ast.stmt) -> None:
        """Go on behind a statement."""
        match statement:
            case ast.Assign(targets=[ast.Tuple()], value=ast.Name(id="args")):
                pass  # the arguments, which are known from the beginning
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self._known[name] = self.of(value)
            case ast.Delete(targets=targets):
                for target in targets:
                    self._known.pop(ast.unparse(target), None)
            case ast.If(body=body, orelse=otherwise):
                self._see_either(body, otherwise)
            case _:
                stored = (node for node in ast.walk(statement) if isinstance(node, ast.Name))
                for node in stored:
                    if isinstance(node.ctx, ast.Store):
                        self._known[node.id] = Known()

    def _see_either(self, *branches: Sequence[ast.stmt]) -> None:
        """Go on behind branches of which one runs; keep the facts that hold after each of them."""
        before, after = self._known, []
        for branch in branches:
            self._known = dict(before)
            for statement in branch:
                self.see(statement)
            after.append(self._known)
        names = set.intersection(*map(set, after))
        self._known = {name: _common([known[name] for known in after]) for name in names}

    def note(self, name: str, known: Known) -> None:
        """Record facts of a variable that are known from elsewhere."""
        self._known[name] = known

    def have(self, names: Collection[str]) -> bool:
        """Tell whether all these variables have a value."""
        return self._known.keys() >= set(names)

    def of(self, value: ast.expr) -> Known:
        """Look up the facts of an expression's value."""
        match value:
            case ast.Name(id=name):
                return self._known.get(name, Known())
            case ast.Constant(value=int() as number):
                return Known(least=number)
            case ast.BinOp(left=left, op=ast.Add() | ast.Mult() as joins, right=right):
                one, other = self.of(left).least, self.of(right).least
                if one is None or other is None:
                    return Known()
                return Known(least=one * other if isinstance(joins, ast.Mult) else one + other)
            case ast.Call(func=ast.Name(id="empty_strided_cpu"), args=[sizes, strides, dtype]):
                return Known(dtype=ast.unparse(dtype), lies=strided(sizes, strides))
            case ast.Call(func=ast.Name(id="reinterpret_tensor"), args=[of, sizes, strides, _]):
                return Known(dtype=self.of(of).dtype, lies=strided(sizes, strides))
            case ast.Call(func=function, args=[rows, *_]):
                if ast.unparse(function).startswith(_LINEARS):
                    return Known(dtype=self.of(rows).dtype)
        return Known()


def arguments_of(call: ast.FunctionDef) -> ast.Tuple | None:
    """The names that a function gives its arguments; None if it takes none."""
    for statement in call.body:
        match statement:
            case ast.Assign(targets=[ast.Tuple() as names], value=ast.Name(id="args")):
                return names
    return None


def strided(sizes: ast.expr, strides: ast.expr) -> Strided | None:
    """Read sizes and strides that are written as tuples; None if they are not."""
    match sizes, strides:
        case ast.Tuple(elts=counts), ast.Tuple(elts=steps):
            return Strided(tuple(map(ast.unparse, counts)), tuple(map(ast.unparse, steps)))
    return None


def reads(call: ast.FunctionDef, name: str) -> int:
    """Count how often a function reads a variable."""
    return sum(
        isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load)
        for node in ast.walk(call)
    )


def _common(known: Sequence[Known]) -> Known:
    """Keep what is known of a value in each of several cases."""
    parts = {field.name: {getattr(one, field.name) for one in known} for field in fields(Known)}
    return Known(**{name: found.pop() for name, found in parts.items() if len(found) == 1})


def _argument(number: int, example: Any, least: int | None) -> Known:
    if not isinstance(example, torch.Tensor):
        return Known(number, least=least)
    sizes, strides = (
        tuple(ast.unparse(ast.parse(str(one), mode="eval")) for one in numbers)
        for numbers in (example.shape, example.stride())
    )
    return Known(number, str(example.dtype), Strided(sizes, strides))
