/* Latents → frames, depth first: a piece of a level's frames goes all the way down before the next
 * piece is made, so that each level holds a few frames only. */
#include "model/base/clock.h"
#include "model/base/threads.h"
#include "model/vae/vae_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct decode {
    struct vae *v;
    struct net *net;
    struct decoding *d;
    vae_sink sink;
    void *ctx;
    struct err *e;
    bool broken; /* a frame came out that is no number */
    bool trace; /* again, to find the layer where that begins: checks each, shows nothing */
};

static int level_run(struct decode *j, int i, int n);

static bool all_finite(const float *x, size_t n)
{
    float sum = 0; /* 0 * x is 0, or NaN when x is infinite or NaN */
    for (size_t i = 0; i < n; i++)
        sum += 0 * x[i];
    return sum == 0;
}

/* While tracing: are n frames numbers? Else the sentence that names what made them; only the first
 * layer says one, because e is filled once. */
PRINTF_LIKE(5, 6)
static bool sound(struct decode *j, float *const *frames, int n, const struct frame_size *size,
                  const char *fmt, ...)
{
    bool fine = true;
    for (int f = 0; j->trace && f < n && fine; f++)
        fine = all_finite(frames[f], frame_floats(size));
    if (fine || j->e->code) return fine;
    char layer[96];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(layer, sizeof layer, fmt, ap);
    va_end(ap);
    err_set(j->e, ERR_INPUT,
            "vae: %s gives values that are no numbers; its weights are broken, or made for another "
            "precision",
            layer);
    return false;
}

static int show(struct decode *j, int n)
{
    struct decoding *d = j->d;
    int p = j->v->config.patch_size, h = d->rgb.h * p, w = d->rgb.w * p;
    if (j->v->set.error.code != ERR_NONE) {
        *j->e = j->v->set.error;
        return -1;
    }
    size_t one = (size_t)h * (size_t)w * 3;
    if (j->trace) return 0;
    for (int f = 0; f < n; f++)
        frame_to_rgb(d->packed + (size_t)f * one, d->out[f], &d->rgb, p);
    if (!all_finite(d->packed, (size_t)n * one)) {
        j->broken = true;
        return -1;
    }
    j->e->code = ERR_NONE;
    if (j->sink(j->ctx, d->packed, n, h, w, j->e) == 0) return 0;
    return j->e->code == ERR_NONE ? err_set(j->e, ERR_CANCELLED, "decoding was stopped") : -1;
}

/* n frames of `from` (level i's size, once each) → the next level's input, and on with them. sub:
 * which frame of a time pair from[0] is, for the shortcut; inputs[f / ft] is the level's input it
 * came from. */
static int double_space(struct decode *j, int i, float **from, int n, float *const *inputs, int ft,
                        int sub)
{
    struct level *l = &j->net->levels[i];
    struct stage *s = &j->d->stages[i], *next = &j->d->stages[i + 1];
    bool shortcut = j->v->config.is_residual;
    for (int f = 0; shortcut && f < n; f++)
        dup_up(next->x_in[f], &next->in, l->next, inputs[(f + sub) / ft], &s->in, l->in,
               l->in_time ? 2 : 1, l->in_time ? (f + sub) % ft : 0);
    struct conv_call call = {.src = (const float *const *)from,
                             .in = s->out,
                             .out = next->in,
                             .frames = n,
                             .residual = shortcut ? next->x_in : NULL,
                             .x = next->x_in,
                             .norm = next->a_in,
                             .gamma = j->net->levels[i + 1].resnets[0].gamma1,
                             .silu = true,
                             .round = j->d->run.round};
    double t0 = j->v->watch ? clock_seconds() : 0;
    conv_run(&l->space, &call, j->d->run.scratch, j->d->run.stride, j->d->run.threads);
    if (j->v->watch) j->v->watch(j->v->watch_ctx, i, clock_seconds() - t0);
    if (!sound(j, next->x_in, n, &next->in, "decoder.up_blocks.%d's upsampler", i)) return -1;
    return level_run(j, i + 1, n);
}

/* Frame 0 of the clip skips the time convolution and is not part of its past; each later frame
 * gives two. wan.md 4.5 */
