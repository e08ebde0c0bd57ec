// One attention head as wide as a VAE's channels, over the pixels of a frame: two products by the
// convolutions' kernel with a softmax between them, some rows of scores at a time.
//
// Keys lie as a 1 x 1 convolution wants its weights (a row an output), values are turned first.
// Scores are fp32; a bf16 run rounds what multiplies the values.
#include "model/ops/cuda/frames/conv_cuda.h"
#include "model/ops/cuda/frames/launch.cuh"

namespace
{

constexpr int THREADS = 256;
constexpr size_t MOST_SCORES = 32u << 20; /* of one turn: 192 MiB with their probabilities */

size_t pad8(size_t n) { return (n + 7) / 8 * 8; }
size_t align256(size_t n) { return (n + 255) / 256 * 256; }

/* Rows of scores a turn: whole 16 x 16 tiles of the convolution's */
int rows_of(int n)
{
    size_t rows = MOST_SCORES / pad8(static_cast<size_t>(n)) / 256 * 256;
    if (rows < 256) rows = 256;
    return rows < static_cast<size_t>(n) ? static_cast<int>(rows) : n;
}

__device__ __forceinline__ float reduce(float v, bool top)
{
    __shared__ float part[THREADS / 32];
#pragma unroll
    for (int i = 16; i; i /= 2) {
        const float other = __shfl_xor_sync(~0u, v, i);
        v = top ? fmaxf(v, other) : v + other;
    }
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
    __syncthreads();
    v = part[0];
    for (int i = 1; i < THREADS / 32; i++)
        v = top ? fmaxf(v, part[i]) : v + part[i];
    __syncthreads();
    return v;
}

// A block a row: p = softmax(scale * s); what pads the row becomes 0.
template <class T>
__global__ void __launch_bounds__(THREADS)
    soften(T *p, const float *s, int n, int padded, float scale)
{
    const float *row = s + static_cast<size_t>(blockIdx.x) * padded;
    T *to = p + static_cast<size_t>(blockIdx.x) * padded;
    float most = -INFINITY, sum = 0;
    for (int i = threadIdx.x; i < n; i += THREADS)
        most = fmaxf(most, row[i]);
    most = reduce(most, true);
    for (int i = threadIdx.x; i < n; i += THREADS)
        sum += expf(scale * (row[i] - most));
    const float by = 1 / reduce(sum, false);
    for (int i = threadIdx.x; i < padded; i += THREADS)
        to[i] = from_float<T>(i < n ? expf(scale * (row[i] - most)) * by : 0);
}

// [n, c] → [c, padded], columns past n become 0
template <class T> __global__ void turn(T *to, const T *from, int n, int c, int c_pad, int padded)
{
    __shared__ T tile[32][33];
    const int x0 = blockIdx.x * 32, y0 = blockIdx.y * 32, lane = threadIdx.x % 32;
    for (int y = threadIdx.x / 32; y < 32; y += THREADS / 32) {
        const bool inside = x0 + y < n && y0 + lane < c;
        tile[y][lane] =
            inside ? from[static_cast<size_t>(x0 + y) * c_pad + y0 + lane] : from_float<T>(0);
    }
    __syncthreads();
    for (int y = threadIdx.x / 32; y < 32; y += THREADS / 32)
        if (y0 + y < c && x0 + lane < padded)
            to[static_cast<size_t>(y0 + y) * padded + x0 + lane] = tile[lane][y];
}

/* y[rows, out] = x[rows, in] wᵀ as a 1 x 1 convolution over a picture one pixel high... which would
 * waste 15 rows of 16: so over one 16 wide, and what is left over by itself. */
int product(void *y, const void *x, const void *w, int rows, int in, int out, bool wide,
            bool is_bf16, void *stream, err *e)
{
    const size_t size = is_bf16 ? 2 : 4, y_size = wide ? 4 : size;
    const int whole = rows / 16, rest = rows % 16;
    conv_cuda c = {};
    c.in = in, c.out = out;
    c.kt = c.ks = c.stride = c.step = 1;
    c.frames = 1;
    c.weight = w;
    c.bf16 = is_bf16;
    c.wide = wide && is_bf16;
    c.stream = stream;
    for (int part = 0; part < 2; part++) {
        const size_t skip = part ? static_cast<size_t>(whole) * 16 : 0;
        c.h = part ? 1 : whole;
        c.w = part ? rest : 16;
        if (c.h * c.w == 0) continue;
        c.src[0] = static_cast<const char *>(x) + skip * pad8(in) * size;
        c.y[0] = static_cast<char *>(y) + skip * pad8(out) * y_size;
        if (conv_cuda_run(&c, e) < 0) return -1;
    }
    return 0;
}

template <class T>
int attend(T *o, const T *q, const T *k, const T *v, int n, int channels, char *scratch,
           void *stream, err *e)
{
    constexpr bool BF16 = sizeof(T) == 2;
    const int c_pad = static_cast<int>(pad8(channels)), n_pad = static_cast<int>(pad8(n));
    const int rows = rows_of(n);
    const float scale = 1.0f / sqrtf(static_cast<float>(channels));
    T *values = reinterpret_cast<T *>(scratch); /* [channels, n_pad] */
    scratch += align256(static_cast<size_t>(c_pad) * n_pad * sizeof(T));
    float *scores = reinterpret_cast<float *>(scratch); /* [rows, n_pad] */
    T *weights = reinterpret_cast<T *>(
        BF16 ? scratch + align256(static_cast<size_t>(rows) * n_pad * sizeof(float)) : scratch);
    cudaStream_t s = static_cast<cudaStream_t>(stream);
    const dim3 grid((n_pad + 31) / 32, (channels + 31) / 32);
    turn<T><<<grid, THREADS, 0, s>>>(values, v, n, channels, c_pad, n_pad);
    if (launched(cudaGetLastError(), e, "values of wide attention") < 0) return -1;
    for (int r = 0; r < n; r += rows) {
        const int some = n - r < rows ? n - r : rows;
        if (product(scores, q + static_cast<size_t>(r) * c_pad, k, some, channels, n, true, BF16,
                    stream, e) < 0)
            return -1;
        soften<T><<<some, THREADS, 0, s>>>(weights, scores, n, n_pad, scale);
        if (launched(cudaGetLastError(), e, "softmax of wide attention") < 0) return -1;
        if (product(o + static_cast<size_t>(r) * c_pad, weights, values, some, n, channels, false,
                    BF16, stream, e) < 0)
            return -1;
    }
    return 0;
}

} // namespace

size_t wide_attention_scratch(int n, int channels, bool is_bf16)
{
    const size_t size = is_bf16 ? 2 : 4, padded = pad8(static_cast<size_t>(n)), rows = rows_of(n);
    return align256(pad8(static_cast<size_t>(channels)) * padded * size) +
           align256(rows * padded * sizeof(float)) + (is_bf16 ? align256(rows * padded * size) : 0);
}

int wide_attention_cuda(void *o, const void *q, const void *k, const void *v, int n, int channels,
                        bool is_bf16, void *scratch, void *stream, err *e)
{
    if (is_bf16)
        return attend(static_cast<bf16 *>(o), static_cast<const bf16 *>(q),
                      static_cast<const bf16 *>(k), static_cast<const bf16 *>(v), n, channels,
                      static_cast<char *>(scratch), stream, e);
    return attend(static_cast<float *>(o), static_cast<const float *>(q),
                  static_cast<const float *>(k), static_cast<const float *>(v), n, channels,
                  static_cast<char *>(scratch), stream, e);
}
