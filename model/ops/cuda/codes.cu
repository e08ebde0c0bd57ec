// What fp8 products read, and what they leave to others: e4m3 codes and scales of rows, scales where the library
// takes none a row, a sample of their errors.
//
// Between up and down layers a row's codes cost one read of the activations: a row stays in the registers of its
// warps, as in rows.cu, GELU included. Wider rows are read twice.
#include "model/base/cuda/launch.h"
#include "model/ops/cuda/codes.cuh"
#include "model/ops/cuda/rows_cuda.h"
#include "model/ops/cuda/shape_cuda.h"

namespace
{

using Codes = struct cuda_row_codes; // the function hides the name
using Sample = struct cuda_code_sample;

constexpr int THREADS = 128;

// x / (1 + e^-2u) is 0.5 x (1 + tanh u); e4m3 keeps four bits of it
__device__ __forceinline__ Eight activate(Eight x, int act)
{
    if (act != ACT_GELU_TANH) return x;
#pragma unroll
    for (int k = 0; k < 8; k++) {
        const float v = x.v[k];
        const float u = 0.7978845608028654f * (v + 0.044715f * v * v * v);
        x.v[k] = __fdividef(v, 1 + __expf(-2 * u));
    }
    return x;
}

template <class T, int WARPS, int VECS>
__global__ void __launch_bounds__(WARPS < 4 ? 128 : 32 * WARPS)
    code_kept(const __grid_constant__ Codes p)
{
    __shared__ float room[WARPS < 4 ? 4 : WARPS];
    constexpr int LANES = 32 * WARPS;
    const int t = threadIdx.x % LANES;
    const int64_t asked =
        static_cast<int64_t>(blockIdx.x) * (blockDim.x / LANES) + threadIdx.x / LANES;
    const bool mine = asked < p.rows; // the others help to find the largest alone
    const int64_t row = mine ? asked : p.rows - 1;
    const T *x = static_cast<const T *>(p.x) + row * p.x_row;
    Eight v[VECS];
    float most = 0;
#pragma unroll
    for (int i = 0; i < VECS; i++) {
        const int c = 8 * (t + i * LANES);
        if (c >= p.cols) continue;
        v[i] = activate(load8(x + c), p.act);
        most = fmaxf(most, largest(v[i]));
    }
    const float s = scale_of(row_most<WARPS>(most, room)), inverse = 1 / s;
    if (!mine) return;
    if (t == 0) p.scale[row] = s;
#pragma unroll
    for (int i = 0; i < VECS; i++) {
        const int c = 8 * (t + i * LANES);
        if (c < p.cols) codes8(p.q + row * p.cols + c, v[i], inverse);
    }
}

template <class T>
__device__ __forceinline__ float long_most(const T *x, int cols, int act, float *room)
{
    float most = 0;
    for (int c = 8 * threadIdx.x; c < cols; c += 8 * THREADS)
        most = fmaxf(most, largest(activate(load8(x + c), act)));
    return row_most<THREADS / 32>(most, room);
}

template <class T>
__global__ void __launch_bounds__(THREADS) code_long(const __grid_constant__ Codes p)
{
    __shared__ float room[THREADS / 32];
    const int64_t row = blockIdx.x;
    const T *x = static_cast<const T *>(p.x) + row * p.x_row;
    const float s = scale_of(long_most(x, p.cols, p.act, room));
    if (threadIdx.x == 0) p.scale[row] = s;
    for (int c = 8 * threadIdx.x; c < p.cols; c += 8 * THREADS)
        codes8(p.q + row * p.cols + c, activate(load8(x + c), p.act), 1 / s);
}

template <class T>
__global__ void __launch_bounds__(THREADS) peak_of(uint32_t *peak, const T *x, int cols)
{
    __shared__ float room[THREADS / 32];
    const float most = long_most(x + static_cast<int64_t>(blockIdx.x) * cols, cols, ACT_NONE, room);
    if (threadIdx.x == 0)
        atomicMax(peak, __float_as_uint(most)); // not negative: bits order as numbers
}

template <class T>
__global__ void __launch_bounds__(THREADS)
    code_whole(uint8_t *q, float *scale, const uint32_t *peak, const T *x, int cols)
{
    const int64_t at = static_cast<int64_t>(blockIdx.x) * cols;
    const float s = scale_of(__uint_as_float(*peak));
    if (blockIdx.x == 0 && threadIdx.x == 0) *scale = s;
    for (int c = 8 * threadIdx.x; c < cols; c += 8 * THREADS)
        codes8(q + at + c, load8(x + at + c), 1 / s);
}

template <class T> int rows_of_type(const Codes &p, cudaStream_t s)
{
    const struct cuda_row_shape r = cuda_code_shape(p.cols);
    if (!r.warps) return code_long<T><<<p.rows, THREADS, 0, s>>>(p), 0; // rows that nothing keeps
    const int threads = r.warps < 4 ? 128 : 32 * r.warps, a_block = threads / (32 * r.warps);
    const unsigned grid = (p.rows + a_block - 1) / a_block;
    switch (10 * r.warps + r.vecs) {
    case 12:
        return code_kept<T, 1, 2><<<grid, threads, 0, s>>>(p), 0;
    case 14:
        return code_kept<T, 1, 4><<<grid, threads, 0, s>>>(p), 0;
    case 23:
        return code_kept<T, 2, 3><<<grid, threads, 0, s>>>(p), 0;
    case 43:
        return code_kept<T, 4, 3><<<grid, threads, 0, s>>>(p), 0;
    case 83:
        return code_kept<T, 8, 3><<<grid, threads, 0, s>>>(p), 0;
    case 85:
        return code_kept<T, 8, 5><<<grid, threads, 0, s>>>(p), 0;
    default:
        return code_kept<T, 8, 7><<<grid, threads, 0, s>>>(p), 0;
    }
}

template <class T>
void code_tensor(uint8_t *q, float *scale, uint32_t *peak, const T *x, int rows, int cols,
                 cudaStream_t s)
{
    peak_of<<<rows, THREADS, 0, s>>>(peak, x, cols);
    code_whole<<<rows, THREADS, 0, s>>>(q, scale, peak, x, cols);
}

// --- scales behind a product ---

__device__ __forceinline__ float number(const float *at) { return *at; }
__device__ __forceinline__ float number(const bf16 *at) { return __bfloat162float(*at); }

template <class Y>
__global__ void __launch_bounds__(256)
    scale_product(Y *y, int64_t y_row, const float *x_scale, const float *w_scale, const Y *bias,
                  int out, int act)
{
    const int64_t row = blockIdx.x;
    const float s = x_scale[row];
    for (int c = threadIdx.x; c < out; c += blockDim.x) {
        float v = number(y + row * y_row + c) * s * w_scale[c];
        if (bias) v += number(bias + c);
        y[row * y_row + c] = Y(act == ACT_GELU_TANH ? gelu_tanh(v) : v);
    }
}

// --- a sample of errors ---

__device__ __forceinline__ int picked(int i, int of, int n)
{
    return static_cast<int>((2 * static_cast<int64_t>(i) + 1) * n / (2 * of));
}

// One block for all, so that calls add their share in their order: a warp makes a number, lane by lane in one order.
template <class T, class Y>
__global__ void __launch_bounds__(256) sample(const __grid_constant__ Sample p)
{
    __shared__ double part[2][8];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int rows = p.rows < CUDA_SAMPLE_ROWS ? p.rows : CUDA_SAMPLE_ROWS;
    double wrong = 0, all = 0;
    for (int i = warp; i < rows * CUDA_SAMPLE_OUTS; i += 8) {
        const int64_t r = picked(i / CUDA_SAMPLE_OUTS, rows, p.rows);
        const int k = i % CUDA_SAMPLE_OUTS, o = CUDA_SAMPLE_OUT(k, p.out);
        const T *x = static_cast<const T *>(p.x) + r * p.x_row;
        const bf16 *w = static_cast<const bf16 *>(p.weight) + static_cast<int64_t>(k) * p.in;
        float sum = 0;
        for (int c = lane; c < p.in; c += 32) {
            const float v = number(x + c);
            sum += (p.act == ACT_GELU_TANH ? gelu_tanh(v) : v) * number(w + c);
        }
#pragma unroll
        for (int d = 16; d; d /= 2)
            sum += __shfl_xor_sync(~0u, sum, d);
        if (p.bias) sum += p.bias[o];
        const double got = number(static_cast<const Y *>(p.y) + r * p.y_row + o);
        wrong += (got - sum) * (got - sum);
        all += static_cast<double>(sum) * sum;
    }
    if (lane == 0) part[0][warp] = wrong, part[1][warp] = all;
    __syncthreads();
    if (threadIdx.x) return;
    for (int i = 1; i < 8; i++)
        part[0][0] += part[0][i], part[1][0] += part[1][i];
    if (!(part[1][0] > 0)) return; // zeros, or no numbers: nothing to be relative to
    p.sums[0] += sqrt(part[0][0] / part[1][0]);
    p.sums[1] += 1;
}

int check(const Codes &p, struct err *e)
{
    if (p.rows < 1 || p.cols < 8 || p.cols % 8 || p.x_row % 8 ||
        (p.type != DTYPE_F32 && p.type != DTYPE_BF16))
        return err_set(e, ERR_USAGE,
                       "fp8 codes of [%d, %d] %s, wanted rows of a multiple of 8, BF16 or F32",
                       p.rows, p.cols, dtype_name(p.type));
    if (!p.q || !p.scale || !p.x || reinterpret_cast<uintptr_t>(p.x) % 16 ||
        reinterpret_cast<uintptr_t>(p.q) % 8)
        return err_set(e, ERR_BUG, "fp8 codes: q, scale or x is missing or not aligned");
    if (p.act != ACT_NONE && p.act != ACT_GELU_TANH)
        return err_set(e, ERR_BUG, "fp8 codes of another activation than GELU by tanh");
    return 0;
}

} // namespace

