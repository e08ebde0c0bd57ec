// Numbers one by one: casts and activations, sums of a solver, what is not finite, bytes of frames.
#include "model/base/cuda/launch.h"
#include "model/ops/cuda/lanes.cuh"
#include "model/ops/cuda/rows_cuda.h"
#include "model/ops/cuda/shape_cuda.h"

#include <cuda_fp8.h>

namespace
{

using Sum = struct cuda_sum; // the function hides the name

constexpr int THREADS = 256;

// Enough blocks to fill the largest card some times over; each thread then strides.
unsigned blocks_for(size_t n, int each)
{
    const size_t blocks =
        (n + static_cast<size_t>(THREADS) * each - 1) / (static_cast<size_t>(THREADS) * each);
    return static_cast<unsigned>(blocks < 4096 ? (blocks ? blocks : 1) : 4096);
}

__device__ __forceinline__ float widen(double x) { return static_cast<float>(x); }
__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(bf16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float widen(__half x) { return __half2float(x); }
__device__ __forceinline__ float widen(__nv_fp8_e4m3 x) { return static_cast<float>(x); }
__device__ __forceinline__ float widen(__nv_fp8_e5m2 x) { return static_cast<float>(x); }
template <class T> __device__ __forceinline__ T shorten(float x);
template <> __device__ __forceinline__ float shorten<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 shorten<bf16>(float x)
{
    return __float2bfloat16_rn(x);
}
template <> __device__ __forceinline__ __half shorten<__half>(float x)
{
    return __float2half_rn(x);
}

__device__ __forceinline__ float activate(float x, int act)
{
    switch (act) {
    case ACT_GELU_TANH:
        return gelu_tanh(x);
    case ACT_GELU_ERF:
        return gelu_erf(x);
    case ACT_SILU:
        return silu(x);
    default:
        return x;
    }
}

// Four numbers a thread and round, so that loads are in flight together; y may be x.
template <class X, class Y>
__global__ void __launch_bounds__(THREADS)
    map(Y *y, const X *x, size_t n, int act, float times, bool round)
{
    const size_t stride = static_cast<size_t>(gridDim.x) * THREADS;
    for (size_t i = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x; i < n;
         i += 4 * stride) {
        X got[4];
#pragma unroll
        for (int k = 0; k < 4; k++)
            if (i + k * stride < n) got[k] = x[i + k * stride];
#pragma unroll
        for (int k = 0; k < 4; k++)
            if (i + k * stride < n) {
                float v = widen(got[k]) * times;
                if (round) v = narrow<bf16>(v);
                v = activate(v, act);
                y[i + k * stride] = shorten<Y>(round ? narrow<bf16>(v) : v);
            }
    }
}

template <class X> void map_from(const struct cuda_map &p, cudaStream_t s)
{
    const unsigned blocks = blocks_for(p.n, 4);
    const X *x = static_cast<const X *>(p.x);
    const int act = p.act;
    if (p.to == DTYPE_F32)
        map<<<blocks, THREADS, 0, s>>>(static_cast<float *>(p.y), x, p.n, act, p.times, p.round);
    else if (p.to == DTYPE_BF16)
        map<<<blocks, THREADS, 0, s>>>(static_cast<bf16 *>(p.y), x, p.n, act, p.times, p.round);
    else
        map<<<blocks, THREADS, 0, s>>>(static_cast<__half *>(p.y), x, p.n, act, p.times, p.round);
}

template <class T>
__global__ void __launch_bounds__(THREADS)
    copy_rows(T *y, int64_t y_row, const T *x, int64_t x_row, int rows, int cols)
{
    const size_t n = static_cast<size_t>(rows) * cols,
                 stride = static_cast<size_t>(gridDim.x) * THREADS;
    for (size_t i = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x; i < n; i += stride)
        y[i / cols * y_row + i % cols] = x[i / cols * x_row + i % cols];
}

template <class T>
__global__ void __launch_bounds__(THREADS)
    add_table(float *y, int64_t y_row, const T *m, int64_t m_row, const float *table, size_t total,
              int n)
{
    const size_t stride = static_cast<size_t>(gridDim.x) * THREADS;
    for (size_t i = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x; i < total; i += stride)
        y[i / n * y_row + i % n] = table[i % n] + widen(m[i / n * m_row + i % n]);
}

// Never contracted: the bytes are those of lincomb.c.
template <bool BF16> __device__ __forceinline__ float rounded(float x)
{
    return BF16 ? narrow<bf16>(x) : x;
}
template <int N, bool BF16>
__global__ void __launch_bounds__(THREADS) sum(const __grid_constant__ Sum p)
{
    const size_t stride = static_cast<size_t>(gridDim.x) * THREADS;
    float c[N];
#pragma unroll
    for (int k = 0; k < N; k++)
        c[k] = p.c_device ? p.c_device[k] : p.c[k];
    for (size_t i = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x; i < p.n; i += stride) {
        float s = rounded<BF16>(__fmul_rn(c[0], p.from[0][i]));
#pragma unroll
        for (int k = 1; k < N; k++)
            s = rounded<BF16>(__fadd_rn(s, rounded<BF16>(__fmul_rn(c[k], p.from[k][i]))));
        p.to[i] = s;
    }
}
template <int N> void sum_of(const Sum &p, cudaStream_t s)
{
    const unsigned blocks = blocks_for(p.n, 1);
    if (p.bf16)
        sum<N, true><<<blocks, THREADS, 0, s>>>(p);
    else
        sum<N, false><<<blocks, THREADS, 0, s>>>(p);
}

template <class T>
__global__ void __launch_bounds__(THREADS)
    not_finite(int *found, int label, const T *x, size_t n, int cols, int64_t row)
{
    const size_t stride = static_cast<size_t>(gridDim.x) * THREADS;
    bool bad = false;
    for (size_t i = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x; i < n; i += stride)
        bad |= !isfinite(widen(x[i / cols * row + i % cols]));
    if (__any_sync(~0u, bad) && threadIdx.x % 32 == 0) atomicCAS(found, 0, label);
}

// Parts of a sum: as many for all sizes, each adding every PARTS * THREADS-th number, so that the order
// is that of n. Threads of a block, then parts, are added as a tree.
constexpr int PARTS = (CUDA_DISTANCE_ROOM - 2) / 2;
static_assert(PARTS % THREADS == 0, "one block adds the parts, as many a thread");

__device__ __forceinline__ void block_sum(double *to, double apart, double size)
{
    __shared__ double shared[2][THREADS];
    shared[0][threadIdx.x] = apart;
    shared[1][threadIdx.x] = size;
    for (int half = THREADS / 2; half; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half)
            for (int which = 0; which < 2; which++)
                shared[which][threadIdx.x] += shared[which][threadIdx.x + half];
    }
    if (threadIdx.x == 0) to[0] = shared[0][0], to[1] = shared[1][0];
}

template <class A, class B>
__global__ void __launch_bounds__(THREADS) distance(double *parts, const A *a, const B *b, size_t n)
{
    double apart = 0, size = 0;
    for (size_t i = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x; i < n;
         i += static_cast<size_t>(PARTS) * THREADS) {
        const double y = b ? static_cast<double>(widen(b[i])) : 0;
        apart += fabs(static_cast<double>(widen(a[i])) - y);
        size += fabs(y);
    }
    block_sum(parts + 2 * blockIdx.x, apart, size);
}

__global__ void __launch_bounds__(THREADS) join(double *to, const double *parts)
{
    double apart = 0, size = 0;
    for (int i = threadIdx.x; i < PARTS; i += THREADS)
        apart += parts[2 * i], size += parts[2 * i + 1];
    block_sum(to, apart, size);
}

template <class A>
void distance_from(double *room, const A *a, const void *b, enum dtype b_type, size_t n,
                   cudaStream_t s)
{
    if (b_type == DTYPE_BF16)
        distance<<<PARTS, THREADS, 0, s>>>(room + 2, a, static_cast<const bf16 *>(b), n);
    else
        distance<<<PARTS, THREADS, 0, s>>>(room + 2, a, static_cast<const float *>(b), n);
    join<<<1, THREADS, 0, s>>>(room, room + 2);
}

// The host's order of operations, so its bytes: x / 2 + 1 / 2, clamped, times 255.
__global__ void __launch_bounds__(THREADS)
    to_bytes(uint8_t *bytes, const float *x, size_t pixels, bool planes, bool truncate)
{
    const size_t stride = static_cast<size_t>(gridDim.x) * THREADS;
    for (size_t i = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x; i < 3 * pixels;
         i += stride) {
        float v = x[planes ? i % 3 * pixels + i / 3 : i];
        v = __fadd_rn(__fmul_rn(v, 0.5f), 0.5f);
        v = __fmul_rn(v > 0 ? (v < 1 ? v : 1.0f) : 0.0f, 255.0f);
        bytes[i] = static_cast<uint8_t>(static_cast<int>(truncate ? v : rintf(v)));
    }
}

} // namespace

