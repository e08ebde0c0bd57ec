// The 3 x 3 windows of stride 1, plain or over a doubled picture, bf16 by wgmma: sm_90a only.
//
// A block as in conv_sm80.cu with 96 columns: 16 x 16 pixels, nine taps from one halo. A warpgroup owns 8
// rows of pixels, two products of 64 x 96: four rows of 16 pixels are the four warps' parts of an m of
// 64, so that a tap stays a shift of the rows that ldmatrix reads into registers, and the weights are
// read where the copies left them. While a step is multiplied the pixels of the next are read.
#include "model/base/cuda/wgmma96.cuh"
#include "model/ops/cuda/frames/conv.cuh"

namespace
{

constexpr int COLUMNS = 96, DEPTH = 32, MT = 2; // pieces of 64 pixels a warpgroup

template <bool UP> using Of = Shape<3, 1, UP, COLUMNS, DEPTH>;

// pixels of a step (tap * 2 + 16 channels) for both pieces
template <bool UP>
__device__ __forceinline__ void read(uint32_t (&a)[MT][4], int step, uint32_t pixels, int row0,
                                     int lane)
{
    const int s = step / 2, d = step % 2, dy = s / 3, dx = s % 3, x = lane % 16;
    const int hx = UP ? (x + dx + 1) / 2 : x + dx;
#pragma unroll
    for (int m = 0; m < MT; m++) {
        const int y = row0 + 4 * m, hy = UP ? (y + dy + 1) / 2 : y + dy;
        ldmatrix4(a[m], pixels + chunk<DEPTH>(hy * Of<UP>::HALO + hx, 2 * d + lane / 16));
    }
}

// One stage; sums of all pieces are complete when it returns, and nobody reads the stage any more.
template <bool UP>
__device__ __forceinline__ void multiply(float (&sum)[MT][COLUMNS / 2], uint32_t pixels,
                                         uint32_t weights, int row0, int lane)
{
    constexpr int STEPS = 9 * 2;
    uint32_t a[2][MT][4];
    read<UP>(a[0], 0, pixels, row0, lane);
#pragma unroll
    for (int m = 0; m < MT; m++)
        wgmma_pin(sum[m]);
#pragma unroll
    for (int n = 0; n < STEPS; n++) {
        const uint64_t b = wgmma_matrix64(weights + n / 2 * COLUMNS * DEPTH * 2 + n % 2 * 32);
        wgmma_fence();
#pragma unroll
        for (int m = 0; m < MT; m++)
            wgmma_rk<COLUMNS>(sum[m], a[n % 2][m], b, 1);
        wgmma_commit();
        if (n + 1 == STEPS) break;
        wgmma_wait<1>(); // the step before has let go of its registers
        read<UP>(a[(n + 1) % 2], n + 1, pixels, row0, lane);
    }
    wgmma_wait<0>();
#pragma unroll
    for (int m = 0; m < MT; m++)
        wgmma_pin(sum[m]);
}

template <bool UP>
__global__ void __launch_bounds__(THREADS, 1) convolve(const __grid_constant__ Args a)
{
    using S = Of<UP>;
    extern __shared__ __align__(1024) unsigned char raw[];
    const uint32_t base = smem_address(raw);
    const int f = blockIdx.y, column0 = blockIdx.x % a.columns * COLUMNS;
    const int tile = blockIdx.x / a.columns;
    const int y0 = tile / a.tiles_x * SIDE, x0 = tile % a.tiles_x * SIDE;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int row0 = warp / 4 * 8 + warp % 4; // of piece 0; piece 1 lies 4 further
    const int blocks = (a.in_pad + DEPTH - 1) / DEPTH; // of input channels
    const int first = first_tap(a, f), steps = (a.kt - first) * blocks;
    float sum[MT][COLUMNS / 2];
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int i = 0; i < COLUMNS / 2; i++)
            sum[m][i] = 0;
    for (int n = 0; n <= steps; n++) {
        if (n < steps) {
            const int t = first + n / blocks, channel = n % blocks * DEPTH;
            const uint32_t at = base + n % STAGES * S::STAGE;
            load_pixels<S, 3, 1, UP, DEPTH>(a, a.src[f * a.step + t], at, y0, x0, channel);
            load_weights<S, DEPTH, COLUMNS>(a, t, at + S::PIXEL_BYTES, column0, channel);
        }
        copy_commit();
        if (n == 0) continue;
        copy_wait<1>();
        fence_proxy_async(); // the weights, for wgmma
        __syncthreads();
        const uint32_t at = base + (n - 1) % STAGES * S::STAGE;
        multiply<UP>(sum, at, at + S::PIXEL_BYTES, row0, lane);
        __syncthreads(); // before the next copy overwrites this stage
    }
#pragma unroll
    for (int i = 0; i < COLUMNS / 8; i++) {
        const int c = 8 * i + lane % 4 * 2;
        const float b0 = bias_of(a, column0 + c), b1 = bias_of(a, column0 + c + 1);
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int h = 0; h < 2; h++)
                put<S>(raw, (row0 + 4 * m) * SIDE + lane / 4 + 8 * h, c, sum[m][4 * i + 2 * h] + b0,
                       sum[m][4 * i + 2 * h + 1] + b1);
    }
    leave<S, COLUMNS>(a, raw, f, y0, x0, column0);
}

} // namespace

int conv_bf16_sm90(const conv_cuda *c, err *e)
{
    const Args a = arguments(c, COLUMNS);
    return c->up ? enqueue<Of<true>>(convolve<true>, a, c, "bf16 convolution (sm_90)", e)
                 : enqueue<Of<false>>(convolve<false>, a, c, "bf16 convolution (sm_90)", e);
}
