"""Let generated code call hotstart's kernel of attention where torch's is slow.

torch's kernel multiplies by MKL, which uses AVX-512 on Intel's processors only.
`docs/performance.md` has the measurements.
"""

from __future__ import annotations

import ast
import dataclasses
import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

from hotstart._torch.inductor.compile_fx import InductorOutput
from hotstart._torch.inductor.joined_kernels import AskedKernel
from hotstart.compilers.inductor.packing_rule import Processor
from hotstart.compilers.inductor.variables import FLOAT32, Strided, Variables, reads, strided
from hotstart.runtime.code.identifiers import Names

KERNEL = "attention"
"""The name that generated code has for the kernel."""

LEAST_QUERIES = 16
"""Number of queries from which the kernel is faster than torch's, for any number of keys."""

LEAST_TOKENS = 2
"""Number of tokens from which it is faster in self-attention."""

_OPERATOR = "torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default"


def pays(processor: Processor) -> bool:
    """Tell whether the kernel is faster than torch's on a processor."""
    return processor.vectors == 512 and not processor.intel


def with_attention(
    inputs: Sequence[Any], output: InductorOutput, kernel: Callable[[], AskedKernel]
) -> InductorOutput:
    """Give Inductor's code a branch for many queries wherever it calls torch's kernel.

    Args:
        inputs: example inputs of the module that was compiled.
        output: what Inductor made of the module.
        kernel: writes the kernel.
    """
    if _OPERATOR not in output.source:
        return output
    module = ast.parse(output.source)
    for function in ast.walk(module):
        if isinstance(function, ast.FunctionDef) and function.name == "call":
            if not _Writer(function, Variables(function, output.kept, inputs)).rewrite():
                return output
            return dataclasses.replace(
                output,
                source=ast.unparse(ast.fix_missing_locations(module)),
                kernels={**output.kernels, KERNEL: kernel()},
            )
    return output


class _Writer:
    """Writes the branches of a function."""

    def __init__(self, call: ast.FunctionDef, variables: Variables) -> None:
        self._call = call
        self._variables = variables

    def rewrite(self) -> bool:
        """Write branches into the function; tell whether there are any."""
        body: list[ast.stmt] = []
        names = Names(node.id for node in ast.walk(self._call) if isinstance(node, ast.Name))
        wholes: dict[str, str] = {}  # variables of all results, with the one for the first
        for statement in self._call.body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=whole)], value=ast.Call() as made) if (
                    ast.unparse(made.func) == _OPERATOR
                    and (branch := self._branch(whole, made, name := names.new("attended")))
                ):
                    wholes[whole] = name
                    body += branch
                    for each in branch:
                        self._variables.see(each)
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
            self._variables.see(statement)
            body.append(statement)
        self._call.body = body
        return bool(wholes)

    def _tensor(self, value: ast.expr) -> Strided | None:
        """Find the layout of a float32 tensor of four dimensions; None if it is not known."""
        known = self._variables.of(value)
        if known.dtype != FLOAT32 or known.lies is None or len(known.lies.sizes) != 4:
            return None
        return known.lies

    # --- branches ---------------------------------------------------------------------------------

    def _branch(self, whole: str, made: ast.Call, name: str) -> list[ast.stmt]:
        """Statements that assign the first result; none if the kernel cannot compute it."""
        given = {each.arg: each.value for each in made.keywords}
        mask, scale = given.pop("attn_mask", None), given.pop("scale", None)
        plain = ast.unparse(ast.Tuple(made.args[3:], ast.Load())) in ("()", "(0.0, False)")
        out = _promised(self._call, whole)
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
        if not self._variables.have({one.id for one in mentioned if isinstance(one, ast.Name)}):
            return []
        taken = [*map(ast.unparse, made.args[:3]), ast.unparse(mask or made.args[0]), name]
        lines = [
            f"{name} = empty_strided_cpu({_tuple(out.sizes)}, {_tuple(out.strides)}, "
            "torch.float32)",
            f"{KERNEL}({', '.join([*taken, *numbers])})",
        ]
        keys = k.sizes[2]
        least = {queries: LEAST_TOKENS if queries == keys else LEAST_QUERIES}
        least.setdefault(keys, 1)
        asked = {size: count for size, count in least.items() if not size.isdecimal()}
        if any(int(size) < count for size, count in least.items() if size not in asked):
            return []
        many = ast.parse("\n".join(lines)).body
        if not asked:
            return many
        test = " and ".join(f"{size} >= {count}" for size, count in asked.items())
        (otherwise,) = ast.parse(f"{name} = {ast.unparse(made)}[0]").body
        return [ast.If(ast.parse(test, mode="eval").body, many, [otherwise])]


def _promised(call: ast.FunctionDef, whole: str) -> Strided | None:
    """The layout that the code asserts of the first result; None if it uses other results, too."""
    first: set[str] = set()
    promised: Strided | None = None
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
                    args=[ast.Name(id=name), sizes, strides, *_],
                )
            ) if name in first and (lies := strided(sizes, strides)) and len(lies.sizes) == 4:
                promised = lies
    return promised if reads(call, whole) == len(first) else None


def _scores_mask(mask: Strided | None, q: Strided, k: Strided) -> tuple[str, ...] | None:
    """The steps of a mask over scores, 0 where it is spread; None if it does not fit."""
    if mask is None:
        return None
    scores = (*q.sizes[:3], k.sizes[2])
    if any(size not in (wanted, "1") for size, wanted in zip(mask.sizes, scores, strict=True)):
        return None
    steps = zip(mask.sizes, mask.strides, scores, strict=True)
    return tuple("0" if size == "1" != wanted else step for size, step, wanted in steps)


def _factor(scale: ast.expr | None, dims: str) -> int | None:
    """The factor of the scores as the bits of a float32; None if it is not known."""
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
