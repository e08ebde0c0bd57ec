/* Latents → frames, depth first: a piece of a level's frames goes all the way down before the next
 * piece is made, so that each level holds a few frames only. */
#include "model/base/clock.h"
#include "model/base/threads.h"
#include "model/vae/vae_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct decode {
    struct vae *v;
    struct net *net;
    struct decoding *d;
    vae_sink sink; /* one of the two */
    vae_byte_sink byte_sink;
    bool truncate;
    void *ctx;
    struct err *e;
    int slot; /* of d->leave, of the next piece */
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
static bool sound(struct decode *j, void *const *frames, int n, const struct frame_size *size,
                  const char *fmt, ...)
{
    struct frames_on *on = &j->v->on;
    bool fine = !j->trace || on->ops->finite(on, frames, n, size);
    if (fine || j->e->code) return fine;
    char layer[96];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(layer, sizeof layer, fmt, ap);
    va_end(ap);
    err_set(j->e, ERR_INPUT,
            "vae: %s gives values that are no numbers (on %s); its weights are broken, or made for "
            "another precision",
            layer, device_name(on->device));
    return false;
}

/* To the caller, from memory of the host. */
static int hand_over(struct decode *j, const void *pictures, int n, int bad)
{
    struct decoding *d = j->d;
    int h = d->rgb.h * d->patch, w = d->rgb.w * d->patch;
    if (bad) {
        j->broken = true;
        return -1;
    }
    j->e->code = ERR_NONE;
    int stop = j->byte_sink ? j->byte_sink(j->ctx, pictures, n, h, w, j->e)
                            : j->sink(j->ctx, pictures, n, h, w, j->e);
    if (!stop) return 0;
    return j->e->code == ERR_NONE ? err_set(j->e, ERR_CANCELLED, "decoding was stopped") : -1;
}

/* The pictures of a slot have left the device: on to the caller. */
static int arrived(struct decode *j, struct leave *l)
{
    int n = l->n;
    l->n = 0;
    if (!n) return 0;
    if (device_mark_wait(j->v->on.device, l->mark, j->e) < 0) return -1;
    return hand_over(j, l->pinned, n, *l->bad);
}

/* The pictures of a slot set out; those of the piece before have arrived meanwhile. */
static int send(struct decode *j, struct leave *l, int n)
{
    struct device *dev = j->v->on.device;
    size_t one = (size_t)(j->d->rgb.h * j->d->patch) * (size_t)(j->d->rgb.w * j->d->patch) * 3;
    size_t bytes = (size_t)n * one * (j->byte_sink ? 1 : sizeof(float));
    const void *from = j->byte_sink ? (const void *)l->bytes : l->rgb;
    if (device_download_pinned(dev, l->pinned, from, bytes, j->e) < 0 ||
        device_download_pinned(dev, l->bad, j->d->bad, sizeof *l->bad, j->e) < 0 ||
        device_mark_set(dev, l->mark, j->e) < 0)
        return -1;
    l->n = n;
    j->slot = (j->slot + 1) % LEAVE_SLOTS;
    return arrived(j, &j->d->leave[j->slot]);
}

static int show(struct decode *j, int n)
{
    struct decoding *d = j->d;
    struct frames_on *on = &j->v->on;
    struct leave *l = &d->leave[j->slot];
    struct frame_pictures p = {.frames = d->out,
                               .n = n,
                               .patch = d->patch,
                               .size = d->rgb,
                               .rgb = l->rgb,
                               .bytes = l->bytes,
                               .truncate = j->truncate,
                               .bad = d->bad};
    if (!j->trace) on->ops->pictures_out(on, &p);
    if (on->failed.code != ERR_NONE) {
        *j->e = on->failed;
        return -1;
    }
    if (j->trace) return 0;
    if (on->away) return send(j, l, n);
    return hand_over(j, j->byte_sink ? (const void *)l->bytes : l->rgb, n, *d->bad);
}

/* n frames of `from` (level i's size, once each) → the next level's input, and on with them. sub:
 * which frame of a time pair from[0] is, for the shortcut; inputs[f / ft] is the level's input it
 * came from. */
