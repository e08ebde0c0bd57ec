/* Convolutions over lists of frames on an NVIDIA GPU, and what stands between them in a VAE.
 *
 * A frame is [h, w, channels] without gaps or border, bf16 or fp32, its channels padded to a
 * multiple of 8 (the pads hold 0). All pointers to numbers are the device's and 16-byte aligned.
 * Sums are fp32; a bf16 run rounds where the CPU's emulation does (wan.md 4.2): after the bias, after
 * the residual, and at each step of a norm. Launchers enqueue on the stream, allocate nothing and do
 * not wait; results are the same bytes every time. Errors: ERR_BUG (shapes), ERR_DEVICE. */
#ifndef DITGEN_OPS_CUDA_FRAMES_CONV_CUDA_H
#define DITGEN_OPS_CUDA_FRAMES_CONV_CUDA_H

#ifdef __cplusplus
extern "C" {
#endif

#include "model/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONV_CUDA_FRAMES 16

struct conv_cuda {
    int in, out; /* channels: what the weight has; frames are padded to 8 */
    int kt, ks; /* taps in time (1, 3) and a side in space (1, 3) */
    int stride; /* space: 1 (centred), or 2 (window 2y .. 2y + 2) */
    int step; /* time: input frames an output frame moves on by */
    bool up; /* the input is doubled by nearest neighbour first; ks 3, stride 1 */
    int h, w; /* pixels of an input frame */
    int frames; /* that come out */
    /* output f reads src[f * step .. f * step + kt - 1]; NULL: before the clip, zeros */
    const void *src[CONV_CUDA_FRAMES + 2];
    const void *residual[CONV_CUDA_FRAMES]; /* added after the bias; NULL: none. May be y */
    void *y[CONV_CUDA_FRAMES]; /* NULL: only norm is wanted; of all frames or of none */
    /* NULL, or of all frames: the norm of y by gamma [out padded to 8], through SiLU or not */
    void *norm[CONV_CUDA_FRAMES];
    const float *gamma;
    bool silu;
    /* [kt][ks * ks][out][in padded to 8], the frames' type */
    const void *weight;
    int64_t weight_row; /* elements from one out to the next; 0: in padded to 8 */
    const float *bias; /* [out] or NULL */
    bool bf16; /* the frames' type; else fp32 */
    int arch; /* 80: no kernel of a later card's (tests, timings); 0: this card's best */
    bool wide; /* bf16: y is fp32, not rounded, and has no residual (attention's scores) */
    void *stream; /* cudaStream_t */
};

/* Pixels of an output frame. */
static inline int conv_cuda_h(const struct conv_cuda *c)
{
    return c->up ? 2 * c->h : c->h / c->stride;
}
static inline int conv_cuda_w(const struct conv_cuda *c)
{
    return c->up ? 2 * c->w : c->w / c->stride;
}

/* One instance of the bf16 kernel: 256 pixels of 16 x 16 by `columns` output channels, `depth` input
 * channels a stage. */
struct conv_tile {
    int columns, depth; /* where columns hold all channels, the norm is made before they leave */
    size_t shared; /* dynamic shared memory, bytes */
};
/* The instance that wastes fewest columns and fits `shared` bytes; ERR_BUG for impossible shapes,
 * ERR_DEVICE when none fits. Needs no GPU. */
int conv_tile_pick(struct conv_tile *t, const struct conv_cuda *c, size_t shared, struct err *e);

/* bf16 by wgmma (sm_90) or mma.sync (sm_80 and later), or fp32 by FMA. */
int conv_cuda_run(const struct conv_cuda *c, struct err *e);

/* A weight as files hold it, [out, in, taps] of this type, → as conv_cuda wants it. */
enum conv_weight_type { CONV_WEIGHT_F32, CONV_WEIGHT_F64, CONV_WEIGHT_BF16, CONV_WEIGHT_F16 };
struct conv_weight {
    int out, in, taps;
    enum conv_weight_type type;
    bool bf16; /* of the packed one; else fp32 */
};
int conv_pack_cuda(void *to, const void *from, const struct conv_weight *w, void *stream,
                   struct err *e);

/* Up to CONV_CUDA_FRAMES frames of n pixels of `channels`: x + residual (NULL, or NULL inside: none)
 * / its length * sqrt(channels) * gamma, through SiLU or not. y may be x, which is left as it was
 * unless `sum` says where x + residual goes (NULL, or x). gamma [channels padded to 8]. */
struct pixel_norm {
    void *const *y;
    const void *const *x, *const *residual;
    void *const *sum;
    int frames, channels;
    size_t n;
    const float *gamma;
    bool silu, bf16;
    void *stream;
};
int pixel_norm_cuda(const struct pixel_norm *p, struct err *e);

/* 2.2's shortcuts (wan.md 4.6). One output frame [2h, 2w, out] of from [h, w, in]: sub-frame a of
 * ft. */
int dup_up_cuda(void *to, int out, const void *from, int in, int h, int w, int ft, int a, bool bf16,
                void *stream, struct err *e);
/* One output frame [h, w, out] of the ft frames [h * fs, w * fs, in]; a NULL: zeros. */
int avg_down_cuda(void *to, int out, int h, int w, const void *const *from, int in, int ft, int fs,
                  bool bf16, void *stream, struct err *e);

/* latents [channels, frames, h, w] fp32, frame t → [h, w, channels padded] of latent / scale +
 * shift; scale, shift [channels] of the host. */
#define LATENT_CUDA_CHANNELS 64
int latent_in_cuda(void *frame, const float *latents, int channels, int frames, int t, int h, int w,
                   const float *scale, const float *shift, bool bf16, void *stream, struct err *e);
/* The way back: (frame - mean) * inverse of the first `channels`; stride: channels of the frame,
 * padded. */
int latent_out_cuda(float *latents, const void *frame, int stride, int channels, int frames, int t,
                    int h, int w, const float *mean, const float *inverse, bool bf16, void *stream,
                    struct err *e);
/* A decoded frame of 3 p² channels (c * p + x) * p + y → rgb [h p, w p, 3]: fp32 clamped to [-1, 1],
 * and bytes, to nearest (half to even) or truncated; either may be NULL. *bad is set where a value is
 * no number. */
int rgb_out_cuda(float *rgb, uint8_t *bytes, bool truncate, int *bad, const void *frame, int h,
                 int w, int p, bool bf16, void *stream, struct err *e);
int rgb_in_cuda(void *frame, const float *rgb, int h, int w, int p, bool bf16, void *stream,
                struct err *e);
/* *bad |= 1 where one of n values is infinite or no number. */
int finite_cuda(int *bad, const void *x, size_t n, bool bf16, void *stream, struct err *e);

/* One wide head over the n pixels of a frame: o = softmax(q kᵀ / sqrt(channels)) v, frames
 * [n, channels padded]. Scores of a few rows at a time: scratch of wide_attention_scratch() bytes. */
size_t wide_attention_scratch(int n, int channels, bool bf16);
int wide_attention_cuda(void *o, const void *q, const void *k, const void *v, int n, int channels,
                        bool bf16, void *scratch, void *stream, struct err *e);

#ifdef __cplusplus
}
#endif

#endif
