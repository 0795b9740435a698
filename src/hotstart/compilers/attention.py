"""Have generated code compute attention by a kernel, where torch's is slow.

torch's kernel multiplies by MKL, which does not use AVX-512 on the processors of other makers than
its own. `docs/performance.md` has the measurements.
"""

from __future__ import annotations

import ast
import dataclasses
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hotstart import _torch
from hotstart.compilers.packing import Processor
from hotstart.runtime.names import Names

KERNEL = "attention"
"""The name that generated code has for the kernel."""

LEAST_QUERIES = 32
"""Queries from which on the kernel is faster than torch's."""

_OPERATOR = "torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default"


def pays(processor: Processor) -> bool:
    """Tell whether the kernel is faster than torch's on a processor."""
    return processor.avx512 and not processor.intel


def with_attention(
    inputs: Sequence[Any], output: _torch.InductorOutput, compile_kernel: Callable[[], str]
) -> _torch.InductorOutput:
    """Give Inductor's code a branch for many queries wherever it calls torch's kernel.

    Args:
        inputs: example inputs of the module that was compiled.
        output: what Inductor made of the module.
        compile_kernel: gives the path of the kernel.
    """
    if _OPERATOR not in output.source:
        return output
    module = ast.parse(output.source)
    for function in ast.walk(module):
        if isinstance(function, ast.FunctionDef) and function.name == "call":
            if not _Writer(inputs, output.kept).rewrite(function):
                return output
            return dataclasses.replace(
                output,
                source=ast.unparse(ast.fix_missing_locations(module)),
                kernels={**output.kernels, KERNEL: compile_kernel()},
            )
    return output


@dataclass(frozen=True)
class _Tensor:
    """A tensor in float32 of which the last of four dimensions lies dense.

    Attributes:
        sizes: expressions.
        strides: the same.
    """

    sizes: tuple[str, ...]
    strides: tuple[str, ...]


class _Writer:
    """Writes the branches of a function."""

    def __init__(self, inputs: Sequence[Any], kept: Sequence[int]) -> None:
        self._inputs = inputs
        self._kept = kept
        self._defined: set[str] = set()
        self._real: set[str] = set()  # variables that hold tensors in float32
        self._tensors: dict[str, _Tensor] = {}

    def rewrite(self, call: ast.FunctionDef) -> bool:
        """Write branches into a function; whether there are any."""
        body: list[ast.stmt] = []
        names = Names(node.id for node in ast.walk(call) if isinstance(node, ast.Name))
        wholes: dict[str, str] = {}  # variables of all results, with the one for the first
        for statement in call.body:
            match statement:
                case ast.Assign(targets=[ast.Tuple(elts=listed)], value=ast.Name(id="args")):
                    self._take(listed)
                case ast.Assign(targets=[ast.Name(id=whole)], value=ast.Call() as made) if (
                    ast.unparse(made.func) == _OPERATOR
                    and (branch := self._branch(call, whole, made, name := names.new("attended")))
                ):
                    wholes[whole] = name
                    body += branch
                    continue
                case ast.Assign(value=ast.Subscript(value=ast.Name(id=whole)) as first) if (
                    whole in wholes
                ):
                    statement.value = ast.copy_location(ast.Name(wholes[whole], ast.Load()), first)
                case ast.Delete(targets=targets):
                    statement.targets = [
                        ast.Name(wholes.get(ast.unparse(each), ast.unparse(each)), ast.Del())
                        for each in targets
                    ]
            self._see(statement)
            body.append(statement)
        call.body = body
        return bool(wholes)

    # --- what the code has ------------------------------------------------------------------------

    def _take(self, names: Sequence[ast.expr]) -> None:
        """Take note of arguments."""
        self._defined.update(map(ast.unparse, names))
        for name, position in zip(names, self._kept, strict=False):
            example = self._inputs[position]
            if isinstance(example, torch.Tensor) and example.dtype is torch.float32:
                self._real.add(ast.unparse(name))
                if example.dim() == 4:
                    sizes, strides = (
                        tuple(ast.unparse(ast.parse(str(number))) for number in numbers)
                        for numbers in (example.shape, example.stride())
                    )
                    self._tensors[ast.unparse(name)] = _Tensor(sizes, strides)

    def _see(self, statement: ast.stmt) -> None:
        """Take note of what a statement makes."""
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self._defined.add(name)
                if self._is_real(value):
                    self._real.add(name)
                    if tensor := self._tensor(value):
                        self._tensors[name] = tensor

    def _is_real(self, value: ast.expr) -> bool:
        match value:
            case ast.Name(id=name):
                return name in self._real
            case ast.Call(func=ast.Name(id="empty_strided_cpu"), args=[_, _, dtype]):
                return ast.unparse(dtype) == "torch.float32"
            case ast.Call(func=ast.Name(id="reinterpret_tensor"), args=[of, *_]):
                return self._is_real(of)
            case ast.Call(func=function, args=[of, *_]):
                return ast.unparse(function).startswith(
                    "torch.ops.mkldnn._linear_pointwise."
                ) and self._is_real(of)
        return False

    def _tensor(self, value: ast.expr) -> _Tensor | None:
        match value:
            case ast.Name(id=name):
                return self._tensors.get(name)
            case ast.Call(
                func=ast.Name(id="empty_strided_cpu" | "reinterpret_tensor"),
                args=[*_, ast.Tuple(elts=sizes), ast.Tuple(elts=strides), _],
            ) if self._is_real(value) and len(sizes) == 4:
                return _Tensor(tuple(map(ast.unparse, sizes)), tuple(map(ast.unparse, strides)))
        return None

    # --- branches ---------------------------------------------------------------------------------

    def _branch(
        self, call: ast.FunctionDef, whole: str, made: ast.Call, name: str
    ) -> list[ast.stmt]:
        """Statements that compute the first result as a variable; none if that does not go."""
        given = {each.arg: each.value for each in made.keywords}
        mask, scale = given.pop("attn_mask", None), given.pop("scale", None)
        plain = ast.unparse(ast.Tuple(made.args[3:], ast.Load())) in ("()", "(0.0, False)")
        out = _promised(call, whole)
        tensors = [self._tensor(each) for each in made.args[:3]]
        if given or not plain or out is None or not all(tensors):
            return []
        q, k, v = (tensor for tensor in tensors if tensor)
        if any(each.strides[3] != "1" for each in (q, k, v, out)) or k.sizes != v.sizes:
            return []
        if q.sizes[:2] != k.sizes[:2] or q.sizes[3] != k.sizes[3] or q.sizes != out.sizes:
            return []
        shown = _scores_mask(None if mask is None else self._tensor(mask), q, k)
        factor = _factor(scale, q.sizes[3])
        if (mask is not None and shown is None) or factor is None:
            return []
        batch, heads, queries, dims = q.sizes
        numbers = [batch, heads, queries, k.sizes[2], dims, *q.strides[:3], *k.strides[:3],
                   *v.strides[:3], *(shown or ("0",) * 4), *out.strides[:3], str(factor),
                   str(int(mask is not None))]  # fmt: skip
        mentioned = ast.walk(ast.parse(_tuple((*numbers, *out.sizes, *out.strides))))
        if not {each.id for each in mentioned if isinstance(each, ast.Name)} <= self._defined:
            return []
        taken = [*map(ast.unparse, made.args[:3]), ast.unparse(mask or made.args[0]), name]
        lines = [
            f"{name} = empty_strided_cpu({_tuple(out.sizes)}, {_tuple(out.strides)}, "
            "torch.float32)",
            f"{KERNEL}({', '.join([*taken, *numbers])})",
        ]
        least = {queries: LEAST_QUERIES}
        least.setdefault(k.sizes[2], 1)
        asked = {size: count for size, count in least.items() if not size.isdecimal()}
        if any(int(size) < count for size, count in least.items() if size not in asked):
            return []
        many = ast.parse("\n".join(lines)).body
        if not asked:
            return many
        test = " and ".join(f"{size} >= {count}" for size, count in asked.items())
        (otherwise,) = ast.parse(f"{name} = {ast.unparse(made)}[0]").body
        return [ast.If(ast.parse(test, mode="eval").body, many, [otherwise])]


