/* Frames → latents: the first frame alone, then as many frames a piece as one latent frame stands
 * for, so that each level holds a few frames only. */
#include "model/base/threads.h"
#include "model/vae/vae_internal.h"

#include <stdlib.h>

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

void encoding_carve(struct encoding *d, struct net *net, const struct vae_config *c, int frames,
                    int h, int w, struct arena *a)
{
    struct frames_on *on = d->run.on;
    int n = net->n_levels, cap = c->scale_temporal;
    int lh = h / c->patch_size, lw = w / c->patch_size;
    size_t most = 0;
    d->rgb = frame_size(lh, lw, c->in_channels);
    frames_take_zero(on, d->pixels, cap, &d->rgb, a);
    causal_carve(&net->conv_in, on, &d->rgb, a);
    for (int i = 0; i < n; i++) {
        struct level *l = &net->levels[i];
        struct stage *s = &d->stages[i];
        stage_carve(s, on, lh, lw, l->in, l->out, cap, c->is_residual, a);
        for (int r = 0; r < l->n_resnets; r++) {
            resnet_carve(&l->resnets[r], on, s, r == 0, a);
            most = larger(most, resnet_scratch(&l->resnets[r], on, s));
        }
        if (!l->resamples) break;
        lh /= 2, lw /= 2;
        struct frame_size next = frame_size(lh, lw, l->next);
        most = larger(most, on->ops->conv_scratch(on, &l->space, &next, cap));
        if (l->in_time) {
            frames_take(on, d->halved[i], cap, &next, a);
            frames_take(on, &l->last, 1, &next, a);
            most = larger(most, on->ops->conv_scratch(on, &l->time[0], &next, cap));
            cap /= 2;
        }
    }
    struct stage *last = &d->stages[n - 1];
    d->latent = frame_size(last->out.h, last->out.w, 2 * c->z_dim);
    for (int i = 0; i < 2; i++) {
        resnet_carve(&net->mid[i], on, last, false, a);
        most = larger(most, resnet_scratch(&net->mid[i], on, last));
    }
    attention_carve(&d->attention, on, &net->attention, last, a);
    most = larger(most, attention_scratch(&net->attention, on, last));
    causal_carve(&net->conv_out, on, &last->out, a);
    frames_take(on, d->moments, last->cap, &d->latent, a);
    frames_take(on, d->out, last->cap, &d->latent, a);
    most = larger(
        most, on->ops->conv_scratch(on, &net->conv_in.conv, &d->stages[0].in, d->stages[0].cap));
    most = larger(most, on->ops->conv_scratch(on, &net->conv_out.conv, &d->latent, last->cap));
    most = larger(most, on->ops->conv_scratch(on, &net->quant, &d->latent, last->cap));
    if (on->away) {
        d->picture = arena_take(a, (size_t)h * (size_t)w * 3 * sizeof(float));
        d->latents = arena_take(a, (size_t)c->z_dim * (size_t)frames * (size_t)d->latent.h *
                                       (size_t)d->latent.w * sizeof(float));
    }
    d->run.scratch = arena_take(a, on->ops->scratch(on, most));
}

struct encode {
    struct vae *v;
    struct net *net;
    struct encoding *d;
    bool first; /* the clip's frame 0 */
};

/* Shortcut of 2.2: the means of level i's input, into dst. n: output frames. */
static void average(struct encode *j, int i, void **dst, const struct frame_size *to, int n)
{
    const struct level *l = &j->net->levels[i];
    const struct stage *s = &j->d->stages[i];
    struct frames_on *on = j->d->run.on;
    int ft = l->in_time ? 2 : 1;
    for (int f = 0; f < n; f++) {
        const void *src[2] = {s->x_in[f * ft], ft == 2 ? s->x_in[f * ft + 1] : NULL};
        if (ft == 2 && j->first)
            src[0] = NULL, src[1] = s->x_in[0]; /* a frame of zeros goes before */
        on->ops->avg_down(on, dst[f], to, l->out, src, &s->in, l->in, ft, l->resamples ? 2 : 1);
    }
}

