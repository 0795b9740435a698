"""Read generated Python (names, assignments, calls), and write it again."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from hotstart._torch.graphs.operator_types import OpOverload
from hotstart.native.operators import NotNative

_OPERATOR = re.compile(r"torch\.ops\.[\w.]+")


def made_body(
    number: int, held: Sequence[str], written: Sequence[str], name: str = "call"
) -> ast.stmt:
    """The statement that makes a bound body, which writes to some of what it is bound to."""
    arguments = [str(number), *held]
    if written:
        arguments.append(f"written=({', '.join(written)},)")
    return ast.parse(f"{name} = native({', '.join(arguments)})").body[0]


def source_of(module: ast.Module) -> str:
    """Write a module without the imports, functions and short names that it no longer uses.

    `torch` and views of weights, where still used, come from the scope that it runs in.
    """
    body = list(module.body)
    for statement in reversed(module.body):
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)]):
                names = [name]
            case ast.Import(names=imported) | ast.ImportFrom(names=imported):
                names = [alias.asname or alias.name for alias in imported]
            case ast.FunctionDef(name=name) if not name.startswith("bind"):
                names = [name]
            case _:
                continue
        others = [other for other in body if other is not statement]
        used = {name for other in others for name in names_in(other, ast.Load)}
        if not used & set(names) or names == ["reinterpret_tensor"]:
            body.remove(statement)
    return ast.unparse(ast.fix_missing_locations(ast.Module(body, []))) + "\n"


def functions(body: Iterable[ast.stmt]) -> list[ast.FunctionDef]:
    """List the functions among statements."""
    return [statement for statement in body if isinstance(statement, ast.FunctionDef)]


def aliases(body: Iterable[ast.stmt]) -> dict[str, str]:
    """The short names that a module defines, such as `view = torch.ops.aten.view.default`."""
    found = {}
    for statement in body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Attribute() as path):
                if _OPERATOR.fullmatch(ast.unparse(path)):
                    found[name] = ast.unparse(path)
    return found


def defined(bind: ast.FunctionDef) -> list[str]:
    """The names that a function that binds defines, its parameters included."""
    names = [argument.arg for argument in bind.args.args]
    for statement in bind.body:
        if not isinstance(statement, ast.FunctionDef):
            names += stored(statement)
    return names


def names_in(statement: ast.AST, context: type[ast.expr_context]) -> list[str]:
    """List the names that a statement has in some context."""
    return [
        node.id
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, context)
    ]


def stored(statement: ast.AST) -> list[str]:
    """List the names that a statement assigns."""
    return names_in(statement, ast.Store)


def mentioned(statement: ast.AST) -> list[str]:
    """List the names that a statement mentions in any way."""
    return names_in(statement, ast.expr_context)


def unpacked(bind: ast.FunctionDef, source: str) -> list[str]:
    """The names that `bind` unpacks one of its parameters into."""
    for statement in bind.body:
        match statement:
            case ast.Assign(targets=[ast.Tuple() as names], value=ast.Name(id=name)):
                if name == source:
                    return stored(names)
    return []


def assigned(bind: ast.FunctionDef, name: str) -> ast.expr:
    """Find what a name is assigned.

    Raises:
        NotNative: nothing.
    """
    for statement in bind.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=found)], value=value) if found == name:
                return value
    raise NotNative(f"C++ has no value for {name}")


def called_with_args(value: ast.expr | None) -> str:
    """The name of the function in `function(args)`; empty for other expressions."""
    match value:
        case ast.Call(func=ast.Name(id=name), args=[ast.Name(id="args")]):
            return name
    return ""


def reads_number(value: ast.expr) -> bool:
    """Tell whether an expression reads a data-dependent number: see `stitching/data_numbers`.

    Such a number is a size of a tensor, or what `item` gives as an integer.
    """
    match value:
        case ast.Call(func=ast.Attribute(attr="size")) | ast.Call(func=ast.Name(id="int")):
            return True
    return False


def keywords_of(call: ast.Call) -> dict[str, ast.expr]:
    """The arguments of a call by name; one whose name Python has is in a dict: `**{"from": x}`."""
    found: dict[str, ast.expr] = {}
    for each in call.keywords:
        match each:
            case ast.keyword(arg=str(name)):
                found[name] = each.value
            case ast.keyword(value=ast.Dict(keys=keys, values=values)):
                for key, value in zip(keys, values, strict=True):
                    found[ast.literal_eval(key) if key is not None else ""] = value
            case _:
                raise NotNative("its arguments are not written out")
    return found


def operator_at(path: str, call: ast.Call) -> OpOverload | None:
    """Find the operator that code calls.

    That is by `torch.ops.aten.mm.default`, by `torch.mm` with `out=`, or by `torch.convolution`.
    """
    parts = path.split(".")
    found: Any = torch
    if parts[0] != "torch":
        return None
    if parts[1:2] == ["ops"]:
        for part in parts[1:]:
            found = getattr(found, part, None)
        return found if isinstance(found, OpOverload) else None
    if len(parts) == 2 and any(each.arg == "out" for each in call.keywords):
        packet = getattr(torch.ops.aten, parts[1], None)
        found = getattr(packet, "out", None)
        return found if isinstance(found, OpOverload) else None
    return torch.ops.aten.convolution.default if path == "torch.convolution" else None
