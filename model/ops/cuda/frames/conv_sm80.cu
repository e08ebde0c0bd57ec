// Convolutions over frames, bf16 by mma.sync: implicit products with the window's taps in shared
// memory. For every card since Ampere.
//
// A block owns 16 x 16 pixels of one output frame and COLUMNS output channels; 8 warps share them. A
// stage is one tap in time and DEPTH input channels: the pixels with their halo, read once for all
// nine taps in space, and the weights of these taps. A row of 16 pixels is the m of one mma, so that
// a tap is a shift of the rows that ldmatrix reads; a doubled picture is read from the small one.
//
//   shared      STAGES x (pixels [HALO_H * HALO_W][DEPTH], weights [KS * KS][COLUMNS][DEPTH]), bf16;
//               a row's 16-byte chunk c lies at c ^ swizzle(row), so that 8 rows of an ldmatrix meet
//               8 different groups of banks. At the end the same room takes the results, so that
//               they leave in whole rows.
#include "model/base/cuda/ptx.cuh"
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
    static constexpr int PIXEL_BYTES = PIXELS * ROW, WEIGHT_BYTES = TAPS * COLUMNS * ROW;
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

template <class S> struct Fragments { // of one tap and 16 channels
    uint32_t a[S::MT][4], b[S::NT / 2][4];
};

// step: tap * (DEPTH / 16) + 16 channels
template <class S, int KS, int STRIDE, bool UP, int DEPTH, int COLUMNS>
__device__ __forceinline__ void read(Fragments<S> &f, int step, uint32_t pixels, uint32_t weights,
                                     int warp_m, int warp_n, int lane)
{
    const int s = step / (DEPTH / 16), d = step % (DEPTH / 16);
    const int dy = s / KS, dx = s % KS, x = lane % 16;
    const int hx = UP ? (x + dx + 1) / 2 : x * STRIDE + dx;
#pragma unroll
    for (int m = 0; m < S::MT; m++) {
        const int y = warp_m * S::MT + m, hy = UP ? (y + dy + 1) / 2 : y * STRIDE + dy;
        ldmatrix4(f.a[m], pixels + chunk<DEPTH>(hy * S::HALO + hx, 2 * d + lane / 16));
    }
#pragma unroll
    for (int j = 0; j < S::NT / 2; j++) {
        const int n = (warp_n * S::NT + 2 * j) * 8 + lane / 16 * 8 + lane % 8;
        ldmatrix4(f.b[j], weights + chunk<DEPTH>(s * COLUMNS + n, 2 * d + lane / 8 % 2));
    }
}

// Sums of a stage: all taps in space, DEPTH channels. The fragments of a step are read while the one
// before is multiplied: these instructions stay in the order in which they stand.
template <class S, int KS, int STRIDE, bool UP, int DEPTH, int COLUMNS>
__device__ __forceinline__ void multiply(float (&sum)[S::MT][S::NT][4], uint32_t pixels,
                                         uint32_t weights, int warp_m, int warp_n, int lane)
{
    constexpr int STEPS = S::TAPS * (DEPTH / 16);
    Fragments<S> f[2];
    read<S, KS, STRIDE, UP, DEPTH, COLUMNS>(f[0], 0, pixels, weights, warp_m, warp_n, lane);
#pragma unroll
    for (int n = 0; n < STEPS; n++) {
        if (n + 1 < STEPS)
            read<S, KS, STRIDE, UP, DEPTH, COLUMNS>(f[(n + 1) % 2], n + 1, pixels, weights, warp_m,
                                                    warp_n, lane);
        const Fragments<S> &now = f[n % 2];
#pragma unroll
        for (int j = 0; j < S::NT / 2; j++)
#pragma unroll
            for (int m = 0; m < S::MT; m++) {
                mma_bf16(sum[m][2 * j], now.a[m], now.b[j][0], now.b[j][1]);
                mma_bf16(sum[m][2 * j + 1], now.a[m], now.b[j][2], now.b[j][3]);
            }
    }
}

