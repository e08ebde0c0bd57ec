// flash_tf32: attention in fp32 by matrix units, three products of TF32 each: what fp32 runs take where strides
// allow it. Any card, heads of up to 128 channels in multiples of 4, key bias, lists of tiles.
//
// x = hi + lo, both of 11 significant bits; hi·hi + hi·lo + lo·hi leaves out lo·lo, which is 2^-22 of the product. The
// units add with truncation, so that sums stay short: 16 products of 8 channels a score, the small ones apart from
// them, and 32 keys of the result at a time, which are added to the running sum as fp32 does.
//
// FlashAttention-2, arXiv 2307.08691: a block owns 64 queries of one head, a warp 16 of them, and meets 32 keys at a
// time, the next of which are on their way meanwhile. Queries stay in registers.
//
//   shared      2 x keys [32][D + 16], 2 x values [32][D + 4]
//   channels    a thread's four of 16 are two columns of two products: scores do not care which channel is which
//   keys        columns 2t and 2t + 1 of a thread's scores are the rows t and t + 4 of its values
#include "attention/kernels/cuda/simt_cuda.h"
#include "model/base/cuda/launch.h"
#include "model/base/cuda/ptx.cuh"

#include <math.h>

namespace
{

constexpr int BQ = 64, BK = 32, THREADS = 128;
constexpr float LOG2E = 1.4426950408889634f, LN2 = 0.6931471805599453f;

struct Args {
    const float *q, *k, *v;
    float *o;
    int64_t q_token, q_head, k_token, k_head, v_token, v_head, o_token, o_head;
    const float *key_bias;
    float *lse;
    const uint32_t *row_ptr, *steps;
    int len_q, len_k, dim, rows, per_head, block_q, block_k;
    float scale; // of scores, to powers of two
};

struct Half { // two parts of four numbers
    uint32_t hi[4], lo[4];
};

// the nearest of 11 bits, and what it leaves, of which the units read 11 bits
__device__ __forceinline__ void split(uint32_t &hi, uint32_t &lo, float x)
{
    hi = (__float_as_uint(x) + 0x1000u) & 0xffffe000u;
    lo = __float_as_uint(x - __uint_as_float(hi));
}

__device__ __forceinline__ void split4(Half &h, float a, float b, float c, float d)
{
    split(h.hi[0], h.lo[0], a);
    split(h.hi[1], h.lo[1], b);
    split(h.hi[2], h.lo[2], c);
    split(h.hi[3], h.lo[3], d);
}

// what is met: all keys, or the tiles of the list's row, BK at a time
struct Walk {
    const uint32_t *steps; // NULL: all keys
    int passes, per, block_k, len_k, at;

