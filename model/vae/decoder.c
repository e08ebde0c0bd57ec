/* Latents → frames, depth first: a piece of a level's frames goes all the way down before the next
 * piece is made, so that each level holds a few frames only. */
#include "model/base/threads.h"
#include "model/vae/vae_internal.h"

#include <stdlib.h>
#include <time.h>

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

#define MAX_SIDE 2048 /* latents */
#define MAX_CLIP (1 << 20) /* latent frames */

/* --- memory --- */

static size_t level_carve(struct decoding *d, struct net *net, const struct vae_config *c, int i,
                          int threads, struct arena *a)
{
    struct level *l = &net->levels[i];
    struct stage *s = &d->stages[i];
    size_t most = 0;
    for (int r = 0; r < l->n_resnets; r++) {
        resnet_carve(&l->resnets[r], s, r == 0, a);
        most = larger(most, resnet_scratch(&l->resnets[r], s, threads));
    }
    if (!l->resamples) return most;
    struct frame_size next = frame_size(2 * s->out.h, 2 * s->out.w, l->next);
    int cap = d->stages[i + 1].cap;
    (void)c;
    if (l->in_time) {
        l->past.n = 0;
        frames_take(l->past.frame, 2, &s->out, a);
        frames_take(d->u[i], cap, &s->out, a);
        most = larger(most, conv_scratch(&l->time[0], &s->out, cap, threads));
    }
    return larger(most, conv_scratch(&l->space, &next, cap, threads));
}

void decoding_carve(struct decoding *d, struct net *net, const struct vae_config *c, int frames,
                    int h, int w, int threads, struct arena *a)
{
    size_t most;
    int n = net->n_levels, clip = frames;
    for (int i = 0, lh = h, lw = w; i < n; i++, lh *= 2, lw *= 2) {
        const struct level *l = &net->levels[i];
        int wide = l->in > l->out ? l->in : l->out;
        int cap = stage_cap(lh, lw, wide, i && net->levels[i - 1].in_time ? 2 : 1, clip);
        stage_carve(&d->stages[i], lh, lw, l->in, l->out, cap, c->is_residual, a);
        d->seen[i] = 0;
        if (l->in_time) clip = 1 + 2 * (clip - 1);
    }
    struct stage *first = &d->stages[0], *last = &d->stages[n - 1];
    d->latent = frame_size(h, w, c->z_dim);
    d->rgb = frame_size(last->out.h, last->out.w, c->out_channels);
    frames_take_zero(d->z, first->cap, &d->latent, a);
    frames_take(d->zq, first->cap, &d->latent, a);
    frames_take(d->out, last->cap, &d->rgb, a);
    causal_carve(&net->conv_in, &d->latent, a);
    causal_carve(&net->conv_out, &last->out, a);
    most = larger(conv_scratch(&net->quant, &d->latent, first->cap, threads),
                  conv_scratch(&net->conv_in.conv, &first->out, first->cap, threads));
    most = larger(most, conv_scratch(&net->conv_out.conv, &d->rgb, last->cap, threads));
    for (int i = 0; i < 2; i++) {
        resnet_carve(&net->mid[i], first, false, a);
        most = larger(most, resnet_scratch(&net->mid[i], first, threads));
    }
    attention_carve(&d->attention, &net->attention, first, a);
    most = larger(most, attention_scratch(&net->attention, first, threads));
    for (int i = 0; i < n; i++)
        most = larger(most, level_carve(d, net, c, i, threads, a));
    size_t rgb = (size_t)last->cap * (size_t)(d->rgb.h * c->patch_size) *
                 (size_t)(d->rgb.w * c->patch_size) * 3;
    d->packed = arena_take(a, rgb * sizeof(float));
    d->run.threads = threads;
    d->run.stride = (most + 31) / 32 * 32 + 16; /* workers on different cache sets */
    d->run.scratch = arena_take(a, d->run.stride * (size_t)threads * sizeof(float));
}

static int check_size(int frames, int h, int w, struct err *e)
{
    if (frames >= 1 && frames <= MAX_CLIP && h >= 1 && w >= 1 && h <= MAX_SIDE && w <= MAX_SIDE)
        return 0;
    return err_set(e, ERR_USAGE,
                   "%d latent frames of %dx%d cannot be decoded; 1 to %d and sides of 1 to %d can",
                   frames, w, h, MAX_CLIP, MAX_SIDE);
}

int vae_decode_bytes(size_t *bytes, const struct vae_config *c, enum precision precision,
                     int frames, int h, int w, struct err *e)
{
    struct arena a = {0};
    struct cpu cpu;
    int rc = -1;
    *bytes = 0;
    if (check_size(frames, h, w, e) < 0) return -1;
    struct net *net = calloc(1, sizeof *net);
    struct decoding *d = calloc(1, sizeof *d);
    if (!net || !d) {
        err_set(e, ERR_RESOURCE, "no memory for the decoder's state");
        goto done;
    }
    cpu_detect(&cpu);
    struct vae_choice choice = vae_choose(precision);
    struct direct_set set = {.products = choice.products, .least = choice.least};
    struct net_source s = {&a, vae_kernels_pick(&cpu, NULL), NULL, precision != PRECISION_FP32,
                           &set};
    if (net_decoder(net, c, &s, e) < 0) goto done;
    decoding_carve(d, net, c, frames, h, w, threads_count(), &a);
    *bytes = a.used + sizeof *net + sizeof *d;
    rc = 0;
done:
    free(net);
    free(d);
    return rc;
}

