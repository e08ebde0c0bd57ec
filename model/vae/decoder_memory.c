/* What a decode holds: the same code sizes and places. */
#include "model/base/threads.h"
#include "model/vae/vae_internal.h"

#include <stdlib.h>

#define MAX_SIDE 2048 /* latents */
#define MAX_CLIP (1 << 20) /* latent frames */

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

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

int decoding_check(int frames, int h, int w, struct err *e)
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
    if (decoding_check(frames, h, w, e) < 0) return -1;
    struct net *net = calloc(1, sizeof *net);
    struct decoding *d = calloc(1, sizeof *d);
    if (!net || !d) {
        err_set(e, ERR_RESOURCE, "no memory for the decoder's state");
        goto done;
    }
    cpu_detect(&cpu);
    struct vae_choice choice = vae_choose(precision);
    struct direct_set set = {.products = choice.products, .least = choice.least};
    struct net_source s = {.arena = &a,
                           .kernels = vae_kernels_pick(&cpu, NULL),
                           .round = precision != PRECISION_FP32,
                           .set = &set};
    if (net_decoder(net, c, &s, e) < 0) goto done;
    decoding_carve(d, net, c, frames, h, w, threads_count(), &a);
    *bytes = a.used + sizeof *net + sizeof *d;
    rc = 0;
done:
    free(net);
    free(d);
    return rc;
}
