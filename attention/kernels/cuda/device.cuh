// What the attention kernels of every architecture share on the device.
#ifndef DITGEN_ATTENTION_KERNELS_CUDA_DEVICE_CUH
#define DITGEN_ATTENTION_KERNELS_CUDA_DEVICE_CUH

#include <cuda_bf16.h>
#include <stdint.h>

typedef __nv_bfloat16 bf16;

// x[i] of lane t of a quad becomes x[t] of lane i: rows of a 4 x 4 matrix to columns. Two rounds of
// exchange with the neighbours 1 and 2 away, each of the half that is not kept.
__device__ __forceinline__ void quad_transpose(uint32_t (&x)[4])
{
    const bool odd = threadIdx.x & 1, high = threadIdx.x & 2;
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        const uint32_t give = odd ? x[i] : x[i + 1];
        const uint32_t got = __shfl_xor_sync(~0u, give, 1);
        if (odd)
            x[i] = got;
        else
            x[i + 1] = got;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const uint32_t give = high ? x[i] : x[i + 2];
        const uint32_t got = __shfl_xor_sync(~0u, give, 2);
        if (high)
            x[i] = got;
        else
            x[i + 2] = got;
    }
}

#endif
