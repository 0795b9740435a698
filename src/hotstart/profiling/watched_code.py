"""Rewrite generated Python so that every kernel, operator and piece that it calls is watched."""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

from hotstart.records.artifact import Blob, Code

Kind = Literal["piece", "kernel", "operator"]

WATCH = "watch_call"
"""The name that rewritten code calls instead: `watch_call(number, function, ...)`."""

_NO_WORK = frozenset(
    {"empty_strided_cpu", "reinterpret_tensor", "assert_size_stride", "assert_alignment", "clear"}
)
"""Functions and methods that allocate, look at memory in another way, or check."""

_NO_WORK_IN_TORCH = frozenset({"torch.device"})


@dataclass(frozen=True)
class Point:
    """A place in generated code where something is called.

    Attributes:
        name: what is called, as the code has it.
        kind: whether that is a piece, a kernel, or an operator of torch.
    """

    name: str
    kind: Kind


def watched_code(
    code: Code,
    function: str,
    kinds: Callable[[str], Kind],
    add: Callable[[Point], int],
) -> Code:
    """Rewrite what a function in generated code calls.

    Args:
        code: defines `bind`, and in it the function.
        function: its name.
        kinds: the kind of what is called by a name.
        add: keeps a place, and gives its number.
    """
    tree = ast.parse(code.text)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    rewrite = _Rewrite(kinds, add, {each.name for each in functions})
    for found in functions:
        if found.name == function:
            found.body = [rewrite.visit(statement) for statement in found.body]
    text = ast.unparse(ast.fix_missing_locations(tree))
    filename = code.filename.replace(".py", ".watched.py")
    return Code(filename, Blob(filename, text.encode()), Blob(""))


class _Rewrite(ast.NodeTransformer):
    def __init__(
        self, kinds: Callable[[str], Kind], add: Callable[[Point], int], defined: set[str]
    ) -> None:
        self._kinds = kinds
        self._defined = defined
        self._add = add

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Rewrite a call, and those that make its arguments on their own."""
        self.generic_visit(node)
        name = ast.unparse(node.func)
        if name in self._defined or _does_no_work(name, node.func):
            return node
        number = self._add(Point(name, self._kinds(name)))
        given = [ast.Constant(number), node.func, *node.args]
        return ast.Call(ast.Name(WATCH, ast.Load()), given, node.keywords)


def _does_no_work(name: str, called: ast.expr) -> bool:
    if not isinstance(called, ast.Name | ast.Attribute):
        return True  # it chooses a function of the code's own, in which calls are rewritten
    last = called.attr if isinstance(called, ast.Attribute) else name
    return last in _NO_WORK or name in _NO_WORK_IN_TORCH


def kinds_among(kernels: Collection[str], pieces: Collection[str]) -> Callable[[str], Kind]:
    """The kinds of what is called, given the names of kernels and of pieces."""

    def kind(name: str) -> Kind:
        return "kernel" if name in kernels else "piece" if name in pieces else "operator"

    return kind
