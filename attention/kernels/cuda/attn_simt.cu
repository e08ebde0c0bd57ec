// flash_simt: attention in fp32 throughout, for fp32 runs, for heads that matrix units do not take, and
// as a judge on the card. Any card, any strides, heads of up to 128 channels, key bias, plans.
//
// FlashAttention-2, arXiv 2307.08691, without matrix units: a block owns 64 queries of one head and
// meets 32 keys at a time; a thread owns 4 queries x 2 keys of the scores and 4 queries x D / 16
// channels of the result.
//
//   shared      queries [64][D], keys [32][D + 1], values [32][D], weights [64][33]; the odd pitches
//               keep the 16 threads that read a column in 16 banks
#include "attention/kernels/cuda/attn_cuda.h"
#include "attention/kernels/cuda/simt_cuda.h"
#include "model/base/cuda/launch.h"

#include <cuda_bf16.h>

namespace
{

constexpr int BQ = 64, BK = 32, THREADS = 256;

struct Args {
    const void *q, *k, *v;
    void *o;
    int64_t q_token, q_head, k_token, k_head, v_token, v_head, o_token, o_head;
    const float *key_bias;
    float *lse;
    const uint32_t *row_ptr, *steps;
    int len_q, len_k, dim, rows, per_head, block_q, block_k;
    float scale;
};

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

constexpr int shared_floats(int d) { return BQ * d + BK * (d + 1) + BK * d + BQ * (BK + 1); }

// rows [first, first + N) of one head, zeros past `len` and past `dim`
template <class T, int D, int N, int PITCH>
__device__ __forceinline__ void load(float *tile, const T *x, int64_t token, int first, int len,
                                     int dim)
{
    for (int i = threadIdx.x; i < N * D; i += THREADS) {
        const int row = i / D, c = i % D;
        tile[row * PITCH + c] =
            first + row < len && c < dim ? widen(x[(first + row) * token + c]) : 0;
    }
}

template <class T, int D>
__global__ void __launch_bounds__(THREADS) attention(const __grid_constant__ Args a)
{
    extern __shared__ float room[];
    float *q = room, *k = q + BQ * D, *v = k + BK * (D + 1), *p = v + BK * D;
    const int head = blockIdx.y, q0 = blockIdx.x * BQ, tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    load<T, D, BQ, D>(q, static_cast<const T *>(a.q) + head * a.q_head, a.q_token, q0, a.len_q,
                      a.dim);
    const T *keys = static_cast<const T *>(a.k) + head * a.k_head;
    const T *values = static_cast<const T *>(a.v) + head * a.v_head;
    // what is met: all keys, or the tiles of the list's row, BK at a time
    const int per = a.steps ? a.block_k / BK : 1;
    const int plan_row = a.steps ? (a.per_head ? head * a.rows : 0) + q0 / a.block_q : 0;
    const uint32_t first = a.steps ? a.row_ptr[plan_row] : 0;
    const int passes =
        a.steps ? static_cast<int>(a.row_ptr[plan_row + 1] - first) * per : (a.len_k + BK - 1) / BK;
    float o[4][D / 16] = {}, most[4], sum[4] = {};
#pragma unroll
    for (int i = 0; i < 4; i++)
        most[i] = -INFINITY;
    for (int n = 0; n < passes; n++) {
        const int k0 =
            a.steps ? static_cast<int>(ATTN_STEP_TILE(a.steps[first + n / per])) * a.block_k +
                          n % per * BK
                    : n * BK;
        if (k0 >= a.len_k) continue; // the same for the whole block
        __syncthreads(); // the tiles of the pass before were read
        load<T, D, BK, D + 1>(k, keys, a.k_token, k0, a.len_k, a.dim);
        load<T, D, BK, D>(v, values, a.v_token, k0, a.len_k, a.dim);
        __syncthreads();
        float s[4][2] = {};
#pragma unroll 8
        for (int d = 0; d < D; d++) {
            const float b0 = k[tx * (D + 1) + d], b1 = k[(tx + 16) * (D + 1) + d];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float x = q[(4 * ty + i) * D + d];
                s[i][0] += x * b0;
                s[i][1] += x * b1;
            }
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float high = most[i];
#pragma unroll
            for (int j = 0; j < 2; j++) {
                const int key = k0 + tx + 16 * j;
                s[i][j] = key < a.len_k ? s[i][j] * a.scale + (a.key_bias ? a.key_bias[key] : 0)
                                        : -INFINITY;
                high = fmaxf(high, s[i][j]);
            }
#pragma unroll
            for (int m = 8; m; m /= 2)
                high = fmaxf(high, __shfl_xor_sync(~0u, high, m));
            const float base = high == -INFINITY ? 0 : high, shrink = expf(most[i] - base);
            most[i] = high;
            sum[i] *= shrink;
#pragma unroll
            for (int c = 0; c < D / 16; c++)
                o[i][c] *= shrink;
#pragma unroll
            for (int j = 0; j < 2; j++) {
                const float w = expf(s[i][j] - base);
                sum[i] += w;
                p[(4 * ty + i) * (BK + 1) + tx + 16 * j] = w;
            }
        }
        __syncwarp(); // a query's 16 threads are of one warp
#pragma unroll 4
        for (int key = 0; key < BK; key++) {
            float w[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                w[i] = p[(4 * ty + i) * (BK + 1) + key];
#pragma unroll
            for (int c = 0; c < D / 16; c++) {
                const float x = v[key * D + tx + 16 * c];
#pragma unroll
                for (int i = 0; i < 4; i++)
                    o[i][c] += w[i] * x;
            }
        }
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int m = 8; m; m /= 2)
            sum[i] += __shfl_xor_sync(~0u, sum[i], m);
        const int row = q0 + 4 * ty + i;
        if (row >= a.len_q) continue;
        T *out = static_cast<T *>(a.o) + head * a.o_head + row * a.o_token;
#pragma unroll
        for (int c = 0; c < D / 16; c++)
            if (tx + 16 * c < a.dim) out[tx + 16 * c] = T(sum[i] > 0 ? o[i][c] / sum[i] : 0);
        if (a.lse && tx == 0)
            a.lse[static_cast<size_t>(head) * a.len_q + row] =
                sum[i] > 0 ? most[i] + logf(sum[i]) : -INFINITY;
    }
}

