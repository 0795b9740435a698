"""A kernel that computes attention, for Inductor to compile."""

from __future__ import annotations

from collections.abc import Mapping
from string import Template
from typing import Any

from hotstart._torch.inductor.joined_kernels import AskedKernel
from hotstart._torch.kernels.own_kernels import own_kernel

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
constexpr int64_t LANES = Vec::size(), KEYS = 128, LEAST = 1 << 16;

struct Call {
    const float *q, *k, *v, *mask;
    float* out;
    int64_t batch, heads, queries, keys, dims;
    int64_t qb, qh, qs, kb, kh, ks, vb, vh, vs, mb, mh, mq, mk, ob, oh, os;
    float scale;
    bool masked;
};

// Scores of N keys with all queries of a block, of which `q` has a row for each dimension.
template <int VECS, int N>
inline void score(const float* k, int64_t step, const float* q, float* made, int64_t dims) {
    constexpr int64_t QUERIES = VECS * LANES;
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
template <int VECS, int N>
inline void weigh(const float* v, int64_t step, const float* weights, float* made, int64_t keys) {
    constexpr int64_t QUERIES = VECS * LANES;
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

// Turns rows and columns of a matrix over.
__attribute__((noinline)) void turn(const float* from, int64_t from_step, float* to,
                                    int64_t to_step, int64_t rows, int64_t columns) {
    for (int64_t row = 0; row < rows; row += LANES)
        for (int64_t column = 0; column < columns; column += LANES) {
            const float* of = from + row * from_step + column;
            float* at = to + column * to_step + row;
            const int64_t down = std::min(LANES, rows - row);
            const int64_t across = std::min(LANES, columns - column);
            if (down == LANES && across == LANES) {
                at::vec::transpose_mxn<float, LANES, LANES>(of, from_step, at, to_step);
            } else {
                for (int64_t r = 0; r < down; ++r)
                    for (int64_t c = 0; c < across; ++c)
                        at[c * to_step + r] = of[r * from_step + c];
            }
        }
}

// Adds a mask to scores, which lie the other way round.
template <int VECS>
inline void add_mask(const float* mask, int64_t by_query, int64_t by_key, float* scores,
                     int64_t queries, int64_t keys) {
    constexpr int64_t QUERIES = VECS * LANES;
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
            if (by_key == 1) {
                turn(from, by_query, turned, LANES, rows, columns);
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

// Makes weights of the scores of some keys, and scales what was made of the keys before.
__attribute__((noinline)) void make_weights(float* scores, int64_t step, int64_t keys,
                                            float* made, int64_t dims, Vec& top, Vec& total) {
    const Vec nothing(-std::numeric_limits<float>::infinity());
    Vec most = top;
    for (int64_t n = 0; n < keys; ++n)
        most = at::vec::maximum(most, Vec::loadu(scores + n * step));
    const Vec base = Vec::blendv(most, Vec(0.0f), most == nothing);
    const Vec before = (top - base).exp_u20();
    Vec sum = total * before;
    for (int64_t n = 0; n < keys; ++n) {
        const Vec weight = (Vec::loadu(scores + n * step) - base).exp_u20();
        weight.store(scores + n * step);
        sum = sum + weight;
    }
    top = most, total = sum;
    for (int64_t d = 0; d < dims; ++d) {
        float* result = made + d * step;
        (Vec::loadu(result) * before).store(result);
    }
}

// Computes a block of queries, with N keys or dimensions at a time.
template <int VECS, int N>
void attend(const Call& call, int64_t b, int64_t h, int64_t first, float* memory) {
    constexpr int64_t QUERIES = VECS * LANES;
    const int64_t dims = call.dims, count = std::min(QUERIES, call.queries - first);
    float *turned = memory, *made = turned + dims * QUERIES, *scores = made + dims * QUERIES;
    const float* own = call.q + b * call.qb + h * call.qh + first * call.qs;
    if (count < QUERIES) std::fill(turned, turned + dims * QUERIES, 0.0f);
    turn(own, call.qs, turned, QUERIES, count, dims);
    for (int64_t at = 0; at < dims * QUERIES; at += LANES)
        (Vec::loadu(turned + at) * Vec(call.scale)).store(turned + at);
    std::fill(made, made + dims * QUERIES, 0.0f);
    Vec top[VECS], total[VECS];
    for (int c = 0; c < VECS; ++c) {
        top[c] = Vec(-std::numeric_limits<float>::infinity());
        total[c] = Vec(0.0f);
    }
    for (int64_t key = 0; key < call.keys; key += KEYS) {
        const int64_t some = std::min(KEYS, call.keys - key);
        const float* k = call.k + b * call.kb + h * call.kh + key * call.ks;
        int64_t n = 0;
        for (; n + N <= some; n += N)
            score<VECS, N>(k + n * call.ks, call.ks, turned, scores + n * QUERIES, dims);
        for (; n < some; ++n)
            score<VECS, 1>(k + n * call.ks, call.ks, turned, scores + n * QUERIES, dims);
        if (call.masked) {
            const float* mask = call.mask + b * call.mb + h * call.mh + first * call.mq;
            add_mask<VECS>(mask + key * call.mk, call.mq, call.mk, scores, count, some);
        }
        for (int c = 0; c < VECS; ++c)
            make_weights(scores + c * LANES, QUERIES, some, made + c * LANES, dims, top[c],
                         total[c]);
        const float* v = call.v + b * call.vb + h * call.vh + key * call.vs;
        int64_t d = 0;
        for (; d + N <= dims; d += N)
            weigh<VECS, N>(v + d, call.vs, scores, made + d * QUERIES, some);
        for (; d < dims; ++d)
            weigh<VECS, 1>(v + d, call.vs, scores, made + d * QUERIES, some);
    }
    const Vec zero(0.0f);
    for (int64_t d = 0; d < dims; ++d)
        for (int c = 0; c < VECS; ++c) {
            float* at = made + d * QUERIES + c * LANES;
            const Vec sum = Vec::loadu(at);  // without weights 0, or nan if a value is no number
            Vec::blendv(sum / total[c], sum, total[c] == zero).store(at);
        }
    float* to = call.out + b * call.ob + h * call.oh + first * call.os;
    turn(made, QUERIES, to, call.os, dims, count);
}

template <int VECS, int N>
void attend_all(const Call& call) {
    constexpr int64_t QUERIES = VECS * LANES;
    const int64_t blocks = (call.queries + QUERIES - 1) / QUERIES;
    const int64_t tasks = call.batch * call.heads * blocks;
    const bool large = call.batch * call.heads * call.queries * call.keys * call.dims >= LEAST;
    #pragma omp parallel$threads if(large)
    {
        const auto memory = std::make_unique<float[]>((2 * call.dims + KEYS) * QUERIES);
        #pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < tasks; ++task) {
            const int64_t b = task / blocks / call.heads, h = task / blocks % call.heads;
            attend<VECS, N>(call, b, h, task % blocks * QUERIES, memory.get());
        }
    }
}

// What all blocks cost together: lanes, those that serve no query too, by what one costs.
inline int64_t cost(int64_t queries, int64_t vecs, int64_t lane) {
    const int64_t size = vecs * LANES;
    return (queries + size - 1) / size * size * lane;
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
    const Call call{q,  k,  v,  mask, out, batch, heads, queries, keys, dims, qb, qh,    qs,
                    kb, kh, ks, vb,   vh,  vs,    mb,    mh,      mq,   mk,   ob, oh, os,
                    scale, masked != 0};
    const int64_t one = cost(queries, 1, 12), two = cost(queries, 2, 11);
    const int64_t three = cost(queries, 3, 10);
    if (one < two && one < three) {
        attend_all<1, 16>(call);
    } else if (two < three) {
        attend_all<2, 12>(call);
    } else {
        attend_all<3, 8>(call);
    }
}
""")
"""A block of 1 to 3 vectors of queries has a lane each, so nothing is summed up across lanes; keys
and values are read as they lie. Weights of keys are kept small by the greatest score so far. The
last dimension of all tensors lies dense, but for the mask's; of the others there are steps. A mask
is added; without one it may be any tensor. Queries whose keys are all masked give 0, as torch's
kernel does."""


def attention_kernel(settings: Mapping[str, Any]) -> AskedKernel:
    """Write the kernel for some settings of Inductor."""
    return own_kernel(_ARGUMENTS, _SOURCE, settings)
