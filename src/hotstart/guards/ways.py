"""Translate Dynamo's names into steps that other processes can follow."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from hotstart._torch.dynamo.guards import Read
from hotstart.records.guards import Kind, Step


def ways(read: Read, name: str, key: object) -> Iterator[tuple[str, Kind, tuple[Step, ...]]]:
    """Yield every start of one of Dynamo's names, longest first, with the steps from there.

    A key that was looked up is the last step. Where the rest of a name cannot be written as steps,
    the guard is on everything inside of the object that the steps lead to.

    Args:
        read: what a guard is about.
        name: Dynamo's name, a Python expression.
        key: the key or the attribute that was looked up, if one was.
    """
    try:
        node: ast.expr | None = ast.parse(name, mode="eval").body
    except SyntaxError:
        return
    kind, steps = _looked_up(read, key)
    while node is not None:
        yield ast.unparse(node), kind, steps
        taken = _last_step(node)
        if taken is not None:
            node, step = taken
            steps = (*step, *steps)
        else:
            node, kind, steps = _beginning(node), "inside", ()


def _looked_up(read: Read, key: object) -> tuple[Kind, tuple[Step, ...]]:
    if key is None or read not in ("attribute", "own", "contains"):
        return read, ()
    if not isinstance(key, str | int):
        return "keys", ()
    name = str.__str__(key) if isinstance(key, str) else int(key)  # of a class that is not stored
    return read, (("item" if read == "contains" else "attribute", name),)


def _last_step(node: ast.expr) -> tuple[ast.expr, tuple[Step, ...]] | None:
    """Split the last step off an expression; None if it is no kind of step."""
    match node:
        case ast.Attribute(value=inner, attr=name):
            return inner, (("attribute", name),)
        case ast.Subscript(value=ast.Call(func=ast.Name("list"), args=[inner]), slice=where):
            place = _constant(where)
            return (_keys_of(inner) or inner, (("key", place),)) if place is not None else None
        case ast.Subscript(value=inner, slice=key):
            return _item(inner, key)
        case ast.Call(
            func=ast.Attribute(value=ast.Name("list" | "tuple" | "dict"), attr="__getitem__"),
            args=[inner, key],
        ):
            return _item(inner, key)
        case ast.Call(func=ast.Name("type"), args=[inner]):
            return inner, (("class", ""),)
        case ast.Call(func=ast.Name("dict"), args=[inner]):
            return inner, ()
        case ast.Call(
            func=ast.Name("getattr") | ast.Attribute(attr="__getattribute__"),
            args=[inner, ast.Constant(str() as name)],
        ):
            return inner, (("attribute", name),)
    return None


def _item(inner: ast.expr, key: ast.expr) -> tuple[ast.expr, tuple[Step, ...]] | None:
    match key:
        case ast.Subscript(value=ast.Call(func=ast.Name("list"), args=[held]), slice=where):
            place = _constant(where) if _keys_of(held) is not None else None
            return (inner, (("entry", place),)) if place is not None else None
    name = _constant(key)
    return (inner, (("item", name),)) if name is not None else None


def _keys_of(node: ast.expr) -> ast.expr | None:
    """The argument of a call of `dict.keys`."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name("dict"), attr="keys"), args=[inner]):
            return inner
    return None


def _constant(node: ast.expr) -> str | int | None:
    """A text or a number that stands there."""
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return None
    return value if type(value) in (str, int) else None


def _beginning(node: ast.expr) -> ast.expr | None:
    """Find what an expression that is no step begins with."""
    match node:
        case ast.Call(args=[inner, *_]):
            return inner
        case ast.Call(func=inner) | ast.Subscript(value=inner) | ast.Attribute(value=inner):
            return inner
    return None