extern "C" int cuda_map(const struct cuda_map *p, void *stream, struct err *e)
{
    if (cuda_map_takes(p, e) < 0) return -1;
    if (!p->n) return 0;
    const cudaStream_t s = static_cast<cudaStream_t>(stream);
    switch (p->from) {
    case DTYPE_F64:
        map_from<double>(*p, s);
        break;
    case DTYPE_F32:
        map_from<float>(*p, s);
        break;
    case DTYPE_F16:
        map_from<__half>(*p, s);
        break;
    case DTYPE_BF16:
        map_from<bf16>(*p, s);
        break;
    case DTYPE_F8_E4M3:
        map_from<__nv_fp8_e4m3>(*p, s);
        break;
    default:
        map_from<__nv_fp8_e5m2>(*p, s);
        break;
    }
    return cuda_launched(e, "%zu numbers of %s to %s", p->n, dtype_name(p->from),
                         dtype_name(p->to));
}

extern "C" int cuda_copy_rows(void *y, int64_t y_row, const void *x, int64_t x_row, int rows,
                              int cols, size_t element, void *stream, struct err *e)
{
    if (rows < 1 || cols < 1) return err_set(e, ERR_USAGE, "copying rows [%d, %d]", rows, cols);
    const cudaStream_t s = static_cast<cudaStream_t>(stream);
    // eight bytes at a time where rows and strides allow
    const size_t wide = element < 8 ? 8 / element : 1;
    const bool fits = element < 8 && cols % wide == 0 && y_row % static_cast<int64_t>(wide) == 0 &&
                      x_row % static_cast<int64_t>(wide) == 0 &&
                      reinterpret_cast<uintptr_t>(x) % 8 == 0 &&
                      reinterpret_cast<uintptr_t>(y) % 8 == 0;
    if (fits) {
        cols /= static_cast<int>(wide), y_row /= static_cast<int64_t>(wide),
            x_row /= static_cast<int64_t>(wide);
        element = 8;
    }
    const unsigned blocks = blocks_for(static_cast<size_t>(rows) * cols, 4);
    switch (element) {
    case 1:
        copy_rows<<<blocks, THREADS, 0, s>>>(static_cast<uint8_t *>(y), y_row,
                                             static_cast<const uint8_t *>(x), x_row, rows, cols);
        break;
    case 2:
        copy_rows<<<blocks, THREADS, 0, s>>>(static_cast<uint16_t *>(y), y_row,
                                             static_cast<const uint16_t *>(x), x_row, rows, cols);
        break;
    case 4:
        copy_rows<<<blocks, THREADS, 0, s>>>(static_cast<uint32_t *>(y), y_row,
                                             static_cast<const uint32_t *>(x), x_row, rows, cols);
        break;
    case 8:
        copy_rows<<<blocks, THREADS, 0, s>>>(static_cast<uint64_t *>(y), y_row,
                                             static_cast<const uint64_t *>(x), x_row, rows, cols);
        break;
    default:
        return err_set(e, ERR_BUG, "copying rows of %zu-byte elements, wanted 1, 2, 4 or 8",
                       element);
    }
    return cuda_launched(e, "copying rows [%d, %d]", rows, cols);
}

