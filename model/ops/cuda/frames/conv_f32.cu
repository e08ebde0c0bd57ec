// Convolutions over frames in fp32, by FMA: what a run with --precision fp32 uses.
//
// A block owns 8 x 16 pixels of one output frame and 64 output channels; a thread 4 pixels of a row
// and 8 channels. A stage is one tap in time and 8 input channels: the pixels with their halo and the
// weights of all taps in space, both with the channel outermost.
#include "model/ops/cuda/frames/conv_kernels.h"
#include "model/ops/cuda/frames/launch.cuh"

namespace
{

constexpr int HIGH = 8, WIDE = 16, COLUMNS = 64, DEPTH = 8, THREADS = 256;

struct Args {
    const float *src[CONV_CUDA_FRAMES + 2];
    const float *residual[CONV_CUDA_FRAMES];
    float *y[CONV_CUDA_FRAMES];
    const float *weight, *bias;
    int64_t row, tap;
    int in_pad, out, out_pad, kt, step, h, w, out_h, out_w, tiles_x, columns;
};

template <int KS, int STRIDE, bool UP> struct Shape {
    static constexpr int TAPS = KS * KS;
    static constexpr int HALO_H = UP ? HIGH / 2 + 2 : KS == 3 ? (HIGH - 1) * STRIDE + 3 : HIGH;
    static constexpr int HALO_W = UP ? WIDE / 2 + 2 : KS == 3 ? (WIDE - 1) * STRIDE + 3 : WIDE;
    static constexpr int PIXELS = HALO_H * HALO_W;
};

template <int KS, int STRIDE, bool UP>
__global__ void __launch_bounds__(THREADS) convolve(const __grid_constant__ Args a)
{
    using S = Shape<KS, STRIDE, UP>;
    __shared__ float pixels[DEPTH][S::PIXELS];
    __shared__ __align__(16) float weights[DEPTH][S::TAPS][COLUMNS];
    const int f = blockIdx.y, column0 = blockIdx.x % a.columns * COLUMNS;
    const int tile = blockIdx.x / a.columns;
    const int y0 = tile / a.tiles_x * HIGH, x0 = tile % a.tiles_x * WIDE;
    const int n0 = threadIdx.x % 8 * 8, ty = threadIdx.x / 32, tx = threadIdx.x / 8 % 4 * 4;
    const int top = UP ? y0 / 2 - 1 : KS == 3 && STRIDE == 1 ? y0 - 1 : y0 * STRIDE;
    const int left = UP ? x0 / 2 - 1 : KS == 3 && STRIDE == 1 ? x0 - 1 : x0 * STRIDE;
    float sum[4][8];
#pragma unroll
    for (int p = 0; p < 4; p++)
#pragma unroll
        for (int i = 0; i < 8; i++)
            sum[p][i] = 0;
    for (int t = 0; t < a.kt; t++) {
        const float *src = a.src[f * a.step + t];
        if (!src) continue;
        for (int first = 0; first < a.in_pad; first += DEPTH) {
            for (int i = threadIdx.x; i < S::PIXELS * DEPTH; i += THREADS) {
                const int p = i / DEPTH, c = i % DEPTH;
                const int y = top + p / S::HALO_W, x = left + p % S::HALO_W;
                const bool inside = y >= 0 && x >= 0 && y < a.h && x < a.w;
                pixels[c][p] =
                    inside ? src[(static_cast<int64_t>(y) * a.w + x) * a.in_pad + first + c] : 0;
            }
            for (int i = threadIdx.x; i < S::TAPS * COLUMNS * DEPTH; i += THREADS) {
                const int c = i % DEPTH, r = i / DEPTH, s = r / COLUMNS, n = column0 + r % COLUMNS;
                const int64_t from =
                    (static_cast<int64_t>(t) * S::TAPS + s) * a.tap + n * a.row + first + c;
                weights[c][s][r % COLUMNS] = n < a.out ? a.weight[from] : 0;
            }
            __syncthreads();
            for (int c = 0; c < DEPTH; c++) {
#pragma unroll
                for (int s = 0; s < S::TAPS; s++) {
                    const int dy = s / KS, dx = s % KS;
                    const int hy = UP ? (ty + dy + 1) / 2 : ty * STRIDE + dy;
                    const float4 w0 = *reinterpret_cast<const float4 *>(&weights[c][s][n0]),
                                 w1 = *reinterpret_cast<const float4 *>(&weights[c][s][n0 + 4]);
#pragma unroll
                    for (int p = 0; p < 4; p++) {
                        const int x = tx + p, hx = UP ? (x + dx + 1) / 2 : x * STRIDE + dx;
                        const float v = pixels[c][hy * S::HALO_W + hx];
                        sum[p][0] += v * w0.x;
                        sum[p][1] += v * w0.y;
                        sum[p][2] += v * w0.z;
                        sum[p][3] += v * w0.w;
                        sum[p][4] += v * w1.x;
                        sum[p][5] += v * w1.y;
                        sum[p][6] += v * w1.z;
                        sum[p][7] += v * w1.w;
                    }
                }
            }
            __syncthreads();
        }
    }
    const int n = column0 + n0, py = y0 + ty;
    if (py >= a.out_h || n >= a.out_pad) return;
#pragma unroll
    for (int p = 0; p < 4; p++) {
        const int px = x0 + tx + p;
        if (px >= a.out_w) continue;
        const int64_t to = (static_cast<int64_t>(py) * a.out_w + px) * a.out_pad + n;
        float v[8];
#pragma unroll
        for (int i = 0; i < 8; i++)
            v[i] = sum[p][i] + (a.bias && n + i < a.out ? a.bias[n + i] : 0);
        if (a.residual[f]) {
            float more[8];
            load8(more, a.residual[f] + to);
#pragma unroll
            for (int i = 0; i < 8; i++)
                v[i] += more[i];
        }
        store8(a.y[f] + to, v);
    }
}

template <int KS, int STRIDE, bool UP> int launch(const conv_cuda *c, err *e)
{
    Args a = {};
    for (int i = 0; i < (c->frames - 1) * c->step + c->kt; i++)
        a.src[i] = static_cast<const float *>(c->src[i]);
    for (int i = 0; i < c->frames; i++) {
        a.residual[i] = static_cast<const float *>(c->residual[i]);
        a.y[i] = static_cast<float *>(c->y[i]);
    }
    a.weight = static_cast<const float *>(c->weight);
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
    a.tiles_x = (a.out_w + WIDE - 1) / WIDE;
    a.columns = (a.out_pad + COLUMNS - 1) / COLUMNS;
    const dim3 grid(a.tiles_x * ((a.out_h + HIGH - 1) / HIGH) * a.columns, c->frames);
    const auto kernel = convolve<KS, STRIDE, UP>;
    kernel<<<grid, THREADS, 0, static_cast<cudaStream_t>(c->stream)>>>(a);
    return launched(cudaGetLastError(), e, "fp32 convolution");
}

} // namespace

int conv_f32(const conv_cuda *c, err *e)
{
    if (conv_cuda_check(c, e) < 0) return -1;
    if (c->ks == 1) return launch<1, 1, false>(c, e);
    if (c->up) return launch<3, 1, true>(c, e);
    if (c->stride == 2) return launch<3, 2, false>(c, e);
    return launch<3, 1, false>(c, e);
}
