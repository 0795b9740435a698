"""Leave out what is made of weights and no statement of generated code reads any more."""

from __future__ import annotations

import ast
import dataclasses
import itertools
from collections.abc import Collection, Mapping

from hotstart._torch.inductor.compile_fx import InductorOutput
from hotstart._torch.packing.recipes import BySize, Recipe
from hotstart.compilers.inductor.variables import arguments_of, reads


def without_unread(output: InductorOutput, call: ast.FunctionDef) -> InductorOutput:
    """Leave out results of recipes that a function does not read, and its arguments for them.

    Args:
        output: what belongs to the function; its `source` is left as it is.
        call: the function, which is changed.
    """
    taken = arguments_of(call)
    if taken is None:
        return output
    before, after = taken.elts[: len(output.kept)], taken.elts[len(output.kept) :]
    made = [ast.unparse(name) for name in after]
    call.body = [statement for statement in call.body if not _checks(statement, made)]
    read = [bool(reads(call, name)) for name in made]
    if all(read):
        return output
    taken.elts = [*before, *itertools.compress(after, read)]
    _forget(call, {name for name, one in zip(made, read, strict=True) if not one})
    recipes = []
    flags = iter(read)
    for recipe in output.recipes:
        numbers = [n for n, one in enumerate(itertools.islice(flags, recipe.outputs)) if one]
        if numbers:
            recipes.append(recipe if len(numbers) == recipe.outputs else recipe.only(numbers))
    by_size = None if output.by_size is None else _renumbered(output.by_size, read)
    return dataclasses.replace(output, recipes=tuple(recipes), by_size=by_size)


def _forget(call: ast.FunctionDef, names: Collection[str]) -> None:
    """Leave out the deletion of variables."""
    for statement in call.body:
        if isinstance(statement, ast.Delete):
            statement.targets = [one for one in statement.targets if ast.unparse(one) not in names]
    call.body = [one for one in call.body if not isinstance(one, ast.Delete) or one.targets]


def _checks(statement: ast.stmt, names: Collection[str]) -> bool:
    """Tell whether a statement checks one of these arguments, which callers have checked."""
    match statement:
        case ast.Expr(value=ast.Call(func=ast.Name(id="assert_size_stride"), args=[of, *_])):
            return ast.unparse(of) in names
        case ast.Expr(value=ast.Call(func=ast.Name(id="assert_size_stride_grouped"))):
            return True  # of arguments, always
    return False


def _renumbered(by_size: BySize, read: Collection[bool]) -> BySize:
    """Count the results that are left."""
    new = {old: number for number, old in enumerate(itertools.compress(itertools.count(), read))}

    def each(instead: Mapping[int, Recipe]) -> Mapping[int, Recipe]:
        return {new[number]: recipe for number, recipe in instead.items() if number in new}

    return dataclasses.replace(by_size, instead=tuple(map(each, by_size.instead)))