extern "C" int cuda_add_table(float *y, int64_t y_row, const void *m, enum dtype type,
                              int64_t m_row, const float *table, int rows, int n, void *stream,
                              struct err *e)
{
    if (rows < 1 || n < 1 || (type != DTYPE_F32 && type != DTYPE_BF16))
        return err_set(e, ERR_USAGE, "a table [%d, %d] and %s, wanted BF16 or F32", rows, n,
                       dtype_name(type));
    const size_t total = static_cast<size_t>(rows) * n;
    const unsigned blocks = blocks_for(total, 1);
    const cudaStream_t s = static_cast<cudaStream_t>(stream);
    if (type == DTYPE_F32)
        add_table<<<blocks, THREADS, 0, s>>>(y, y_row, static_cast<const float *>(m), m_row, table,
                                             total, n);
    else
        add_table<<<blocks, THREADS, 0, s>>>(y, y_row, static_cast<const bf16 *>(m), m_row, table,
                                             total, n);
    return cuda_launched(e, "a table [%d, %d]", rows, n);
}

extern "C" int cuda_sum(const struct cuda_sum *p, void *stream, struct err *e)
{
    if (cuda_sum_takes(p, e) < 0) return -1;
    if (!p->n) return 0;
    const cudaStream_t s = static_cast<cudaStream_t>(stream);
    switch (p->n_terms) {
    case 1:
        sum_of<1>(*p, s);
        break;
    case 2:
        sum_of<2>(*p, s);
        break;
    case 3:
        sum_of<3>(*p, s);
        break;
    default:
        sum_of<4>(*p, s);
        break;
    }
    return cuda_launched(e, "a sum of %d terms over %zu numbers", p->n_terms, p->n);
}

