"""Reduce the module Inductor generates to one function that needs torch and nothing else.

The generated module imports parts of Inductor to compile its kernels and to benchmark itself.
What runs in a call is one method; it is kept, with what it mentions, and the rest is dropped.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeGuard

from hotstart import _torch

_IMPORTED = frozenset({"torch", "math", "cmath", "ctypes"})
_REFUSED = ("torch._inductor", "torch._dynamo", "torch._functorch")


class NotLean(Exception):
    """The generated module needs more than torch; the message says what."""


@dataclass(frozen=True)
class Lean:
    """The function that runs, as source, with the kernels and constants it mentions."""

    source: str
    kernels: tuple[str, ...]
    constants: tuple[str, ...]


def reduce(
    source: str,
    kernels: Collection[str],
    constants: Collection[str],
    outputs: int,
    known: Collection[int] = (),
) -> Lean:
    """Keep the function that runs.

    Args:
        source: the generated module.
        kernels: names of its compiled kernels.
        constants: names of its tensor constants.
        outputs: how many of the returned values to keep.
        known: positions of arguments whose shape and strides are known to be right.

    Raises:
        NotLean: the function mentions something that only Inductor provides.
    """
    module = ast.parse(source)
    call = _call(module)
    definitions = _definitions(module)
    kept: dict[str, ast.stmt] = {}
    used_kernels: dict[str, None] = {}
    used_constants: dict[str, None] = {}
    _ExternKernels().visit(call)
    _keep_outputs(call, outputs)
    _drop_checks(call, known)
    pending = _free_names(call)
    while pending:
        name = pending.pop()
        if name in kept or name in used_kernels or name in used_constants:
            continue
        if name in kernels:
            used_kernels[name] = None
        elif name in constants:
            used_constants[name] = None
        elif name in definitions:
            definition = _ExternKernels().visit(definitions[name])
            kept[name] = definition
            pending |= _free_names(definition)
        elif not hasattr(builtins, name):
            raise NotLean(f"the generated code mentions {name}, which it does not define")
    ordered = [s for s in module.body if any(s is k for k in kept.values())]
    imports = [s for s in ordered if isinstance(s, ast.Import | ast.ImportFrom)]
    others = [s for s in ordered if not isinstance(s, ast.Import | ast.ImportFrom)]
    lean = ast.Module(body=[*imports, *others, call], type_ignores=[])
    text = ast.unparse(ast.fix_missing_locations(lean)) + "\n"
    return Lean(text, tuple(k for k in kernels if k in used_kernels), tuple(used_constants))


def _call(module: ast.Module) -> ast.FunctionDef:
    """The function a call runs: a method of `Runner` since 2.8, a plain function otherwise."""
    for statement in module.body:
        if isinstance(statement, ast.ClassDef) and statement.name == "Runner":
            for member in statement.body:
                if isinstance(member, ast.FunctionDef) and member.name == "call":
                    member.args.args = member.args.args[1:]
                    return member
        if isinstance(statement, ast.FunctionDef) and statement.name == "call":
            return statement
    raise NotLean("the generated code defines no call()")


def _definitions(module: ast.Module) -> dict[str, ast.stmt]:
    found: dict[str, ast.stmt] = {}
    for statement in module.body:
        match statement:
            case ast.Import(names=names):
                for alias in names:
                    if alias.name in _IMPORTED and alias.asname is None:
                        found[alias.name] = ast.Import([alias])
            case ast.ImportFrom(module=origin, names=names) if origin in _IMPORTED:
                for alias in names:
                    found[alias.asname or alias.name] = ast.ImportFrom(origin, [alias], 0)
            case ast.Assign(targets=[ast.Name(id=name)]):
                found[name] = statement
            case ast.FunctionDef(name=name):
                found[name] = statement
    # Imports are rebuilt one name at a time, so that only those that are mentioned are kept.
    module.body = [*dict.fromkeys(found.values())]
    return found


def _free_names(tree: ast.AST) -> set[str]:
    loaded: set[str] = set()
    stored: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (loaded if isinstance(node.ctx, ast.Load) else stored).add(node.id)
        elif isinstance(node, ast.arg):
            stored.add(node.arg)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith(_REFUSED):
            raise NotLean(f"the generated code calls {ast.unparse(node)}")
    return loaded - stored


class _ExternKernels(ast.NodeTransformer):
    """Replaces `extern_kernels.mm` by `torch.mm`, which is what it is."""

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.value, ast.Name) and node.value.id == "extern_kernels":
            path = _torch.extern_kernel(node.attr)
            if path is None:
                raise NotLean(f"the generated code calls extern_kernels.{node.attr}")
            return ast.parse(path, mode="eval").body
        return node


def _keep_outputs(call: ast.FunctionDef, outputs: int) -> None:
    """Return the module's own outputs, which come first, and leave out what torch added."""
    for node in ast.walk(call):
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
            node.value.elts = node.value.elts[:outputs]


def _drop_checks(call: ast.FunctionDef, known: Collection[int]) -> None:
    """Leave out the checks of arguments that are known to be right."""
    names: set[str] = set()
    kept: list[ast.stmt] = []
    for statement in call.body:
        match statement:
            case ast.Assign(targets=[ast.Tuple(elts=arguments)], value=ast.Name(id="args")):
                names = {a.id for i, a in enumerate(arguments) if i in known and _is_name(a)}
            case ast.Expr(value=ast.Call(func=ast.Name(id="assert_size_stride"), args=[of, *_])):
                if _is_name(of) and of.id in names:
                    continue
        kept.append(statement)
    call.body = kept


def _is_name(node: ast.expr) -> TypeGuard[ast.Name]:
    return isinstance(node, ast.Name)
