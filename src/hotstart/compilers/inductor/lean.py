"""Reduce the module Inductor generates to one function that needs torch and nothing else.

The generated module imports parts of Inductor to compile its kernels and to benchmark itself. A
call runs one method; that is kept with everything it refers to, and the rest is dropped. Weights
are no arguments any more: they, and views of them, are bound once.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass
from typing import TypeGuard

from hotstart._torch.inductor.compile_fx import extern_kernel, helper_source
from hotstart.runtime.code.identifiers import Names

_IMPORTED = frozenset({"torch", "math", "cmath", "ctypes"})
_ONEDNN = "torch.ops.mkldnn."
_ALLOCATED = "empty_strided_cpu"
_CONTIGUOUS = ("mkldnn._linear_pointwise", _ALLOCATED)
_REFUSED = ("torch._inductor", "torch._dynamo", "torch._functorch")


class NotLean(Exception):
    """The generated module needs more than torch; the message says what."""


@dataclass(frozen=True)
class Lean:
    """The source of `bind`, with the names of the kernels and constants that it refers to."""

    source: str
    kernels: tuple[str, ...]
    constants: tuple[str, ...]


def reduce(
    source: str,
    kernels: Collection[str],
    constants: Collection[str],
    outputs: int,
    weights: Collection[int] = (),
    written: Collection[int] = (),
) -> Lean:
    """Keep the function that a call runs, inside one that binds its weights.

    Its checks of arguments are left out: the entry has checked shapes and strides.

    Args:
        source: the generated module.
        kernels: names of its compiled kernels.
        constants: names of its tensor constants.
        outputs: how many of the returned values to keep.
        weights: positions of the arguments that are weights.
        written: positions of those that the function writes to. Kernels write without raising a
            tensor's version, so the function raises it: then anything prepared from the tensor is
            prepared again.

    Raises:
        NotLean: the function refers to something that only Inductor provides.
    """
    module = ast.parse(source)
    call = _call(module)
    definitions = _definitions(module)
    _ExternKernels().visit(call)
    _keep_outputs(call, outputs)
    _count_writes(call, written)
    bind = _bound(call, weights)
    kept, used = _needed(bind, definitions, {*kernels, *constants})
    ordered = [s for s in module.body if any(s is k for k in kept)]
    imports = [s for s in ordered if isinstance(s, ast.Import | ast.ImportFrom)]
    others = [s for s in ordered if not isinstance(s, ast.Import | ast.ImportFrom)]
    lean = ast.Module(body=[*imports, *others, bind], type_ignores=[])
    text = ast.unparse(ast.fix_missing_locations(lean)) + "\n"
    used_kernels = tuple(name for name in kernels if name in used)
    return Lean(text, used_kernels, tuple(name for name in used if name in constants))


def _needed(
    bind: ast.FunctionDef, definitions: Mapping[str, ast.stmt], given: Set[str]
) -> tuple[list[ast.stmt], list[str]]:
    """Find the definitions that a function leads to, and the given names that they mention.

    Raises:
        NotLean: a name is neither defined nor given, nor Python's.
    """
    kept: dict[str, ast.stmt] = {}
    used: dict[str, None] = {}
    pending = _free_names(bind)
    while pending:
        name = pending.pop()
        if name in kept or name in used:
            continue
        if name in given:
            used[name] = None
        elif name in definitions:
            kept[name] = _ExternKernels().visit(definitions[name])
            pending |= _free_names(kept[name])
        elif not hasattr(builtins, name):
            raise NotLean(f"the generated code mentions {name}, which it does not define")
    return list(kept.values()), list(used)


def _call(module: ast.Module) -> ast.FunctionDef:
    """Find the function that a call runs: a method of `Runner`, or a plain function."""
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
            case ast.ImportFrom(names=names):
                for alias in names:
                    if source := helper_source(alias.name):
                        found[alias.name] = ast.parse(source).body[0]
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
        elif isinstance(node, ast.FunctionDef):
            stored.add(node.name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith(_REFUSED):
            raise NotLean(f"the generated code calls {ast.unparse(node)}")
    return loaded - stored


class _ExternKernels(ast.NodeTransformer):
    """Replaces `extern_kernels.mm` by `torch.mm`, the same function."""

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.value, ast.Name) and node.value.id == "extern_kernels":
            path = extern_kernel(node.attr)
            if path is None:
                raise NotLean(f"the generated code calls extern_kernels.{node.attr}")
            return ast.parse(path, mode="eval").body
        return node


def _keep_outputs(call: ast.FunctionDef, outputs: int) -> None:
    """Return only the module's own outputs, which come before those that torch added."""
    for node in ast.walk(call):
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
            node.value.elts = node.value.elts[:outputs]