static int double_time(struct decode *j, int i, int n)
{
    struct level *l = &j->net->levels[i];
    struct decoding *d = j->d;
    struct stage *s = &d->stages[i];
    int first = d->seen[i] == 0;
    if (first) { /* the shortcut keeps the later of the pair */
        float *only[] = {s->x_in[0], s->x_in[0]};
        if (double_space(j, i, s->x, 1, only, 2, 1) < 0) return -1;
    }
    const float *src[MAX_FRAMES + 2] = {l->past.frame[0], l->past.frame[1]};
    for (int f = first; f < n; f++)
        src[2 + f - first] = s->x[f];
    int pairs = d->stages[i + 1].cap / 2;
    for (int f = first, g; f < n; f += g) {
        g = n - f < pairs ? n - f : pairs;
        int missing = 2 - l->past.n - (f - first);
        double t0 = j->v->watch ? clock_seconds() : 0;
        for (int later = 0; later < 2; later++) {
            float *dst[MAX_FRAMES];
            for (int q = 0; q < g; q++)
                dst[q] = d->u[i][2 * q + later];
            struct conv_call call = {.src = src + f - first,
                                     .missing = missing > 0 ? missing : 0,
                                     .in = s->out,
                                     .out = s->out,
                                     .frames = g,
                                     .x = dst,
                                     .round = d->run.round};
            conv_run(&l->time[later], &call, d->run.scratch, d->run.stride, d->run.threads);
        }
        if (j->v->watch) j->v->watch(j->v->watch_ctx, i, clock_seconds() - t0);
        if (!sound(j, d->u[i], 2 * g, &s->out, "decoder.up_blocks.%d's time_conv", i)) return -1;
        if (double_space(j, i, d->u[i], 2 * g, s->x_in + f, 2, 0) < 0) return -1;
    }
    past_advance(&l->past, s->x + first, n - first);
    return 0;
}

static int level_run(struct decode *j, int i, int n)
{
    struct net *net = j->net;
    struct level *l = &net->levels[i];
    struct decoding *d = j->d;
    struct stage *s = &d->stages[i];
    double t0 = j->v->watch ? clock_seconds() : 0;
    for (int r = 0; r < l->n_resnets; r++) {
        const float *next = r + 1 < l->n_resnets ? l->resnets[r + 1].gamma1
                            : l->resamples       ? NULL
                                                 : net->gamma_out;
        resnet_run(&l->resnets[r], s, r == 0, n, next, true, &d->run);
        if (!sound(j, s->x, n, &s->out, "decoder.up_blocks.%d.resnets.%d", i, r)) return -1;
    }
    int rc = 0;
    if (!l->resamples) {
        struct causal_src src;
        struct conv_call call = causal_call(&net->conv_out, &src, s->a, n, &s->out, &d->rgb);
        call.x = d->out;
        call.round = d->run.round;
        conv_run(&net->conv_out.conv, &call, d->run.scratch, d->run.stride, d->run.threads);
        past_advance(&net->conv_out.past, s->a, n);
        rc = sound(j, d->out, n, &d->rgb, "decoder.conv_out") ? show(j, n) : -1;
    }
    if (j->v->watch) j->v->watch(j->v->watch_ctx, i, clock_seconds() - t0);
    if (l->resamples && l->in_time) {
        rc = double_time(j, i, n);
    } else if (l->resamples) {
        int cap = d->stages[i + 1].cap;
        for (int f = 0, g; f < n && rc == 0; f += g) {
            g = n - f < cap ? n - f : cap;
            rc = double_space(j, i, s->x + f, g, s->x_in + f, 1, 0);
        }
    }
    d->seen[i] += n;
    return rc;
}

