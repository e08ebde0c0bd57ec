// Norms with modulation, norms with rotary positions, gated residuals: one pass over memory each.
//
// A row belongs to WARPS warps and stays in their registers, VECS times eight numbers a thread; so it
// is read once, and mean and variance are two sums over registers, not a running one. Blocks have
// 4 warps or one row.
#include "model/base/cuda/launch.h"
#include "model/ops/cuda/codes.cuh"
#include "model/ops/cuda/plain_cuda.h"
#include "model/ops/cuda/rows_cuda.h"
#include "model/ops/cuda/shape_cuda.h"

namespace
{

using Norm = struct cuda_norm; // the functions hide the names
using Rope = struct cuda_rope;

template <class T, class Y, int WARPS, int VECS>
__global__ void __launch_bounds__(WARPS < 4 ? 128 : 32 * WARPS) norm(const __grid_constant__ Norm p)
{
    __shared__ float room[WARPS < 4 ? 4 : WARPS];
    constexpr int THREADS = 32 * WARPS;
    const int t = threadIdx.x % THREADS;
    const int64_t asked =
        static_cast<int64_t>(blockIdx.x) * (blockDim.x / THREADS) + threadIdx.x / THREADS;
    const bool mine = asked < p.rows; // the others help with sums alone
    const int64_t row = mine ? asked : p.rows - 1;
    const int64_t mod = p.mods > 1 ? row / p.rows_per_mod % p.mods * p.mod_stride : 0;
    T *x = static_cast<T *>(p.x) + row * p.x_row;
    Eight v[VECS];
    float sum = 0;
#pragma unroll
    for (int i = 0; i < VECS; i++) {
        const int c = 8 * (t + i * THREADS);
        if (c < p.features) {
            v[i] = load8(x + c);
        } else {
#pragma unroll
            for (int k = 0; k < 8; k++)
                v[i].v[k] = 0;
        }
    }
    if (p.add) {
        const bool wide = p.add_type == DTYPE_F32; // the same for the whole launch
        const float *add4 = static_cast<const float *>(p.add) + row * p.add_row;
        const bf16 *add2 = static_cast<const bf16 *>(p.add) + row * p.add_row;
#pragma unroll
        for (int i = 0; i < VECS; i++) {
            const int c = 8 * (t + i * THREADS);
            if (c >= p.features) continue;
            Eight a = wide ? load8(add4 + c) : load8(add2 + c);
            narrow8<T>(a, p.round && wide);
            if (p.gate) {
                const Eight g = load8(p.gate + mod + c);
#pragma unroll
                for (int k = 0; k < 8; k++)
                    v[i].v[k] += a.v[k] * g.v[k];
            } else {
#pragma unroll
                for (int k = 0; k < 8; k++)
                    v[i].v[k] += a.v[k];
            }
            narrow8<T>(v[i], p.round || sizeof(T) == 2);
            if (mine) store8(x + c, v[i]);
        }
    }
    if (!p.y) return;
#pragma unroll
    for (int i = 0; i < VECS; i++)
#pragma unroll
        for (int k = 0; k < 8; k++)
            sum += v[i].v[k];
    const float mean = row_sum<WARPS>(sum, room) / p.features;
    sum = 0;
#pragma unroll
    for (int i = 0; i < VECS; i++)
        if (8 * (t + i * THREADS) < p.features) {
#pragma unroll
            for (int k = 0; k < 8; k++) {
                v[i].v[k] -= mean;
                sum += v[i].v[k] * v[i].v[k];
            }
        }
    const float r = 1 / sqrtf(row_sum<WARPS>(sum, room) / p.features + p.eps);
    constexpr bool CODES = sizeof(Y) == 1;
    if (!CODES && !mine) return;
    Y *y = static_cast<Y *>(p.y) + row * p.y_row;
    float most = 0;
#pragma unroll
    for (int i = 0; i < VECS; i++) {
        const int c = 8 * (t + i * THREADS);
        if (c >= p.features) continue;
#pragma unroll
        for (int k = 0; k < 8; k++)
            v[i].v[k] *= r;
        if (p.weight) {
            const Eight w = load8(p.weight + c), b = load8(p.bias + c);
#pragma unroll
            for (int k = 0; k < 8; k++)
                v[i].v[k] = v[i].v[k] * w.v[k] + b.v[k];
        }
        if (p.scale) {
            const Eight w = load8(p.scale + mod + c), b = load8(p.shift + mod + c);
#pragma unroll
            for (int k = 0; k < 8; k++)
                v[i].v[k] = v[i].v[k] * (1 + w.v[k]) + b.v[k];
        }
        narrow8<Y>(v[i], p.round || CODES);
        if constexpr (CODES)
            most = fmaxf(most, largest(v[i]));
        else
            store8(y + c, v[i]);
    }
    if constexpr (CODES) {
        const float s = scale_of(row_most<WARPS>(most, room));
        if (!mine) return;
        if (t == 0) p.y_scale[row] = s;
#pragma unroll
        for (int i = 0; i < VECS; i++) {
            const int c = 8 * (t + i * THREADS);
            if (c < p.features) codes8(y + c, v[i], 1 / s);
        }
    }
}

__device__ __forceinline__ void turn(float &a, float &b, float co, float si)
{
    const float x = a;
    a = x * co - b * si;
    b = x * si + b * co;
}

__device__ __forceinline__ void angles(float4 &co, float4 &si, const Rope &p, int64_t at)
{
    co = __ldg(reinterpret_cast<const float4 *>(p.cos_t + at));
    si = __ldg(reinterpret_cast<const float4 *>(p.sin_t + at));
}

// Parts of one group of rows are neighbours in the grid, so that they find cos and sin in the cache.
template <class T, int WARPS, int VECS>
__global__ void __launch_bounds__(WARPS < 4 ? 128 : 32 * WARPS) rope(const __grid_constant__ Rope p)
{
    __shared__ float room[WARPS < 4 ? 4 : WARPS];
    constexpr int THREADS = 32 * WARPS;
    const int t = threadIdx.x % THREADS, part = blockIdx.x % p.n_parts;
    const int64_t asked = static_cast<int64_t>(blockIdx.x / p.n_parts) * (blockDim.x / THREADS) +
                          threadIdx.x / THREADS;
    const bool mine = asked < p.rows;
    const int64_t row = mine ? asked : p.rows - 1;
    const T *x = static_cast<const T *>(p.part[part].x) + row * p.part[part].x_row;
    T *y = static_cast<T *>(p.part[part].y) + row * p.part[part].y_row;
    const float *weight = p.part[part].weight;
    const int64_t y_head = p.part[part].y_head;
    const bool eights = p.head_dim % 8 == 0; // eight numbers are four pairs of one head
    const bool turns = p.part[part].turn;
    // rows are below 2^29: a division of 64 bits costs as much as all that follows it
    const int token = turns ? static_cast<int>(row) / p.turns % p.tokens : 0;
    const int64_t at = static_cast<int64_t>(token) * (p.head_dim / 2);
    // a thread's eights are at the same place of their heads: angles once, on their way during the sum
    const bool once = turns && eights && 8 * THREADS % p.head_dim == 0;
    float4 co, si;
    if (once) angles(co, si, p, at + 8 * t % p.head_dim / 2);
    Eight v[VECS];
    float sum = 0;
#pragma unroll
    for (int i = 0; i < VECS; i++) {
        const int c = 8 * (t + i * THREADS);
        if (c < p.features) {
            v[i] = load8(x + c);
            narrow8<T>(v[i], p.round && weight);
#pragma unroll
            for (int k = 0; k < 8; k++)
                sum += v[i].v[k] * v[i].v[k];
        }
    }
    if (weight) { // the same for the whole block
        const float r = 1 / sqrtf(row_sum<WARPS>(sum, room) / p.features + p.eps);
#pragma unroll
        for (int i = 0; i < VECS; i++) {
            const int c = 8 * (t + i * THREADS);
            if (c >= p.features) continue;
            const Eight w = load8(weight + c);
#pragma unroll
            for (int k = 0; k < 8; k++)
                v[i].v[k] = v[i].v[k] * r * w.v[k];
            narrow8<T>(v[i], p.round || sizeof(T) == 2);
        }
    }
    if (!mine) return;
#pragma unroll
    for (int i = 0; i < VECS; i++) {
        const int c = 8 * (t + i * THREADS);
        if (c >= p.features) continue;
        if (turns && eights) {
            if (!once) angles(co, si, p, at + c % p.head_dim / 2);
            turn(v[i].v[0], v[i].v[1], co.x, si.x);
            turn(v[i].v[2], v[i].v[3], co.y, si.y);
            turn(v[i].v[4], v[i].v[5], co.z, si.z);
            turn(v[i].v[6], v[i].v[7], co.w, si.w);
            narrow8<T>(v[i], p.round);
        } else if (turns) {
#pragma unroll
            for (int k = 0; k < 8; k += 2) { // a pair is of one head, eight numbers need not be
                const int pair = (c + k) % p.head_dim / 2;
                turn(v[i].v[k], v[i].v[k + 1], __ldg(p.cos_t + at + pair),
                     __ldg(p.sin_t + at + pair));
            }
            narrow8<T>(v[i], p.round);
        }
        if (eights) {
            const bool beside = y_head == p.head_dim;
            store8(y + (beside ? c : c / p.head_dim * y_head + c % p.head_dim), v[i]);
        } else {
#pragma unroll
            for (int k = 0; k < 8; k++)
                y[(c + k) / p.head_dim * y_head + (c + k) % p.head_dim] = T(v[i].v[k]);
        }
    }
}

template <class T, class Y> int norm_of(const Norm &p, cudaStream_t s)
{
    const struct cuda_row_shape r = cuda_row_shape(p.features);
    const int threads = r.warps < 4 ? 128 : 32 * r.warps, a_block = threads / (32 * r.warps);
    const unsigned grid = (p.rows + a_block - 1) / a_block;
    switch (10 * r.warps + r.vecs) {
    case 12:
        return norm<T, Y, 1, 2><<<grid, threads, 0, s>>>(p), 0;
    case 14:
        return norm<T, Y, 1, 4><<<grid, threads, 0, s>>>(p), 0;
    case 23:
        return norm<T, Y, 2, 3><<<grid, threads, 0, s>>>(p), 0;
    case 43:
        return norm<T, Y, 4, 3><<<grid, threads, 0, s>>>(p), 0;
    case 83:
        return norm<T, Y, 8, 3><<<grid, threads, 0, s>>>(p), 0;
    default:
        return norm<T, Y, 8, 4><<<grid, threads, 0, s>>>(p), 0;
    }
}

template <class T> int rope_of(const Rope &p, cudaStream_t s)
{
    const struct cuda_row_shape r = cuda_row_shape(p.features);
    const int threads = r.warps < 4 ? 128 : 32 * r.warps, a_block = threads / (32 * r.warps);
    const unsigned grid = (p.rows + a_block - 1) / a_block * p.n_parts;
    switch (10 * r.warps + r.vecs) {
    case 12:
        return rope<T, 1, 2><<<grid, threads, 0, s>>>(p), 0;
    case 14:
        return rope<T, 1, 4><<<grid, threads, 0, s>>>(p), 0;
    case 23:
        return rope<T, 2, 3><<<grid, threads, 0, s>>>(p), 0;
    case 43:
        return rope<T, 4, 3><<<grid, threads, 0, s>>>(p), 0;
    case 83:
        return rope<T, 8, 3><<<grid, threads, 0, s>>>(p), 0;
    default:
        return rope<T, 8, 4><<<grid, threads, 0, s>>>(p), 0;
    }
}

} // namespace