    __device__ __forceinline__ Walk(const Args &a, int head, int q0)
    {
        steps = nullptr;
        per = 1;
        block_k = BK;
        len_k = a.len_k;
        passes = (a.len_k + BK - 1) / BK;
        at = 0;
        if (!a.steps) return;
        const int row = (a.per_head ? head * a.rows : 0) + q0 / a.block_q;
        block_k = a.block_k;
        per = a.block_k / BK;
        steps = a.steps + a.row_ptr[row];
        passes = static_cast<int>(a.row_ptr[row + 1] - a.row_ptr[row]) * per;
    }
    // the first key of the next BK; -1: there are no more
    __device__ __forceinline__ int next()
    {
        while (at < passes) {
            const int n = at++;
            const int k0 =
                steps ? static_cast<int>(ATTN_STEP_TILE(steps[n / per])) * block_k + n % per * BK
                      : n * BK;
            if (k0 < len_k) return k0; // a last tile may end before its end
        }
        return -1;
    }
};

template <int D, int PITCH>
__device__ __forceinline__ void load(uint32_t tile, const float *x, int64_t token, int first,
                                     int len, int dim)
{
#pragma unroll
    for (int i = 0; i < BK * D / 4 / THREADS; i++) {
        const int at = i * THREADS + threadIdx.x, row = at / (D / 4), c = at % (D / 4) * 4;
        const bool inside = first + row < len && c < dim;
        copy16_async(tile + (row * PITCH + c) * 4, inside ? x + (first + row) * token + c : x,
                     inside);
    }
}

constexpr size_t shared_bytes(int d) { return 2 * BK * (static_cast<size_t>(d) + 16 + d + 4) * 4; }

template <int D>
__global__ void __launch_bounds__(THREADS, 2) attention(const __grid_constant__ Args a)
{
    extern __shared__ __align__(16) float room[];
    constexpr int KP = D + 16, VP = D + 4; // a quarter of a warp meets each bank once
    const int head = blockIdx.y, q0 = blockIdx.x * BQ;
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const float *keys = a.k + head * a.k_head, *values = a.v + head * a.v_head;
    const int row = q0 + warp * 16 + g;
    float q[D / 16][8], o[D / 8][4] = {}, most[2] = {-INFINITY, -INFINITY}, sum[2] = {};
#pragma unroll
    for (int d = 0; d < D / 16; d++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int c = 16 * d + 4 * t;
            float4 x = make_float4(0, 0, 0, 0);
            if (row + 8 * h < a.len_q && c < a.dim)
                x = *reinterpret_cast<const float4 *>(a.q + head * a.q_head +
                                                      (row + 8 * h) * a.q_token + c);
            q[d][4 * h + 0] = x.x * a.scale;
            q[d][4 * h + 1] = x.y * a.scale;
            q[d][4 * h + 2] = x.z * a.scale;
            q[d][4 * h + 3] = x.w * a.scale;
        }
    Walk walk(a, head, q0);
    const auto bring = [&](int stage, int k0) {
        load<D, KP>(smem_address(room + stage * BK * KP), keys, a.k_token, k0, a.len_k, a.dim);
        load<D, VP>(smem_address(room + 2 * BK * KP + stage * BK * VP), values, a.v_token, k0,
                    a.len_k, a.dim);
        copy_commit();
    };
    int k0 = walk.next();
    if (k0 >= 0) bring(0, k0);
    for (int stage = 0; k0 >= 0; stage ^= 1) {
        const float *k = room + stage * BK * KP, *v = room + 2 * BK * KP + stage * BK * VP;
        copy_wait<0>();
        __syncthreads(); // all of it is here, and the other stage was read
        const int after = walk.next();
        if (after >= 0) bring(stage ^ 1, after);
        float s[BK / 8][4] = {}, small[BK / 8][4] = {};
#pragma unroll
        for (int d = 0; d < D / 16; d++) {
            Half x[2]; // two products' left sides
            split4(x[0], q[d][0], q[d][4], q[d][1], q[d][5]);
            split4(x[1], q[d][2], q[d][6], q[d][3], q[d][7]);
#pragma unroll
            for (int j = 0; j < BK / 8; j++) {
                const float4 b =
                    *reinterpret_cast<const float4 *>(k + (8 * j + g) * KP + 16 * d + 4 * t);
                Half y;
                split4(y, b.x, b.y, b.z, b.w);
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    mma_tf32(small[j], x[i].lo, y.hi[2 * i], y.hi[2 * i + 1]);
                    mma_tf32(small[j], x[i].hi, y.lo[2 * i], y.lo[2 * i + 1]);
                    mma_tf32(s[j], x[i].hi, y.hi[2 * i], y.hi[2 * i + 1]);
                }
            }
        }
        Half p[BK / 8];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float high = most[h];
#pragma unroll
            for (int j = 0; j < BK / 8; j++)
#pragma unroll
                for (int x = 0; x < 2; x++) {
                    const int key = k0 + 8 * j + 2 * t + x;
                    float &e = s[j][2 * h + x];
                    e += small[j][2 * h + x];
                    if (a.key_bias && key < a.len_k) e += a.key_bias[key] * LOG2E;
                    if (key >= a.len_k) e = -INFINITY;
                    high = fmaxf(high, e);
                }
            high = fmaxf(high, __shfl_xor_sync(~0u, high, 1));
            high = fmaxf(high, __shfl_xor_sync(~0u, high, 2));
            const float base = high == -INFINITY ? 0 : high, shrink = exp2f(most[h] - base);
            most[h] = high;
            sum[h] *= shrink;
#pragma unroll
            for (int c = 0; c < D / 8; c++) {
                o[c][2 * h] *= shrink;
                o[c][2 * h + 1] *= shrink;
            }
#pragma unroll
            for (int j = 0; j < BK / 8; j++)
#pragma unroll
                for (int x = 0; x < 2; x++) {
                    const float w = exp2f(s[j][2 * h + x] - base);
                    sum[h] += w;
                    split(p[j].hi[2 * x + h], p[j].lo[2 * x + h], w);
                }
        }
#pragma unroll
        for (int c = 0; c < D / 8; c++) {
            float part[4] = {};
#pragma unroll
            for (int j = 0; j < BK / 8; j++) {
                const float *at = v + (8 * j + 2 * t) * VP + 8 * c + g;
                uint32_t hi[2], lo[2];
                split(hi[0], lo[0], at[0]);
                split(hi[1], lo[1], at[VP]);
                mma_tf32(part, p[j].lo, hi[0], hi[1]);
                mma_tf32(part, p[j].hi, lo[0], lo[1]);
                mma_tf32(part, p[j].hi, hi[0], hi[1]);
            }
#pragma unroll
            for (int i = 0; i < 4; i++)
                o[c][i] += part[i];
        }
        k0 = after;
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        sum[h] += __shfl_xor_sync(~0u, sum[h], 1);
        sum[h] += __shfl_xor_sync(~0u, sum[h], 2);
        const int at = row + 8 * h;
        if (at >= a.len_q) continue;
        float *out = a.o + head * a.o_head + at * a.o_token;
        const float by = sum[h] > 0 ? 1 / sum[h] : 0;
#pragma unroll
        for (int c = 0; c < D / 8; c++)
            if (8 * c + 2 * t < a.dim)
                *reinterpret_cast<float2 *>(out + 8 * c + 2 * t) =
                    make_float2(o[c][2 * h] * by, o[c][2 * h + 1] * by);
        if (a.lse && t == 0)
            a.lse[static_cast<size_t>(head) * a.len_q + at] =
                sum[h] > 0 ? most[h] * LN2 + logf(sum[h]) : -INFINITY;
    }
}

