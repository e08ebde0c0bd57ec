// A convolution's weights as its kernels read them, made where they lie.
#include "model/ops/cuda/frames/conv_cuda.h"
#include "model/ops/cuda/frames/launch.cuh"

#include <cuda_fp16.h>

namespace
{

constexpr int THREADS = 256;

__device__ __forceinline__ float wide(float x) { return x; }
__device__ __forceinline__ float wide(double x) { return static_cast<float>(x); }
__device__ __forceinline__ float wide(bf16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float wide(__half x) { return __half2float(x); }

// [out, in, taps] → [taps, out, in padded]
template <class To, class From>
__global__ void pack(To *to, const From *from, int out, int in, int in_pad, int taps)
{
    const size_t n = static_cast<size_t>(taps) * out * in_pad;
    const size_t i = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x;
    if (i >= n) return;
    const size_t c = i % in_pad, o = i / in_pad % out, t = i / in_pad / out;
    to[i] =
        from_float<To>(c < static_cast<size_t>(in) ? wide(from[(o * in + c) * taps + t]) : 0.0f);
}

template <class From>
int run(void *to, const void *from, const conv_weight *w, cudaStream_t stream, err *e)
{
    const int in_pad = (w->in + 7) / 8 * 8;
    const size_t n = static_cast<size_t>(w->taps) * w->out * in_pad;
    const unsigned blocks = static_cast<unsigned>((n + THREADS - 1) / THREADS);
    const From *src = static_cast<const From *>(from);
    if (w->bf16)
        pack<bf16, From><<<blocks, THREADS, 0, stream>>>(static_cast<bf16 *>(to), src, w->out,
                                                         w->in, in_pad, w->taps);
    else
        pack<float, From><<<blocks, THREADS, 0, stream>>>(static_cast<float *>(to), src, w->out,
                                                          w->in, in_pad, w->taps);
    return launched(cudaGetLastError(), e, "weights of a convolution");
}

} // namespace

int conv_pack_cuda(void *to, const void *from, const conv_weight *w, void *stream, err *e)
{
    cudaStream_t s = static_cast<cudaStream_t>(stream);
    switch (w->type) {
    case CONV_WEIGHT_F32:
        return run<float>(to, from, w, s, e);
    case CONV_WEIGHT_F64:
        return run<double>(to, from, w, s, e);
    case CONV_WEIGHT_BF16:
        return run<bf16>(to, from, w, s, e);
    default:
        return run<__half>(to, from, w, s, e);
    }
}
