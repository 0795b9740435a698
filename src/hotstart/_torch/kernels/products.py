"""C++ that multiplies rows by a matrix, for kernels of hotstart's to be written with."""

PRODUCTS = """
using Vec = at::vec::Vectorized<float>;
constexpr int64_t LANES = Vec::size();
#if defined(CPU_CAPABILITY_AVX2)
constexpr int64_t ROWS = 3;
#else
constexpr int64_t ROWS = LANES > 8 ? 4 : 2;
#endif
constexpr int64_t COLUMNS = 4, DEPTH = 1024;

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
C10_NOINLINE void tile(const float* x, const float* w, float* y, int64_t depth, int64_t step,
                       int64_t in, int64_t out, bool more, const float* next, int64_t share) {
    Vec sums[R][C];
    for (int r = 0; r < R; ++r)
        for (int c = 0; c < C; ++c) sums[r][c] = Vec(0.0f);
    int64_t at = 0;
    for (; at + LANES <= depth; at += LANES) {
        Vec rows[R];
        for (int r = 0; r < R; ++r) rows[r] = held(Vec::loadu(x + r * in + at));
        for (int c = 0; c < C; ++c) fetch(next + c * step + (at * share >> 16));
        for (int c = 0; c < C; ++c) {
            const Vec column = held(Vec::loadu(w + c * step + at));
            for (int r = 0; r < R; ++r) sums[r][c] = at::vec::fmadd(rows[r], column, sums[r][c]);
        }
    }
    if (at < depth)
        for (int c = 0; c < C; ++c) {
            const Vec column = Vec::loadu(w + c * step + at, depth - at);
            for (int r = 0; r < R; ++r)
                sums[r][c] = at::vec::fmadd(
                    Vec::loadu(x + r * in + at, depth - at), column, sums[r][c]);
        }
    for (int r = 0; r < R; ++r) add_up<C>(sums[r], y + r * out, more);
}

template <int C>
inline void columns(const float* x, int64_t rows, const float* w, float* y, int64_t depth,
                    int64_t step, int64_t in, int64_t out, bool more) {
    const int64_t share = (1 << 16) * ROWS / std::max(rows, ROWS);
    const float* next = w + C * step;
    for (; rows >= ROWS; rows -= ROWS, x += ROWS * in, y += ROWS * out, next += depth * share >> 16)
        tile<ROWS, C>(x, w, y, depth, step, in, out, more, next, share);
    if (rows == 2) return tile<2, C>(x, w, y, depth, step, in, out, more, next, share);
    for (; rows > 0; --rows, x += in, y += out)
        tile<1, C>(x, w, y, depth, step, in, out, more, next, share);
}

constexpr int64_t HIGH = 4, VECTORS = 3, SIDE = VECTORS * LANES;
constexpr int64_t WIDE = 4 * SIDE, DEEP = 256, TALL = 96, LOT = 512, AHEAD = 16;

template <int R>
C10_NOINLINE void side(const float* x, const float* w, float* y, int64_t depth, int64_t in,
                       int64_t out, bool more, int64_t count) {
    Vec sums[R][VECTORS];
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < VECTORS; ++v) sums[r][v] = Vec(0.0f);
    #pragma GCC unroll 4
    for (int64_t at = 0; at < depth; ++at) {
        Vec columns[VECTORS];
        for (int v = 0; v < VECTORS; ++v)
            columns[v] = held(Vec::loadu(w + at * SIDE + v * LANES));
        for (int r = 0; r < R; ++r) {
            const Vec row(x[r * in + at]);
            for (int v = 0; v < VECTORS; ++v)
                sums[r][v] = at::vec::fmadd(row, columns[v], sums[r][v]);
        }
    }
    auto put = [&](int r, int v, int64_t some) {
        float* made = y + r * out + v * LANES;
        if (more) sums[r][v] = sums[r][v] + Vec::loadu(made, some);
        sums[r][v].store(made, some);
    };
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < VECTORS; ++v)
            if (count >= (v + 1) * LANES) put(r, v, LANES);
            else if (count > v * LANES) put(r, v, count - v * LANES);
}

template <int R>
inline void sides(const float* x, int64_t rows, const float* w, float* y, int64_t depth,
                  int64_t in, int64_t out, bool more, int64_t count) {
    for (; rows >= R; rows -= R, x += R * in, y += R * out)
        side<R>(x, w, y, depth, in, out, more, count);
    if constexpr (R > 1) sides<R - 1>(x, rows, w, y, depth, in, out, more, count);
}

inline void copy_along(const float* w, float* to, int64_t depth, int64_t step, int64_t count) {
    for (int64_t column = 0; column < count; column += LANES, w += LANES * step) {
        float* side = to + column / SIDE * SIDE * depth + column % SIDE;
        const int64_t some = std::min(LANES, count - column);
        int64_t at = 0;
        for (; some == LANES && at + LANES <= depth; at += LANES)
            at::vec::transpose_mxn<float, LANES, LANES>(w + at, step, side + at * SIDE, SIDE);
        for (; at < depth; ++at)
            for (int64_t lane = 0; lane < some; ++lane)
                side[at * SIDE + lane] = w[lane * step + at];
    }
}

inline void copy_across(const float* w, float* to, int64_t depth, int64_t step, int64_t count) {
    for (int64_t at = 0; at < depth; ++at, w += step, to += SIDE)
        for (int64_t column = 0; column < count; column += LANES) {
            fetch(w + AHEAD * step + column);
            Vec::loadu(w + column, std::min(LANES, count - column))
                .store(to + column / SIDE * SIDE * depth + column % SIDE);
        }
}

constexpr int64_t STRIP = 16 * SIDE, LOW = 8;

// Adds I inputs to the sums of R rows; fetches the inputs that are `ahead`.
template <int R, int I>
inline void strip(const float* x, const float* w, float* sums, int64_t step, int64_t in,
                  int64_t count, int64_t ahead) {
    Vec inputs[R][I];
    for (int r = 0; r < R; ++r)
        for (int i = 0; i < I; ++i) inputs[r][i] = Vec(x[r * in + i]);
    auto part = [&](int64_t at, int64_t some) {
        Vec made[R];
        for (int r = 0; r < R; ++r) made[r] = Vec::loadu(sums + r * STRIP + at);
        for (int i = 0; i < I; ++i) {
            const Vec column = held(some == LANES ? Vec::loadu(w + i * step + at)
                                                  : Vec::loadu(w + i * step + at, some));
            if (ahead) fetch(w + (i + ahead) * step + at);
            for (int r = 0; r < R; ++r) made[r] = at::vec::fmadd(inputs[r][i], column, made[r]);
        }
        for (int r = 0; r < R; ++r) made[r].store(sums + r * STRIP + at);
    };
    int64_t at = 0;
    for (; at + LANES <= count; at += LANES) part(at, LANES);
    if (at < count) part(at, count - at);
}

template <int I>
inline void strips(const float* x, int64_t rows, const float* w, float* sums, int64_t step,
                   int64_t in, int64_t count) {
    int64_t ahead = I;
    for (; rows >= 3; rows -= 3, x += 3 * in, sums += 3 * STRIP, ahead = 0)
        strip<3, I>(x, w, sums, step, in, count, ahead);
    if (rows == 2) strip<2, I>(x, w, sums, step, in, count, ahead);
    if (rows == 1) strip<1, I>(x, w, sums, step, in, count, ahead);
}

struct Product {
    const float *x, *w;
    float* y;
    int64_t k, in, out, step;
    bool across;

    template <typename Then>
    void few(int64_t rows, int64_t from, int64_t to, Then then) const {
        if (across) few_across(rows, from, to);
        else few_along(rows, from, to);
        then(0, rows, from, to);
    }

    void few_along(int64_t rows, int64_t from, int64_t to) const {
        for (int64_t deep = 0; deep == 0 || deep < k; deep += DEPTH) {
            const int64_t depth = std::min(DEPTH, k - deep);
            const bool more = deep > 0;
            int64_t column = from;
            for (; column + COLUMNS <= to; column += COLUMNS)
                columns<COLUMNS>(x + deep, rows, w + column * step + deep, y + column, depth, step,
                                 in, out, more);
            for (; column < to; ++column)
                columns<1>(x + deep, rows, w + column * step + deep, y + column, depth, step, in,
                           out, more);
        }
    }

    void few_across(int64_t rows, int64_t from, int64_t to) const {
        alignas(64) float sums[LOW * STRIP];
        for (int64_t block = from; block < to; block += STRIP) {
            const int64_t count = std::min(STRIP, to - block);
            for (int64_t deep = 0; deep == 0 || deep < k; deep += DEEP) {
                const int64_t depth = std::min(DEEP, k - deep);
                std::fill_n(sums, rows * STRIP, 0.0f);
                const float* part = w + deep * step + block;
                int64_t at = 0;
                for (; at + 4 <= depth; at += 4)
                    strips<4>(x + deep + at, rows, part + at * step, sums, step, in, count);
                for (; at < depth; ++at)
                    strips<1>(x + deep + at, rows, part + at * step, sums, step, in, count);
                for (int64_t row = 0; row < rows; ++row)
                    for (int64_t c = 0; c < count; ++c) {
                        float& made = y[row * out + block + c];
                        made = deep > 0 ? sums[row * STRIP + c] + made : sums[row * STRIP + c];
                    }
            }
        }
    }

    template <typename Then>
    void many(int64_t row, int64_t to_row, int64_t from, int64_t to, Then then) const {
        for (; row < to_row; row += LOT) lot(row, std::min(to_row, row + LOT), from, to, then);
    }

    template <typename Then>
    void lot(int64_t row, int64_t to_row, int64_t from, int64_t to, Then then) const {
        alignas(64) float copy[WIDE * DEEP];
        for (int64_t block = from; block < to; block += WIDE) {
            const int64_t stop = std::min(to, block + WIDE), whole = (stop - block) / SIDE * SIDE;
            for (int64_t deep = 0; deep == 0 || deep < k; deep += DEEP) {
                const int64_t depth = std::min(DEEP, k - deep);
                if (block + whole < stop)  // what is beside the last columns is multiplied, too
                    std::fill_n(copy + whole * depth, SIDE * depth, 0.0f);
                if (across) copy_across(w + deep * step + block, copy, depth, step, stop - block);
                else copy_along(w + block * step + deep, copy, depth, step, stop - block);
                for (int64_t tall = row; tall < to_row; tall += TALL) {
                    const int64_t low = std::min(to_row, tall + TALL);
                    for (int64_t column = block; column < stop; column += SIDE)
                        sides<HIGH>(x + tall * in + deep, low - tall,
                                    copy + (column - block) * depth, y + tall * out + column,
                                    depth, in, out, deep > 0, std::min(SIDE, stop - column));
                    if (deep + depth == k) then(tall, low, block, stop);
                }
            }
        }
    }
};
"""
"""Defines `Product`: y has rows times columns, each a sum over `k` inputs, from rows x and a matrix
w. Rows of x are `in` elements apart, those of y `out`. The inputs of a column of the matrix lie
side by side, and columns `step` elements apart; or, where it lies `across`, the columns of an input
side by side, and inputs `step` elements apart.

`few` reads each column once, for all rows. Where columns lie along memory, a tile has sums of rows
times columns, by vectors of both. With AVX2 it takes all 16 registers: 12 sums, three parts of
rows, and one of a column; columns that come next are fetched meanwhile. `DEPTH` keeps what a tile
reads in the first cache. Where the matrix lies across, rows are `LOW` at most: to the sums of a
`STRIP` of columns, which stay in the first cache, four inputs at a time are added.

`many` is for more rows, wherever the matrix lies. A tile has sums of `HIGH` rows times three
vectors of columns. What it reads of the matrix is copied so that it lies together, `WIDE` columns
times `DEEP` inputs at a time, which the second cache holds along with `TALL` rows. A `LOT` is as
many rows as it holds the sums of.

Both make rows and columns that they are told, and call `then` with parts that are done. Each sums
up in one order, whatever other rows and columns there are; where the matrix lies across, both in
the same one."""