/* n latent frames from frame t of the clip through post_quant_conv, conv_in and the mid block. */
static int enter(struct decode *j, const float *latents, int frames, int t, int n)
{
    struct net *net = j->net;
    struct decoding *d = j->d;
    struct stage *s = &d->stages[0];
    const struct vae_config *c = &j->v->config;
    const struct clip_work *u = &d->run;
    double t0 = j->v->watch ? clock_seconds() : 0;
    for (int f = 0; f < n; f++)
        for (int z = 0; z < c->z_dim; z++)
            for (int y = 0; y < d->latent.h; y++)
                for (int x = 0; x < d->latent.w; x++) {
                    size_t at =
                        (((size_t)z * (size_t)frames + (size_t)(t + f)) * (size_t)d->latent.h +
                         (size_t)y) *
                            (size_t)d->latent.w +
                        (size_t)x;
                    float v = latents[at];
                    if (u->round)
                        v = bf16_round(bf16_round(bf16_round(v) / d->scale[z]) + d->shift[z]);
                    else
                        v = v / d->scale[z] + d->shift[z];
                    d->z[f][frame_at(&d->latent, y, x) + z] = v;
                }
    struct conv_call quant = {.src = (const float *const *)d->z,
                              .in = d->latent,
                              .out = d->latent,
                              .frames = n,
                              .x = d->zq,
                              .round = u->round};
    conv_run(&net->quant, &quant, u->scratch, u->stride, u->threads);
    if (!sound(j, d->zq, n, &d->latent, "post_quant_conv")) return -1;
    struct causal_src src;
    struct conv_call in = causal_call(&net->conv_in, &src, d->zq, n, &d->latent, &s->out);
    in.x = s->x;
    in.norm = s->a;
    in.gamma = net->mid[0].gamma1;
    in.silu = true;
    in.round = u->round;
    conv_run(&net->conv_in.conv, &in, u->scratch, u->stride, u->threads);
    past_advance(&net->conv_in.past, d->zq, n);
    if (!sound(j, s->x, n, &s->out, "decoder.conv_in")) return -1;
    resnet_run(&net->mid[0], s, false, n, net->attention.gamma, false, u);
    if (!sound(j, s->x, n, &s->out, "decoder.mid_block.resnets.0")) return -1;
    attention_run(&net->attention, &d->attention, s, n, net->mid[1].gamma1, u);
    if (!sound(j, s->x, n, &s->out, "decoder.mid_block.attentions.0")) return -1;
    resnet_run(&net->mid[1], s, false, n, net->levels[0].resnets[0].gamma1, true, u);
    if (!sound(j, s->x, n, &s->out, "decoder.mid_block.resnets.1")) return -1;
    if (s->x_in != s->x) /* 2.2: the shortcut of the first level wants its input kept */
        for (int f = 0; f < n; f++)
            memcpy(s->x_in[f], s->x[f], frame_floats(&s->out) * sizeof(float));
    if (j->v->watch) j->v->watch(j->v->watch_ctx, -1, clock_seconds() - t0);
    return 0;
}

/* All pieces, from the memory that d was just placed in. */
static int decode_all(struct decode *j, const float *latents, int frames)
{
    struct vae *v = j->v;
    struct decoding *d = j->d;
    int rc = 0;
    d->run.round = v->precision != PRECISION_FP32;
    v->set.error = (struct err){0};
    for (int z = 0; z < v->config.z_dim; z++) { /* as the reference pipeline computes them */
        d->scale[z] = 1.0f / (float)v->config.latents_std[z];
        d->shift[z] = (float)v->config.latents_mean[z];
        if (d->run.round)
            d->scale[z] = bf16_round(d->scale[z]), d->shift[z] = bf16_round(d->shift[z]);
    }
    for (int t = 0, n; t < frames && rc == 0; t += n) {
        n = frames - t < d->stages[0].cap ? frames - t : d->stages[0].cap;
        rc = enter(j, latents, frames, t, n);
        if (rc == 0) rc = level_run(j, 0, n);
    }
    return rc;
}

int vae_decode(struct vae *v, const float *latents, int frames, int h, int w, vae_sink sink,
               void *ctx, struct err *e)
{
    struct arena count = {0}, a = {0};
    struct decoding *d = calloc(1, sizeof *d);
    int rc = -1, threads = threads_count();
    if (!v->decoder) {
        err_set(e, ERR_BUG, "vae_decode: the decoder was not opened");
        goto done;
    }
    if (!d) {
        err_set(e, ERR_RESOURCE, "no memory for the decoder's state");
        goto done;
    }
    if (decoding_check(frames, h, w, e) < 0) goto done;
    if (!all_finite(latents, (size_t)v->config.z_dim * (size_t)frames * (size_t)h * (size_t)w)) {
        err_set(e, ERR_INPUT,
                "the latents hold values that are no numbers; they cannot be decoded");
        goto done;
    }
    decoding_carve(d, v->decoder, &v->config, frames, h, w, threads, &count);
    if (arena_open(&a, count.used, e) < 0) {
        err_wrap(e, "vae decoder, %dx%d latents", w, h);
        goto done;
    }
    arena_huge_pages(&a);
    decoding_carve(d, v->decoder, &v->config, frames, h, w, threads, &a);
    struct decode j = {v, v->decoder, d, sink, ctx, e, false, false};
    rc = decode_all(&j, latents, frames);
    if (j.broken) { /* which layer? The same again, looking at each */
        a.used = 0;
        decoding_carve(d, v->decoder, &v->config, frames, h, w, threads, &a);
        j.trace = true;
        e->code = ERR_NONE;
        decode_all(&j, latents, frames);
        if (!e->code) err_set(e, ERR_INPUT, "vae: the decoded frames are no numbers");
        rc = -1;
    }
done:
    arena_close(&a);
    free(d);
    return rc;
}