/* --- running --- */

struct decode {
    struct vae *v;
    struct net *net;
    struct decoding *d;
    vae_sink sink;
    void *ctx;
    struct err *e;
};

static int level_run(struct decode *j, int i, int n);

static int show(struct decode *j, int n)
{
    struct decoding *d = j->d;
    int p = j->v->config.patch_size, h = d->rgb.h * p, w = d->rgb.w * p;
    if (j->v->set.error.code != ERR_NONE) {
        *j->e = j->v->set.error;
        return -1;
    }
    size_t one = (size_t)h * (size_t)w * 3;
    for (int f = 0; f < n; f++)
        frame_to_rgb(d->packed + (size_t)f * one, d->out[f], &d->rgb, p);
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
    double t0 = j->v->watch ? seconds() : 0;
    conv_run(&l->space, &call, j->d->run.scratch, j->d->run.stride, j->d->run.threads);
    if (j->v->watch) j->v->watch(j->v->watch_ctx, i, seconds() - t0);
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
        double t0 = j->v->watch ? seconds() : 0;
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
        if (j->v->watch) j->v->watch(j->v->watch_ctx, i, seconds() - t0);
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
    double t0 = j->v->watch ? seconds() : 0;
    for (int r = 0; r < l->n_resnets; r++) {
        const float *next = r + 1 < l->n_resnets ? l->resnets[r + 1].gamma1
                            : l->resamples       ? NULL
                                                 : net->gamma_out;
        resnet_run(&l->resnets[r], s, r == 0, n, next, true, &d->run);
    }
    int rc = 0;
    if (!l->resamples) {
        struct causal_src src;
        struct conv_call call = causal_call(&net->conv_out, &src, s->a, n, &s->out, &d->rgb);
        call.x = d->out;
        call.round = d->run.round;
        conv_run(&net->conv_out.conv, &call, d->run.scratch, d->run.stride, d->run.threads);
        past_advance(&net->conv_out.past, s->a, n);
        rc = show(j, n);
    }
    if (j->v->watch) j->v->watch(j->v->watch_ctx, i, seconds() - t0);
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
static void enter(struct decode *j, const float *latents, int frames, int t, int n)
{
    struct net *net = j->net;
    struct decoding *d = j->d;
    struct stage *s = &d->stages[0];
    const struct vae_config *c = &j->v->config;
    const struct clip_work *u = &d->run;
    double t0 = j->v->watch ? seconds() : 0;
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
    struct causal_src src;
    struct conv_call in = causal_call(&net->conv_in, &src, d->zq, n, &d->latent, &s->out);
    in.x = s->x;
    in.norm = s->a;
    in.gamma = net->mid[0].gamma1;
    in.silu = true;
    in.round = u->round;
    conv_run(&net->conv_in.conv, &in, u->scratch, u->stride, u->threads);
    past_advance(&net->conv_in.past, d->zq, n);
    resnet_run(&net->mid[0], s, false, n, net->attention.gamma, false, u);
    attention_run(&net->attention, &d->attention, s, n, net->mid[1].gamma1, u);
    resnet_run(&net->mid[1], s, false, n, net->levels[0].resnets[0].gamma1, true, u);
    if (s->x_in != s->x) /* 2.2: the shortcut of the first level wants its input kept */
        for (int f = 0; f < n; f++)
            memcpy(s->x_in[f], s->x[f], frame_floats(&s->out) * sizeof(float));
    if (j->v->watch) j->v->watch(j->v->watch_ctx, -1, seconds() - t0);
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
    if (check_size(frames, h, w, e) < 0) goto done;
    decoding_carve(d, v->decoder, &v->config, frames, h, w, threads, &count);
    if (arena_open(&a, count.used, e) < 0) {
        err_wrap(e, "vae decoder, %dx%d latents", w, h);
        goto done;
    }
    arena_huge_pages(&a);
    decoding_carve(d, v->decoder, &v->config, frames, h, w, threads, &a);
    d->run.round = v->precision != PRECISION_FP32;
    v->set.error = (struct err){0};
    for (int z = 0; z < v->config.z_dim; z++) { /* as the reference pipeline computes them */
        d->scale[z] = 1.0f / (float)v->config.latents_std[z];
        d->shift[z] = (float)v->config.latents_mean[z];
        if (d->run.round)
            d->scale[z] = bf16_round(d->scale[z]), d->shift[z] = bf16_round(d->shift[z]);
    }
    struct decode j = {v, v->decoder, d, sink, ctx, e};
    rc = 0;
    for (int t = 0, n; t < frames && rc == 0; t += n) {
        n = frames - t < d->stages[0].cap ? frames - t : d->stages[0].cap;
        enter(&j, latents, frames, t, n);
        rc = level_run(&j, 0, n);
    }
done:
    arena_close(&a);
    free(d);
    return rc;
}
