// Before and after the blocks: latents to patches and back, the sinusoid of time, and products of so
// few rows that reading the weight once is all there is to do.
#include "model/base/cuda/launch.h"
#include "model/ops/cuda/lanes.cuh"
#include "model/ops/cuda/rows_cuda.h"
#include "model/ops/cuda/shape_cuda.h"

namespace
{

using Few = struct cuda_few; // the function hides the name

constexpr int THREADS = 256;

template <class T>
__global__ void __launch_bounds__(THREADS)
    patch_in(T *cols, const float *latents, const cuda_grid g, int n)
{
    const int i = blockIdx.x * THREADS + threadIdx.x; // over cols: token slowest
    if (i >= n) return;
    const int each = g.channels * g.patch_h * g.patch_w, k = i % each, token = i / each;
    const int gw = g.width / g.patch_w, gh = g.height / g.patch_h;
    const int pw = k % g.patch_w, ph = k / g.patch_w % g.patch_h, ch = k / (g.patch_w * g.patch_h);
    const int x = token % gw * g.patch_w + pw, y = token / gw % gh * g.patch_h + ph,
              f = token / (gw * gh);
    cols[token * g.row + k] =
        T(latents[((static_cast<int64_t>(ch) * g.frames + f) * g.height + y) * g.width + x]);
}

template <class T>
__global__ void __launch_bounds__(THREADS)
    patch_out(float *latents, const T *cols, const cuda_grid g, int n)
{
    const int i = blockIdx.x * THREADS + threadIdx.x; // over latents: width fastest
    if (i >= n) return;
    const int x = i % g.width, y = i / g.width % g.height, f = i / (g.width * g.height) % g.frames;
    const int ch = i / (g.width * g.height * g.frames);
    const int gw = g.width / g.patch_w, gh = g.height / g.patch_h;
    const int64_t token = (static_cast<int64_t>(f) * gh + y / g.patch_h) * gw + x / g.patch_w;
    const int k = (y % g.patch_h * g.patch_w + x % g.patch_w) * g.channels + ch;
    latents[i] = static_cast<float>(cols[token * g.row + k]);
}

// Full range reduction: at timestep 999 the argument is hundreds of turns.
__global__ void __launch_bounds__(THREADS)
    sinusoid(float *out, const float *t, const float *freqs, int n, int half)
{
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= n * half) return;
    const int row = i / half, c = i % half;
    const float angle = __fmul_rn(t[row], freqs[c]);
    out[static_cast<int64_t>(row) * 2 * half + c] =
        static_cast<float>(cos(static_cast<double>(angle)));
    out[static_cast<int64_t>(row) * 2 * half + half + c] =
        static_cast<float>(sin(static_cast<double>(angle)));
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

// A warp a feature, ROWS rows at a time.
template <class W, int ROWS>
__global__ void __launch_bounds__(128) few(const __grid_constant__ Few p)
{
    const int feature = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (feature >= p.out) return;
    const W *w = static_cast<const W *>(p.weight) + static_cast<int64_t>(feature) * p.in;
    for (int row0 = 0; row0 < p.rows; row0 += ROWS) {
        float sum[ROWS] = {};
        for (int c = 8 * lane; c < p.in; c += 256) {
            const Eight weight = load8(w + c);
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                if (row0 + r >= p.rows) continue;
                const Eight x = load8(p.x + static_cast<int64_t>(row0 + r) * p.in + c);
#pragma unroll
                for (int k = 0; k < 8; k++) {
                    float v = p.round_in ? narrow<bf16>(x.v[k]) : x.v[k];
                    if (p.pre != ACT_NONE) {
                        v = activate(v, p.pre);
                        if (p.round_in) v = narrow<bf16>(v);
                    }
                    sum[r] += v * weight.v[k];
                }
            }
        }
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
#pragma unroll
            for (int i = 16; i; i /= 2)
                sum[r] += __shfl_xor_sync(~0u, sum[r], i);
            if (lane || row0 + r >= p.rows) continue;
            const float y = activate(sum[r] + (p.bias ? p.bias[feature] : 0), p.act);
            p.y[static_cast<int64_t>(row0 + r) * p.out + feature] =
                p.round_out ? narrow<bf16>(y) : y;
        }
    }
}

template <class W> void few_of(const Few &p, cudaStream_t s)
{
    const unsigned blocks = (p.out + 3) / 4;
    if (p.rows == 1)
        few<W, 1><<<blocks, 128, 0, s>>>(p);
    else
        few<W, 4><<<blocks, 128, 0, s>>>(p);
}

int grid_count(const struct cuda_grid *g) { return g->channels * g->frames * g->height * g->width; }

} // namespace

extern "C" int cuda_patchify(void *cols, enum dtype type, const float *latents,
                             const struct cuda_grid *g, void *stream, struct err *e)
{
    if (cuda_grid_takes(g, e) < 0) return -1;
    const cudaStream_t s = static_cast<cudaStream_t>(stream);
    const int n = grid_count(g);
    const unsigned blocks = (n - 1) / THREADS + 1;
    if (type == DTYPE_BF16)
        patch_in<<<blocks, THREADS, 0, s>>>(static_cast<bf16 *>(cols), latents, *g, n);
    else if (type == DTYPE_F32)
        patch_in<<<blocks, THREADS, 0, s>>>(static_cast<float *>(cols), latents, *g, n);
    else
        return err_set(e, ERR_USAGE, "patches of %s, wanted BF16 or F32", dtype_name(type));
    return cuda_launched(e, "patches of %d numbers", n);
}

extern "C" int cuda_unpatchify(float *latents, const void *cols, enum dtype type,
                               const struct cuda_grid *g, void *stream, struct err *e)
{
    if (cuda_grid_takes(g, e) < 0) return -1;
    const cudaStream_t s = static_cast<cudaStream_t>(stream);
    const int n = grid_count(g);
    const unsigned blocks = (n - 1) / THREADS + 1;
    if (type == DTYPE_BF16)
        patch_out<<<blocks, THREADS, 0, s>>>(latents, static_cast<const bf16 *>(cols), *g, n);
    else if (type == DTYPE_F32)
        patch_out<<<blocks, THREADS, 0, s>>>(latents, static_cast<const float *>(cols), *g, n);
    else
        return err_set(e, ERR_USAGE, "patches of %s, wanted BF16 or F32", dtype_name(type));
    return cuda_launched(e, "latents of %d numbers", n);
}

extern "C" int cuda_sinusoid(float *sinus, const float *t, const float *freqs, int n, int half,
                             void *stream, struct err *e)
{
    if (n < 1 || half < 1 || half > INT32_MAX / n)
        return err_set(e, ERR_USAGE, "%d sinusoids of %d", n, half);
    const unsigned blocks = (n * half - 1) / THREADS + 1;
    sinusoid<<<blocks, THREADS, 0, static_cast<cudaStream_t>(stream)>>>(sinus, t, freqs, n, half);
    return cuda_launched(e, "%d sinusoids of %d", n, half);
}

extern "C" int cuda_few(const struct cuda_few *p, void *stream, struct err *e)
{
    if (cuda_few_takes(p, e) < 0) return -1;
    const cudaStream_t s = static_cast<cudaStream_t>(stream);
    p->weight_type == DTYPE_BF16 ? few_of<bf16>(*p, s) : few_of<float>(*p, s);
    return cuda_launched(e, "a product of few rows [%d, %d] -> %d", p->rows, p->in, p->out);
}