/* n frames of level i → the next level's; returns how many. */
static int halve(struct encode *j, int i, int n)
{
    struct encoding *d = j->d;
    struct level *l = &j->net->levels[i];
    struct stage *s = &d->stages[i], *next = &d->stages[i + 1];
    const struct clip_work *u = &d->run;
    const float *gamma = j->net->levels[i + 1].resnets[0].gamma1;
    int n_out = l->in_time && !j->first ? n / 2 : n;
    bool shortcut = j->v->config.is_residual;
    if (shortcut) average(j, i, next->x_in, &next->in, n_out);
    struct frame_call space = plain_call(s->x, n, &s->out, &next->in), end = space;
    end.residual = shortcut ? next->x_in : NULL;
    end.x = next->x_in;
    end.norm = next->a_in;
    end.gamma = gamma;
    end.silu = true;
    if (!l->in_time) {
        stage_conv(u, &l->space, &end);
        return n;
    }
    space.x = d->halved[i];
    stage_conv(u, &l->space, &space);
    if (j->first) { /* skips the time convolution, but is its past */
        u->on->ops->settle(u->on, &next->in, l->next, d->halved[i][0],
                           shortcut ? next->x_in[0] : NULL, next->x_in[0], next->a_in[0], gamma);
    } else {
        end.src[0] = l->last;
        for (int f = 0; f < n; f++)
            end.src[1 + f] = d->halved[i][f];
        end.in = next->in;
        end.frames = n_out;
        stage_conv(u, &l->time[0], &end);
    }
    void *old = l->last;
    l->last = d->halved[i][n - 1];
    d->halved[i][n - 1] = old;
    return n_out;
}

/* n frames at rgb, of the host, into d->pixels. */
static int take_pictures(struct encode *j, const float *rgb, int n, struct err *e)
{
    struct encoding *d = j->d;
    struct frames_on *on = d->run.on;
    int p = j->v->config.patch_size;
    size_t one = (size_t)(d->rgb.h * p) * (size_t)(d->rgb.w * p) * 3;
    for (int f = 0; f < n; f++) {
        const float *from = rgb + (size_t)f * one;
        if (on->away) {
            if (device_upload(on->device, d->picture, from, one * sizeof *from, e) < 0) return -1;
            from = d->picture;
        }
        on->ops->picture_in(on, d->pixels[f], &d->rgb, from, p);
    }
    return 0;
}

/* The n frames in d->pixels → one latent frame at `t` of `frames`. */
static void piece(struct encode *j, float *latents, int frames, int t, int n)
{
    struct encoding *d = j->d;
    struct net *net = j->net;
    const struct vae_config *c = &j->v->config;
    const struct clip_work *u = &d->run;
    struct stage *s = &d->stages[0];
    struct frame_call in = causal_call(&net->conv_in, d->pixels, n, &d->rgb, &s->in);
    in.x = s->x_in;
    in.norm = s->a_in;
    in.gamma = net->levels[0].resnets[0].gamma1;
    in.silu = true;
    stage_conv(u, &net->conv_in.conv, &in);
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
                u->on->ops->settle(u->on, &s->out, l->out, s->x[f], s->b[f], s->x[f], s->a[f],
                                   net->mid[0].gamma1);
        }
    }
    resnet_run(&net->mid[0], s, false, n, net->attention.gamma, false, u);
    attention_run(&net->attention, &d->attention, s, n, net->mid[1].gamma1, u);
    resnet_run(&net->mid[1], s, false, n, net->gamma_out, true, u);
    struct frame_call out = causal_call(&net->conv_out, s->a, n, &s->out, &d->latent);
    out.x = d->moments;
    stage_conv(u, &net->conv_out.conv, &out);
    past_advance(&net->conv_out.past, s->a, n);
    struct frame_call quant = plain_call(d->moments, n, &d->latent, &d->latent);
    quant.x = d->out;
    stage_conv(u, &net->quant, &quant);
    /* the mean; the log-variances behind it are not wanted */
    struct frame_latents l = {latents, c->z_dim, frames, t, d->inverse, d->mean};
    u->on->ops->latents_out(u->on, &l, d->out[0], &d->latent);
}

