// Hopper kernel of sm90.cuh: one tile in registers: products, masks, softmax, and how outputs
// leave.
#ifndef DITGEN_ATTENTION_KERNELS_CUDA_SM90_SOFTMAX_CUH
#define DITGEN_ATTENTION_KERNELS_CUDA_SM90_SOFTMAX_CUH

#include "attention/kernels/cuda/sm90_shape.cuh"

namespace
{

// KEPT: queries as the A operand in registers. Each quarter of a step of 16 channels is 8 rows of
// 16 bytes, where the 128-byte swizzle has put them.
template <class S> struct Kept {
    uint32_t q[S::KEPT ? S::D / 16 : 1][4];
};
template <class S> __device__ __forceinline__ void keep_queries(Kept<S> &kept, uint32_t q)
{
    const int row = threadIdx.x % WG / 32 * 16 + threadIdx.x % 16, half = threadIdx.x % 32 / 16;
#pragma unroll
    for (int i = 0; i < S::D / 16; i++)
        ldmatrix4(kept.q[i],
                  q + i / 4 * BOX * 2 * S::BQ + row * 128 + ((i % 4 * 2 + half) ^ (row % 8)) * 16);
}

// S = Q Kt of this warpgroup's 64 rows
template <class S>
__device__ __forceinline__ void scores(float (&s)[S::BK / 2], uint32_t q, uint32_t k,
                                       const Kept<S> &kept)
{
#pragma unroll
    for (int d = 0; d < S::D; d += 16) {
        const uint32_t in = d % BOX * 2, x = d / BOX * BOX * 2;
        if constexpr (S::KEPT)
            wgmma_rk<S::BK>(s, kept.q[d / 16], wgmma_matrix(k + x * S::BK + in, 16, 1024), d > 0);
        else
            wgmma_ss<S::BK>(s, wgmma_matrix(q + x * S::BQ + in, 16, 1024),
                            wgmma_matrix(k + x * S::BK + in, 16, 1024), d > 0);
    }
}

// O += P V
template <class S>
__device__ __forceinline__ void outputs(float (&o)[S::D / 2], const uint32_t (&p)[S::BK / 16][4],
                                        uint32_t v)
{
#pragma unroll
    for (int i = 0; i < S::BK / 16; i++)
        wgmma_rs<S::D>(o, p[i], wgmma_matrix(v + i * 16 * 128, S::BK * 128, 1024));
}

template <class S>
__device__ __forceinline__ void pack(uint32_t (&p)[S::BK / 16][4], const float (&s)[S::BK / 2])
{
#pragma unroll
    for (int i = 0; i < S::BK / 4; i++)
        p[i / 4][i % 4] = pack_bf16(s[2 * i], s[2 * i + 1]);
}

// Keys past the last, and for mean keys those that are computed, cost nothing; a mean key weighs as
// many keys as its tile has.
template <class S>
__device__ __forceinline__ void mask(float (&s)[S::BK / 2], const Args &a, uint32_t step,
                                     int plan_row)
{
    const int first = tile_of<S>(step) * S::BK + 2 * (threadIdx.x % 4);
    if (S::PLAIN || !(step & ATTN_STEP_MEAN)) {
#pragma unroll
        for (int i = 0; i < S::BK / 2; i++)
            if (first + i / 4 * 8 + i % 2 >= a.len_k) s[i] = -INFINITY;
        return;
    }
    const uint32_t *bits = a.mean + static_cast<size_t>(plan_row) * a.words;
#pragma unroll
    for (int i = 0; i < S::BK / 8; i++) { // two columns a group of 8
#pragma unroll
        for (int x = 0; x < 2; x++) {
            const int tile = first + 8 * i + x;
            float more = -INFINITY;
            if (tile < a.cols && bits[tile / 32] >> (tile % 32) & 1)
                more = tile + 1 < a.cols ? a.mean_full : a.mean_last;
            s[4 * i + x] += more;
            s[4 * i + 2 + x] += more;
        }
        asm volatile("" ::: "memory"); // one load at a time: registers are scarcer than time here
    }
}

// Ragged: the first `keys` of the tile count.
template <class S> __device__ __forceinline__ void mask_from(float (&s)[S::BK / 2], int keys)
{
    const int first = 2 * (threadIdx.x % 4);
#pragma unroll
    for (int i = 0; i < S::BK / 2; i++)
        if (first + i / 4 * 8 + i % 2 >= keys) s[i] = -INFINITY;
}

struct Rows { // two rows a thread: g and g + 8 of its warp's 16
    float most[2], sum[2]; // largest raw score; this thread's part of the sum of weights
};

// By what the sums and outputs so far must shrink under the scores of one more tile. Largest scores
// are over quads. Two chains a row, rows side by side: one chain alone would wait for itself.
template <class S>
__device__ __forceinline__ void raise(const float (&s)[S::BK / 2], Rows &r, float (&base)[2],
                                      float (&shrink)[2], float (&rise)[2], float scale)
{
    float most[2][2];
#pragma unroll
    for (int h = 0; h < 2; h++)
        most[h][0] = s[2 * h], most[h][1] = s[2 * h + 1];
#pragma unroll
    for (int i = 1; i < S::BK / 8; i++)
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int x = 0; x < 2; x++)
                most[h][x] = fmaxf(most[h][x], s[4 * i + 2 * h + x]);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float top = fmaxf(most[h][0], most[h][1]);
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
        rise[h] = !S::PLAIN ? (top - r.most[h]) * scale : 0; // NaN or inf at the first: alive
        top = fmaxf(top, r.most[h]);
        base[h] = top == -INFINITY ? 0 : top * scale;
        shrink[h] = exp2_fast(r.most[h] * scale - base[h]);
        r.most[h] = top;
        r.sum[h] *= shrink[h];
    }
}

