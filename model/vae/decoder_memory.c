/* What a decode holds: the same code sizes and places. */
#include "model/vae/vae_internal.h"

#include <stdlib.h>

#define MAX_SIDE 2048 /* latents */
#define MAX_CLIP (1 << 20) /* latent frames */

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

static size_t level_carve(struct decoding *d, struct net *net, int i, struct arena *a)
{
    struct level *l = &net->levels[i];
    struct stage *s = &d->stages[i];
    struct frames_on *on = d->run.on;
    size_t most = 0;
    for (int r = 0; r < l->n_resnets; r++) {
        resnet_carve(&l->resnets[r], on, s, r == 0, a);
        most = larger(most, resnet_scratch(&l->resnets[r], on, s));
    }
    if (!l->resamples) return most;
    struct frame_size next = frame_size(2 * s->out.h, 2 * s->out.w, l->next);
    int cap = d->stages[i + 1].cap;
    if (l->in_time) {
        l->past.n = 0;
        frames_take(on, l->past.frame, 2, &s->out, a);
        frames_take(on, d->u[i], cap, &s->out, a);
        most = larger(most, on->ops->conv_scratch(on, &l->time[0], &s->out, cap));
    }
    return larger(most, on->ops->conv_scratch(on, &l->space, &next, cap));
}

/* Where pictures leave: one slot, or two where copies leave while the next piece is made. Numbers are
 * kept where they are looked at: by the caller, or by the host, which makes bytes of them. */
static void leave_carve(struct decoding *d, struct arena *a)
{
    size_t n = decoding_piece(d);
    bool away = d->run.on->away;
    for (int i = 0; i < (away ? LEAVE_SLOTS : 1); i++) {
        if (!away || !d->as_bytes) d->leave[i].rgb = arena_take(a, n * sizeof(float));
        if (d->as_bytes) d->leave[i].bytes = arena_take(a, n);
    }
    d->bad = arena_take(a, sizeof *d->bad);
}

void decoding_carve(struct decoding *d, struct net *net, const struct vae_config *c, int frames,
                    int h, int w, struct arena *a)
{
    struct frames_on *on = d->run.on;
    size_t most;
    int n = net->n_levels, clip = frames;
    for (int i = 0, lh = h, lw = w; i < n; i++, lh *= 2, lw *= 2) {
        const struct level *l = &net->levels[i];
        int wide = l->in > l->out ? l->in : l->out;
        int cap = stage_cap(on, lh, lw, wide, i && net->levels[i - 1].in_time ? 2 : 1, clip);
        stage_carve(&d->stages[i], on, lh, lw, l->in, l->out, cap, c->is_residual, a);
        d->seen[i] = 0;
        if (l->in_time) clip = 1 + 2 * (clip - 1);
    }
    struct stage *first = &d->stages[0], *last = &d->stages[n - 1];
    d->latent = frame_size(h, w, c->z_dim);
    d->rgb = frame_size(last->out.h, last->out.w, c->out_channels);
    d->patch = c->patch_size;
    d->cap_out = last->cap;
    frames_take_zero(on, d->z, first->cap, &d->latent, a);
    frames_take(on, d->zq, first->cap, &d->latent, a);
    frames_take(on, d->out, last->cap, &d->rgb, a);
    causal_carve(&net->conv_in, on, &d->latent, a);
    causal_carve(&net->conv_out, on, &last->out, a);
    most = larger(on->ops->conv_scratch(on, &net->quant, &d->latent, first->cap),
                  on->ops->conv_scratch(on, &net->conv_in.conv, &first->out, first->cap));
    most = larger(most, on->ops->conv_scratch(on, &net->conv_out.conv, &d->rgb, last->cap));
    for (int i = 0; i < 2; i++) {
        resnet_carve(&net->mid[i], on, first, false, a);
        most = larger(most, resnet_scratch(&net->mid[i], on, first));
    }
    attention_carve(&d->attention, on, &net->attention, first, a);
    most = larger(most, attention_scratch(&net->attention, on, first));
    for (int i = 0; i < n; i++)
        most = larger(most, level_carve(d, net, i, a));
    leave_carve(d, a);
    if (on->away) /* all of them: they go up at once */
        d->latents = arena_take(a, (size_t)c->z_dim * (size_t)frames * (size_t)h * (size_t)w *
                                       sizeof(float));
    d->run.scratch = arena_take(a, on->ops->scratch(on, most));
}

size_t decoding_piece(const struct decoding *d)
{
    return (size_t)d->cap_out * (size_t)(d->rgb.h * d->patch) * (size_t)(d->rgb.w * d->patch) * 3;
}

int decoding_check(int frames, int h, int w, struct err *e)
{
    if (frames >= 1 && frames <= MAX_CLIP && h >= 1 && w >= 1 && h <= MAX_SIDE && w <= MAX_SIDE)
        return 0;
    return err_set(e, ERR_USAGE,
                   "%d latent frames of %dx%d cannot be decoded; 1 to %d and sides of 1 to %d can",
                   frames, w, h, MAX_CLIP, MAX_SIDE);
}

int vae_decode_bytes(size_t *bytes, const struct vae_config *c, struct device *device,
                     enum precision precision, int frames, int h, int w, struct err *e)
{
    struct arena a = {0};
    int rc = -1;
    *bytes = 0;
    if (decoding_check(frames, h, w, e) < 0) return -1;
    struct net *net = calloc(1, sizeof *net);
    struct decoding *d = calloc(1, sizeof *d);
    struct vae_choice choice = vae_choose(precision);
    struct frames_on on = frames_chosen(&choice);
    if (!net || !d) {
        err_set(e, ERR_RESOURCE, "no memory for the decoder's state");
        goto done;
    }
    if (frames_open(&on, device, precision, e) < 0) goto done;
    d->run.on = &on;
    d->as_bytes = true;
    struct net_source s = {.arena = &a, .on = &on};
    if (net_decoder(net, c, &s, e) < 0) goto done;
    decoding_carve(d, net, c, frames, h, w, &a);
    *bytes = a.used + (on.away ? 0 : sizeof *net + sizeof *d);
    rc = 0;
done:
    frames_close(&on);
    free(net);
    free(d);
    return rc;
}
