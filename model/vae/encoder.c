/* Frames → latents: the first frame alone, then as many frames a piece as one latent frame stands
 * for, so that each level holds a few frames only. */
#include "model/base/threads.h"
#include "model/vae/vae_internal.h"

#include <math.h>
#include <stdlib.h>

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

void encoding_carve(struct encoding *d, struct net *net, const struct vae_config *c, int h, int w,
                    int threads, struct arena *a)
{
    int n = net->n_levels, cap = c->scale_temporal;
    int lh = h / c->patch_size, lw = w / c->patch_size;
    size_t most = 0;
    d->rgb = frame_size(lh, lw, c->in_channels);
    frames_take_zero(d->pixels, cap, &d->rgb, a);
    causal_carve(&net->conv_in, &d->rgb, a);
    int widest = pad_channels(net->mid_channels);
    for (int i = 0; i < n; i++) {
        struct level *l = &net->levels[i];
        struct stage *s = &d->stages[i];
        stage_carve(s, lh, lw, l->in, l->out, cap, c->is_residual, a);
        for (int r = 0; r < l->n_resnets; r++) {
            resnet_carve(&l->resnets[r], s, r == 0, a);
            most = larger(most, resnet_scratch(&l->resnets[r], s, threads));
        }
        if (s->out.channels > widest) widest = s->out.channels;
        if (!l->resamples) break;
        lh /= 2, lw /= 2;
        struct frame_size next = frame_size(lh, lw, l->next);
        most = larger(most, conv_scratch(&l->space, &next, cap, threads));
        if (l->in_time) {
            frames_take(d->halved[i], cap, &next, a);
            frames_take(&l->last, 1, &next, a);
            most = larger(most, conv_scratch(&l->time[0], &next, cap, threads));
            cap /= 2;
        }
    }
    struct stage *last = &d->stages[n - 1];
    d->latent = frame_size(last->out.h, last->out.w, 2 * c->z_dim);
    for (int i = 0; i < 2; i++) {
        resnet_carve(&net->mid[i], last, false, a);
        most = larger(most, resnet_scratch(&net->mid[i], last, threads));
    }
    attention_carve(&d->attention, &net->attention, last, a);
    most = larger(most, attention_scratch(&net->attention, last, threads));
    causal_carve(&net->conv_out, &last->out, a);
    frames_take(d->moments, last->cap, &d->latent, a);
    frames_take(d->out, last->cap, &d->latent, a);
    most =
        larger(most, conv_scratch(&net->conv_in.conv, &d->stages[0].in, d->stages[0].cap, threads));
    most = larger(most, conv_scratch(&net->conv_out.conv, &d->latent, last->cap, threads));
    most = larger(most, conv_scratch(&net->quant, &d->latent, last->cap, threads));
    d->zeros = arena_take(a, (size_t)widest * sizeof(float));
    if (d->zeros) memset(d->zeros, 0, (size_t)widest * sizeof(float));
    d->run.threads = threads;
    d->run.stride = (most + 31) / 32 * 32 + 16;
    d->run.scratch = arena_take(a, d->run.stride * (size_t)threads * sizeof(float));
}

struct encode {
    struct vae *v;
    struct net *net;
    struct encoding *d;
    bool first; /* the clip's frame 0 */
};

/* Shortcut of 2.2: the means of level i's input, into dst. n: output frames. */
static void average(struct encode *j, int i, float **dst, const struct frame_size *to, int n)
{
    const struct level *l = &j->net->levels[i];
    const struct stage *s = &j->d->stages[i];
    int ft = l->in_time ? 2 : 1;
    for (int f = 0; f < n; f++) {
        const float *src[2] = {s->x_in[f * ft], ft == 2 ? s->x_in[f * ft + 1] : NULL};
        if (ft == 2 && j->first)
            src[0] = NULL, src[1] = s->x_in[0]; /* a frame of zeros goes before */
        avg_down(dst[f], to, l->out, src, &s->in, l->in, ft, l->resamples ? 2 : 1);
    }
}

/* frame + residual (or NULL) → x, and its norm by gamma: what a convolution does at its end, alone.
 */
