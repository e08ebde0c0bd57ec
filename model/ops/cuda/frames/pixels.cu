// What a VAE does between its convolutions, pixel by pixel: norms, shortcuts, patches, the ends of the
// pipeline. Bound by memory, so plain.
#include "model/ops/cuda/frames/conv_cuda.h"
#include "model/ops/cuda/frames/launch.cuh"

namespace
{

constexpr int THREADS = 256;

int pad8(int n) { return (n + 7) / 8 * 8; }

unsigned blocks_for(size_t n, size_t a_block)
{
    const size_t blocks = (n + a_block - 1) / a_block;
    return static_cast<unsigned>(blocks < 1u << 20 ? blocks : 1u << 20); /* loops take the rest */
}

template <class T> struct Norm {
    T *y[CONV_CUDA_FRAMES], *sum[CONV_CUDA_FRAMES];
    const T *x[CONV_CUDA_FRAMES], *residual[CONV_CUDA_FRAMES];
    const float *gamma;
    size_t n;
    int channels, padded;
    bool silu;
};

template <class T>
__device__ __forceinline__ void load_sum(float (&v)[8], const T *x, const T *residual, size_t at)
{
    load8(v, x + at);
    if (!residual) return;
    float more[8];
    load8(more, residual + at);
#pragma unroll
    for (int i = 0; i < 8; i++)
        v[i] = rounded<T>(v[i] + more[i]);
}

// LANES threads a pixel, eight channels each at a time. What is read twice comes from the first cache.
template <class T, int LANES>
__global__ void __launch_bounds__(THREADS) norm_pixels(const __grid_constant__ Norm<T> a)
{
    const int lane = threadIdx.x % LANES;
    const T *x = a.x[blockIdx.y], *residual = a.residual[blockIdx.y];
    T *y = a.y[blockIdx.y], *sum = a.sum[blockIdx.y];
    const float root = sqrtf(static_cast<float>(a.channels));
    const size_t step = static_cast<size_t>(gridDim.x) * (THREADS / LANES);
    // every lane of a warp makes the same number of turns: shuffles want all of them
    const size_t turns = (a.n + step - 1) / step;
    size_t p = static_cast<size_t>(blockIdx.x) * (THREADS / LANES) + threadIdx.x / LANES;
    for (size_t turn = 0; turn < turns; turn++, p += step) {
        const bool inside = p < a.n;
        float squares = 0;
        for (int c = lane * 8; inside && c < a.padded; c += LANES * 8) {
            float v[8];
            load_sum(v, x, residual, p * a.padded + c);
#pragma unroll
            for (int i = 0; i < 8; i++)
                squares += v[i] * v[i];
        }
#pragma unroll
        for (int i = 1; i < LANES; i *= 2)
            squares += __shfl_xor_sync(~0u, squares, i);
        const float scale = 1.0f / fmaxf(sqrtf(squares), 1e-12f);
        for (int c = lane * 8; inside && c < a.padded; c += LANES * 8) {
            float v[8], g[8];
            load_sum(v, x, residual, p * a.padded + c);
            if (sum) store8(sum + p * a.padded + c, v);
            load8(g, a.gamma + c);
            norm8<T>(v, g, scale, root, a.silu);
            store8(y + p * a.padded + c, v);
        }
    }
}

template <class T>
__global__ void dup_up(T *to, int out, int out_pad, const T *from, int in, int in_pad, int h, int w,
                       int ft, int a)
{
    const int repeats = out * ft * 4 / in;
    const size_t n = static_cast<size_t>(2 * h) * (2 * w) * out_pad;
    const size_t step = static_cast<size_t>(gridDim.x) * THREADS;
    for (size_t i = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x; i < n; i += step) {
        const int o = i % out_pad, x = i / out_pad % (2 * w), y = i / out_pad / (2 * w);
        const int c = (((o * ft + a) * 2 + y % 2) * 2 + x % 2) / repeats;
        to[i] = o < out ? from[(static_cast<size_t>(y / 2) * w + x / 2) * in_pad + c]
                        : from_float<T>(0);
    }
}

template <class T> struct Average {
    const T *from[2];
    T *to;
    int out, out_pad, h, w, in, in_pad, ft, fs;
};

template <class T> __global__ void avg_down(const __grid_constant__ Average<T> a)
{
    const int group = a.in * a.ft * a.fs * a.fs / a.out;
    const size_t n = static_cast<size_t>(a.h) * a.w * a.out_pad;
    const size_t step = static_cast<size_t>(gridDim.x) * THREADS;
    for (size_t i = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x; i < n; i += step) {
        const int o = i % a.out_pad, x = i / a.out_pad % a.w, y = i / a.out_pad / a.w;
        float sum = 0;
        for (int g = o * group; o < a.out && g < (o + 1) * group; g++) {
            const int e = g % a.fs, b = g / a.fs % a.fs, t = g / (a.fs * a.fs) % a.ft;
            const int c = g / (a.fs * a.fs * a.ft);
            const size_t at =
                (static_cast<size_t>(y * a.fs + b) * (a.w * a.fs) + x * a.fs + e) * a.in_pad + c;
            if (a.from[t]) sum += to_float(a.from[t][at]);
        }
        a.to[i] = from_float<T>(sum / group);
    }
}

struct Affine {
    float scale[LATENT_CUDA_CHANNELS], shift[LATENT_CUDA_CHANNELS];
};

template <class T>
__global__ void latent_in(T *frame, const float *latents, int channels, int padded, int frames,
                          int t, int area, const __grid_constant__ Affine a)
{
    const int p = blockIdx.x * THREADS + threadIdx.x;
    if (p >= area) return;
    for (int c = 0; c < padded; c++) {
        float v = 0;
        if (c < channels) {
            v = rounded<T>(latents[(static_cast<size_t>(c) * frames + t) * area + p]);
            v = rounded<T>(v / a.scale[c]) + a.shift[c];
        }
        frame[static_cast<size_t>(p) * padded + c] = from_float<T>(v);
    }
}

template <class T>
__global__ void latent_out(float *latents, const T *frame, int channels, int padded, int frames,
                           int t, int area, const __grid_constant__ Affine a)
{
    const int p = blockIdx.x * THREADS + threadIdx.x;
    if (p >= area) return;
    for (int c = 0; c < channels; c++)
        latents[(static_cast<size_t>(c) * frames + t) * area + p] =
            (to_float(frame[static_cast<size_t>(p) * padded + c]) - a.shift[c]) * a.scale[c];
}

template <class T>
__global__ void rgb_out(float *rgb, uint8_t *bytes, bool truncate, int *bad, const T *frame,
                        int padded, int h, int w, int p)
{
    const size_t n = static_cast<size_t>(h) * p * w * p * 3;
    const size_t i = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x;
    if (i >= n) return;
    const int c = i % 3, x = i / 3 % (w * p), y = i / 3 / (w * p);
    const float v = to_float(
        frame[(static_cast<size_t>(y / p) * w + x / p) * padded + (c * p + x % p) * p + y % p]);
    if (!isfinite(v)) *bad = 1;
    const float in = v < -1 ? -1 : v > 1 ? 1 : v;
    if (rgb) rgb[i] = in;
    const float byte = (in * 0.5f + 0.5f) * 255.0f; // halving is exact: nothing to contract
    if (bytes) bytes[i] = static_cast<uint8_t>(truncate ? byte : rintf(byte));
}

template <class T>
__global__ void rgb_in(T *frame, const float *rgb, int padded, int h, int w, int p)
{
    const size_t n = static_cast<size_t>(h) * w * padded;
    const size_t i = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x;
    if (i >= n) return;
    const int q = i % padded, x = i / padded % w, y = i / padded / w;
    const int sub_y = q % p, sub_x = q / p % p, c = q / (p * p);
    frame[i] = from_float<T>(
        c < 3 ? rgb[(static_cast<size_t>(y * p + sub_y) * (w * p) + x * p + sub_x) * 3 + c] : 0);
}

template <class T> __global__ void finite(int *bad, const T *x, size_t n)
{
    const size_t step = static_cast<size_t>(gridDim.x) * THREADS;
    bool fine = true;
    for (size_t i = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x; i < n; i += step)
        fine = fine && isfinite(to_float(x[i]));
    if (!fine) *bad = 1;
}

template <class T> int run_norm(const struct pixel_norm *p, err *e)
{
    Norm<T> a = {};
    for (int i = 0; i < p->frames; i++) {
        a.y[i] = static_cast<T *>(p->y[i]);
        a.x[i] = static_cast<const T *>(p->x[i]);
        a.residual[i] = static_cast<const T *>(p->residual ? p->residual[i] : nullptr);
        a.sum[i] = static_cast<T *>(p->sum ? p->sum[i] : nullptr);
    }
    a.gamma = p->gamma;
    a.n = p->n;
    a.channels = p->channels;
    a.padded = pad8(p->channels);
    a.silu = p->silu;
    const int chunks = a.padded / 8;
    const cudaStream_t stream = static_cast<cudaStream_t>(p->stream);
    /* about three turns a lane, so that 96, 192 and 384 channels waste none */
    const int lanes = chunks <= 4 ? 2 : chunks <= 12 ? 4 : chunks <= 24 ? 8 : 16;
    const dim3 grid(blocks_for(p->n, THREADS / lanes), p->frames);
    if (lanes == 2)
        norm_pixels<T, 2><<<grid, THREADS, 0, stream>>>(a);
    else if (lanes == 4)
        norm_pixels<T, 4><<<grid, THREADS, 0, stream>>>(a);
    else if (lanes == 8)
        norm_pixels<T, 8><<<grid, THREADS, 0, stream>>>(a);
    else
        norm_pixels<T, 16><<<grid, THREADS, 0, stream>>>(a);
    return launched(cudaGetLastError(), e, "norm of pixels");
}

template <class T>
int run_dup(void *to, int out, const void *from, int in, int h, int w, int ft, int a,
            cudaStream_t stream, err *e)
{
    const unsigned blocks = blocks_for(static_cast<size_t>(4) * h * w * pad8(out), THREADS);
    dup_up<T><<<blocks, THREADS, 0, stream>>>(static_cast<T *>(to), out, pad8(out),
                                              static_cast<const T *>(from), in, pad8(in), h, w, ft,
                                              a);
    return launched(cudaGetLastError(), e, "shortcut of an upsampler");
}

template <class T>
int run_avg(void *to, int out, int h, int w, const void *const *from, int in, int ft, int fs,
            cudaStream_t stream, err *e)
{
    Average<T> a = {};
    for (int i = 0; i < ft; i++)
        a.from[i] = static_cast<const T *>(from[i]);
    a.to = static_cast<T *>(to);
    a.out = out, a.out_pad = pad8(out), a.h = h, a.w = w;
    a.in = in, a.in_pad = pad8(in), a.ft = ft, a.fs = fs;
    const unsigned blocks = blocks_for(static_cast<size_t>(h) * w * a.out_pad, THREADS);
    avg_down<T><<<blocks, THREADS, 0, stream>>>(a);
    return launched(cudaGetLastError(), e, "shortcut of a downsampler");
}

int affine(Affine *a, const float *scale, const float *shift, int channels, err *e)
{
    if (channels < 1 || channels > LATENT_CUDA_CHANNELS)
        return err_set(e, ERR_BUG, "%d channels of latents, 1 to %d are possible", channels,
                       LATENT_CUDA_CHANNELS);
    for (int i = 0; i < channels; i++)
        a->scale[i] = scale[i], a->shift[i] = shift[i];
    return 0;
}

unsigned each(size_t n) { return static_cast<unsigned>((n + THREADS - 1) / THREADS); }

} // namespace