// fp32 results, straight from the fragments
template <class S>
__device__ __forceinline__ void store_wide(const Args &a, float (&sum)[S::MT][S::NT][4], int f,
                                           int y0, int x0, int column0, int warp_m, int warp_n,
                                           int lane)
{
    float *y = static_cast<float *>(a.y[f]);
#pragma unroll
    for (int m = 0; m < S::MT; m++)
#pragma unroll
        for (int i = 0; i < S::NT; i++)
#pragma unroll
            for (int q = 0; q < 4; q++) {
                const int py = y0 + warp_m * S::MT + m, px = x0 + lane / 4 + q / 2 * 8;
                const int n = column0 + (warp_n * S::NT + i) * 8 + lane % 4 * 2 + q % 2;
                if (py < a.out_h && px < a.out_w && n < a.out_pad)
                    y[(static_cast<int64_t>(py) * a.out_w + px) * a.out_pad + n] = sum[m][i][q];
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

// Bias, rounding, and through shared memory to whole rows with the residual.
template <class S, int COLUMNS>
__device__ __forceinline__ void store(const Args &a, float (&sum)[S::MT][S::NT][4],
                                      unsigned char *raw, int f, int y0, int x0, int column0,
                                      int warp_m, int warp_n, int lane)
{
#pragma unroll
    for (int i = 0; i < S::NT; i++) {
        const int c = (warp_n * S::NT + i) * 8 + lane % 4 * 2;
        const float b0 = a.bias && column0 + c < a.out ? a.bias[column0 + c] : 0;
        const float b1 = a.bias && column0 + c + 1 < a.out ? a.bias[column0 + c + 1] : 0;
#pragma unroll
        for (int m = 0; m < S::MT; m++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int p = (warp_m * S::MT + m) * SIDE + lane / 4 + 8 * h;
                *reinterpret_cast<uint32_t *>(raw + p * S::OUT_ROW + c * 2) =
                    pack_bf16(sum[m][i][2 * h] + b0, sum[m][i][2 * h + 1] + b1);
            }
    }
    __syncthreads();
    if (a.norm[f])
        leave<S, COLUMNS, true>(a, raw, f, y0, x0, column0);
    else
        leave<S, COLUMNS, false>(a, raw, f, y0, x0, column0);
}

template <int KS, int STRIDE, bool UP, int COLUMNS, int DEPTH>
__global__ void __launch_bounds__(THREADS, 1) convolve(const __grid_constant__ Args a)
{
    using S = Shape<KS, STRIDE, UP, COLUMNS, DEPTH>;
    extern __shared__ __align__(128) unsigned char raw[];
    const uint32_t base = smem_address(raw);
    const int f = blockIdx.y, column0 = blockIdx.x % a.columns * COLUMNS;
    const int tile = blockIdx.x / a.columns;
    const int y0 = tile / a.tiles_x * SIDE, x0 = tile % a.tiles_x * SIDE;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int warp_m = warp / S::WARPS_N, warp_n = warp % S::WARPS_N;
    const int blocks = (a.in_pad + DEPTH - 1) / DEPTH; // of input channels
    int first = 0; // tap in time that lies inside the clip
    while (first < a.kt && !a.src[f * a.step + first])
        first++;
    const int steps = (a.kt - first) * blocks;
    float sum[S::MT][S::NT][4];
#pragma unroll
    for (int m = 0; m < S::MT; m++)
#pragma unroll
        for (int i = 0; i < S::NT; i++)
            sum[m][i][0] = sum[m][i][1] = sum[m][i][2] = sum[m][i][3] = 0;
    for (int n = 0; n <= steps; n++) {
        if (n < steps) {
            const int t = first + n / blocks, channel = n % blocks * DEPTH;
            const uint32_t at = base + n % STAGES * S::STAGE;
            load_pixels<S, KS, STRIDE, UP, DEPTH>(a, a.src[f * a.step + t], at, y0, x0, channel);
            load_weights<S, DEPTH, COLUMNS>(a, t, at + S::PIXEL_BYTES, column0, channel);
        }
        copy_commit();
        if (n == 0) continue;
        copy_wait<1>();
        __syncthreads();
        const uint32_t at = base + (n - 1) % STAGES * S::STAGE;
        multiply<S, KS, STRIDE, UP, DEPTH, COLUMNS>(sum, at, at + S::PIXEL_BYTES, warp_m, warp_n,
                                                    lane);
        __syncthreads(); // before the next copy overwrites this stage
    }
    if (a.wide)
        store_wide<S>(a, sum, f, y0, x0, column0, warp_m, warp_n, lane);
    else
        store<S, COLUMNS>(a, sum, raw, f, y0, x0, column0, warp_m, warp_n, lane);
}

template <int KS, int STRIDE, bool UP, int COLUMNS, int DEPTH>
int launch(const conv_cuda *c, const conv_tile *t, err *e)
{
    using S = Shape<KS, STRIDE, UP, COLUMNS, DEPTH>;
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
    a.columns = (a.out_pad + COLUMNS - 1) / COLUMNS;
    a.wide = c->wide;
    if (t->shared != S::SHARED)
        return err_set(e, ERR_BUG, "convolution tile of %zu bytes, planned as %zu",
                       static_cast<size_t>(S::SHARED), t->shared);
    const auto kernel = convolve<KS, STRIDE, UP, COLUMNS, DEPTH>;
    cudaError_t r =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::SHARED);
    if (r == cudaSuccess) {
        const int tiles = a.tiles_x * ((a.out_h + SIDE - 1) / SIDE);
        const dim3 grid(tiles * a.columns, c->frames);
        kernel<<<grid, THREADS, S::SHARED, static_cast<cudaStream_t>(c->stream)>>>(a);
        r = cudaGetLastError();
    }
    return launched(r, e, "bf16 convolution");
}

template <int COLUMNS, int DEPTH> int by_window(const conv_cuda *c, const conv_tile *t, err *e)
{
    if (c->ks == 1) return launch<1, 1, false, COLUMNS, DEPTH>(c, t, e);
    if (c->up) return launch<3, 1, true, COLUMNS, DEPTH>(c, t, e);
    return launch<3, 1, false, COLUMNS, DEPTH>(c, t, e);
}

} // namespace

int conv_bf16_sm80(const conv_cuda *c, const conv_tile *t, err *e)
{
    if (c->stride == 2) {
        if (t->columns == 32) return launch<3, 2, false, 32, 16>(c, t, e);
        return launch<3, 2, false, 96, 16>(c, t, e);
    }
    if (t->depth == 16) return by_window<32, 16>(c, t, e);
    if (t->columns == 32) return by_window<32, 32>(c, t, e);
    if (t->columns == 96) return by_window<96, 32>(c, t, e);
    return by_window<128, 32>(c, t, e);
}
