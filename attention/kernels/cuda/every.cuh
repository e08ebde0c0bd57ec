// What the files of the kernels for any plan share on the device: arguments, a row's fates, rows of
// numbers on their way to shared memory.
#ifndef DITGEN_ATTENTION_KERNELS_CUDA_EVERY_CUH
#define DITGEN_ATTENTION_KERNELS_CUDA_EVERY_CUH

#include "attention/kernels/cuda/every_args.h"

#include <cuda_bf16.h>

namespace
{

using Tensor = every_tensor;
using Args = every_args;

struct Plan { // of one block of threads
    const every_plan *p;
    const uint32_t *at;
    int index, head, plan;
};
__device__ __forceinline__ Plan plan_of(const Args &a, int index)
{
    const every_plan *p = a.at ? reinterpret_cast<const every_plan *>(a.at) : &a.here;
    return {p, a.at, index, a.named ? a.heads[index] : index, p->per_head ? index : 0};
}

__device__ __forceinline__ int q_begin(const Plan &x, int i)
{
    const every_plan &p = *x.p;
    if (!p.q_size) return static_cast<int>(x.at[p.q_at + x.plan * p.q_at_stride + i]);
    return i < p.q_n ? i * p.q_size : p.q_len;
}
__device__ __forceinline__ int k_begin(const Plan &x, int i)
{
    const every_plan &p = *x.p;
    if (!p.k_size) return static_cast<int>(x.at[p.k_at + x.plan * p.k_at_stride + i]);
    return i < p.k_n ? i * p.k_size : p.k_len;
}
__device__ __forceinline__ int q_token(const Plan &x, int position)
{
    const uint32_t at = x.p->q_token;
    return at ? static_cast<int>(
                    x.at[at + static_cast<size_t>(x.plan) * x.p->q_token_stride + position])
              : position;
}
__device__ __forceinline__ int k_token(const Plan &x, int position)
{
    const uint32_t at = x.p->k_token;
    return at ? static_cast<int>(
                    x.at[at + static_cast<size_t>(x.plan) * x.p->k_token_stride + position])
              : position;
}
// Tile of a position: the last that begins there or before, as blocks may be empty.
__device__ __forceinline__ int tile_of(const Plan &x, int position)
{
    if (x.p->k_size) return position / x.p->k_size;
    int low = 0, high = x.p->k_n; // k_begin(low) <= position < k_begin(high)
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (k_begin(x, middle) <= position)
            low = middle;
        else
            high = middle;
    }
    return low;
}

// Fates of the tiles of one row, a word at a time; null: all ones, but for mean
struct Fates {
    const uint32_t *kept, *mean, *picked, *chosen;
    __device__ __forceinline__ uint32_t computed(int w) const
    {
        return (kept ? kept[w] : ~0u) & (picked ? picked[w] : ~0u) & (chosen ? chosen[w] : ~0u);
    }
    __device__ __forceinline__ uint32_t by_mean(int w) const
    {
        return picked ? ~picked[w] : mean ? mean[w] : 0;
    }
};
__device__ __forceinline__ Fates fates_of(const Args &a, const Plan &x, int row)
{
    const every_plan &p = *x.p;
    const size_t own = (static_cast<size_t>(x.index) * p.q_n + row) * p.words,
                 shared = (static_cast<size_t>(x.plan) * p.q_n + row) * p.words;
    Fates f = {};
    if (a.chosen && !a.choosing) f.chosen = a.chosen + own;
    if (a.picked) f.picked = a.picked + own;
    if (p.all || a.picked) return f;
    f.kept = x.at + p.kept + shared;
    if (p.mean) f.mean = x.at + p.mean + shared;
    return f;
}

__device__ __forceinline__ float element(const Tensor &t, int64_t at)
{
    return t.bf16 ? __bfloat162float(static_cast<const __nv_bfloat16 *>(t.at)[at])
                  : static_cast<const float *>(t.at)[at];
}
__device__ __forceinline__ void store(const Tensor &t, int64_t at, float x)
{
    if (t.bf16)
        static_cast<__nv_bfloat16 *>(t.at)[at] = __float2bfloat16(x);
    else
        static_cast<float *>(t.at)[at] = x;
}
__device__ __forceinline__ float rounded(float x) { return __bfloat162float(__float2bfloat16(x)); }

// Rows which[0 .. N - 1] of one head, zeros where that is below 0 and past `dim`
template <int D, int N, int PITCH, int THREADS>
__device__ __forceinline__ void load_rows(float *tile, const Tensor &t, int head, const int *which,
                                          int dim)
{
    const int64_t first = head * t.head;
    if (!t.wide) {
        for (int i = threadIdx.x; i < N * D; i += THREADS) {
            const int row = i / D, c = i % D, from = which[row];
            tile[row * PITCH + c] =
                from >= 0 && c < dim ? element(t, first + from * t.token + c) : 0;
        }
        return;
    }
    for (int i = threadIdx.x; i < N * D / 8; i += THREADS) { // 8 channels; dim is a multiple of 8
        const int row = i / (D / 8), c = i % (D / 8) * 8, from = which[row];
        float4 low = make_float4(0, 0, 0, 0), high = low;
        if (from >= 0 && c < dim) {
            const int64_t at = first + from * t.token + c;
            if (t.bf16) {
                const uint4 x =
                    *reinterpret_cast<const uint4 *>(static_cast<const __nv_bfloat16 *>(t.at) + at);
                low = make_float4(__uint_as_float(x.x << 16), __uint_as_float(x.x & 0xffff0000u),
                                  __uint_as_float(x.y << 16), __uint_as_float(x.y & 0xffff0000u));
                high = make_float4(__uint_as_float(x.z << 16), __uint_as_float(x.z & 0xffff0000u),
                                   __uint_as_float(x.w << 16), __uint_as_float(x.w & 0xffff0000u));
            } else {
                const float4 *x =
                    reinterpret_cast<const float4 *>(static_cast<const float *>(t.at) + at);
                low = x[0], high = x[1];
            }
        }
        *reinterpret_cast<float4 *>(tile + row * PITCH + c) = low;
        *reinterpret_cast<float4 *>(tile + row * PITCH + c + 4) = high;
    }
}

// Scores of 4 queries x 2 keys a thread, not scaled: queries 4 ty + i, keys tx and tx + 16
template <int D, int PITCH>
__device__ __forceinline__ void dots(float (&s)[4][2], const float *q, const float *k, int tx,
                                     int ty)
{
#pragma unroll 4
    for (int d = 0; d < D; d += 4) {
        const float4 a = *reinterpret_cast<const float4 *>(k + tx * PITCH + d),
                     b = *reinterpret_cast<const float4 *>(k + (tx + 16) * PITCH + d);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float4 x = *reinterpret_cast<const float4 *>(q + (4 * ty + i) * D + d);
            s[i][0] += x.x * a.x + x.y * a.y + x.z * a.z + x.w * a.w;
            s[i][1] += x.x * b.x + x.y * b.y + x.z * b.z + x.w * b.w;
        }
    }
}

} // namespace

#endif
