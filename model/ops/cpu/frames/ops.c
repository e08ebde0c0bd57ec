/* The host's table of frame operations: lists to the kernels' fp32, everything else is next door. */
#include "model/ops/cpu/frames/host.h"
#include "model/ops/cpu/frames/shortcut.h"

#include "model/base/threads.h"

#include <math.h>
#include <stdlib.h>

static int host_open(struct frames_on *on, enum precision precision, struct err *e)
{
    struct cpu cpu;
    (void)e;
    cpu_detect(&cpu);
    if (!on->kernels) on->kernels = vae_kernels_pick(&cpu, NULL);
    on->round = precision != PRECISION_FP32;
    on->threads = threads_count();
    return 0;
}

static void host_close(struct frames_on *on) { direct_set_close(&on->set); }

static size_t host_bytes(const struct frames_on *on, const struct frame_size *s)
{
    (void)on;
    return frame_floats(s) * sizeof(float);
}

static void host_clear(struct frames_on *on, void *frame, const struct frame_size *s, bool whole)
{
    (void)on;
    if (whole)
        memset(frame, 0, frame_floats(s) * sizeof(float));
    else
        frame_clear_border(frame, s);
}

static void host_copy(struct frames_on *on, void *to, const void *from, const struct frame_size *s)
{
    (void)on;
    memcpy(to, from, frame_floats(s) * sizeof(float));
}

static void host_put(struct frames_on *on, float *to, const float *from, size_t n)
{
    (void)on;
    memcpy(to, from, n * sizeof *to);
}

static bool all_finite(const float *x, size_t n)
{
    float sum = 0; /* 0 * x is 0, or NaN when x is infinite or NaN */
    for (size_t i = 0; i < n; i++)
        sum += 0 * x[i];
    return sum == 0;
}

static bool host_finite(struct frames_on *on, void *const *frames, int n,
                        const struct frame_size *s)
{
    (void)on;
    for (int f = 0; f < n; f++)
        if (!all_finite(frames[f], frame_floats(s))) return false;
    return true;
}

static void host_conv_carve(const struct frames_on *on, struct frame_conv *c,
                            const struct conv_shape *s, struct arena *a)
{
    struct direct_set *set = (struct direct_set *)(uintptr_t)&on->set; /* remembers what it made */
    *c = (struct frame_conv){.shape = *s};
    conv_carve(&c->host, s, on->kernels, set, a);
}

static void host_conv_pack(struct frames_on *on, struct frame_conv *c, const struct tensor *weight,
                           const struct tensor *bias, int first_out)
{
    const struct conv_shape *s = &c->shape;
    size_t out = (size_t)s->out, first = (size_t)first_out,
           per_out = (size_t)s->in * (size_t)s->kt * (size_t)(s->ks * s->ks), n = per_out * out;
    if (on->failed.code != ERR_NONE) return;
    float *w = malloc((n + out) * sizeof *w);
    if (!w)
        err_set(&on->failed, ERR_RESOURCE, "no memory for a convolution's weights (%zu values)", n);
    else if (frames_read(on, w, weight, first * per_out, n) &&
             frames_read(on, w + n, bias, first, out))
        conv_pack(&c->host, w, w + n);
    free(w);
}

static size_t host_conv_scratch(const struct frames_on *on, const struct frame_conv *c,
                                const struct frame_size *out, int frames)
{
    return conv_scratch(&c->host, out, frames, on->threads) * sizeof(float);
}

static size_t host_scratch(struct frames_on *on, size_t most)
{
    size_t floats = most / sizeof(float);
    on->stride = (floats + 31) / 32 * 32 + 16; /* workers on different cache sets */
    return on->stride * (size_t)on->threads * sizeof(float);
}

/* Lists name memory, the kernels want numbers. */
static float *const *floats_of(float **to, void *const *list, int n)
{
    if (!list) return NULL;
    for (int i = 0; i < n; i++)
        to[i] = list[i];
    return to;
}

static void host_conv(struct frames_on *on, const struct frame_conv *c,
                      const struct frame_call *call, void *scratch)
{
    float *src[MAX_FRAMES + 2], *residual[MAX_FRAMES], *x[MAX_FRAMES], *norm[MAX_FRAMES];
    int n_in = (call->frames - 1) * c->shape.step + c->shape.kt;
    if (on->failed.code != ERR_NONE) return;
    struct conv_call host = {
        .src = (const float *const *)floats_of(src, call->src, n_in),
        .missing = call->missing,
        .in = call->in,
        .out = call->out,
        .frames = call->frames,
        .residual = floats_of(residual, call->residual, call->frames),
        .x = floats_of(x, call->x, call->frames),
        .norm = floats_of(norm, call->norm, call->frames),
        .gamma = call->gamma,
        .silu = call->silu,
        .round = on->round,
    };
    conv_run(&c->host, &host, scratch, on->stride, on->threads);
    if (on->set.error.code != ERR_NONE) on->failed = on->set.error;
}

