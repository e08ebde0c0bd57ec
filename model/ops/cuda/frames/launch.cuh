// What the launchers of this folder share: types, and the runtime's answer in words.
#ifndef DITGEN_OPS_CUDA_FRAMES_LAUNCH_CUH
#define DITGEN_OPS_CUDA_FRAMES_LAUNCH_CUH

#include "model/base/cuda/ptx.cuh"

#include <cuda_runtime.h>

extern "C" {
#include "model/base/err.h"
}

typedef __nv_bfloat16 bf16;

static inline int launched(cudaError_t r, err *e, const char *what)
{
    if (r == cudaSuccess) return 0;
    return err_set(e, ERR_DEVICE, "%s: %s", what, cudaGetErrorString(r));
}

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }
template <class T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x)
{
    return __float2bfloat16(x);
}
// as the type stores it
template <class T> __device__ __forceinline__ float rounded(float x)
{
    return to_float(from_float<T>(x));
}

// eight bf16 at once
__device__ __forceinline__ float low_half(uint32_t x) { return __uint_as_float(x << 16); }
__device__ __forceinline__ float high_half(uint32_t x) { return __uint_as_float(x & 0xffff0000u); }

// eight values of either type, 16-byte aligned
template <class T> __device__ __forceinline__ void load8(float (&v)[8], const T *at);
template <> __device__ __forceinline__ void load8<float>(float (&v)[8], const float *at)
{
    const float4 a = *reinterpret_cast<const float4 *>(at),
                 b = *reinterpret_cast<const float4 *>(at + 4);
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
    v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}
__device__ __forceinline__ void widen8(float (&v)[8], uint4 a)
{
    v[0] = low_half(a.x), v[1] = high_half(a.x), v[2] = low_half(a.y), v[3] = high_half(a.y);
    v[4] = low_half(a.z), v[5] = high_half(a.z), v[6] = low_half(a.w), v[7] = high_half(a.w);
}
template <> __device__ __forceinline__ void load8<bf16>(float (&v)[8], const bf16 *at)
{
    widen8(v, *reinterpret_cast<const uint4 *>(at));
}
template <class T> __device__ __forceinline__ void store8(T *at, const float (&v)[8]);
template <> __device__ __forceinline__ void store8<float>(float *at, const float (&v)[8])
{
    *reinterpret_cast<float4 *>(at) = make_float4(v[0], v[1], v[2], v[3]);
    *reinterpret_cast<float4 *>(at + 4) = make_float4(v[4], v[5], v[6], v[7]);
}
template <> __device__ __forceinline__ void store8<bf16>(bf16 *at, const float (&v)[8])
{
    *reinterpret_cast<uint4 *>(at) = make_uint4(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]),
                                                pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7]));
}
__device__ __forceinline__ uint32_t add2(uint32_t x, uint32_t y)
{
    return pack_bf16(low_half(x) + low_half(y), high_half(x) + high_half(y));
}
__device__ __forceinline__ uint4 add8(uint4 x, uint4 y)
{
    return make_uint4(add2(x.x, y.x), add2(x.y, y.y), add2(x.z, y.z), add2(x.w, y.w));
}

// Eight channels of a pixel: x / length * sqrt(channels) * gamma, then SiLU or not, each step as the type
// stores it
template <class T>
__device__ __forceinline__ void norm8(float (&v)[8], const float (&gamma)[8], float scale,
                                      float root, bool silu)
{
#pragma unroll
    for (int i = 0; i < 8; i++) {
        v[i] = rounded<T>(rounded<T>(rounded<T>(v[i] * scale) * root) * gamma[i]);
        if (silu) v[i] = rounded<T>(v[i] / (1.0f + expf(-v[i])));
    }
}

#endif
