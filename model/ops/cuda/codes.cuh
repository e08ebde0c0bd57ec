// What kernels that write e4m3 codes share: model/ops/fp8.h, bit by bit.
#ifndef DITGEN_OPS_CUDA_CODES_CUH
#define DITGEN_OPS_CUDA_CODES_CUH

#include "model/ops/cuda/lanes.cuh"
extern "C" {
#include "model/ops/fp8.h"
}

#include <cuda_fp8.h>

__device__ __forceinline__ float largest(const Eight &x)
{
    float most = 0;
#pragma unroll
    for (int k = 0; k < 8; k++)
        most = fmaxf(most, fabsf(x.v[k]));
    return most;
}

__device__ __forceinline__ float scale_of(float most)
{
    return most >= FP8_LEAST ? most / E4M3_MOST : 1;
}

// Two numbers an instruction, the first in the low byte
__device__ __forceinline__ void codes8(uint8_t *at, const Eight &x, float inverse)
{
    uint32_t word[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        word[i] = 0;
#pragma unroll
        for (int k = 0; k < 2; k++) {
            const float2 pair =
                make_float2(x.v[4 * i + 2 * k] * inverse, x.v[4 * i + 2 * k + 1] * inverse);
            word[i] |=
                static_cast<uint32_t>(__nv_cvt_float2_to_fp8x2(pair, __NV_SATFINITE, __NV_E4M3))
                << (16 * k);
        }
    }
    *reinterpret_cast<uint2 *>(at) = make_uint2(word[0], word[1]);
}

// The largest number of a row, known to all its threads; as row_sum().
template <int WARPS> __device__ __forceinline__ float row_most(float x, float *room)
{
#pragma unroll
    for (int i = 16; i; i /= 2)
        x = fmaxf(x, __shfl_xor_sync(~0u, x, i));
    if (WARPS == 1) return x;
    const int warp = threadIdx.x / 32;
    __syncthreads(); // the room may still be read for the sum before
    if (threadIdx.x % 32 == 0) room[warp] = x;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < WARPS; i++)
        x = fmaxf(x, room[warp / WARPS * WARPS + i]);
    return x;
}

#endif
