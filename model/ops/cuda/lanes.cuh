// What the row kernels share: eight numbers a thread in one or two wide accesses, and sums over the
// threads of a row.
#ifndef DITGEN_OPS_CUDA_LANES_CUH
#define DITGEN_OPS_CUDA_LANES_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

typedef __nv_bfloat16 bf16;

struct Eight {
    float v[8];
};

__device__ __forceinline__ Eight load8(const float *at)
{
    const float4 a = reinterpret_cast<const float4 *>(at)[0];
    const float4 b = reinterpret_cast<const float4 *>(at)[1];
    return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}
__device__ __forceinline__ Eight load8(const bf16 *at)
{
    const uint4 w = *reinterpret_cast<const uint4 *>(at); // 16 bytes: widest vector access
    const uint32_t word[4] = {w.x, w.y, w.z, w.w};
    Eight e;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        e.v[2 * i] = __uint_as_float(word[i] << 16);
        e.v[2 * i + 1] = __uint_as_float(word[i] & 0xffff0000u);
    }
    return e;
}
__device__ __forceinline__ void store8(float *at, const Eight &e)
{
    reinterpret_cast<float4 *>(at)[0] = make_float4(e.v[0], e.v[1], e.v[2], e.v[3]);
    reinterpret_cast<float4 *>(at)[1] = make_float4(e.v[4], e.v[5], e.v[6], e.v[7]);
}
__device__ __forceinline__ void store8(bf16 *at, const Eight &e)
{
    uint32_t word[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const __nv_bfloat162 pair = __floats2bfloat162_rn(e.v[2 * i], e.v[2 * i + 1]);
        word[i] = *reinterpret_cast<const uint32_t *>(&pair);
    }
    *reinterpret_cast<uint4 *>(at) = make_uint4(word[0], word[1], word[2], word[3]);
}

// As a value of T would come back from memory
template <class T> __device__ __forceinline__ float narrow(float x);
template <> __device__ __forceinline__ float narrow<float>(float x) { return x; }
template <> __device__ __forceinline__ float narrow<bf16>(float x)
{
    return __bfloat162float(__float2bfloat16_rn(x));
}

// bf16 values, in fp32 as well when the caller asks; in bf16 the store does it
template <class T> __device__ __forceinline__ void narrow8(Eight &e, bool asked)
{
    if (!asked) return;
#pragma unroll
    for (int k = 0; k < 8; k++)
        e.v[k] = narrow<bf16>(e.v[k]);
}

// The sum over the threads of a row, known to all of them: WARPS warps that lie side by side. `room`
// has a float a warp of the block; every thread of the block must come here.
template <int WARPS> __device__ __forceinline__ float row_sum(float x, float *room)
{
#pragma unroll
    for (int i = 16; i; i /= 2)
        x += __shfl_xor_sync(~0u, x, i);
    if (WARPS == 1) return x;
    const int warp = threadIdx.x / 32;
    __syncthreads(); // the room may still be read for the sum before
    if (threadIdx.x % 32 == 0) room[warp] = x;
    __syncthreads();
    x = 0;
#pragma unroll
    for (int i = 0; i < WARPS; i++)
        x += room[warp / WARPS * WARPS + i];
    return x;
}

__device__ __forceinline__ float gelu_tanh(float x)
{
    return 0.5f * x * (1 + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
}
__device__ __forceinline__ float gelu_erf(float x)
{
    return 0.5f * x * (1 + erff(x * 0.7071067811865476f));
}
__device__ __forceinline__ float silu(float x) { return x / (1 + expf(-x)); }

#endif