template <class T, int D> int start(const Args &a, const struct attn_cuda *w, struct err *e)
{
    constexpr int BYTES = shared_floats(D) * 4;
    static_assert(BYTES <= 101376, "fits a block of sm_86, the least of all since sm_80");
    const int r =
        cudaFuncSetAttribute(attention<T, D>, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
    if (cuda_said(e, r, "flash_simt") < 0) return -1;
    const dim3 grid((w->len_q + BQ - 1) / BQ, w->n_heads);
    attention<T, D><<<grid, THREADS, BYTES, static_cast<cudaStream_t>(w->stream)>>>(a);
    return cuda_launched(e, "flash_simt over %d queries, %d keys, %d heads", w->len_q, w->len_k,
                         w->n_heads);
}

template <class T> int start_dim(const Args &a, const struct attn_cuda *w, struct err *e)
{
    if (w->head_dim <= 32) return start<T, 32>(a, w, e);
    if (w->head_dim <= 64) return start<T, 64>(a, w, e);
    return start<T, 128>(a, w, e);
}

} // namespace

extern "C" int attn_simt(const struct attn_cuda *w, enum dtype type, struct err *e)
{
    if (attn_simt_takes(w, type, e) < 0) return -1;
    const struct attn_lists *l = w->lists;
    Args a = {};
    a.q = w->q.at, a.k = w->k.at, a.v = w->v.at, a.o = w->o.at;
    a.q_token = w->q.token, a.q_head = w->q.head, a.k_token = w->k.token, a.k_head = w->k.head;
    a.v_token = w->v.token, a.v_head = w->v.head, a.o_token = w->o.token, a.o_head = w->o.head;
    a.key_bias = w->key_bias;
    a.lse = w->lse;
    if (l) {
        a.row_ptr = l->row_ptr, a.steps = l->steps;
        a.rows = l->rows, a.per_head = l->n_plans > 1, a.block_q = l->block_q,
        a.block_k = l->block_k;
    }
    a.len_q = w->len_q, a.len_k = w->len_k, a.dim = w->head_dim;
    a.scale = static_cast<float>(1 / sqrt(static_cast<double>(w->head_dim)));
    return type == DTYPE_BF16 ? start_dim<__nv_bfloat16>(a, w, e) : start_dim<float>(a, w, e);
}
