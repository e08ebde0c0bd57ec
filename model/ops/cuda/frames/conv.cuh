// What the bf16 convolutions of every architecture share: how a block's pixels and weights come into shared
// memory, and how its results leave.
//
//   shared      STAGES x (pixels [HALO * HALO][DEPTH], weights [KS * KS][COLUMNS][DEPTH]), bf16; a
//               row's 16-byte chunk c lies at c ^ swizzle(row), so that 8 rows of an ldmatrix meet 8
//               different groups of banks (rows of 64 bytes: the swizzle of wgmma's descriptors). At
//               the end the same room takes the results, so that they leave in whole rows.
#ifndef DITGEN_OPS_CUDA_FRAMES_CONV_CUH
#define DITGEN_OPS_CUDA_FRAMES_CONV_CUH

#include "model/ops/cuda/frames/conv_kernels.h"
#include "model/ops/cuda/frames/launch.cuh"

namespace
{

constexpr int SIDE = 16, WARPS = 8, THREADS = 32 * WARPS, STAGES = 2;

struct Args {
    const bf16 *src[CONV_CUDA_FRAMES + 2];
    const bf16 *residual[CONV_CUDA_FRAMES];
    void *y[CONV_CUDA_FRAMES];
    bf16 *norm[CONV_CUDA_FRAMES];
    const bf16 *weight;
    const float *bias, *gamma;
    int64_t row, tap; // of the weights
    int in_pad, out, out_pad, kt, step, h, w, out_h, out_w, tiles_x, columns;
    bool wide, silu;
};

template <int KS, int STRIDE, bool UP, int COLUMNS, int DEPTH> struct Shape {
    static constexpr int HALO = UP ? SIDE / 2 + 2 : KS == 3 ? (SIDE - 1) * STRIDE + 3 : SIDE;
    static constexpr int PIXELS = HALO * HALO, TAPS = KS * KS;
    static constexpr int ROW = DEPTH * 2; // bytes
    // weights begin at a multiple of 512: eight rows of 64 bytes, which a descriptor of wgmma wants
    static constexpr int PIXEL_BYTES = (PIXELS * ROW + 511) / 512 * 512;
    static constexpr int WEIGHT_BYTES = TAPS * COLUMNS * ROW;
    static constexpr int STAGE = PIXEL_BYTES + WEIGHT_BYTES;
    static constexpr int OUT_ROW = COLUMNS * 2 + 16; // 16: rows begin 4 banks apart
    static constexpr int RESULT = SIDE * SIDE * OUT_ROW;
    static constexpr int SHARED = STAGES * STAGE > RESULT ? STAGES *STAGE : RESULT;
    static constexpr int WARPS_N = COLUMNS > 32 ? 2 : 1, WARPS_M = WARPS / WARPS_N;
    static constexpr int MT = SIDE / WARPS_M, NT = COLUMNS / WARPS_N / 8;
    static_assert(DEPTH == 16 || DEPTH == 32, "swizzle() knows rows of 32 and 64 bytes");
    static_assert(NT % 2 == 0, "weights come 16 columns at a time");
};

// byte offset of chunk c of a row
template <int DEPTH> __device__ __forceinline__ uint32_t chunk(int row, int c)
{
    constexpr int SHIFT = DEPTH == 32 ? 1 : 2, MASK = DEPTH / 8 - 1;
    return row * (DEPTH * 2) + ((c ^ ((row >> SHIFT) & MASK)) << 4);
}

template <class S, int KS, int STRIDE, bool UP, int DEPTH>
__device__ __forceinline__ void load_pixels(const Args &a, const bf16 *src, uint32_t at, int y0,
                                            int x0, int first)
{
    constexpr int CHUNKS = DEPTH / 8, N = S::PIXELS * CHUNKS;
    const int top = UP ? y0 / 2 - 1 : KS == 3 && STRIDE == 1 ? y0 - 1 : y0 * STRIDE;
    const int left = UP ? x0 / 2 - 1 : KS == 3 && STRIDE == 1 ? x0 - 1 : x0 * STRIDE;
    for (int i = threadIdx.x; i < N; i += THREADS) {
        const int p = i / CHUNKS, c = i % CHUNKS, y = top + p / S::HALO, x = left + p % S::HALO;
        const bool inside = y >= 0 && x >= 0 && y < a.h && x < a.w && first + 8 * c < a.in_pad;
        const int64_t from =
            inside ? (static_cast<int64_t>(y) * a.w + x) * a.in_pad + first + 8 * c : 0;
        copy16_async(at + chunk<DEPTH>(p, c), src + from, inside);
    }
}

template <class S, int DEPTH, int COLUMNS>
__device__ __forceinline__ void load_weights(const Args &a, int t, uint32_t at, int column0,
                                             int first)
{
    constexpr int CHUNKS = DEPTH / 8, N = S::TAPS * COLUMNS * CHUNKS;
    for (int i = threadIdx.x; i < N; i += THREADS) {
        const int r = i / CHUNKS, c = i % CHUNKS, s = r / COLUMNS, n = column0 + r % COLUMNS;
        const bool inside = n < a.out && first + 8 * c < a.in_pad;
        const int64_t from =
            inside ? (static_cast<int64_t>(t) * S::TAPS + s) * a.tap + n * a.row + first + 8 * c
                   : 0;
        copy16_async(at + chunk<DEPTH>(r, c), a.weight + from, inside);
    }
}

// From shared memory to whole rows, four threads a pixel: residual, and the norm over all channels where
// this block has them all (a.columns is 1).
template <class S, int COLUMNS, bool NORM>
__device__ __forceinline__ void leave(const Args &a, const unsigned char *raw, int f, int y0,
                                      int x0, int column0)
{
    constexpr int EACH = COLUMNS / 8 / 4; // chunks of eight channels a thread
    const bf16 *residual = a.residual[f];
    bf16 *y = static_cast<bf16 *>(a.y[f]), *norm = a.norm[f];
    const int lane = threadIdx.x % 4;
    for (int p = threadIdx.x / 4; p < SIDE * SIDE; p += THREADS / 4) {
        const int py = y0 + p / SIDE, px = x0 + p % SIDE;
        const bool inside = py < a.out_h && px < a.out_w;
        const int64_t pixel = (static_cast<int64_t>(py) * a.out_w + px) * a.out_pad + column0;
        uint4 v[EACH];
        float squares = 0;
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            const int c = lane + 4 * i;
            if (!inside || column0 + 8 * c >= a.out_pad) continue;
            v[i] = *reinterpret_cast<const uint4 *>(raw + p * S::OUT_ROW + c * 16);
            if (residual)
                v[i] = add8(v[i], *reinterpret_cast<const uint4 *>(residual + pixel + 8 * c));
            if (y) *reinterpret_cast<uint4 *>(y + pixel + 8 * c) = v[i];
            if (!NORM) continue;
            float x[8];
            widen8(x, v[i]);
#pragma unroll
            for (int k = 0; k < 8; k++)
                squares += x[k] * x[k];
        }
        if (!NORM) continue;
        squares += __shfl_xor_sync(~0u, squares, 1);
        squares += __shfl_xor_sync(~0u, squares, 2);
        const float scale = 1.0f / fmaxf(sqrtf(squares), 1e-12f),
                    root = sqrtf(static_cast<float>(a.out));
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            const int c = lane + 4 * i;
            if (!inside || column0 + 8 * c >= a.out_pad) continue;
            float x[8], g[8];
            widen8(x, v[i]);
            load8(g, a.gamma + 8 * c);
            norm8<bf16>(x, g, scale, root, a.silu);
            store8(norm + pixel + 8 * c, x);
        }
    }
}

