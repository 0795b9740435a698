"""Compute products of groups of rows with a matrix each by a kernel, not by an operator's loop.

Experts of a mixture are such groups. torch's operators go through them one by one, and call a
product of matrices for each; few rows per expert spend most of their time on the way to it.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from string import Template
from typing import Any

import torch

from hotstart._torch.in_between import replaced, with_entries
from hotstart._torch.kernels.products import PRODUCTS

_SCHEMA = "(Tensor input, Tensor weight, Tensor offs) -> Tensor"

_OFFSETS = frozenset({torch.int32, torch.int64})

_COLUMNS = 1 << 14
"""Elements of a matrix that one thread goes through at a time, so that they stay in its cache."""

_SOURCE = Template("""
#include <ATen/cpu/vec/functional.h>
#include <algorithm>
namespace {
$products
constexpr int64_t GROUPS = $groups, K = $k, N = $n, GROUP = $group, STRIDE = $stride;
constexpr bool ACROSS = $across;
constexpr int64_t UNIT = ACROSS ? STRIP : COLUMNS;
constexpr int64_t PART = ($columns / K / UNIT > 0 ? $columns / K / UNIT : 1) * UNIT;
constexpr int64_t PARTS = (N + PART - 1) / PART;
}
extern "C" $definition
{
    w += $offset;
    const int64_t rows = $size;
    auto bound = [&](int64_t group) {
        return group < 0 ? 0 : std::clamp<int64_t>(ends[group], 0, rows);
    };
    bool ascending = true;
    for (int64_t group = 0; group < GROUPS; ++group)
        ascending = ascending && bound(group - 1) <= bound(group);
    std::fill(y + (ascending ? bound(GROUPS - 1) : 0) * N, y + rows * N, 0.0f);
    #pragma omp parallel for schedule(dynamic) if(ascending)$threads
    for (int64_t task = 0; task < GROUPS * PARTS; ++task) {
        const int64_t group = task / PARTS, from = task % PARTS * PART;
        const int64_t to = std::min(from + PART, N), end = bound(group);
        auto then = [](int64_t, int64_t, int64_t, int64_t) {};
        for (int64_t row = bound(group - 1), some; row < end; row += some) {
            const Product product{
                x + row * K, w + group * GROUP, y + row * N, K, K, N, STRIDE, ACROSS};
            some = ACROSS ? end - row : std::min(TALL, end - row);
            if (some <= (ACROSS ? LOW : TALL)) product.few(some, from, to, then);
            else product.many(0, some, from, to, then);
        }
    }
}
""")
"""Groups and parts of their columns are shared out between threads. A result is summed up in the
same order whatever other rows there are. Rows of no group are zero. Where ends do not ascend,
groups overlap, and the last one counts."""


@contextlib.contextmanager
def grouped_products() -> Iterator[None]:
    """Lower products of groups of rows to a kernel while a graph is compiled.

    Taken are those of transformers' `grouped_mm_fallback`, in float32, with matrices that lie dense
    along columns or rows. Matrices are read as they are; nothing is prepared.
    """
    from torch._inductor.codegen.cpp import CppScheduling
    from torch._inductor.lowering import lowerings

    target = _operator()
    if target is None:
        yield
        return
    known = lowerings.get(target)
    fuses: Any = CppScheduling.can_fuse_vertical

    def can_fuse_vertical(self: Any, node: Any, other: Any) -> bool:
        template = getattr(getattr(node, "node", None), "template", None)
        return not isinstance(template, _template()) and bool(fuses(self, node, other))

    def lower(rows: Any, matrices: Any, ends: Any) -> Any:
        made = _product(rows, matrices, ends)
        return _call(known, target, (rows, matrices, ends)) if made is None else made

    with (
        with_entries(lowerings, {target: lower}),
        replaced(CppScheduling, "can_fuse_vertical", can_fuse_vertical),
    ):
        yield


def _operator() -> Any:
    """The operator that is lowered; None where it is not registered, or is another one."""
    packet = getattr(torch.ops.transformers, "grouped_mm_fallback", None)
    operator = getattr(packet, "default", None)
    _, bracket, rest = str(getattr(operator, "_schema", "")).partition("(")
    return operator if bracket + rest == _SCHEMA else None


def _call(lowering: Any, target: Any, args: tuple[Any, ...]) -> Any:
    """Lower an operator as Inductor would, given the lowering that it has, if any."""
    from torch._inductor.lowering import fallback_handler

    return (lowering or fallback_handler(target, add_to_fallback_set=False))(*args)


def _product(rows: Any, matrices: Any, ends: Any) -> Any:
    """Make the kernel's node, given those of its inputs; None where it does not serve."""
    from torch._inductor import ir
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    inputs = (rows, matrices, ends)
    if any(each.get_device().type != "cpu" for each in inputs) or not pick_vec_isa():
        return None
    if {rows.get_dtype(), matrices.get_dtype()} != {torch.float32}:
        return None
    sizes = matrices.get_size()
    if ends.get_dtype() not in _OFFSETS or not all(map(_number, sizes)) or 0 in sizes:
        return None
    realized = [
        _from_the_start(rows),
        ir.ExternKernel.realize_input(matrices),
        _from_the_start(ends),
    ]
    strides = realized[1].get_stride()
    names = {each.get_name() for each in realized}
    if not all(map(_number, strides)) or 1 not in strides[1:] or len(names) < len(inputs):
        return None
    size = [rows.get_size()[0], sizes[2]]
    layout = ir.FixedLayout(rows.get_device(), torch.float32, size, [size[1], 1])
    unwrapped = ir.InputsKernel.unwrap_storage(realized)
    return _template()(unwrapped, layout).generate().output_node()


def _from_the_start(node: Any) -> Any:
    """Have an input lie dense from where its memory starts: a kernel is given no offsets."""
    from torch._inductor import ir

    dense = ir.ExternKernel.require_contiguous(node)
    return dense if dense.get_layout().offset == 0 else ir.ExternKernel.copy_input(dense)


def _number(size: Any) -> bool:
    return isinstance(size, int) or bool(size.is_Integer)


@functools.cache
def _template() -> Any:
    """The class that writes the kernel; its base is Inductor's (2.11 to 2.15)."""
    from torch._inductor import config
    from torch._inductor.codegen.cpp_template import CppTemplate

    class GroupedProduct(CppTemplate):
        """Writes the kernel for some inputs: rows, matrices, and where each group of rows ends."""

        def __init__(self, inputs: list[Any], layout: Any) -> None:
            super().__init__("grouped_product", inputs, layout, torch.get_num_threads())

        def render(self, **given: Any) -> str:
            kernel = given["kernel"]
            rows, matrices, ends = self.input_nodes
            made = given.get("template_buffer_node") or self.output_node
            groups, k, n = map(int, matrices.get_size())
            group, across, along = map(int, matrices.get_stride())
            definition = kernel.def_kernel({"x": rows, "w": matrices, "ends": ends}, {"y": made})
            threads = int(config.cpp.threads)
            return self.header().getvalue() + _SOURCE.substitute(
                groups=groups,
                k=k,
                n=n,
                group=group,
                stride=along if across == 1 else across,
                across="false" if across == 1 else "true",
                products=PRODUCTS,
                columns=_COLUMNS,
                definition=definition,
                offset=int(matrices.get_layout().offset),
                size=kernel.size(rows, 0),
                threads=f" num_threads({threads})" if threads >= 1 else "",
            )

    return GroupedProduct