static void settle(struct encode *j, const struct frame_size *s, int channels, const float *frame,
                   const float *residual, float *x, float *norm, const float *gamma)
{
    struct finish f = {.channels = s->channels,
                       .sqrt_c = sqrtf((float)channels),
                       .bias = j->d->zeros,
                       .gamma = gamma,
                       .silu = true,
                       .round = j->d->run.round};
    for (int y = 0; y < s->h; y++) {
        ptrdiff_t at = frame_at(s, y, 0);
        j->v->kernels->finish(&f, frame + at, s->channels, s->w, residual ? residual + at : NULL,
                              x + at, norm + at);
    }
}

/* n frames of level i → the next level's; returns how many. */
static int halve(struct encode *j, int i, int n)
{
    struct encoding *d = j->d;
    struct level *l = &j->net->levels[i];
    struct stage *s = &d->stages[i], *next = &d->stages[i + 1];
    const struct clip_work *u = &d->run;
    int n_out = l->in_time && !j->first ? n / 2 : n;
    bool shortcut = j->v->config.is_residual;
    if (shortcut) average(j, i, next->x_in, &next->in, n_out);
    struct conv_call space = {.src = (const float *const *)s->x,
                              .in = s->out,
                              .out = next->in,
                              .frames = n,
                              .round = u->round};
    struct conv_call end = {.out = next->in,
                            .residual = shortcut ? next->x_in : NULL,
                            .x = next->x_in,
                            .norm = next->a_in,
                            .gamma = j->net->levels[i + 1].resnets[0].gamma1,
                            .silu = true,
                            .round = u->round};
    if (!l->in_time) {
        end.src = space.src;
        end.in = space.in;
        end.frames = n;
        conv_run(&l->space, &end, u->scratch, u->stride, u->threads);
        return n;
    }
    space.x = d->halved[i];
    conv_run(&l->space, &space, u->scratch, u->stride, u->threads);
    if (j->first) {
        settle(j, &next->in, l->next, d->halved[i][0], shortcut ? next->x_in[0] : NULL,
               next->x_in[0], next->a_in[0],
               end.gamma); /* skips the time convolution, but is its past */
    } else {
        const float *src[MAX_FRAMES + 1] = {l->last};
        for (int f = 0; f < n; f++)
            src[1 + f] = d->halved[i][f];
        end.src = src;
        end.in = next->in;
        end.frames = n_out;
        conv_run(&l->time[0], &end, u->scratch, u->stride, u->threads);
    }
    float *old = l->last;
    l->last = d->halved[i][n - 1];
    d->halved[i][n - 1] = old;
    return n_out;
}

