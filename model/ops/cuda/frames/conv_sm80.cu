// Convolutions over frames, bf16 by mma.sync: implicit products with the window's taps in shared
// memory. For every card since Ampere.
//
// A block owns 16 x 16 pixels of one output frame and COLUMNS output channels; 8 warps share them. A
// stage is one tap in time and DEPTH input channels: the pixels with their halo, read once for all
// nine taps in space, and the weights of these taps. A row of 16 pixels is the m of one mma, so that
// a tap is a shift of the rows that ldmatrix reads; a doubled picture is read from the small one.
// conv.cuh says how they lie.
#include "model/ops/cuda/frames/conv.cuh"

namespace
{

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

// Bias and rounding, and out.
template <class S, int COLUMNS>
__device__ __forceinline__ void store(const Args &a, float (&sum)[S::MT][S::NT][4],
                                      unsigned char *raw, int f, int y0, int x0, int column0,
                                      int warp_m, int warp_n, int lane)
{
#pragma unroll
    for (int i = 0; i < S::NT; i++) {
        const int c = (warp_n * S::NT + i) * 8 + lane % 4 * 2;
        const float b0 = bias_of(a, column0 + c), b1 = bias_of(a, column0 + c + 1);
#pragma unroll
        for (int m = 0; m < S::MT; m++)
#pragma unroll
            for (int h = 0; h < 2; h++)
                put<S>(raw, (warp_m * S::MT + m) * SIDE + lane / 4 + 8 * h, c,
                       sum[m][i][2 * h] + b0, sum[m][i][2 * h + 1] + b1);
    }
    leave<S, COLUMNS>(a, raw, f, y0, x0, column0);
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
    const int first = first_tap(a, f), steps = (a.kt - first) * blocks;
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
    if (t->shared != S::SHARED)
        return err_set(e, ERR_BUG, "convolution tile of %zu bytes, planned as %zu",
                       static_cast<size_t>(S::SHARED), t->shared);
    return enqueue<S>(convolve<KS, STRIDE, UP, COLUMNS, DEPTH>, arguments(c, COLUMNS), c,
                      "bf16 convolution", e);
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