static int encode_all(struct encode *j, float *latents, const float *rgb, int frames, size_t one,
                      struct err *e)
{
    struct vae *v = j->v;
    struct encoding *d = j->d;
    int st = v->config.scale_temporal;
    float *to = v->on.away ? d->latents : latents;
    for (int z = 0; z < v->config.z_dim; z++) {
        d->mean[z] = (float)v->config.latents_mean[z];
        d->inverse[z] = 1.0f / (float)v->config.latents_std[z];
    }
    for (int t = 0; t < frames; t++) {
        int n = t ? st : 1;
        j->first = t == 0;
        if (take_pictures(j, rgb + (t ? (size_t)(1 + (t - 1) * st) * one : 0), n, e) < 0) return -1;
        piece(j, to, frames, t, n);
    }
    if (v->on.failed.code != ERR_NONE) {
        *e = v->on.failed;
        return -1;
    }
    size_t len = (size_t)v->config.z_dim * (size_t)frames * (size_t)(d->latent.h * d->latent.w);
    return v->on.away ? device_download(v->on.device, latents, to, len * sizeof *latents, e) : 0;
}

static int check_pictures(const struct vae_config *c, int n, int height, int width, struct err *e)
{
    int st = c->scale_temporal, ss = c->scale_spatial;
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
    return 0;
}

int vae_encode(struct vae *v, float *latents, const float *rgb, int n, int height, int width,
               struct err *e)
{
    const struct vae_config *c = &v->config;
    struct arena count = {0}, a = {0};
    int rc = -1;
    if (!v->encoder) return err_set(e, ERR_BUG, "vae_encode: the encoder was not opened");
    if (check_pictures(c, n, height, width, e) < 0) return -1;
    struct encoding *d = calloc(1, sizeof *d);
    if (!d) return err_set(e, ERR_RESOURCE, "no memory for the encoder's state");
    int frames = 1 + (n - 1) / c->scale_temporal;
    d->run.on = &v->on;
    if (!v->on.away) v->on.threads = threads_count();
    encoding_carve(d, v->encoder, c, frames, height, width, &count);
    if (arena_open_on(&a, v->on.device, count.used, e) < 0) {
        err_wrap(e, "vae encoder, %dx%d", width, height);
        goto done;
    }
    if (!v->on.away) arena_huge_pages(&a);
    v->on.failed = v->on.set.error = (struct err){0};
    encoding_carve(d, v->encoder, c, frames, height, width, &a);
    struct encode j = {v, v->encoder, d, true};
    rc = encode_all(&j, latents, rgb, frames, (size_t)height * (size_t)width * 3, e);
    if (v->on.away) { /* what was put on the device's line may still use the arena */
        struct err ignored;
        device_wait(v->on.device, rc < 0 ? &ignored : e);
    }
done:
    arena_close(&a);
    free(d);
    return rc;
}

int vae_encode_bytes(size_t *bytes, const struct vae_config *c, struct device *device,
                     enum precision precision, int frames, int height, int width, struct err *e)
{
    struct arena a = {0};
    int rc = -1;
    *bytes = 0;
    if (check_pictures(c, frames, height, width, e) < 0) return -1;
    struct net *net = calloc(1, sizeof *net);
    struct encoding *d = calloc(1, sizeof *d);
    struct vae_choice choice = vae_choose(precision);
    struct frames_on on = frames_chosen(&choice);
    if (!net || !d) {
        err_set(e, ERR_RESOURCE, "no memory for the encoder's state");
        goto done;
    }
    if (frames_open(&on, device, precision, e) < 0) goto done;
    d->run.on = &on;
    struct net_source s = {.arena = &a, .on = &on};
    if (net_encoder(net, c, &s, e) < 0) goto done;
    encoding_carve(d, net, c, 1 + (frames - 1) / c->scale_temporal, height, width, &a);
    *bytes = a.used + (on.away ? 0 : sizeof *net + sizeof *d);
    rc = 0;
done:
    frames_close(&on);
    free(net);
    free(d);
    return rc;
}
