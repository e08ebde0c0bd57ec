// The rows of rows.cu for widths that eights do not divide: number by number, 128 threads a row, which
// read it again for each sum. Small odd models alone have such widths.
#include "model/base/cuda/launch.h"
#include "model/ops/cuda/lanes.cuh"
#include "model/ops/cuda/plain_cuda.h"

namespace
{

using Norm = struct cuda_norm; // the functions hide the names
using Rope = struct cuda_rope;

constexpr int THREADS = 128, WARPS = THREADS / 32;

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(bf16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float rounded(float x, bool asked)
{
    return asked ? narrow<bf16>(x) : x;
}

template <class T, class Y>
__global__ void __launch_bounds__(THREADS) norm(const __grid_constant__ Norm p)
{
    __shared__ float room[WARPS];
    const int64_t row = blockIdx.x;
    const int64_t mod = p.mods > 1 ? row / p.rows_per_mod % p.mods * p.mod_stride : 0;
    const bool narrow_x = p.round || sizeof(T) == 2;
    T *x = static_cast<T *>(p.x) + row * p.x_row;
    float sum = 0;
    for (int c = threadIdx.x; c < p.features; c += THREADS) {
        float v = widen(x[c]);
        if (p.add) {
            const float a = p.add_type == DTYPE_F32
                                ? static_cast<const float *>(p.add)[row * p.add_row + c]
                                : widen(static_cast<const bf16 *>(p.add)[row * p.add_row + c]);
            v = rounded(v + rounded(a, p.round) * (p.gate ? p.gate[mod + c] : 1), narrow_x);
            x[c] = T(v);
        }
        sum += v;
    }
    if (!p.y) return;
    const float mean = row_sum<WARPS>(sum, room) / p.features;
    sum = 0;
    for (int c = threadIdx.x; c < p.features; c += THREADS)
        sum += (widen(x[c]) - mean) * (widen(x[c]) - mean);
    const float r = 1 / sqrtf(row_sum<WARPS>(sum, room) / p.features + p.eps);
    Y *y = static_cast<Y *>(p.y) + row * p.y_row;
    for (int c = threadIdx.x; c < p.features; c += THREADS) {
        float v = (widen(x[c]) - mean) * r;
        if (p.weight) v = v * p.weight[c] + p.bias[c];
        if (p.scale) v = v * (1 + p.scale[mod + c]) + p.shift[mod + c];
        y[c] = Y(rounded(v, p.round));
    }
}

template <class T> __global__ void __launch_bounds__(THREADS) rope(const __grid_constant__ Rope p)
{
    __shared__ float room[WARPS];
    const int part = blockIdx.x % p.n_parts;
    const int64_t row = blockIdx.x / p.n_parts, at = row / p.turns % p.tokens * (p.head_dim / 2);
    const T *x = static_cast<const T *>(p.part[part].x) + row * p.part[part].x_row;
    T *y = static_cast<T *>(p.part[part].y) + row * p.part[part].y_row;
    const float *weight = p.part[part].weight;
    const bool narrow_x = p.round || sizeof(T) == 2, turn = p.part[part].turn;
    float sum = 0, r = 1;
    for (int c = threadIdx.x; weight && c < p.features; c += THREADS) {
        const float v = rounded(widen(x[c]), p.round);
        sum += v * v;
    }
    if (weight) r = 1 / sqrtf(row_sum<WARPS>(sum, room) / p.features + p.eps);
    for (int c = 2 * threadIdx.x; c < p.features; c += 2 * THREADS) {
        float v[2] = {};
#pragma unroll
        for (int k = 0; k < 2; k++) {
            if (c + k >= p.features) continue;
            v[k] = widen(x[c + k]);
            if (weight) v[k] = rounded(rounded(v[k], p.round) * r * weight[c + k], narrow_x);
        }
        if (turn) { // head_dim is even: a pair is of one head
            const int pair = c % p.head_dim / 2;
            const float co = p.cos_t[at + pair], si = p.sin_t[at + pair], a = v[0];
            v[0] = rounded(a * co - v[1] * si, p.round);
            v[1] = rounded(a * si + v[1] * co, p.round);
        }
#pragma unroll
        for (int k = 0; k < 2; k++)
            if (c + k < p.features)
                y[(c + k) / p.head_dim * p.part[part].y_head + (c + k) % p.head_dim] = T(v[k]);
    }
}

} // namespace

int cuda_norm_plain(const struct cuda_norm *p, void *stream, struct err *e)
{
    const cudaStream_t s = static_cast<cudaStream_t>(stream);
    const bool y2 = p->y_type == DTYPE_BF16;
    if (p->type == DTYPE_BF16)
        y2 ? norm<bf16, bf16><<<p->rows, THREADS, 0, s>>>(*p)
           : norm<bf16, float><<<p->rows, THREADS, 0, s>>>(*p);
    else
        y2 ? norm<float, bf16><<<p->rows, THREADS, 0, s>>>(*p)
           : norm<float, float><<<p->rows, THREADS, 0, s>>>(*p);
    return cuda_launched(e, "norm of rows [%d, %d], number by number", p->rows, p->features);
}

int cuda_rope_plain(const struct cuda_rope *p, void *stream, struct err *e)
{
    const cudaStream_t s = static_cast<cudaStream_t>(stream);
    const unsigned grid = static_cast<unsigned>(p->rows) * p->n_parts;
    if (p->type == DTYPE_BF16)
        rope<bf16><<<grid, THREADS, 0, s>>>(*p);
    else
        rope<float><<<grid, THREADS, 0, s>>>(*p);
    return cuda_launched(e, "norm and positions of rows [%d, %d], number by number", p->rows,
                         p->features);
}