extern "C" int cuda_not_finite(int *found, int label, const void *x, enum dtype type, int rows,
                               int cols, int64_t row, void *stream, struct err *e)
{
    if ((type != DTYPE_F32 && type != DTYPE_BF16) || label < 1 || rows < 1 || cols < 1)
        return err_set(e, ERR_BUG, "looking for NaN in [%d, %d] %s, label %d", rows, cols,
                       dtype_name(type), label);
    const cudaStream_t s = static_cast<cudaStream_t>(stream);
    const size_t n = static_cast<size_t>(rows) * cols;
    const unsigned blocks = blocks_for(n, 8);
    if (type == DTYPE_F32)
        not_finite<<<blocks, THREADS, 0, s>>>(found, label, static_cast<const float *>(x), n, cols,
                                              row);
    else
        not_finite<<<blocks, THREADS, 0, s>>>(found, label, static_cast<const bf16 *>(x), n, cols,
                                              row);
    return cuda_launched(e, "looking for NaN in [%d, %d]", rows, cols);
}

extern "C" int cuda_distance(double *room, const void *a, enum dtype a_type, const void *b,
                             enum dtype b_type, size_t n, void *stream, struct err *e)
{
    if (!room || !a || !n || (a_type != DTYPE_F32 && a_type != DTYPE_BF16) ||
        (b_type != DTYPE_F32 && b_type != DTYPE_BF16))
        return err_set(e, ERR_BUG, "the distance of %zu numbers of %s and %s", n,
                       dtype_name(a_type), dtype_name(b_type));
    const cudaStream_t s = static_cast<cudaStream_t>(stream);
    if (a_type == DTYPE_BF16)
        distance_from(room, static_cast<const bf16 *>(a), b, b_type, n, s);
    else
        distance_from(room, static_cast<const float *>(a), b, b_type, n, s);
    return cuda_launched(e, "the distance of %zu numbers", n);
}

extern "C" int cuda_to_bytes(uint8_t *bytes, const float *x, size_t pixels, bool planes,
                             bool truncate, void *stream, struct err *e)
{
    if (!pixels) return 0;
    to_bytes<<<blocks_for(3 * pixels, 4), THREADS, 0, static_cast<cudaStream_t>(stream)>>>(
        bytes, x, pixels, planes, truncate);
    return cuda_launched(e, "bytes of %zu pixels", pixels);
}