extern "C" int cuda_row_codes(const struct cuda_row_codes *p, void *stream, struct err *e)
{
    if (check(*p, e) < 0) return -1;
    const cudaStream_t s = static_cast<cudaStream_t>(stream);
    p->type == DTYPE_BF16 ? rows_of_type<bf16>(*p, s) : rows_of_type<float>(*p, s);
    return cuda_launched(e, "fp8 codes of [%d, %d]", p->rows, p->cols);
}

extern "C" int cuda_codes(uint8_t *q, float *scale, uint32_t *peak, const void *x, enum dtype type,
                          int rows, int cols, bool whole, void *stream, struct err *e)
{
    Codes p = {};
    p.q = q, p.scale = scale, p.x = x, p.type = type, p.x_row = cols, p.rows = rows, p.cols = cols;
    if (!whole) return cuda_row_codes(&p, stream, e);
    if (check(p, e) < 0) return -1;
    if (!peak) return err_set(e, ERR_BUG, "fp8 codes: peak is missing");
    const cudaStream_t s = static_cast<cudaStream_t>(stream);
    if (type == DTYPE_BF16)
        code_tensor(q, scale, peak, static_cast<const bf16 *>(x), rows, cols, s);
    else
        code_tensor(q, scale, peak, static_cast<const float *>(x), rows, cols, s);
    return cuda_launched(e, "fp8 codes of [%d, %d]", rows, cols);
}