int pixel_norm_cuda(const struct pixel_norm *p, err *e)
{
    if (p->frames < 1 || p->frames > CONV_CUDA_FRAMES || p->channels < 1)
        return err_set(e, ERR_BUG, "norm of %d frames of %d channels", p->frames, p->channels);
    return p->bf16 ? run_norm<bf16>(p, e) : run_norm<float>(p, e);
}

int dup_up_cuda(void *to, int out, const void *from, int in, int h, int w, int ft, int a,
                bool is_bf16, void *stream, err *e)
{
    cudaStream_t s = static_cast<cudaStream_t>(stream);
    return is_bf16 ? run_dup<bf16>(to, out, from, in, h, w, ft, a, s, e)
                   : run_dup<float>(to, out, from, in, h, w, ft, a, s, e);
}

int avg_down_cuda(void *to, int out, int h, int w, const void *const *from, int in, int ft, int fs,
                  bool is_bf16, void *stream, err *e)
{
    cudaStream_t s = static_cast<cudaStream_t>(stream);
    if (ft < 1 || ft > 2) return err_set(e, ERR_BUG, "%d frames of a shortcut, wanted 1 or 2", ft);
    return is_bf16 ? run_avg<bf16>(to, out, h, w, from, in, ft, fs, s, e)
                   : run_avg<float>(to, out, h, w, from, in, ft, fs, s, e);
}

