/* One convolution of the VAE on the host: weights packed once, then run over lists of frames.
 *
 * Products are our own, in fp32, or the library's (direct.h). Our own: 3x3 windows of stride 1 run
 * as Winograd F(4x4, 3x3) in space with the taps in time summed before the way back; the others as
 * sums over taps. Both end in the same finish: bias, residual, norm, SiLU (kernels.h). Taps that
 * would read frames before the clip are skipped, not multiplied by zero. Owner: the arena given to
 * conv_carve(). Threads: one call at a time a scratch. Errors: ERR_INPUT. */
#ifndef DITGEN_OPS_CPU_FRAMES_CONV_H
#define DITGEN_OPS_CPU_FRAMES_CONV_H

#include "model/ops/cpu/frames/direct.h"
#include "model/ops/cpu/frames/border.h"

struct conv {
    struct conv_shape shape;
    const struct vae_kernels *kernels;
    int in_pad, out_pad; /* padded channels */
    int vectors, panels, width; /* columns: panels * width >= out_pad, width = vectors * lanes */
    int points; /* Winograd: 36 or 25; else 0 */
    float *weight, *bias;
    struct direct_set *set; /* NULL: our own products */
    struct direct *direct;
};

/* Lays the convolution out; weights and bias from the arena. set: whose products; it outlives c.
 * NULL: our own. */
void conv_carve(struct conv *c, const struct conv_shape *s, const struct vae_kernels *k,
                struct direct_set *set, struct arena *a);
/* w [out, in, kt, ks, ks], bias [out] */
void conv_pack(struct conv *c, const float *w, const float *bias);

struct conv_call {
    const float *const
        *src; /* kt = 3: output f reads src[f * step .. f * step + 2]; kt = 1: src[f] */
    int missing; /* the first ones of src that lie before the clip: not read */
    struct frame_size in, out;
    int frames;
    float *const *residual, *const *x,
                                *const *norm; /* lists of frames or NULL; residual may be x */
    const float *gamma; /* with norm */
    bool silu, round;
};

/* Floats of scratch a worker needs for any count of frames up to `frames` at this size. */
size_t conv_scratch(const struct conv *c, const struct frame_size *out, int frames, int threads);
/* scratch: conv_scratch() floats for each of `threads` workers, `scratch_stride` apart; one block
 * to the library's products, whose errors wait in the set. */
void conv_run(const struct conv *c, const struct conv_call *call, float *scratch,
              size_t scratch_stride, int threads);

/* The judge: plain sums in double over the unpacked weights [out, in, kt, ks, ks]. src
 * [frames_in][h][w][in] with the clip's start at frame 0 (zeros before it), y
 * [frames][h'][w'][out]. */
void ref_conv(float *y, const float *src, const float *weight, const float *bias,
              const struct conv_shape *s, int frames_in, int h, int w);

#endif
