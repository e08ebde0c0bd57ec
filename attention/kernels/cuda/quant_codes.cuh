// Second pass of quant_qkv.cu: a block takes 128 tokens of one head of q, k or v to codes.
#ifndef DITGEN_ATTENTION_KERNELS_CUDA_QUANT_CODES_CUH
#define DITGEN_ATTENTION_KERNELS_CUDA_QUANT_CODES_CUH

#include "attention/kernels/cuda/device.cuh"
#include "attention/kernels/cuda/sage_cuda.h"

#include <cuda_fp8.h>

namespace
{

constexpr int THREADS = 256, BLOCK = QUANT_BLOCK;

struct QuantArgs {
    quant_codes c;
    const bf16 *q, *k, *v;
    int64_t q_token, q_head, k_token, k_head, v_token, v_head;
    int chunks;
};

// 8 channels of one token; 0 where there is none
struct Eight {
    uint4 raw;
};
__device__ __forceinline__ Eight load8(const bf16 *at, bool there)
{
    Eight e = {make_uint4(0, 0, 0, 0)};
    if (there) e.raw = *reinterpret_cast<const uint4 *>(at);
    return e;
}
__device__ __forceinline__ void widen(float (&x)[8], const Eight &e)
{
    const uint32_t w[4] = {e.raw.x, e.raw.y, e.raw.z, e.raw.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        x[2 * i] = __uint_as_float(w[i] << 16);
        x[2 * i + 1] = __uint_as_float(w[i] & 0xffff0000u);
    }
}

// Walsh-Hadamard over the D channels of a token, 8 a thread: quant_rotate()'s order
template <int D> __device__ __forceinline__ void rotate(float (&x)[8])
{
#pragma unroll
    for (int h = 1; h < 8; h *= 2)
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (!(i & h)) {
                const float a = x[i], b = x[i + h];
                x[i] = a + b;
                x[i + h] = a - b;
            }
#pragma unroll
    for (int h = 1; h < D / 8; h *= 2)
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const float other = __shfl_xor_sync(~0u, x[i], h);
            x[i] = threadIdx.x & h ? other - x[i] : x[i] + other;
        }
    const float norm = D == 64 ? 0.125f : 0.08838834764831845f;
#pragma unroll
    for (int i = 0; i < 8; i++)
        x[i] *= norm;
}

__device__ __forceinline__ int code_of(float x, float inverse, int most)
{
    const int y = __float2int_rn(x * inverse);
    return y > most ? most : y < -most ? -most : y;
}

// Shared memory of a block, one use after another
template <int D> struct Room {
    static constexpr int ROWS = THREADS / (D / 8);
    union {
        float sums[ROWS][D]; // of a part of the block, for its mean
        uint32_t values[D][BLOCK / 4]; // transposed codes
    };
    float mean[D];
    uint32_t most[BLOCK]; // bits of largest magnitudes: they order as the numbers do
};