static void host_settle(struct frames_on *on, const struct frame_size *s, int channels,
                        const void *frame, const void *residual, void *x, void *norm,
                        const float *gamma)
{
    static const float no_bias[4096]; /* the widest layer a config may have */
    struct finish f = {.channels = s->channels,
                       .sqrt_c = sqrtf((float)channels),
                       .bias = no_bias,
                       .gamma = gamma,
                       .silu = true,
                       .round = on->round};
    const float *from = frame, *more = residual;
    for (int y = 0; y < s->h; y++) {
        ptrdiff_t at = frame_at(s, y, 0);
        on->kernels->finish(&f, from + at, s->channels, s->w, more ? more + at : NULL,
                            (float *)x + at, (float *)norm + at);
    }
}

static void host_dup_up(struct frames_on *on, void *to, const struct frame_size *to_size, int out,
                        const void *from, const struct frame_size *size, int in, int ft, int a)
{
    (void)on;
    dup_up(to, to_size, out, from, size, in, ft, a);
}

static void host_avg_down(struct frames_on *on, void *to, const struct frame_size *to_size, int out,
                          const void *const *from, const struct frame_size *size, int in, int ft,
                          int fs)
{
    const float *src[2] = {from[0], ft == 2 ? from[1] : NULL};
    (void)on;
    avg_down(to, to_size, out, src, size, in, ft, fs);
}

static size_t latent_at(const struct frame_latents *l, const struct frame_size *s, int z, int y,
                        int x)
{
    size_t plane = (size_t)z * (size_t)l->frames + (size_t)l->t;
    return (plane * (size_t)s->h + (size_t)y) * (size_t)s->w + (size_t)x;
}

static void host_latents_in(struct frames_on *on, void *frame, const struct frame_size *s,
                            const struct frame_latents *l)
{
    for (int z = 0; z < l->channels; z++)
        for (int y = 0; y < s->h; y++)
            for (int x = 0; x < s->w; x++) {
                float v = l->at[latent_at(l, s, z, y, x)];
                if (on->round)
                    v = bf16_round(bf16_round(bf16_round(v) / l->scale[z]) + l->shift[z]);
                else
                    v = v / l->scale[z] + l->shift[z];
                ((float *)frame)[frame_at(s, y, x) + z] = v;
            }
}

static void host_latents_out(struct frames_on *on, const struct frame_latents *l, const void *frame,
                             const struct frame_size *s)
{
    (void)on;
    for (int z = 0; z < l->channels; z++)
        for (int y = 0; y < s->h; y++)
            for (int x = 0; x < s->w; x++)
                l->at[latent_at(l, s, z, y, x)] =
                    (((const float *)frame)[frame_at(s, y, x) + z] - l->shift[z]) * l->scale[z];
}

/* fp32 in [-1, 1] → bytes. To nearest (half to even, as the reference's image path), or truncated,
 * as its video export (wan.md 7). */
static void to_bytes(uint8_t *out, const float *x, size_t n, bool truncate)
{
    for (size_t i = 0; i < n; i++) {
        float y = x[i] * 0.5f + 0.5f;
        y = y > 0 ? (y < 1 ? y : 1) : 0; /* what is no number has been noted */
        out[i] = (uint8_t)(truncate ? y * 255.0f : nearbyintf(y * 255.0f));
    }
}

static void host_pictures_out(struct frames_on *on, const struct frame_pictures *p)
{
    size_t one = (size_t)(p->size.h * p->patch) * (size_t)(p->size.w * p->patch) * 3;
    (void)on;
    for (int f = 0; f < p->n; f++)
        frame_to_rgb(p->rgb + (size_t)f * one, p->frames[f], &p->size, p->patch);
    if (!all_finite(p->rgb, (size_t)p->n * one)) *p->bad = 1;
    if (p->bytes) to_bytes(p->bytes, p->rgb, (size_t)p->n * one, p->truncate);
}

static void host_picture_in(struct frames_on *on, void *frame, const struct frame_size *s,
                            const float *rgb, int patch)
{
    frame_from_rgb(frame, s, rgb, patch, on->round);
}

/* Enough frames to share the transforms of the past, few enough to stay near the caches: three lists
 * and the past are about a last-level cache. */
static int host_piece(const struct frames_on *on, const struct frame_size *s, int least)
{
    size_t fit = ((size_t)24 << 20) / host_bytes(on, s);
    int n = fit > 8 ? 8 : (int)fit;
    return n - n % least < least ? least : n - n % least;
}

const struct frame_ops frame_ops_cpu = {
    .kind = DEVICE_CPU,
    .open = host_open,
    .close = host_close,
    .bytes = host_bytes,
    .clear = host_clear,
    .copy = host_copy,
    .put = host_put,
    .finite = host_finite,
    .conv_carve = host_conv_carve,
    .conv_pack = host_conv_pack,
    .scratch = host_scratch,
    .conv_scratch = host_conv_scratch,
    .conv = host_conv,
    .attend_carve = host_attend_carve,
    .attend_scratch = host_attend_scratch,
    .attend = host_attend,
    .settle = host_settle,
    .dup_up = host_dup_up,
    .avg_down = host_avg_down,
    .latents_in = host_latents_in,
    .latents_out = host_latents_out,
    .pictures_out = host_pictures_out,
    .picture_in = host_picture_in,
    .piece = host_piece,
};