template <int D> int start(const Args &a, const struct attn_cuda *w, struct err *e)
{
    constexpr int BYTES = static_cast<int>(shared_bytes(D));
    static_assert(BYTES <= 101376, "fits a block of sm_86, the least of all since sm_80");
    const int r =
        cudaFuncSetAttribute(attention<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
    if (cuda_said(e, r, "flash_tf32") < 0) return -1;
    const dim3 grid((w->len_q + BQ - 1) / BQ, w->n_heads);
    attention<D><<<grid, THREADS, BYTES, static_cast<cudaStream_t>(w->stream)>>>(a);
    return cuda_launched(e, "flash_tf32 over %d queries, %d keys, %d heads", w->len_q, w->len_k,
                         w->n_heads);
}

} // namespace

extern "C" int attn_tf32(const struct attn_cuda *w, struct err *e)
{
    if (attn_tf32_takes(w, e) < 0) return -1;
    const struct attn_lists *l = w->lists;
    Args a = {};
    a.q = static_cast<const float *>(w->q.at), a.k = static_cast<const float *>(w->k.at);
    a.v = static_cast<const float *>(w->v.at), a.o = static_cast<float *>(w->o.at);
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
    a.scale = static_cast<float>(1.4426950408889634 / sqrt(static_cast<double>(w->head_dim)));
    return w->head_dim <= 64 ? start<64>(a, w, e) : start<128>(a, w, e);
}