/* n frames at rgb → one latent frame at `t` of `frames`. */
static void piece(struct encode *j, float *latents, int frames, int t, const float *rgb, int n)
{
    struct encoding *d = j->d;
    struct net *net = j->net;
    const struct vae_config *c = &j->v->config;
    const struct clip_work *u = &d->run;
    int p = c->patch_size;
    size_t one = (size_t)(d->rgb.h * p) * (size_t)(d->rgb.w * p) * 3;
    for (int f = 0; f < n; f++)
        frame_from_rgb(d->pixels[f], &d->rgb, rgb + (size_t)f * one, p, u->round);
    struct causal_src src;
    struct stage *s = &d->stages[0];
    struct conv_call in = causal_call(&net->conv_in, &src, d->pixels, n, &d->rgb, &s->in);
    in.x = s->x_in;
    in.norm = s->a_in;
    in.gamma = net->levels[0].resnets[0].gamma1;
    in.silu = true;
    in.round = u->round;
    conv_run(&net->conv_in.conv, &in, u->scratch, u->stride, u->threads);
    past_advance(&net->conv_in.past, d->pixels, n);
    for (int i = 0; i < net->n_levels; i++) {
        struct level *l = &net->levels[i];
        s = &d->stages[i];
        for (int r = 0; r < l->n_resnets; r++) {
            bool end = r + 1 == l->n_resnets;
            const float *next = !end           ? l->resnets[r + 1].gamma1
                                : l->resamples ? NULL
                                               : net->mid[0].gamma1;
            resnet_run(&l->resnets[r], s, r == 0, n, next, true, u);
        }
        if (l->resamples) {
            n = halve(j, i, n);
        } else if (c->is_residual) {
            average(j, i, s->b, &s->out, n);
            for (int f = 0; f < n; f++)
                settle(j, &s->out, l->out, s->x[f], s->b[f], s->x[f], s->a[f], net->mid[0].gamma1);
        }
    }
    resnet_run(&net->mid[0], s, false, n, net->attention.gamma, false, u);
    attention_run(&net->attention, &d->attention, s, n, net->mid[1].gamma1, u);
    resnet_run(&net->mid[1], s, false, n, net->gamma_out, true, u);
    struct conv_call out = causal_call(&net->conv_out, &src, s->a, n, &s->out, &d->latent);
    out.x = d->moments;
    out.round = u->round;
    conv_run(&net->conv_out.conv, &out, u->scratch, u->stride, u->threads);
    past_advance(&net->conv_out.past, s->a, n);
    struct conv_call quant = {.src = (const float *const *)d->moments,
                              .in = d->latent,
                              .out = d->latent,
                              .frames = n,
                              .x = d->out,
                              .round = u->round};
    conv_run(&net->quant, &quant, u->scratch, u->stride, u->threads);
    for (int z = 0; z < c->z_dim; z++) { /* the mean; the log-variances behind it are not wanted */
        float mean = (float)c->latents_mean[z], inverse = 1.0f / (float)c->latents_std[z];
        for (int y = 0; y < d->latent.h; y++)
            for (int x = 0; x < d->latent.w; x++)
                latents[(((size_t)z * (size_t)frames + (size_t)t) * (size_t)d->latent.h +
                         (size_t)y) *
                            (size_t)d->latent.w +
                        (size_t)x] = (d->out[0][frame_at(&d->latent, y, x) + z] - mean) * inverse;
    }
}

int vae_encode(struct vae *v, float *latents, const float *rgb, int n, int height, int width,
               struct err *e)
{
    const struct vae_config *c = &v->config;
    struct arena count = {0}, a = {0};
    int rc = -1, threads = threads_count(), st = c->scale_temporal, ss = c->scale_spatial;
    if (!v->encoder) return err_set(e, ERR_BUG, "vae_encode: the encoder was not opened");
    if (n < 1 || (n - 1) % st != 0)
        return err_set(e, ERR_USAGE, "%d frames cannot be encoded; try %d or %d", n,
                       n < 1 ? 1 : (n - 1) / st * st + 1,
                       n < 1 ? 1 + st : (n - 1) / st * st + 1 + st);
    if (height < ss || width < ss || height % ss || width % ss || height > 1 << 14 ||
        width > 1 << 14)
        return err_set(e, ERR_USAGE,
                       "frames of %dx%d cannot be encoded; sides must be multiples of %d up "
                       "to %d",
                       width, height, ss, 1 << 14);
    struct encoding *d = calloc(1, sizeof *d);
    if (!d) return err_set(e, ERR_RESOURCE, "no memory for the encoder's state");
    encoding_carve(d, v->encoder, c, height, width, threads, &count);
    if (arena_open(&a, count.used, e) < 0) {
        err_wrap(e, "vae encoder, %dx%d", width, height);
        goto done;
    }
    arena_huge_pages(&a);
    encoding_carve(d, v->encoder, c, height, width, threads, &a);
    d->run.round = v->precision != PRECISION_FP32;
    v->set.error = (struct err){0};
    size_t one = (size_t)height * (size_t)width * 3;
    struct encode j = {v, v->encoder, d, true};
    int frames = 1 + (n - 1) / st;
    for (int t = 0; t < frames; t++) {
        j.first = t == 0;
        piece(&j, latents, frames, t, rgb + (t ? (size_t)(1 + (t - 1) * st) * one : 0), t ? st : 1);
    }
    rc = v->set.error.code == ERR_NONE ? 0 : -1;
    if (rc < 0) *e = v->set.error;
done:
    arena_close(&a);
    free(d);
    return rc;
}