// Scores become weights.
template <class S>
__device__ __forceinline__ void weights(float (&s)[S::BK / 2], Rows &r, const float (&base)[2],
                                        float scale)
{
    float sum[2][2] = {};
#pragma unroll
    for (int i = 0; i < S::BK / 8; i++)
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int x = 0; x < 2; x++) {
                float &e = s[4 * i + 2 * h + x];
                e = exp2_fast(fmaf(e, scale, -base[h]));
                sum[h][x] += e;
            }
#pragma unroll
    for (int h = 0; h < 2; h++)
        r.sum[h] += sum[h][0] + sum[h][1];
}

template <class S>
__device__ __forceinline__ void rescale(float (&o)[S::D / 2], const float (&by)[2])
{
#pragma unroll
    for (int i = 0; i < S::D / 2; i++)
        o[i] *= by[i / 2 % 2];
}

// One bit for a tile that some query of this warp wants
__device__ __forceinline__ void record(const Args &a, uint32_t step, int head_row, int query,
                                       int q_end, const float (&rise)[2])
{
    const bool wanted = (query < q_end && !(rise[0] <= a.alive_log2)) ||
                        (query + 8 < q_end && !(rise[1] <= a.alive_log2));
    if (__any_sync(~0u, wanted) && threadIdx.x % 32 == 0) {
        const uint32_t tile = ATTN_STEP_TILE(step);
        atomicOr(&a.alive[static_cast<size_t>(head_row) * a.words + tile / 32], 1u << tile % 32);
    }
}

template <class S>
__device__ __forceinline__ void finish(float (&o)[S::D / 2], Rows &r, const Args &a, int head,
                                       int query, int q_end)
{
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float sum = r.sum[h];
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        const float by = sum > 0 ? 1 / sum : 0;
        const bool inside = query + 8 * h < q_end;
        if (a.lse && t == 0 && inside)
            a.lse[static_cast<size_t>(head) * a.len_q + query + 8 * h] =
                sum > 0 ? (r.most[h] * a.scale_log2 + log2f(sum)) * 0.693147180559945f : -INFINITY;
        bf16 *row = a.o + (query + 8 * h) * a.o_token + head * a.o_head;
#pragma unroll
        for (int j = 0; j < S::D / 8; j += 4) {
            // this lane holds columns 2t, 2t + 1 of four groups of 8; wanted: all 8 of group t
            uint32_t x[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                x[i] = pack_bf16(o[4 * (j + i) + 2 * h] * by, o[4 * (j + i) + 2 * h + 1] * by);
            quad_transpose(x);
            if (inside)
                *reinterpret_cast<uint4 *>(row + 8 * (j + t)) = make_uint4(x[0], x[1], x[2], x[3]);
        }
    }
}

} // namespace

#endif
