"""A kernel that computes linears of few rows, for Inductor to compile.

Who multiplies few rows by a small matrix waits longer for a library to begin than for the product.
"""

from __future__ import annotations

from collections.abc import Mapping
from string import Template
from typing import Any

from hotstart._torch.inductor.joined_kernels import AskedKernel
from hotstart._torch.kernels.own_kernels import own_kernel

_ARGUMENTS = [*["const float*"] * 4, "float*", *["const int64_t"] * 7]

ACTIVATIONS = {
    ("none", ""): 0, ("relu", ""): 1, ("gelu", "none"): 2, ("gelu", "tanh"): 3, ("swish", ""): 4,
    ("sigmoid", ""): 5, ("tanh", ""): 6,
}  # fmt: skip
"""The kernel's number for what oneDNN's linear may do to a sum, by its name and algorithm."""

HAS_BIAS, ADDS, MULTIPLIES = 8, 16, 32
"""Flags added to that number: a bias is there; the other tensor is added, or multiplied by."""

_SOURCE = Template("""
#include <torch/csrc/inductor/cpp_prefix.h>
#include <ATen/cpu/vec/functional.h>
#include <algorithm>
namespace {
using Vec = at::vec::Vectorized<float>;
constexpr int64_t LANES = Vec::size();
constexpr int64_t ROWS = LANES > 8 ? 4 : 2, COLUMNS = 4;
constexpr int64_t LEAST = 1 << 16;

template <int R, int C>
inline void tile(const float* x, const float* w, float* y, int64_t k, int64_t in, int64_t out) {
    Vec sums[R][C];
    for (int r = 0; r < R; ++r)
        for (int c = 0; c < C; ++c) sums[r][c] = Vec(0.0f);
    auto add = [&](int64_t at, int64_t count) {
        Vec columns[C];
        for (int c = 0; c < C; ++c) columns[c] = Vec::loadu(w + c * k + at, count);
        for (int r = 0; r < R; ++r) {
            const Vec row = Vec::loadu(x + r * in + at, count);
            for (int c = 0; c < C; ++c) sums[r][c] = at::vec::fmadd(row, columns[c], sums[r][c]);
        }
    };
    int64_t at = 0;
    for (; at + LANES <= k; at += LANES) add(at, LANES);
    if (at < k) add(at, k - at);
    for (int r = 0; r < R; ++r)
        for (int c = 0; c < C; ++c)
            y[r * out + c] = at::vec::vec_reduce_all<float>(
                [](Vec& a, Vec& b) { return a + b; }, sums[r][c]);
}

template <int C>
inline void columns(const float* x, int64_t rows, const float* w, float* y, int64_t k, int64_t in,
                    int64_t out) {
    for (; rows >= ROWS; rows -= ROWS, x += ROWS * in, y += ROWS * out)
        tile<ROWS, C>(x, w, y, k, in, out);
    for (; rows > 0; --rows, x += in, y += out) tile<1, C>(x, w, y, k, in, out);
}

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
    for (int64_t at = 0; at < count; at += LANES) {
        const int64_t some = std::min(LANES, count - at);
        Vec v = Vec::loadu(y + at, some);
        if (what & 8) v = v + Vec::loadu(bias + at, some);
        v = activated(v, what & 7);
        if (what & 16) v = v + Vec::loadu(other + at, some);
        if (what & 32) v = v * Vec::loadu(other + at, some);
        v.store(y + at, some);
    }
}
}

extern "C" void kernel(const float* x, const float* w, const float* bias, const float* other,
                       float* y, const int64_t rows, const int64_t n, const int64_t k,
                       const int64_t in, const int64_t out, const int64_t first,
                       const int64_t what) {
    const int64_t parts = (n + COLUMNS - 1) / COLUMNS;
    auto part = [&](int64_t from, int64_t to) {
        int64_t column = from * COLUMNS;
        const int64_t start = first + column, end = std::min(n, to * COLUMNS);
        const int64_t count = end - column;
        for (; column + COLUMNS <= end; column += COLUMNS)
            columns<COLUMNS>(x, rows, w + column * k, y + first + column, k, in, out);
        for (; column < end; ++column)
            columns<1>(x, rows, w + column * k, y + first + column, k, in, out);
        for (int64_t row = 0; what != 0 && row < rows; ++row)
            finish(y + row * out + start, bias + start, other + row * out + start, count, what);
    };
    if (rows * n * k < LEAST) return part(0, parts);
    #pragma omp parallel$threads
    {
        const int64_t all = omp_get_num_threads(), own = omp_get_thread_num();
        part(parts * own / all, parts * (own + 1) / all);
    }
}
""")
"""Columns are shared out between threads. A sum is made in the same order whatever other rows there
are. Rows of x are `in` elements apart; those of y and of the other tensor `out`, of which columns
from `first` on are made. The weight lies dense, row by row. What is not used may be any tensor."""


def few_rows_kernel(settings: Mapping[str, Any]) -> AskedKernel:
    """Write the kernel for some settings of Inductor."""
    return own_kernel(_ARGUMENTS, _SOURCE, settings)