template <int D, bool KEYS> __device__ void queries_or_keys(const QuantArgs &a, Room<D> &room)
{
    constexpr int LANES = D / 8, ROWS = THREADS / LANES,
                  PER = BLOCK / ROWS; // tokens a thread: row + i * ROWS
    const int head = blockIdx.y, block = blockIdx.x, c = threadIdx.x % LANES * 8,
              row = threadIdx.x / LANES;
    const int len = KEYS ? a.c.len_k : a.c.len_q, blocks = KEYS ? a.c.k_blocks : a.c.q_blocks;
    const int64_t stride = KEYS ? a.k_token : a.q_token,
                  at = static_cast<int64_t>(head) * blocks + block;
    const bf16 *from = KEYS ? a.k + head * a.k_head + c : a.q + head * a.q_head + c;
    const quant_how how = a.c.how;
    float x[PER][8], mean[8];
    Eight raw[PER];
#pragma unroll
    for (int i = 0; i < PER; i++) {
        const int token = block * BLOCK + i * ROWS + row;
        raw[i] = load8(from + token * stride, token < len);
    }
#pragma unroll
    for (int j = 0; j < 8; j++)
        mean[j] = a.c.k_mean[head * D + c + j];
    if (threadIdx.x < BLOCK) room.most[threadIdx.x] = 0;
#pragma unroll
    for (int i = 0; i < PER; i++)
        widen(x[i], raw[i]);
    if (!KEYS && a.c.lse_shift) {
        const float scale = D == 64 ? 0.125f : 0.08838834764831845f;
#pragma unroll
        for (int i = 0; i < PER; i++) {
            float s = 0;
#pragma unroll
            for (int j = 0; j < 8; j++)
                s += x[i][j] * mean[j];
#pragma unroll
            for (int h = 1; h < LANES; h *= 2)
                s += __shfl_xor_sync(~0u, s, h);
            const int token = block * BLOCK + i * ROWS + row;
            if (c == 0 && token < len)
                a.c.lse_shift[static_cast<int64_t>(head) * len + token] = s * scale;
        }
    }
    const bool smooth = KEYS ? how.smooth_k : how.smooth_q;
    float *pool = KEYS ? a.c.k_pool : a.c.q_pool;
    if (pool || (!KEYS && smooth)) { // means of the block's parts, then of the block
        const int parts = how.pools > 0 ? how.pools : 1,
                  per = PER / parts; // ROWS divides a part: parts <= 4
        float all = 0;
        for (int p = 0; p < parts; p++) {
            float s[8] = {};
#pragma unroll
            for (int i = 0; i < PER; i++)
                if (i / per == p)
#pragma unroll
                    for (int j = 0; j < 8; j++)
                        s[j] += x[i][j];
            __syncthreads();
#pragma unroll
            for (int j = 0; j < 8; j++)
                room.sums[row][c + j] = s[j];
            __syncthreads();
            if (threadIdx.x < D) {
                float sum = 0;
                for (int r = 0; r < ROWS; r++)
                    sum += room.sums[r][threadIdx.x];
                const int n = min(BLOCK / parts, len - block * BLOCK - p * (BLOCK / parts));
                if (pool)
                    pool[(at * parts + p) * D + threadIdx.x] =
                        n > 0 ? sum / static_cast<float>(n) : 0;
                all += sum;
            }
        }
        if (!KEYS && smooth && threadIdx.x < D) {
            all /= static_cast<float>(min(BLOCK, len - block * BLOCK));
            a.c.q_mean[at * D + threadIdx.x] = all;
            room.mean[threadIdx.x] = all;
        }
    }
    __syncthreads();
    if (!KEYS && smooth)
#pragma unroll
        for (int j = 0; j < 8; j++)
            mean[j] = room.mean[c + j];
#pragma unroll
    for (int i = 0; i < PER; i++) {
        const bool there = block * BLOCK + i * ROWS + row < len;
        float most = 0;
        if (smooth && there)
#pragma unroll
            for (int j = 0; j < 8; j++)
                x[i][j] -= mean[j];
        if (how.rotate) rotate<D>(x[i]);
#pragma unroll
        for (int j = 0; j < 8; j++)
            most = fmaxf(most, fabsf(x[i][j]));
#pragma unroll
        for (int h = 1; h < LANES; h *= 2)
            most = fmaxf(most, __shfl_xor_sync(~0u, most, h));
        const int token = i * ROWS + row, group = KEYS ? token % 8 / 2 : token / 16 * 8 + token % 8;
        if (c == 0) atomicMax(&room.most[group], __float_as_uint(most));
    }
    __syncthreads();
    const float steps = how.bits == 8 ? 127.0f : 7.0f;
    if (threadIdx.x < (KEYS ? 4 : BLOCK / 2)) {
        const float scale = fmaxf(__uint_as_float(room.most[threadIdx.x]), 1e-7f) / steps;
        if (KEYS)
            a.c.k_scale[at * QUANT_K_SCALES + threadIdx.x] = scale;
        else
            a.c.q_scale[at * (BLOCK / 2) + threadIdx.x] = scale;
    }
    if (KEYS && threadIdx.x < 3) a.c.k_scale[at * QUANT_K_SCALES + 5 + threadIdx.x] = 0;
    int8_t *codes = (KEYS ? a.c.k : a.c.q) + at * BLOCK * D + c;
    const int top = how.bits == 8 ? 127 : 7;
#pragma unroll
    for (int i = 0; i < PER; i++) {
        const int token = i * ROWS + row, group = KEYS ? token % 8 / 2 : token / 16 * 8 + token % 8;
        const float inverse = 1.0f / (fmaxf(__uint_as_float(room.most[group]), 1e-7f) / steps);
        uint32_t w[2];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            w[h] = 0;
#pragma unroll
            for (int j = 0; j < 4; j++)
                w[h] |= (static_cast<uint32_t>(code_of(x[i][4 * h + j], inverse, top)) & 255)
                        << 8 * j;
        }
        *reinterpret_cast<uint2 *>(codes + token * D) = make_uint2(w[0], w[1]);
    }
}

