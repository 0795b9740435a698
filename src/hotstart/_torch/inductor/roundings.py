"""Keep the rounding that model code asks for when it converts numbers to narrower ones.

Inductor's kernels compute bfloat16 and float16 operators in float32, and round when they write to
memory. So `x.bfloat16().float()` is `x` within a kernel, and a number too large for float16 does
not become infinite. Model code converts in order to round; conversions by operators and autocast
are left to Inductor.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx

from hotstart._torch.in_between import in_between, replaced, with_entries

_NARROW = frozenset({torch.bfloat16, torch.float16})

_CONVERSIONS = frozenset(
    {
        *("to", "type", "type_as", "half", "bfloat16", "float", "double", "int", "long", "short"),
        *("char", "byte", "bool", "copy_", "setitem", "_to_copy", "convert_element_type", "copy"),
    }
)
"""Names of operators that only convert."""


_STEPS = (
    "round",
    "floor",
    "ceil",
    "trunc",
    "frac",
    "remainder",
    "fmod",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
)
"""Operators whose results may differ much for neighbouring narrow numbers."""


@contextlib.contextmanager
def roundings_kept() -> Iterator[None]:
    """Compile such that conversions from and to narrow numbers round where model code has them."""
    with (
        warnings.catch_warnings(),
        _chains_of_conversions_kept(),
        _conversions_lowered(),
        _steps_lowered(),
        _conversions_written(),
    ):
        # Inductor warns of kernels that have both dtypes (2.11 to 2.15), as chains of conversions
        # do.
        warnings.filterwarnings("ignore", "bf16 and fp16 are mixed")
        yield


@contextlib.contextmanager
def _chains_of_conversions_kept() -> Iterator[None]:
    """Merge two conversions only if the first one is exact.

    A pass over the joint graph (`pointless_convert`, 2.11 to 2.15) merges any two to floats of
    which the second is not wider than the first.
    """
    from torch._inductor.fx_passes import joint_graph

    target = torch.ops.prims.convert_element_type.default
    entries = [
        entry
        for entry in joint_graph.patterns.patterns[("call_function", target)]
        if getattr(entry, "handler", None) is joint_graph.pointless_convert
    ]
    merge: Callable[..., None] = joint_graph.pointless_convert

    def unless_lossy(match: Any, arg: fx.Node, dtype1: torch.dtype, dtype2: torch.dtype) -> None:
        value = arg.meta.get("val")
        if isinstance(value, torch.Tensor) and _holds_all(dtype1, value.dtype):
            merge(match, arg, dtype1, dtype2)

    with contextlib.ExitStack() as stack:
        for entry in entries:
            stack.enter_context(replaced(entry, "handler", unless_lossy))
        yield


def _holds_all(dtype: torch.dtype, other: torch.dtype) -> bool:
    """Tell whether a dtype of floating-point numbers has all numbers that another one has."""
    if not (dtype.is_floating_point and other.is_floating_point):
        return False
    wide, narrow = torch.finfo(dtype), torch.finfo(other)
    return wide.eps <= narrow.eps and wide.max >= narrow.max and wide.tiny <= narrow.tiny


def _conversions_lowered() -> contextlib.AbstractContextManager[None]:
    """Lower conversions in model code to a rounding and its inverse.

    `use_compute_types` (2.11 to 2.15) tells code generation to convert to the dtype itself.
    """
    from torch._inductor.lowering import lowerings, make_pointwise
    from torch._inductor.virtualized import V, ops

    target = torch.ops.prims.convert_element_type.default
    lower = lowerings[target]

    def convert(x: Any, dtype: torch.dtype) -> Any:
        before = x.get_dtype()
        plain = before is dtype or before.is_complex or dtype.is_complex
        if plain or not ({before, dtype} & _NARROW and _is_asked_for(V.graph.current_node)):
            return lower(x, dtype)

        def rounded(value: Any) -> Any:
            held = before
            for narrow in (one for one in (before, dtype) if one in _NARROW):
                value = ops.to_dtype(value, narrow, src_dtype=held, use_compute_types=False)
                held = narrow
            return ops.to_dtype(value, torch.float32 if dtype is held else dtype, src_dtype=held)

        return make_pointwise(rounded, override_return_dtype=dtype)(x)

    return with_entries(lowerings, {target: convert})


def _steps_lowered() -> contextlib.AbstractContextManager[None]:
    """Round narrow numbers before an operator that takes a step between two of them.

    Where eager rounds to a half, what lies beside it is the other whole number.
    """
    from torch._inductor.ir import TensorBox
    from torch._inductor.lowering import lowerings

    def of_rounded(lower: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            given = [_rounded(arg) if isinstance(arg, TensorBox) else arg for arg in args]
            return lower(*given, **kwargs)

        return step

    packets = [getattr(torch.ops.aten, name) for name in _STEPS]
    targets = [getattr(packet, name) for packet in packets for name in packet.overloads()]
    return with_entries(lowerings, {t: of_rounded(lowerings[t]) for t in targets if t in lowerings})


def _rounded(x: Any) -> Any:
    """The value that a kernel would read after writing it."""
    from torch._inductor.lowering import make_pointwise
    from torch._inductor.virtualized import ops

    dtype = x.get_dtype()
    if dtype not in _NARROW:
        return x

    def rounded(value: Any) -> Any:
        narrow = ops.to_dtype(value, dtype, src_dtype=dtype, use_compute_types=False)
        return ops.to_dtype(narrow, torch.float32, src_dtype=dtype)

    return make_pointwise(rounded, override_return_dtype=dtype)(x)


def _is_asked_for(node: fx.Node) -> bool:
    """Tell whether a conversion is in the model's own code.

    `from_node` (2.11 to 2.15) has the nodes that one was made of, that of Dynamo's graph first.
    """
    sources = node.meta.get("from_node") or ()
    return any(_short(source.target) in _CONVERSIONS for source in sources[:1])


def _short(target: str) -> str:
    """The name in the text of a target: a method, an operator of torch's, a builtin function."""
    written = re.fullmatch(r"<(?:built-in )?(?:function|method) (\w+).*>", target)
    if written:
        return written[1]
    namespace, _, name = target.partition(".")
    return name.partition(".")[0] if namespace in ("aten", "prims") else target


@contextlib.contextmanager
def _conversions_written() -> Iterator[None]:
    """Write C++ for roundings that Inductor cannot mistake for another conversion.

    What `CppOverrides.to_dtype` and `CppVecOverrides.to_dtype` (2.11 to 2.15) convert to narrow
    numbers, they note as the inverse of converting those back.
    """
    from torch._inductor.codegen.cpp import CppOverrides, CppVecOverrides
    from torch._inductor.virtualized import V

    def to_dtype(
        write: Callable[..., Any],
        x: Any,
        dtype: torch.dtype,
        src_dtype: torch.dtype | None = None,
        use_compute_types: bool = True,
    ) -> Any:
        if use_compute_types or dtype not in _NARROW or x.dtype is dtype:
            return write(x, dtype, src_dtype, use_compute_types)
        # Code generation takes expressions of equal text for one.
        text = f"{V.kernel.get_to_dtype_expr(x, dtype, x.dtype)} /* rounded */"
        made = V.kernel.cse.generate(V.kernel.compute, text)
        made.update_on_args("to_dtype", (x, dtype), {"src_dtype": src_dtype})
        return made

    with (
        in_between(CppOverrides, "to_dtype", to_dtype),
        in_between(CppVecOverrides, "to_dtype", to_dtype),
    ):
        yield