extern "C" int cuda_scale_product(void *y, enum dtype type, int64_t y_row, const float *x_scale,
                                  const float *w_scale, const void *bias, int rows, int out,
                                  enum activation act, void *stream, struct err *e)
{
    if ((type != DTYPE_F32 && type != DTYPE_BF16) || rows < 1 || out < 1 ||
        (act != ACT_NONE && act != ACT_GELU_TANH))
        return err_set(e, ERR_BUG, "scales of a product [%d, %d] of %s", rows, out,
                       dtype_name(type));
    const cudaStream_t s = static_cast<cudaStream_t>(stream);
    if (type == DTYPE_BF16)
        scale_product<<<rows, 256, 0, s>>>(static_cast<bf16 *>(y), y_row, x_scale, w_scale,
                                           static_cast<const bf16 *>(bias), out, act);
    else
        scale_product<<<rows, 256, 0, s>>>(static_cast<float *>(y), y_row, x_scale, w_scale,
                                           static_cast<const float *>(bias), out, act);
    return cuda_launched(e, "scales of a product [%d, %d]", rows, out);
}

extern "C" int cuda_code_sample(const struct cuda_code_sample *p, void *stream, struct err *e)
{
    const cudaStream_t s = static_cast<cudaStream_t>(stream);
    if ((p->type != DTYPE_F32 && p->type != DTYPE_BF16) ||
        (p->y_type != DTYPE_F32 && p->y_type != DTYPE_BF16) || p->rows < 1 ||
        p->out < CUDA_SAMPLE_OUTS)
        return err_set(e, ERR_BUG, "a sample of [%d, %d] %s", p->rows, p->out,
                       dtype_name(p->y_type));
    if (p->type == DTYPE_BF16)
        p->y_type == DTYPE_BF16 ? sample<bf16, bf16><<<1, 256, 0, s>>>(*p)
                                : sample<bf16, float><<<1, 256, 0, s>>>(*p);
    else
        p->y_type == DTYPE_BF16 ? sample<float, bf16><<<1, 256, 0, s>>>(*p)
                                : sample<float, float><<<1, 256, 0, s>>>(*p);
    return cuda_launched(e, "a sample of fp8 products [%d, %d]", p->rows, p->out);
}