extern "C" int cuda_norm(const struct cuda_norm *p, void *stream, struct err *e)
{
    if (cuda_norm_takes(p, e) < 0) return -1;
    if (!cuda_norm_by_eights(p)) return cuda_norm_plain(p, stream, e);
    const cudaStream_t s = static_cast<cudaStream_t>(stream);
    if (p->y && p->y_type == DTYPE_F8_E4M3)
        norm_of<bf16, uint8_t>(*p, s);
    else if (p->type == DTYPE_BF16)
        p->y_type == DTYPE_BF16 ? norm_of<bf16, bf16>(*p, s) : norm_of<bf16, float>(*p, s);
    else
        p->y_type == DTYPE_BF16 ? norm_of<float, bf16>(*p, s) : norm_of<float, float>(*p, s);
    return cuda_launched(e, "norm of rows [%d, %d]", p->rows, p->features);
}

extern "C" int cuda_rope(const struct cuda_rope *p, void *stream, struct err *e)
{
    if (cuda_rope_takes(p, e) < 0) return -1;
    if (!cuda_rope_by_eights(p)) return cuda_rope_plain(p, stream, e);
    const cudaStream_t s = static_cast<cudaStream_t>(stream);
    p->type == DTYPE_BF16 ? rope_of<bf16>(*p, s) : rope_of<float>(*p, s);
    return cuda_launched(e, "norm and positions of rows [%d, %d]", p->rows, p->features);
}