int latent_in_cuda(void *frame, const float *latents, int channels, int frames, int t, int h, int w,
                   const float *scale, const float *shift, bool is_bf16, void *stream, err *e)
{
    cudaStream_t s = static_cast<cudaStream_t>(stream);
    Affine a = {};
    if (affine(&a, scale, shift, channels, e) < 0) return -1;
    const unsigned blocks = each(static_cast<size_t>(h) * w);
    if (is_bf16)
        latent_in<bf16><<<blocks, THREADS, 0, s>>>(static_cast<bf16 *>(frame), latents, channels,
                                                   pad8(channels), frames, t, h * w, a);
    else
        latent_in<float><<<blocks, THREADS, 0, s>>>(static_cast<float *>(frame), latents, channels,
                                                    pad8(channels), frames, t, h * w, a);
    return launched(cudaGetLastError(), e, "latents to a frame");
}

int latent_out_cuda(float *latents, const void *frame, int stride, int channels, int frames, int t,
                    int h, int w, const float *mean, const float *inverse, bool is_bf16,
                    void *stream, err *e)
{
    cudaStream_t s = static_cast<cudaStream_t>(stream);
    Affine a = {};
    if (affine(&a, inverse, mean, channels, e) < 0) return -1;
    const unsigned blocks = each(static_cast<size_t>(h) * w);
    if (is_bf16)
        latent_out<bf16><<<blocks, THREADS, 0, s>>>(latents, static_cast<const bf16 *>(frame),
                                                    channels, stride, frames, t, h * w, a);
    else
        latent_out<float><<<blocks, THREADS, 0, s>>>(latents, static_cast<const float *>(frame),
                                                     channels, stride, frames, t, h * w, a);
    return launched(cudaGetLastError(), e, "a frame to latents");
}

