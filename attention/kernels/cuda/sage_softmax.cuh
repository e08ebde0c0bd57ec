// 8-bit Hopper kernel of sage.cuh: one tile in registers.
#ifndef DITGEN_ATTENTION_KERNELS_CUDA_SAGE_SOFTMAX_CUH
#define DITGEN_ATTENTION_KERNELS_CUDA_SAGE_SOFTMAX_CUH

#include "attention/kernels/cuda/sage_feed.cuh"

#include <type_traits>

namespace
{

constexpr float LOG2_448 = 8.807354922057604f, LOG2_255 = 7.994353436858858f;
constexpr int MASKED = INT32_MIN; // no score: sums of products stay within 2^21
// 1.5 * 2^23: what is added to it is rounded to an integer in the low bits
constexpr float MAGIC_VALUE = 12582912.0f;

// 64 queries of a warpgroup, in the units of exp2
struct SageRows {
    float most[2], sum[2]; // largest score; this thread's part of the sum of weights
    float by[2]; // what outputs shrink by when the next sum is added
    float weight[2]; // U8: what the last tile's integer sums weigh
};

// Scores of one tile and what turns them into powers of two: as this thread's four columns of each
// 8 have it
template <class S> struct Scores {
    int s[S::BK / 2];
    float f, factor; // f: a unit of the integer scores; factor: of the values (U8)
    const float *delta; // of this thread's columns in the tile (DELTA)
};

template <class S>
__device__ __forceinline__ void begin_products(Scores<S> &x, uint32_t q, uint32_t k)
{
    const uint64_t a = S::D == 64 ? wgmma_matrix64(q) : wgmma_matrix(q, 16, 1024);
    const uint64_t b = S::D == 64 ? wgmma_matrix64(k) : wgmma_matrix(k, 16, 1024);
#pragma unroll
    for (int d = 0; d < S::D; d += 32)
        wgmma_s8<S::BK>(x.s, wgmma_further(a, d), wgmma_further(b, d), d > 0);
}

// The product with 32 of a tile's 128 values. The sum is begun anew each tile: the second level is
// absorb().
template <class S, class T>
__device__ __forceinline__ void sum_values(T (&t)[S::D / 2], const uint32_t (&p)[4], uint32_t v,
                                           int k)
{
    const uint64_t b = wgmma_further(wgmma_matrix(v, 16, 1024), k * 32);
    if constexpr (S::U8)
        wgmma_u8s8<S::D>(t, p, b, k > 0);
    else
        wgmma_e4m3<S::D>(t, p, b, k > 0);
}

// Keys past the last of a tile that has `keys`
template <class S> __device__ __forceinline__ void mask_keys(Scores<S> &x, int keys)
{
    const int first = 2 * (threadIdx.x % 4);
#pragma unroll
    for (int i = 0; i < S::BK / 2; i++)
        if (first + i / 4 * 8 + i % 2 >= keys) x.s[i] = MASKED;
}

// Largest integer scores, two chains a row
struct Most {
    int s[2][2];
};
template <class S> __device__ __forceinline__ void look_for_most(Most &most, const Scores<S> &x)
{
    constexpr int GROUPS = S::BK / 8;
#pragma unroll
    for (int h = 0; h < 2; h++)
        most.s[h][0] = x.s[2 * h], most.s[h][1] = x.s[2 * h + 1];
#pragma unroll
    for (int i = 1; i + 1 < GROUPS; i += 2)
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int c = 0; c < 2; c++)
                most.s[h][c] = __vimax3_s32(most.s[h][c], x.s[4 * i + 2 * h + c],
                                            x.s[4 * (i + 1) + 2 * h + c]);
#pragma unroll
    for (int h = 0; h < 2; h++) // the last is left
#pragma unroll
        for (int c = 0; c < 2; c++)
            most.s[h][c] = max(most.s[h][c], x.s[4 * (GROUPS - 1) + 2 * h + c]);
}

// Largest scores, over quads, in the units of exp2. With DELTA scores are floats from here on, in the
// same registers.
template <class S>
__device__ __forceinline__ void largest(float (&top)[2], Scores<S> &x, const Most &most,
                                        float scale)
{
    if constexpr (S::DELTA) {
        top[0] = top[1] = -INFINITY;
#pragma unroll
        for (int j = 0; j < S::BK / 8; j++) {
            const float2 pair = *reinterpret_cast<const float2 *>(x.delta + 8 * j);
            const float more[2] = {pair.x, pair.y};
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int &s = x.s[4 * j + i];
                const float y =
                    s == MASKED ? -INFINITY : fmaf(more[i % 2], scale, static_cast<float>(s) * x.f);
                s = __float_as_int(y);
                top[i / 2] = fmaxf(top[i / 2], y);
            }
        }
    } else {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int m = max(most.s[h][0], most.s[h][1]);
            top[h] = m == MASKED ? -INFINITY : static_cast<float>(m) * x.f;
        }
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        top[h] = fmaxf(top[h], __shfl_xor_sync(~0u, top[h], 1));
        top[h] = fmaxf(top[h], __shfl_xor_sync(~0u, top[h], 2));
    }
}

// The weight of one score. base: what it is relative to; MASK: it may not count.
template <class S, bool MASK> __device__ __forceinline__ float weight_of(int s, float f, float base)
{
    if constexpr (S::DELTA) return exp2_fast(__int_as_float(s) - base);
    const float e = exp2_fast(fmaf(static_cast<float>(s), f, -base));
    return MASK && s == MASKED ? 0 : e;
}

