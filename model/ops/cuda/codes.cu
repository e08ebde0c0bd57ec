// e4m3 codes and scales of rows, for fp8 products. A row is read twice, the second time from the
// cache: once for its largest number, once for the codes.
#include "model/base/cuda/launch.h"
#include "model/ops/cuda/lanes.cuh"
#include "model/ops/cuda/rows_cuda.h"

#include <cuda_fp8.h>

namespace
{

constexpr int THREADS = 128;
constexpr float MOST = 448; // of e4m3

__device__ __forceinline__ float largest(const Eight &x)
{
    float most = 0;
#pragma unroll
    for (int k = 0; k < 8; k++)
        most = fmaxf(most, fabsf(x.v[k]));
    return most;
}

__device__ __forceinline__ void codes8(uint8_t *at, const Eight &x, float inverse)
{
    uint32_t word[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        word[i] = 0;
#pragma unroll
        for (int k = 0; k < 4; k++)
            word[i] |= static_cast<uint32_t>(__nv_cvt_float_to_fp8(x.v[4 * i + k] * inverse,
                                                                   __NV_SATFINITE, __NV_E4M3))
                       << (8 * k);
    }
    *reinterpret_cast<uint2 *>(at) = make_uint2(word[0], word[1]);
}

// The largest number of a block's row, known to all its threads
__device__ __forceinline__ float block_most(float most)
{
    __shared__ float room[THREADS / 32];
#pragma unroll
    for (int i = 16; i; i /= 2)
        most = fmaxf(most, __shfl_xor_sync(~0u, most, i));
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = most;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < THREADS / 32; i++)
        most = fmaxf(most, room[i]);
    return most;
}

template <class T> __device__ __forceinline__ float row_most(const T *x, int cols)
{
    float most = 0;
    for (int c = 8 * threadIdx.x; c < cols; c += 8 * THREADS)
        most = fmaxf(most, largest(load8(x + c)));
    return block_most(most);
}

template <class T>
__global__ void __launch_bounds__(THREADS) code_rows(uint8_t *q, float *scale, const T *x, int cols)
{
    const int64_t at = static_cast<int64_t>(blockIdx.x) * cols;
    const float most = row_most(x + at, cols), s = most > 0 ? most / MOST : 1;
    if (threadIdx.x == 0) scale[blockIdx.x] = s;
    for (int c = 8 * threadIdx.x; c < cols; c += 8 * THREADS)
        codes8(q + at + c, load8(x + at + c), 1 / s);
}

template <class T>
__global__ void __launch_bounds__(THREADS) peak_of(uint32_t *peak, const T *x, int cols)
{
    const float most = row_most(x + static_cast<int64_t>(blockIdx.x) * cols, cols);
    if (threadIdx.x == 0)
        atomicMax(peak, __float_as_uint(most)); // not negative: bits order as numbers
}

template <class T>
__global__ void __launch_bounds__(THREADS)
    code_whole(uint8_t *q, float *scale, const uint32_t *peak, const T *x, int cols)
{
    const int64_t at = static_cast<int64_t>(blockIdx.x) * cols;
    const float most = __uint_as_float(*peak), s = most > 0 ? most / MOST : 1;
    if (blockIdx.x == 0 && threadIdx.x == 0) *scale = s;
    for (int c = 8 * threadIdx.x; c < cols; c += 8 * THREADS)
        codes8(q + at + c, load8(x + at + c), 1 / s);
}

template <class T>
void code(uint8_t *q, float *scale, uint32_t *peak, const T *x, int rows, int cols, bool whole,
          cudaStream_t s)
{
    if (!whole) {
        code_rows<<<rows, THREADS, 0, s>>>(q, scale, x, cols);
        return;
    }
    peak_of<<<rows, THREADS, 0, s>>>(peak, x, cols);
    code_whole<<<rows, THREADS, 0, s>>>(q, scale, peak, x, cols);
}

} // namespace

extern "C" int cuda_codes(uint8_t *q, float *scale, uint32_t *peak, const void *x, enum dtype type,
                          int rows, int cols, bool whole, void *stream, struct err *e)
{
    if (rows < 1 || cols < 8 || cols % 8 || (type != DTYPE_F32 && type != DTYPE_BF16))
        return err_set(e, ERR_USAGE,
                       "fp8 codes of [%d, %d] %s, wanted rows of a multiple of 8, BF16 or F32",
                       rows, cols, dtype_name(type));
    if (!q || !scale || !x || (whole && !peak) || reinterpret_cast<uintptr_t>(x) % 16 ||
        reinterpret_cast<uintptr_t>(q) % 8)
        return err_set(e, ERR_BUG, "fp8 codes: q, scale, x or peak is missing or not aligned");
    const cudaStream_t s = static_cast<cudaStream_t>(stream);
    if (type == DTYPE_BF16)
        code(q, scale, peak, static_cast<const bf16 *>(x), rows, cols, whole, s);
    else
        code(q, scale, peak, static_cast<const float *>(x), rows, cols, whole, s);
    return cuda_launched(e, "fp8 codes of [%d, %d]", rows, cols);
}