int rgb_out_cuda(float *rgb, uint8_t *bytes, bool truncate, int *bad, const void *frame, int h,
                 int w, int p, bool is_bf16, void *stream, err *e)
{
    cudaStream_t s = static_cast<cudaStream_t>(stream);
    const unsigned blocks = each(static_cast<size_t>(h) * p * w * p * 3);
    const int padded = pad8(3 * p * p);
    if (is_bf16)
        rgb_out<bf16><<<blocks, THREADS, 0, s>>>(rgb, bytes, truncate, bad,
                                                 static_cast<const bf16 *>(frame), padded, h, w, p);
    else
        rgb_out<float><<<blocks, THREADS, 0, s>>>(
            rgb, bytes, truncate, bad, static_cast<const float *>(frame), padded, h, w, p);
    return launched(cudaGetLastError(), e, "a frame to pictures");
}

int rgb_in_cuda(void *frame, const float *rgb, int h, int w, int p, bool is_bf16, void *stream,
                err *e)
{
    cudaStream_t s = static_cast<cudaStream_t>(stream);
    const int padded = pad8(3 * p * p);
    const unsigned blocks = each(static_cast<size_t>(h) * w * padded);
    if (is_bf16)
        rgb_in<bf16><<<blocks, THREADS, 0, s>>>(static_cast<bf16 *>(frame), rgb, padded, h, w, p);
    else
        rgb_in<float><<<blocks, THREADS, 0, s>>>(static_cast<float *>(frame), rgb, padded, h, w, p);
    return launched(cudaGetLastError(), e, "a picture to a frame");
}

int finite_cuda(int *bad, const void *x, size_t n, bool is_bf16, void *stream, err *e)
{
    cudaStream_t s = static_cast<cudaStream_t>(stream);
    const unsigned blocks = blocks_for(n, THREADS * 16);
    if (is_bf16)
        finite<bf16><<<blocks, THREADS, 0, s>>>(bad, static_cast<const bf16 *>(x), n);
    else
        finite<float><<<blocks, THREADS, 0, s>>>(bad, static_cast<const float *>(x), n);
    return launched(cudaGetLastError(), e, "check of numbers");
}