// What the weights of a tile are relative to, in the units of exp2
struct Base8 {
    float at[2];
};

// The state of the rows under the scores of one more tile. r.by: what sums and outputs so far
// shrink by.
template <class S>
__device__ __forceinline__ void rise_to(Base8 &b, Scores<S> &x, const Most &m, SageRows &r,
                                        float (&rise)[2], float scale)
{
    float top[2];
    largest<S>(top, x, m, scale);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        rise[h] = S::RECORD ? top[h] - r.most[h] : 0; // NaN or inf at the first: alive
        const float most = fmaxf(top[h], r.most[h]);
        const float at = S::U8 ? top[h] : most; // bytes are of the tile's own maximum
        b.at[h] = (at == -INFINITY ? 0 : at) - (S::U8 ? LOG2_255 : LOG2_448);
        r.by[h] = most == -INFINITY ? 0 : exp2_fast(r.most[h] - most);
        if (S::U8) r.weight[h] = most == -INFINITY ? 0 : exp2_fast(top[h] - most) * (1.0f / 255);
        r.most[h] = most;
    }
}

// Sums of the weights of one tile, two chains a row
template <class S> struct Sums {
    typename std::conditional<S::U8, int, float>::type s[2][2];
};

// Weights of 32 keys as the A operand: a register is four keys of row g, g + 8, g, g + 8; what a
// thread holds of 16 keys stands side by side among the values (quant_slot). MASK: keys may be
// masked.
template <class S, bool MASK>
__device__ __forceinline__ void weigh(uint32_t (&p)[4], Sums<S> &sums, const Scores<S> &x,
                                      const Base8 &b, int k)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int h = i % 2, at = 16 * k + 8 * (i / 2) + 2 * h;
        float e[4];
#pragma unroll
        for (int c = 0; c < 4; c++)
            e[c] = weight_of<S, MASK>(x.s[at + c % 2 + c / 2 * 4], x.f, b.at[h]);
        if constexpr (S::U8) {
            uint32_t n[4];
#pragma unroll
            for (int c = 0; c < 4; c++)
                n[c] = __float_as_uint(e[c] + MAGIC_VALUE); // the nearest integer in the low byte
            p[i] = __byte_perm(__byte_perm(n[0], n[1], 0x0040), __byte_perm(n[2], n[3], 0x0040),
                               0x5410);
            sums.s[h][i / 2] = static_cast<int>(
                __dp4a(p[i], 0x01010101u, static_cast<unsigned>(sums.s[h][i / 2])));
        } else {
            p[i] = pack_e4m3(e[0], e[1], e[2], e[3]);
            sums.s[h][0] += e[0] + e[1];
            sums.s[h][1] += e[2] + e[3];
        }
    }
}

template <class S>
__device__ __forceinline__ void add_sums(SageRows &r, const Sums<S> &sums, const Scores<S> &x)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const float more = static_cast<float>(sums.s[h][0] + sums.s[h][1]);
        r.sum[h] = fmaf(r.sum[h], r.by[h], S::U8 ? r.weight[h] * more : more);
        if (S::U8) r.weight[h] *= x.factor;
    }
}

// The second level: outputs of all tiles before, shrunk, and the sum of this one
template <class S, class T>
__device__ __forceinline__ void absorb(float (&o)[S::D / 2], const T (&t)[S::D / 2],
                                       const SageRows &r)
{
#pragma unroll
    for (int i = 0; i < S::D / 2; i++) {
        const int h = i / 2 % 2;
        if constexpr (S::U8)
            o[i] = fmaf(o[i], r.by[h], static_cast<float>(t[i]) * r.weight[h]);
        else
            o[i] = fmaf(o[i], r.by[h], t[i]);
    }
}

template <class S>
__device__ __forceinline__ void sage_finish(float (&o)[S::D / 2], const SageRows &r,
                                            const SageArgs &a, int head, int query)
{
    const int t = threadIdx.x % 4;
    const float *sv = a.v_scale + head * S::D + 2 * t;
    float by[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float sum = r.sum[h];
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        by[h] = sum > 0 ? 1 / sum : 0;
        const int at = query + 8 * h;
        if (a.lse && t == 0 && at < a.len_q)
            a.lse[static_cast<size_t>(head) * a.len_q + at] =
                sum > 0 ? (r.most[h] + log2f(sum) - (S::U8 ? 0 : LOG2_448)) * 0.693147180559945f +
                              a.lse_shift[static_cast<size_t>(head) * a.len_q + at]
                        : -INFINITY;
    }
#pragma unroll
    for (int j = 0; j < S::D / 8; j += 4) {
        float2 scale[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            scale[i] = *reinterpret_cast<const float2 *>(sv + 8 * (j + i));
#pragma unroll
        for (int h = 0; h < 2; h++) {
            // this lane holds columns 2t, 2t + 1 of four groups of 8; wanted: all 8 of group t
            uint32_t x[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                x[i] = pack_bf16(o[4 * (j + i) + 2 * h] * by[h] * scale[i].x,
                                 o[4 * (j + i) + 2 * h + 1] * by[h] * scale[i].y);
            quad_transpose(x);
            bf16 *row = a.o + (query + 8 * h) * a.o_token + head * a.o_head;
            if (query + 8 * h < a.len_q)
                *reinterpret_cast<uint4 *>(row + 8 * (j + t)) = make_uint4(x[0], x[1], x[2], x[3]);
        }
    }
}

} // namespace

#endif