// Two numbers of a pixel's sums, with their bias, to where leave() finds them.
template <class S>
__device__ __forceinline__ void put(unsigned char *raw, int pixel, int column, float x0, float x1)
{
    *reinterpret_cast<uint32_t *>(raw + pixel * S::OUT_ROW + column * 2) = pack_bf16(x0, x1);
}

__device__ __forceinline__ float bias_of(const Args &a, int column)
{
    return a.bias && column < a.out ? a.bias[column] : 0;
}

template <class S, int COLUMNS>
__device__ __forceinline__ void leave(const Args &a, const unsigned char *raw, int f, int y0,
                                      int x0, int column0)
{
    __syncthreads(); // all have put theirs
    if (a.norm[f])
        leave<S, COLUMNS, true>(a, raw, f, y0, x0, column0);
    else
        leave<S, COLUMNS, false>(a, raw, f, y0, x0, column0);
}

// The first tap in time that lies inside the clip.
__device__ __forceinline__ int first_tap(const Args &a, int f)
{
    int first = 0;
    while (first < a.kt && !a.src[f * a.step + first])
        first++;
    return first;
}

inline Args arguments(const conv_cuda *c, int columns)
{
    Args a = {};
    for (int i = 0; i < (c->frames - 1) * c->step + c->kt; i++)
        a.src[i] = static_cast<const bf16 *>(c->src[i]);
    for (int i = 0; i < c->frames; i++) {
        a.residual[i] = static_cast<const bf16 *>(c->residual[i]);
        a.y[i] = c->y[i];
        a.norm[i] = static_cast<bf16 *>(c->norm[i]);
    }
    a.gamma = c->gamma;
    a.silu = c->silu;
    a.weight = static_cast<const bf16 *>(c->weight);
    a.bias = c->bias;
    a.in_pad = (c->in + 7) / 8 * 8;
    a.out = c->out;
    a.out_pad = (c->out + 7) / 8 * 8;
    a.row = c->weight_row ? c->weight_row : a.in_pad;
    a.tap = a.row * c->out;
    a.kt = c->kt;
    a.step = c->step;
    a.h = c->h;
    a.w = c->w;
    a.out_h = conv_cuda_h(c);
    a.out_w = conv_cuda_w(c);
    a.tiles_x = (a.out_w + SIDE - 1) / SIDE;
    a.columns = (a.out_pad + columns - 1) / columns;
    a.wide = c->wide;
    return a;
}

template <class S>
int enqueue(void (*kernel)(Args), const Args &a, const conv_cuda *c, const char *what, err *e)
{
    cudaError_t r =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::SHARED);
    if (r == cudaSuccess) {
        const int tiles = a.tiles_x * ((a.out_h + SIDE - 1) / SIDE);
        const dim3 grid(tiles * a.columns, c->frames);
        kernel<<<grid, THREADS, S::SHARED, static_cast<cudaStream_t>(c->stream)>>>(a);
        r = cudaGetLastError();
    }
    return launched(r, e, what);
}

} // namespace

#endif