def _count_writes(call: ast.FunctionDef, written: Collection[int]) -> None:
    """Make a call raise the version of the tensors that it writes to."""
    unpacked, arguments = _unpacking(call)
    names = [arguments[index] for index in sorted(written) if index < len(arguments)]
    if not names:
        return
    listed = f"[t for t in ({', '.join(names)},) if not t.is_inference()]"
    statement = ast.parse(f"torch.autograd.graph.increment_version({listed})").body
    call.body[unpacked + 1 : unpacked + 1] = statement


def _bound(call: ast.FunctionDef, weights: Collection[int]) -> ast.FunctionDef:
    """Wrap `call` in a function that takes the weights and defines `call` without them."""
    _, arguments = _unpacking(call)
    if weights and max(weights) >= len(arguments):
        raise NotLean("the generated code does not take its arguments apart")
    named = [arguments[index] for index in sorted(weights)]
    binder = _Binder(arguments, named, Names(n.id for n in ast.walk(call) if _is_name(n)))
    binder.visit(call)
    if any(_stores(node, named) for node in ast.walk(call)):
        raise NotLean("the generated code assigns to the name of a weight")
    once = [ast.parse(f"{name} = {view}").body[0] for view, name in binder.views.items()]
    (bind,) = ast.parse(f"def bind({', '.join(named)}):\n    return call").body
    assert isinstance(bind, ast.FunctionDef)
    bind.body = [*once, call, *bind.body]
    return bind


def _unpacking(call: ast.FunctionDef) -> tuple[int, list[str]]:
    """Find the number of the statement that takes the arguments apart, and their names."""
    for number, statement in enumerate(call.body):
        match statement:
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Name(id="args")):
                return number, [name.id for name in names if _is_name(name)]
    return 0, []


def _stores(node: ast.AST, names: Collection[str]) -> bool:
    return _is_name(node) and node.id in names and not isinstance(node.ctx, ast.Load)


class _Binder(ast.NodeTransformer):
    """Takes weights out of a function's arguments and leaves out needless checks.

    Checks of arguments are needless, since the entry makes them. So are those of results of
    oneDNN's linears, and of what was allocated as it has to be, which a kernel of hotstart's has
    written to. Checks of other oneDNN results get the
    operator's name, since Inductor writes the address of a Python function, which differs each
    time.

    Attributes:
        views: expressions that depend on a weight alone, with the name each gets.
    """

    def __init__(self, arguments: Collection[str], weights: Collection[str], names: Names) -> None:
        self.views: dict[str, str] = {}
        self._arguments = arguments
        self._weights = weights
        self._names = names
        self._made_by: dict[str, str] = {}  # operators of oneDNN, by the variable of a result

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=function)):
                called = ast.unparse(function)
                self._made_by.pop(name, None)
                if called.startswith(_ONEDNN) or called == _ALLOCATED:
                    self._made_by[name] = called.removeprefix("torch.ops.")
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Name(id=other)):
                if other in self._made_by:
                    self._made_by[name] = self._made_by[other]
            case ast.Assign(targets=[ast.Tuple(elts=names) as target], value=ast.Name(id="args")):
                target.elts = [n for n in names if not self._is_weight(n)]
                return node if target.elts else None
        return self.generic_visit(node)

    def visit_Delete(self, node: ast.Delete) -> ast.AST | None:
        node.targets = [target for target in node.targets if not self._is_weight(target)]
        return node if node.targets else None

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        match node.value:
            case ast.Call(func=ast.Name(id="assert_size_stride"), args=[ast.Name(id=name), *_]) if (
                name in self._arguments
            ):
                return None
            case ast.Call(func=ast.Name(id="assert_size_stride_grouped")):  # of arguments, always
                return None
            case ast.Call(
                func=ast.Name(
                    id="assert_size_stride" | "assert_tensor_metadata" | "assert_alignment" as check
                ),
                args=[ast.Name(id=name), *_, ast.Constant()],
            ) if name in self._made_by:
                if check == "assert_alignment" or self._made_by[name].startswith(_CONTIGUOUS):
                    return None
                node.value.args[-1] = ast.Constant(self._made_by[name])
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        match node:
            case ast.Call(func=ast.Name(id="reinterpret_tensor"), args=[of, *numbers]):
                constant = not any(_is_name(part) for n in numbers for part in ast.walk(n))
                if self._is_weight(of) and constant:
                    return ast.Name(self._view(ast.unparse(node)), ast.Load())
        return node

    def _view(self, expression: str) -> str:
        if expression not in self.views:
            self.views[expression] = self._names.new("view")
        return self.views[expression]

    def _is_weight(self, node: ast.expr) -> bool:
        return _is_name(node) and node.id in self._weights


def _is_name(node: ast.AST) -> TypeGuard[ast.Name]:
    return isinstance(node, ast.Name)