static int double_space(struct decode *j, int i, void **from, int n, void *const *inputs, int ft,
                        int sub)
{
    struct level *l = &j->net->levels[i];
    struct stage *s = &j->d->stages[i], *next = &j->d->stages[i + 1];
    bool shortcut = j->v->config.is_residual;
    struct frames_on *on = &j->v->on;
    for (int f = 0; shortcut && f < n; f++)
        on->ops->dup_up(on, next->x_in[f], &next->in, l->next, inputs[(f + sub) / ft], &s->in,
                        l->in, l->in_time ? 2 : 1, l->in_time ? (f + sub) % ft : 0);
    struct frame_call call = plain_call(from, n, &s->out, &next->in);
    call.residual = shortcut ? next->x_in : NULL;
    call.x = next->x_in;
    call.norm = next->a_in;
    call.gamma = j->net->levels[i + 1].resnets[0].gamma1;
    call.silu = true;
    double t0 = j->v->watch ? clock_seconds() : 0;
    stage_conv(&j->d->run, &l->space, &call);
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
        void *only[] = {s->x_in[0], s->x_in[0]};
        if (double_space(j, i, s->x, 1, only, 2, 1) < 0) return -1;
    }
    void *src[MAX_FRAMES + 2] = {l->past.frame[0], l->past.frame[1]};
    for (int f = first; f < n; f++)
        src[2 + f - first] = s->x[f];
    int pairs = d->stages[i + 1].cap / 2;
    for (int f = first, g; f < n; f += g) {
        g = n - f < pairs ? n - f : pairs;
        int missing = 2 - l->past.n - (f - first);
        double t0 = j->v->watch ? clock_seconds() : 0;
        for (int later = 0; later < 2; later++) {
            void *dst[MAX_FRAMES];
            for (int q = 0; q < g; q++)
                dst[q] = d->u[i][2 * q + later];
            struct frame_call call = plain_call(src + f - first, g + 2, &s->out, &s->out);
            call.missing = missing > 0 ? missing : 0;
            call.frames = g;
            call.x = dst;
            stage_conv(&d->run, &l->time[later], &call);
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
        struct frame_call call = causal_call(&net->conv_out, s->a, n, &s->out, &d->rgb);
        call.x = d->out;
        stage_conv(&d->run, &net->conv_out.conv, &call);
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
    struct frames_on *on = &j->v->on;
    const struct clip_work *u = &d->run;
    double t0 = j->v->watch ? clock_seconds() : 0;
    for (int f = 0; f < n; f++) {
        struct frame_latents l = {.at = (float *)(uintptr_t)latents,
                                  .channels = j->v->config.z_dim,
                                  .frames = frames,
                                  .t = t + f,
                                  .scale = d->scale,
                                  .shift = d->shift};
        on->ops->latents_in(on, d->z[f], &d->latent, &l);
    }
    struct frame_call quant = plain_call(d->z, n, &d->latent, &d->latent);
    quant.x = d->zq;
    stage_conv(u, &net->quant, &quant);
    if (!sound(j, d->zq, n, &d->latent, "post_quant_conv")) return -1;
    struct frame_call in = causal_call(&net->conv_in, d->zq, n, &d->latent, &s->out);
    in.x = s->x;
    in.norm = s->a;
    in.gamma = net->mid[0].gamma1;
    in.silu = true;
    stage_conv(u, &net->conv_in.conv, &in);
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
            on->ops->copy(on, s->x_in[f], s->x[f], &s->out);
    if (j->v->watch) j->v->watch(j->v->watch_ctx, -1, clock_seconds() - t0);
    return 0;
}

/* All pieces, from the memory that d was just placed in. */
static int decode_all(struct decode *j, const float *latents, int frames)
{
    struct vae *v = j->v;
    struct decoding *d = j->d;
    int rc = 0;
    v->on.failed = v->on.set.error = (struct err){0};
    for (int z = 0; z < v->config.z_dim; z++) { /* as the reference pipeline computes them */
        d->scale[z] = 1.0f / (float)v->config.latents_std[z];
        d->shift[z] = (float)v->config.latents_mean[z];
        if (v->on.round)
            d->scale[z] = bf16_round(d->scale[z]), d->shift[z] = bf16_round(d->shift[z]);
    }
    for (int t = 0, n; t < frames && rc == 0; t += n) {
        n = frames - t < d->stages[0].cap ? frames - t : d->stages[0].cap;
        rc = enter(j, latents, frames, t, n);
        if (rc == 0) rc = level_run(j, 0, n);
    }
    for (int i = 0; i < LEAVE_SLOTS && rc == 0; i++) /* what is still on its way, older first */
        rc = arrived(j, &d->leave[(j->slot + i) % LEAVE_SLOTS]);
    if (rc < 0 && v->on.failed.code != ERR_NONE) *j->e = v->on.failed;
    return rc;
}

/* Memory of the host that pictures leave to, and what goes up before the first piece. */
static int prepare_away(struct decode *j, const float *latents, int frames)
{
    struct decoding *d = j->d;
    struct device *dev = j->v->on.device;
    size_t n = decoding_piece(d) * (d->as_bytes ? 1 : sizeof(float)),
           bad_at = (n + sizeof(int) - 1) / sizeof(int) * sizeof(int);
    for (int i = 0; i < LEAVE_SLOTS; i++) {
        struct leave *l = &d->leave[i];
        if (device_alloc_pinned(dev, &l->pinned, bad_at + sizeof(int), j->e) < 0 ||
            device_mark_open(dev, &l->mark, j->e) < 0)
            return -1;
        l->bad = (int *)(void *)((char *)l->pinned + bad_at);
    }
    size_t len = (size_t)j->v->config.z_dim * (size_t)frames * (size_t)(d->latent.h * d->latent.w);
    if (device_zero(dev, d->bad, sizeof *d->bad, j->e) < 0) return -1;
    return device_upload(dev, d->latents, latents, len * sizeof *latents, j->e);
}

static void release_away(struct decode *j)
{
    struct device *dev = j->v->on.device;
    struct err ignored; /* a lost device is closed all the same */
    device_wait(dev, &ignored);
    for (int i = 0; i < LEAVE_SLOTS; i++) {
        device_mark_close(dev, j->d->leave[i].mark);
        if (j->d->leave[i].pinned) device_free_pinned(dev, j->d->leave[i].pinned);
    }
}

static int decode_placed(struct decode *j, const float *latents, int frames, int h, int w,
                         struct arena *a)
{
    struct vae *v = j->v;
    struct decoding *d = j->d;
    bool away = v->on.away;
    int rc = 0;
    if (!away) *d->bad = 0;
    if (away) rc = prepare_away(j, latents, frames);
    if (rc == 0) rc = decode_all(j, away ? d->latents : latents, frames);
    if (j->broken) { /* which layer? The same again, looking at each */
        struct leave kept[LEAVE_SLOTS];
        float *up = d->latents;
        memcpy(kept, d->leave, sizeof kept);
        a->used = 0;
        decoding_carve(d, v->decoder, &v->config, frames, h, w, a);
        memcpy(d->leave, kept, sizeof kept);
        for (int i = 0; i < LEAVE_SLOTS; i++)
            d->leave[i].n = 0;
        j->trace = true;
        j->e->code = ERR_NONE;
        decode_all(j, away ? up : latents, frames);
        if (!j->e->code) err_set(j->e, ERR_INPUT, "vae: the decoded frames are no numbers");
        rc = -1;
    }
    if (away) release_away(j);
    return rc;
}

static int decode(struct decode *j, const float *latents, int frames, int h, int w)
{
    struct vae *v = j->v;
    struct arena count = {0}, a = {0};
    struct err *e = j->e;
    int rc = -1;
    if (!v->decoder) return err_set(e, ERR_BUG, "vae_decode: the decoder was not opened");
    if (decoding_check(frames, h, w, e) < 0) return -1;
    if (!all_finite(latents, (size_t)v->config.z_dim * (size_t)frames * (size_t)h * (size_t)w))
        return err_set(e, ERR_INPUT,
                       "the latents hold values that are no numbers; they cannot be decoded");
    struct decoding *d = j->d = calloc(1, sizeof *d);
    if (!d) return err_set(e, ERR_RESOURCE, "no memory for the decoder's state");
    d->run.on = &v->on;
    d->as_bytes = j->byte_sink != NULL;
    if (!v->on.away) v->on.threads = threads_count();
    decoding_carve(d, v->decoder, &v->config, frames, h, w, &count);
    if (arena_open_on(&a, v->on.device, count.used, e) < 0) {
        err_wrap(e, "vae decoder, %dx%d latents", w, h);
        goto done;
    }
    if (!v->on.away) arena_huge_pages(&a);
    v->on.failed = (struct err){0};
    decoding_carve(d, v->decoder, &v->config, frames, h, w, &a);
    rc = decode_placed(j, latents, frames, h, w, &a);
done:
    arena_close(&a);
    free(d);
    return rc;
}

int vae_decode(struct vae *v, const float *latents, int frames, int h, int w, vae_sink sink,
               void *ctx, struct err *e)
{
    struct decode j = {.v = v, .net = v->decoder, .sink = sink, .ctx = ctx, .e = e};
    return decode(&j, latents, frames, h, w);
}

int vae_decode_pictures(struct vae *v, const float *latents, int frames, int h, int w,
                        bool truncate, vae_byte_sink sink, void *ctx, struct err *e)
{
    struct decode j = {
        .v = v, .net = v->decoder, .byte_sink = sink, .truncate = truncate, .ctx = ctx, .e = e};
    return decode(&j, latents, frames, h, w);
}