template <int D> __device__ void values(const QuantArgs &a, Room<D> &room)
{
    constexpr int LANES = D / 8, QUADS = BLOCK / 4, ROWS = THREADS / LANES, PER = QUADS / ROWS;
    constexpr int SPREAD =
        32 / LANES; // column of a word ^ SPREAD * lane: no two of a warp in one bank
    const int head = blockIdx.y, block = blockIdx.x, lane = threadIdx.x % LANES, c = lane * 8,
              row = threadIdx.x / LANES;
    const int64_t at = static_cast<int64_t>(head) * a.c.k_blocks + block;
    const bf16 *from = a.v + head * a.v_head + c;
    Eight raw[PER][4];
    float inverse[8], x[PER][4][8];
    // four tokens that stand side by side (quant_slot): 2t, 2t + 1, 8 + 2t, 9 + 2t of 16
#pragma unroll
    for (int i = 0; i < PER; i++) {
        const int quad = row + i * ROWS, first = block * BLOCK + quad / 4 * 16 + quad % 4 * 2;
#pragma unroll
        for (int t = 0; t < 4; t++) {
            const int token = first + t % 2 + t / 2 * 8;
            raw[i][t] = load8(from + token * a.v_token, token < a.c.len_k);
        }
    }
    if (threadIdx.x == 0) room.most[0] = 0;
    __syncthreads();
    float most = 0;
#pragma unroll
    for (int j = 0; j < 8; j++)
        inverse[j] = 1.0f / a.c.v_scale[head * D + c + j];
#pragma unroll
    for (int i = 0; i < PER; i++)
#pragma unroll
        for (int t = 0; t < 4; t++) {
            widen(x[i][t], raw[i][t]);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                x[i][t][j] *= inverse[j];
                most = fmaxf(most, fabsf(x[i][t][j]));
            }
        }
    const bool bytes = a.c.how.values == QUANT_S8;
    float factor = 1;
    if (bytes) {
#pragma unroll
        for (int h = 1; h < 32; h *= 2)
            most = fmaxf(most, __shfl_xor_sync(~0u, most, h));
        if (threadIdx.x % 32 == 0) atomicMax(&room.most[0], __float_as_uint(most));
        __syncthreads();
        factor = fmaxf(__uint_as_float(room.most[0]), 1e-7f) / 127.0f;
    }
    if (threadIdx.x == 0) a.c.k_scale[at * QUANT_K_SCALES + 4] = factor;
    const float by = 1.0f / factor;
#pragma unroll
    for (int i = 0; i < PER; i++)
#pragma unroll
        for (int j = 0; j < 8; j++) {
            uint32_t w = 0;
            if (bytes) {
#pragma unroll
                for (int t = 0; t < 4; t++)
                    w |= (static_cast<uint32_t>(code_of(x[i][t][j], by, 127)) & 255) << 8 * t;
            } else {
                w = __nv_cvt_float2_to_fp8x2(make_float2(x[i][0][j], x[i][1][j]), __NV_SATFINITE,
                                             __NV_E4M3) |
                    static_cast<uint32_t>(__nv_cvt_float2_to_fp8x2(
                        make_float2(x[i][2][j], x[i][3][j]), __NV_SATFINITE, __NV_E4M3))
                        << 16;
            }
            room.values[c + j][(row + i * ROWS) ^ (SPREAD * lane)] = w;
        }
    __syncthreads();
    uint32_t *to = reinterpret_cast<uint32_t *>(a.c.v + at * BLOCK * D);
    for (int i = threadIdx.x; i < D * QUADS; i += THREADS) {
        const int channel = i / QUADS, word = i % QUADS;
        to[i] = room.values[channel][word ^ (SPREAD * (channel / 8))];
    }
}

template <int D>
__global__ void __launch_bounds__(THREADS, 2) make_codes(const __grid_constant__ QuantArgs a)
{
    __shared__ Room<D> room;
    const int block = blockIdx.x;
    if (blockIdx.z == 0 && block < a.c.q_blocks) queries_or_keys<D, false>(a, room);
    if (blockIdx.z == 1 && block < a.c.k_blocks) queries_or_keys<D, true>(a, room);
    if (blockIdx.z == 2 && block < a.c.k_blocks) values<D>(a, room);
}

} // namespace

#endif
