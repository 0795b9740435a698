"""Keep Inductor from changing results of operators for some numbers and dtypes.

Most changes do not show with ordinary numbers, such as those that units are compared on.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import fx

from hotstart._torch.in_between import in_between, replaced, with_entries


def operators_called_whole() -> frozenset[Any]:
    """Operators that Inductor's own code does not give the numbers of (2.13; others alike).

    `grid_sampler_2d` makes 0 of a coordinate that is nan, and nan of what lies outside an image
    whose first pixel is nan; `nextafter` finds the neighbours that narrower floats have in float32;
    `acosh` squares its argument, which is infinite for large ones; `remainder` of a number by an
    infinite tensor is made of a product with 0; `round` to decimals does not round the product of
    bfloat16 or float16 with a power of ten, and multiplies by its inverse after that.
    """
    aten = torch.ops.aten
    packets = (aten.grid_sampler_2d, aten.nextafter, aten.acosh)
    overloads = [getattr(packet, name) for packet in packets for name in packet.overloads()]
    return frozenset([*overloads, aten.remainder.Scalar_Tensor, aten.round.decimals])


def products_left_out(table: Mapping[Any, Callable[..., Any]]) -> dict[Any, Callable[..., Any]]:
    """Decomposition of `addmm` that leaves out what is multiplied by 0, as the operator does.

    That of Inductor (2.11 to 2.15) makes nan of `addmm(x, a, b, beta=0)` where `x` holds nan.
    """
    target = torch.ops.aten.addmm.default
    decompose = table.get(target)
    if decompose is None:
        return {}

    def addmm(*args: Any, beta: Any = 1, alpha: Any = 1, **kwargs: Any) -> Any:
        if beta == 0 or alpha == 0:
            return NotImplemented  # the operator itself
        return decompose(*args, beta=beta, alpha=alpha, **kwargs)

    return {target: addmm}


def indices_from_zero(table: Mapping[Any, Callable[..., Any]]) -> dict[Any, Callable[..., Any]]:
    """Decompositions of operators that take no index below 0, as advanced indexing does.

    Those of torch (2.11 to 2.15) make advanced indexing of them, and so does the lowering of
    embeddings in 2.11 and 2.12. A negative index becomes one that is too large, which kernels
    raise.
    """

    def from_zero(index: Any, size: Any) -> Any:
        return torch.where(index < 0, size, index)

    def checked(decompose: Callable[..., Any]) -> Callable[..., Any]:
        def take(x: Any, dim: int, index: Any, *args: Any, **kwargs: Any) -> Any:
            size = x.shape[dim] if x.dim() else 1
            return decompose(x, dim, from_zero(index, size), *args, **kwargs)

        return take

    def embedding(weight: Any, indices: Any, *_: Any, **__: Any) -> Any:
        return weight[from_zero(indices, weight.shape[0])]

    aten = torch.ops.aten
    targets = (aten.index_select.default, aten.index_add.default, aten.index_copy.default)
    found = {target: checked(table[target]) for target in targets if target in table}
    return found if torch.__version__ >= "2.13" else {**found, aten.embedding.default: embedding}


@contextlib.contextmanager
def numbers_of_operators() -> Iterator[None]:
    """Compile such that kernels give the numbers that operators give, in what follows."""
    with (
        products_with_zero(),
        quotients_rounded_down(),
        powers_of_negative_zero(),
        bytes_compared_as_integers(),
        variances_of_one_number(),
        error_functions_of_small_numbers(),
        remainders_without_rounding(),
        functions_of_small_numbers(),
        bytes_of_numbers_that_do_not_fit(),
        results_within_their_memory(),
        decimals_that_round(),
        writes_through_expanded_views(),
    ):
        yield


def products_with_zero() -> contextlib.AbstractContextManager[None]:
    """Let `x * 0` be nan where a floating-point `x` is nan or infinite.

    A pass over the joint graph (`UniformValueConstantFolder._add_peephole_patterns`, 2.13; others
    where they have it) makes zeros of such products, whatever their dtype. `softshrink` multiplies
    by 0 to pass nan on.
    """
    from torch._inductor.fx_passes import joint_graph

    folder: Any = joint_graph.UniformValueConstantFolder
    add = getattr(folder, "_add_peephole_patterns", None)
    if add is None:
        return contextlib.nullcontext()

    def add_integers(self: Any) -> None:
        add(self)
        for node in list(self.node_replacements):
            dtype = node.meta["val"].dtype
            if dtype.is_floating_point or dtype.is_complex:
                del self.node_replacements[node]
                del self.node_replacements_shapes[node]
                del self.constant_data_ptrs[node]

    return replaced(folder, "_add_peephole_patterns", add_integers)


def quotients_rounded_down() -> contextlib.AbstractContextManager[None]:
    """Let floating-point numbers be divided and rounded down by eager's operator.

    That computes the remainder first: `3.0 // 0.1` is 29, as in Python. The lowering (2.11 to 2.15)
    rounds a quotient that was rounded to 30 already.
    """
    from torch._inductor.lowering import fallback_handler, is_integer_type, lowerings

    def unless_floor(target: Any, lower: Any) -> Any:
        whole = fallback_handler(target, add_to_fallback_set=False)

        def divide(a: Any, b: Any, rounding_mode: str | None = None) -> Any:
            exact = is_integer_type(a) and is_integer_type(b)
            divides = lower if exact or rounding_mode != "floor" else whole
            return divides(a, b, rounding_mode=rounding_mode)

        return divide

    aten = torch.ops.aten
    targets = (aten.div.Tensor_mode, aten.div.Scalar_mode)
    return with_entries(lowerings, {t: unless_floor(t, lowerings[t]) for t in targets})


def powers_of_negative_zero() -> contextlib.AbstractContextManager[None]:
    """Let `(-0.0) ** -0.5` be what `rsqrt` makes of it, as in eager: the negative infinity.

    C++ code of the lowering (2.11 to 2.15) calls `pow`, by which it is the positive one.
    """
    from torch._inductor.lowering import is_integer_type, lowerings

    aten = torch.ops.aten
    target, lower = aten.pow.Tensor_Scalar, lowerings[aten.pow.Tensor_Scalar]

    def power(base: Any, exponent: Any) -> Any:
        if exponent == -0.5 and not is_integer_type(base):
            return lowerings[aten.rsqrt.default](base)
        return lower(base, exponent)

    return with_entries(lowerings, {target: power})


_BYTES = (torch.int8, torch.uint8)


def bytes_compared_as_integers() -> contextlib.AbstractContextManager[None]:
    """Let the largest and smallest of rows of int8 and uint8 be found among int32.

    Kernels (2.11 to 2.15) load 16 such numbers into a vector that has room for 32 or 64, and take
    the smallest of all of it, so it is 0 at most; and start with a number that may be in the row,
    so no place is found for it.
    """
    from torch._inductor.ir import TensorBox
    from torch._inductor.lowering import lowerings, to_dtype

    def in_integers(lower: Any) -> Any:
        def compare(x: Any, *args: Any, **kwargs: Any) -> Any:
            dtype = x.get_dtype()
            if dtype not in _BYTES or (args and isinstance(args[0], TensorBox)):
                return lower(x, *args, **kwargs)
            made = lower(to_dtype(x, torch.int32), *args, **kwargs)
            several = isinstance(made, tuple | list)
            found = [
                to_dtype(one, dtype) if one.get_dtype() is torch.int32 else one
                for one in (made if several else [made])
            ]
            return type(made)(found) if several else found[0]

        return compare

    aten = torch.ops.aten
    packets = (aten.amax, aten.amin, aten.argmax, aten.argmin, aten.max, aten.min)
    targets = [getattr(packet, name) for packet in packets for name in packet.overloads()]
    return with_entries(
        lowerings, {t: in_integers(lowerings[t]) for t in targets if t in lowerings}
    )


def variances_of_one_number() -> contextlib.AbstractContextManager[None]:
    """Let the variance of one infinite number, or of nan, be nan.

    `WelfordReduction.create` (2.11 to 2.15) takes 0 for the sum of squared differences from the
    mean of one number, whatever it is.
    """
    from torch._inductor import ir
    from torch._inductor.lowering import lowerings

    def create(make: Any, *args: Any, **kwargs: Any) -> Any:
        made = make(*args, **kwargs)
        given = inspect.signature(make).bind(*args, **kwargs).arguments
        counted = math.prod(given["reduction_ranges"])
        if counted != 1 or given["reduction_type"] != "welford_reduce":
            return made
        mean, _, weight = made
        return mean, lowerings[torch.ops.aten.sub.Tensor](mean, mean), weight

    return in_between(ir.WelfordReduction, "create", create)


def error_functions_of_small_numbers() -> contextlib.AbstractContextManager[None]:
    """Let `erf` of float32 be as close for small numbers as eager's: `erf(1e-7)` is not 0.

    What kernels call for vectors (2.11 to 2.15) is off by 1.5e-7 whatever the result. Where 1 is
    added, as GELU does, that is rounding, and it stays; elsewhere eager's operator is called.
    """
    from torch._inductor.lowering import fallback_handler, lowerings
    from torch._inductor.virtualized import V

    aten = torch.ops.aten
    target, lower = aten.erf.default, lowerings[aten.erf.default]
    whole = fallback_handler(target, add_to_fallback_set=False)

    def erf(x: Any) -> Any:
        users = V.graph.current_node.users
        adds = all(user.target is aten.add.Tensor and 1 in user.args for user in users)
        return lower(x) if adds or x.get_dtype() is torch.float64 else whole(x)

    return with_entries(lowerings, {target: erf})


def remainders_without_rounding() -> contextlib.AbstractContextManager[None]:
    """Let the remainder of floats be exact, as `fmod` is, and less than the divisor.

    Kernels for vectors (`CppVecOverrides.remainder`, 2.11 to 2.15) subtract a rounded product: in
    float32, `299.6 % 1e-3` is off by 1.5e-5, and greater than 1e-3.
    """
    from torch._inductor.codegen.cpp import CppVecOverrides

    def remainder(write: Any, a: Any, b: Any) -> Any:
        if not a.dtype.is_floating_point:
            return write(a, b)
        return (
            "[](auto a, auto b) { const auto zero = decltype(a)(0); "
            "const auto left = a.fmod(b); return decltype(a)::blendv(left, left + b, "
            f"(left != zero) & ((b < zero) ^ (left < zero))); }}({a}, {b})"
        )

    return in_between(CppVecOverrides, "remainder", remainder)


@contextlib.contextmanager
def functions_of_small_numbers() -> Iterator[None]:
    """Let `expm1` and `atanh`, and so `elu` and `selu`, of a small number be as close as eager's.

    Kernels for vectors (`CppVecOverrides`, 2.11 to 2.15) add 1 and take it away, or the like: what
    they make of 1e-8 is 0.
    """
    from torch._inductor.codegen.cpp import CppVecOverrides

    with (
        in_between(CppVecOverrides, "expm1", lambda _, x: f"{x}.expm1()"),
        in_between(CppVecOverrides, "atanh", lambda _, x: f"{x}.atanh()"),
    ):
        yield


def bytes_of_numbers_that_do_not_fit() -> contextlib.AbstractContextManager[None]:
    """Let a float32 beyond int8 become the lowest bits of its whole number, as in eager.

    Kernels for vectors (`CppVecKernel.get_to_dtype_expr`, 2.11 to 2.15) make 127 of 300.
    """
    from torch._inductor.codegen.cpp import CppVecKernel

    def convert(write: Any, self: Any, src: Any, dtype: Any, src_dtype: Any, *more: Any) -> Any:
        written = write(self, src, dtype, src_dtype, *more)
        direct = f"at::vec::convert<int8_t>({src})"
        if src_dtype is not torch.float32 or written != direct:
            return written
        return f"at::vec::convert<int8_t>(at::vec::convert<int32_t>({src}))"

    return in_between(CppVecKernel, "get_to_dtype_expr", convert)


def results_within_their_memory() -> contextlib.AbstractContextManager[None]:
    """Let kernels that sum up in tiles write no more than the rows that are left at the end.

    `CppKernelProxy` (2.11 to 2.15) writes whole vectors there if another loop is between the rows
    and the numbers that are summed up: over the next results, and beyond the last one.
    """
    from torch._inductor.codegen.cpp import CppKernelProxy, CppTile2DKernel

    def aggregate(put: Any, self: Any, ends_apart: bool, rows: Any) -> None:
        if rows is not None and isinstance(self.kernels[0], CppTile2DKernel):
            sums = any(loop.is_reduction for loop in self.loop_nest.loops)
            ends_apart = ends_apart or (sums and not rows.is_reduction)
        put(self, ends_apart, rows)

    return in_between(CppKernelProxy, "aggregate_reduction_buffers", aggregate)


def decimals_that_round() -> contextlib.AbstractContextManager[None]:
    """Let `round(decimals=1)` of what a piece computes be compiled.

    A pass that takes out what does nothing (`remove_noop_ops`, 2.11 to 2.15) asks of every `round`
    whether its numbers are whole, and fails where there are decimals.
    """
    from torch._inductor.fx_passes import post_grad

    registry: Any = post_grad.noop_registry
    return with_entries(registry, {torch.ops.aten.round.decimals: (lambda *_, **__: False, 0)})


def writes_through_expanded_views() -> contextlib.AbstractContextManager[None]:
    """Let `x.expand_as(x).add_(1)` leave in `x` what was written, whatever it held.

    Functionalization (2.11 to 2.15) adds to `x` the difference between what was written and `x`,
    which is nan where `x` is infinite, and rounded where it is large.
    """
    from torch._inductor import compile_fx

    def passes(run: Any, module: fx.GraphModule, *args: Any, **kwargs: Any) -> Any:
        aten = torch.ops.aten
        for node in list(module.graph.find_nodes(op="call_function", target=aten.add.Tensor)):
            base, apart = node.args
            if not isinstance(apart, fx.Node) or apart.target is not aten.sub.Tensor:
                continue
            written, taken = apart.args
            source = _made_of(node)
            scaled = node.kwargs or apart.kwargs
            if taken is base and not scaled and source and source == _made_of(apart):
                node.replace_all_uses_with(written)
                module.graph.erase_node(node)
        return run(module, *args, **kwargs)

    return in_between(compile_fx, "post_grad_passes", passes)


def _made_of(node: fx.Node) -> str | None:
    """Return the name of the node of Dynamo's graph that a node was made of."""
    sources = node.meta.get("from_node") or ()
    return sources[0].name if sources else None
