"""A kernel that computes linears, for Inductor to compile.

Who multiplies few rows by a small matrix waits longer for a library to begin than for the product.
With AVX2 libraries also take longer for the product itself: of few rows, since they get less out of
reading a weight once; of many, since they load a vector again for every product that it is in.
"""

from __future__ import annotations

from collections.abc import Mapping
from string import Template
from typing import Any

from hotstart._torch.inductor.joined_kernels import AskedKernel
from hotstart._torch.kernels.own_kernels import own_kernel
from hotstart._torch.kernels.products import PRODUCTS

_ARGUMENTS = [*["const float*"] * 4, "float*", *["const int64_t"] * 7]

ACTIVATIONS = {
    ("none", ""): 0, ("relu", ""): 1, ("gelu", "none"): 2, ("gelu", "tanh"): 3, ("swish", ""): 4,
    ("sigmoid", ""): 5, ("tanh", ""): 6,
}  # fmt: skip
"""The kernel's number for what oneDNN's linear may do to a sum, by its name and algorithm."""

HAS_BIAS, ADDS, MULTIPLIES, ACROSS = 8, 16, 32, 64
"""Flags added to that number: a bias is there; the other tensor is added, or multiplied by; the
weight has a row for each input, not for each output."""

_SOURCE = Template("""
#include <torch/csrc/inductor/cpp_prefix.h>
#include <ATen/cpu/vec/functional.h>
#include <algorithm>
namespace {
$products
constexpr int64_t LEAST = 1 << 16, FEW = 48, COPIED = 16, ACROSS = 64;

inline Vec activated(Vec v, int64_t activation) {
    const Vec one(1.0f), half(0.5f);
    switch (activation) {
        case 1: return at::vec::maximum(v, Vec(0.0f));
        case 2: return half * v * (one + (v * Vec(0.70710678118654752f)).erf());
        case 3: {
            const Vec inner = v + Vec(0.044715f) * v * v * v;
            return v / (one + (Vec(-1.5957691216057308f) * inner).exp());
        }
        case 4: return v / (one + v.neg().exp());
        case 5: return one / (one + v.neg().exp());
        case 6: return v.tanh();
        default: return v;
    }
}

inline void finish(float* y, const float* bias, const float* other, int64_t count, int64_t what) {
    auto some = [&](int64_t at, int64_t lanes) {
        Vec v = Vec::loadu(y + at, lanes);
        if (what & 8) v = v + Vec::loadu(bias + at, lanes);
        v = activated(v, what & 7);
        if (what & 16) v = v + Vec::loadu(other + at, lanes);
        if (what & 32) v = v * Vec::loadu(other + at, lanes);
        v.store(y + at, lanes);
    };
    int64_t at = 0;
    for (; at + LANES <= count; at += LANES) some(at, LANES);
    if (at < count) some(at, count - at);
}

// How many ranges of columns threads share out; the others have other rows.
inline int64_t ranges(int64_t threads, int64_t rows, int64_t parts) {
    auto work = [&](int64_t across) {
        const int64_t down = threads / across;
        return (parts + across - 1) / across * ((rows + down - 1) / down + COPIED);
    };
    int64_t across = threads;
    for (int64_t fewer = threads - 1; fewer > 0; --fewer)
        if (threads % fewer == 0 && work(fewer) < work(across)) across = fewer;
    return across;
}
}

extern "C" void kernel(const float* x, const float* w, const float* bias, const float* other,
                       float* y, const int64_t rows, const int64_t n, const int64_t k,
                       const int64_t in, const int64_t out, const int64_t first,
                       const int64_t what) {
    const bool lies_across = (what & ACROSS) != 0, is_few = rows <= (lies_across ? LOW : FEW);
    const Product product{x, w, y + first, k, in, out, lies_across ? n : k, lies_across};
    auto then = [&](int64_t row, int64_t to_row, int64_t column, int64_t to_column) {
        const int64_t at = first + column, count = to_column - column, kind = what & ~ACROSS;
        for (; kind != 0 && row < to_row; ++row)
            finish(y + row * out + at, bias + at, other + row * out + at, count, kind);
    };
    auto part = [&](int64_t own, int64_t all) {
        const int64_t wide = is_few && !lies_across ? COLUMNS : SIDE, parts = (n + wide - 1) / wide;
        const int64_t across = is_few ? all : ranges(all, rows, parts), down = all / across;
        const int64_t left = own % across, top = own / across;
        const int64_t from = parts * left / across * wide;
        const int64_t to = std::min(n, parts * (left + 1) / across * wide);
        if (is_few) product.few(rows, from, to, then);
        else product.many(rows * top / down, rows * (top + 1) / down, from, to, then);
    };
    if (rows * n * k < LEAST) return part(0, 1);
    #pragma omp parallel$threads
    part(omp_get_thread_num(), omp_get_num_threads());
}
""")
"""Threads share out columns, and rows if there are many. A number of a result is summed up in one
order for up to `FEW` rows, and in one for more, whatever other rows there are; where the weight
lies across, in one order for all. Copying a part of
the weight takes as long as multiplying `COPIED` rows by it.

Rows of x are `in` elements apart; those of y and of the other tensor `out`, of which columns from
`first` on are made. The weight lies dense. What is not used may be any tensor."""


def linear_kernel(settings: Mapping[str, Any]) -> AskedKernel:
    """Write the kernel for some settings of Inductor."""
    return own_kernel(_ARGUMENTS, _SOURCE, settings, products=PRODUCTS)
