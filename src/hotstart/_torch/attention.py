"""A kernel that computes attention, for Inductor to compile."""

from __future__ import annotations

from collections.abc import Mapping
from string import Template
from typing import Any

from hotstart._torch.joined_kernels import AskedKernel
from hotstart._torch.own_kernels import own_kernel

_ARGUMENTS = [*["const float*"] * 4, "float*", *["const int64_t"] * 23]

_SOURCE = Template("""
#include <torch/csrc/inductor/cpp_prefix.h>
#include <ATen/cpu/vec/functional.h>
#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
namespace {
using Vec = at::vec::Vectorized<float>;
constexpr int64_t LANES = Vec::size();
constexpr int VECS = LANES > 8 ? 4 : 2, ROWS = 6;
constexpr int64_t QUERIES = VECS * LANES, KEYS = 128;
constexpr int64_t LEAST = 1 << 16;

// Scores of N keys with all queries of a block, of which `q` has a row for each dimension.
template <int N>
inline void score(const float* k, int64_t step, const float* q, float* made, int64_t dims) {
    Vec sums[N][VECS];
    for (int n = 0; n < N; ++n)
        for (int c = 0; c < VECS; ++c) sums[n][c] = Vec(0.0f);
    for (int64_t d = 0; d < dims; ++d) {
        Vec given[VECS];
        for (int c = 0; c < VECS; ++c) given[c] = Vec::loadu(q + d * QUERIES + c * LANES);
        for (int n = 0; n < N; ++n) {
            const Vec key(k[n * step + d]);
            for (int c = 0; c < VECS; ++c) sums[n][c] = at::vec::fmadd(key, given[c], sums[n][c]);
        }
    }
    for (int n = 0; n < N; ++n)
        for (int c = 0; c < VECS; ++c) sums[n][c].store(made + n * QUERIES + c * LANES);
}

// Adds to N dimensions of the results of a block the values of keys, weighted.
template <int N>
inline void weigh(const float* v, int64_t step, const float* weights, float* made, int64_t keys) {
    Vec sums[N][VECS];
    for (int n = 0; n < N; ++n)
        for (int c = 0; c < VECS; ++c) sums[n][c] = Vec::loadu(made + n * QUERIES + c * LANES);
    for (int64_t key = 0; key < keys; ++key) {
        Vec given[VECS];
        for (int c = 0; c < VECS; ++c) given[c] = Vec::loadu(weights + key * QUERIES + c * LANES);
        for (int n = 0; n < N; ++n) {
            const Vec value(v[key * step + n]);
            for (int c = 0; c < VECS; ++c) sums[n][c] = at::vec::fmadd(value, given[c], sums[n][c]);
        }
    }
    for (int n = 0; n < N; ++n)
        for (int c = 0; c < VECS; ++c) sums[n][c].store(made + n * QUERIES + c * LANES);
}

// Adds a mask to scores, which lie the other way round.
inline void add_mask(const float* mask, int64_t by_query, int64_t by_key, float* scores,
                     int64_t queries, int64_t keys) {
    if (by_query == 0) {
        for (int64_t key = 0; key < keys; ++key)
            for (int c = 0; c < VECS; ++c) {
                float* at = scores + key * QUERIES + c * LANES;
                (Vec::loadu(at) + Vec(mask[key * by_key])).store(at);
            }
        return;
    }
    float turned[LANES * LANES];
    for (int64_t query = 0; query < queries; query += LANES)
        for (int64_t key = 0; key < keys; key += LANES) {
            const int64_t rows = std::min(LANES, queries - query);
            const int64_t columns = std::min(LANES, keys - key);
            const float* from = mask + query * by_query + key * by_key;
            if (by_key == 1 && rows == LANES && columns == LANES) {
                at::vec::transpose_mxn<float, LANES, LANES>(from, by_query, turned, LANES);
            } else {
                for (int64_t r = 0; r < rows; ++r)
                    for (int64_t c = 0; c < columns; ++c)
                        turned[c * LANES + r] = from[r * by_query + c * by_key];
            }
            for (int64_t c = 0; c < columns; ++c) {
                float* at = scores + (key + c) * QUERIES + query;
                (Vec::loadu(at, rows) + Vec::loadu(turned + c * LANES, rows)).store(at, rows);
            }
        }
}
}

extern "C" void kernel(
    const float* q, const float* k, const float* v, const float* mask, float* out,
    const int64_t batch, const int64_t heads, const int64_t queries, const int64_t keys,
    const int64_t dims, const int64_t qb, const int64_t qh, const int64_t qs, const int64_t kb,
    const int64_t kh, const int64_t ks, const int64_t vb, const int64_t vh, const int64_t vs,
    const int64_t mb, const int64_t mh, const int64_t mq, const int64_t mk, const int64_t ob,
    const int64_t oh, const int64_t os, const int64_t scale_bits, const int64_t masked) {
    float scale;
    const int32_t bits = static_cast<int32_t>(scale_bits);
    std::memcpy(&scale, &bits, sizeof scale);
    const int64_t blocks = (queries + QUERIES - 1) / QUERIES, tasks = batch * heads * blocks;
    const Vec nothing(-std::numeric_limits<float>::infinity());
    #pragma omp parallel$threads if(batch * heads * queries * keys * dims >= LEAST)
    {
        const auto memory = std::make_unique<float[]>((2 * dims + KEYS) * QUERIES);
        float *turned = memory.get(), *made = turned + dims * QUERIES;
        float* scores = made + dims * QUERIES;
        #pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < tasks; ++task) {
            const int64_t b = task / blocks / heads, h = task / blocks % heads;
            const int64_t first = task % blocks * QUERIES;
            const int64_t count = std::min(QUERIES, queries - first);
            const float* own = q + b * qb + h * qh + first * qs;
            for (int64_t d = 0; d < dims; ++d)
                for (int64_t n = 0; n < QUERIES; ++n)
                    turned[d * QUERIES + n] = n < count ? own[n * qs + d] * scale : 0.0f;
            std::fill(made, made + dims * QUERIES, 0.0f);
            Vec top[VECS], total[VECS];
            for (int c = 0; c < VECS; ++c) top[c] = nothing, total[c] = Vec(0.0f);
            for (int64_t key = 0; key < keys; key += KEYS) {
                const int64_t some = std::min(KEYS, keys - key);
                const float* from = k + b * kb + h * kh + key * ks;
                int64_t n = 0;
                for (; n + ROWS <= some; n += ROWS)
                    score<ROWS>(from + n * ks, ks, turned, scores + n * QUERIES, dims);
                for (; n < some; ++n)
                    score<1>(from + n * ks, ks, turned, scores + n * QUERIES, dims);
                if (masked)
                    add_mask(mask + b * mb + h * mh + first * mq + key * mk, mq, mk, scores, count,
                             some);
                for (int c = 0; c < VECS; ++c) {
                    float* at = scores + c * LANES;
                    Vec most = top[c];
                    for (n = 0; n < some; ++n)
                        most = at::vec::maximum(most, Vec::loadu(at + n * QUERIES));
                    const Vec base = Vec::blendv(most, Vec(0.0f), most == nothing);
                    const Vec before = (top[c] - base).exp_u20();
                    Vec sum = total[c] * before;
                    for (n = 0; n < some; ++n) {
                        const Vec weight = (Vec::loadu(at + n * QUERIES) - base).exp_u20();
                        weight.store(at + n * QUERIES);
                        sum = sum + weight;
                    }
                    top[c] = most, total[c] = sum;
                    for (int64_t d = 0; d < dims; ++d) {
                        float* result = made + d * QUERIES + c * LANES;
                        (Vec::loadu(result) * before).store(result);
                    }
                }
                const float* values = v + b * vb + h * vh + key * vs;
                int64_t d = 0;
                for (; d + ROWS <= dims; d += ROWS)
                    weigh<ROWS>(values + d, vs, scores, made + d * QUERIES, some);
                for (; d < dims; ++d) weigh<1>(values + d, vs, scores, made + d * QUERIES, some);
            }
            float sums[QUERIES];
            for (int c = 0; c < VECS; ++c) total[c].store(sums + c * LANES);
            float* to = out + b * ob + h * oh + first * os;
            for (int64_t n = 0; n < count; ++n)
                for (int64_t d = 0; d < dims; ++d)
                    to[n * os + d] = sums[n] == 0.0f ? 0.0f : made[d * QUERIES + n] / sums[n];
        }
    }
}
""")
"""A block of queries has a lane each, so nothing is summed up across lanes; keys and values are
read as they lie. Weights of keys are kept small by the greatest score so far. The last dimension of
all tensors lies dense, but for the mask's; of the others there are steps. A mask is added; without
one it may be any tensor. Queries whose keys are all masked give 0, as torch's kernel does."""


def attention_kernel(settings: Mapping[str, Any]) -> AskedKernel:
    """Write the kernel for some settings of Inductor."""
    return own_kernel(_ARGUMENTS, _SOURCE, settings)
