"""A kernel that computes linears of few rows, for Inductor to compile.

Who multiplies few rows by a small matrix waits longer for a library to begin than for the product.
With AVX2 libraries also take longer for the product itself, since they get less out of reading a
weight once.
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
#if defined(CPU_CAPABILITY_AVX2)
constexpr int64_t ROWS = 3;
#else
constexpr int64_t ROWS = LANES > 8 ? 4 : 2;
#endif
constexpr int64_t COLUMNS = 4, DEPTH = 1024, LEAST = 1 << 16;

// GCC would load a vector again for every product that it is in.
inline Vec held(Vec vector) {
#if defined(CPU_CAPABILITY_AVX2) && defined(__GNUC__)
    __m256 in_register = vector;
    asm("" : "+x"(in_register));
    vector = in_register;
#endif
    return vector;
}

inline void fetch([[maybe_unused]] const float* address) {
#if defined(CPU_CAPABILITY_AVX2) && defined(__GNUC__)
    __builtin_prefetch(address, 0, 2);
#endif
}

template <int C>
inline void add_up(const Vec* vectors, float* y, bool more) {
#if defined(CPU_CAPABILITY_AVX2)
    if constexpr (C == 4) {
        const __m256 halves = _mm256_hadd_ps(_mm256_hadd_ps(vectors[0], vectors[1]),
                                             _mm256_hadd_ps(vectors[2], vectors[3]));
        __m128 sums = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1));
        if (more) sums = _mm_add_ps(sums, _mm_loadu_ps(y));
        _mm_storeu_ps(y, sums);
        return;
    }
#endif
    for (int c = 0; c < C; ++c) {
        const float sum = at::vec::vec_reduce_all<float>(
            [](Vec& a, Vec& b) { return a + b; }, vectors[c]);
        y[c] = more ? y[c] + sum : sum;
    }
}

// Fetches a share, in 65536ths, of the columns that come next.
template <int R, int C>
C10_NOINLINE void tile(const float* x, const float* w, float* y, int64_t depth, int64_t k,
                       int64_t in, int64_t out, bool more, const float* next, int64_t share) {
    Vec sums[R][C];
    for (int r = 0; r < R; ++r)
        for (int c = 0; c < C; ++c) sums[r][c] = Vec(0.0f);
    int64_t at = 0;
    for (; at + LANES <= depth; at += LANES) {
        Vec rows[R];
        for (int r = 0; r < R; ++r) rows[r] = held(Vec::loadu(x + r * in + at));
        for (int c = 0; c < C; ++c) fetch(next + c * k + (at * share >> 16));
        for (int c = 0; c < C; ++c) {
            const Vec column = held(Vec::loadu(w + c * k + at));
            for (int r = 0; r < R; ++r) sums[r][c] = at::vec::fmadd(rows[r], column, sums[r][c]);
        }
    }
    if (at < depth)
        for (int c = 0; c < C; ++c) {
            const Vec column = Vec::loadu(w + c * k + at, depth - at);
            for (int r = 0; r < R; ++r)
                sums[r][c] = at::vec::fmadd(
                    Vec::loadu(x + r * in + at, depth - at), column, sums[r][c]);
        }
    for (int r = 0; r < R; ++r) add_up<C>(sums[r], y + r * out, more);
}

template <int C>
inline void columns(const float* x, int64_t rows, const float* w, float* y, int64_t depth,
                    int64_t k, int64_t in, int64_t out, bool more) {
    const int64_t share = (1 << 16) * ROWS / std::max(rows, ROWS), step = depth * share >> 16;
    const float* next = w + C * k;
    for (; rows >= ROWS; rows -= ROWS, x += ROWS * in, y += ROWS * out, next += step)
        tile<ROWS, C>(x, w, y, depth, k, in, out, more, next, share);
    if (rows == 2) return tile<2, C>(x, w, y, depth, k, in, out, more, next, share);
    for (; rows > 0; --rows, x += in, y += out)
        tile<1, C>(x, w, y, depth, k, in, out, more, next, share);
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
        const int64_t start = first + from * COLUMNS, end = std::min(n, to * COLUMNS);
        const int64_t count = first + end - start;
        for (int64_t deep = 0; deep == 0 || deep < k; deep += DEPTH) {
            const int64_t depth = std::min(DEPTH, k - deep);
            const bool more = deep > 0;
            int64_t column = from * COLUMNS;
            for (; column + COLUMNS <= end; column += COLUMNS)
                columns<COLUMNS>(x + deep, rows, w + column * k + deep, y + first + column, depth,
                                 k, in, out, more);
            for (; column < end; ++column)
                columns<1>(x + deep, rows, w + column * k + deep, y + first + column, depth, k, in,
                           out, more);
        }
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
are. With AVX2 a tile takes all 16 registers: 12 sums, three parts of rows, and one of a column;
columns that come next are fetched meanwhile. `DEPTH` keeps what a tile reads in the first cache.

Rows of x are `in` elements apart; those of y and of the other tensor `out`, of which columns from
`first` on are made. The weight lies dense, row by row. What is not used may be any tensor."""


def few_rows_kernel(settings: Mapping[str, Any]) -> AskedKernel:
    """Write the kernel for some settings of Inductor."""
    return own_kernel(_ARGUMENTS, _SOURCE, settings)