def _promised(call: ast.FunctionDef, whole: str) -> _Tensor | None:
    """The first of several results as the code promises it; None if it uses another one."""
    first: set[str] = set()
    promised: _Tensor | None = None
    for statement in call.body:
        match statement:
            case ast.Assign(
                targets=[ast.Name(id=name)],
                value=ast.Subscript(value=ast.Name(id=of), slice=ast.Constant(value=0)),
            ) if of == whole:
                first.add(name)
            case ast.Expr(
                value=ast.Call(
                    func=ast.Name(id="assert_size_stride" | "assert_tensor_metadata"),
                    args=[
                        ast.Name(id=name), ast.Tuple(elts=sizes), ast.Tuple(elts=strides), *_
                    ],
                )
            ) if name in first and len(sizes) == 4:  # fmt: skip
                shape = tuple(map(ast.unparse, sizes)), tuple(map(ast.unparse, strides))
                promised = _Tensor(*shape)
    read = [node for node in ast.walk(call) if isinstance(node, ast.Name) and node.id == whole]
    loads = sum(isinstance(node.ctx, ast.Load) for node in read)
    return promised if loads == len(first) else None


def _scores_mask(mask: _Tensor | None, q: _Tensor, k: _Tensor) -> tuple[str, ...] | None:
    """The steps of a mask over scores, 0 where it is spread; None if it does not fit."""
    if mask is None:
        return None
    scores = (*q.sizes[:3], k.sizes[2])
    if any(size not in (wanted, "1") for size, wanted in zip(mask.sizes, scores, strict=True)):
        return None
    steps = zip(mask.sizes, mask.strides, scores, strict=True)
    return tuple("0" if size == "1" != wanted else step for size, step, wanted in steps)


def _factor(scale: ast.expr | None, dims: str) -> int | None:
    """The bits of what scores are multiplied by, in float32; None if that is not known."""
    match scale:
        case None | ast.Constant(value=None) if dims.isdecimal():
            value = 1.0 / math.sqrt(int(dims))
        case ast.Constant(value=float() | int() as value):
            pass
        case _:
            return None
    bits: int = struct.unpack("<i", struct.pack("<f", value))[0]
    return bits


def _tuple(parts: Sequence[str]) -> str:
    return f"({', '.join(parts)},)"
