/* Names and shapes of the VAE's layers; the same walk sizes the arena and fills it. */
#include "model/vae/net.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME 160

/* shape of a [out, in, kt, ks, ks] convolution */
#define CAUSAL3(i, o)                                                                              \
    ((struct conv_shape){.in = i, .out = o, .kt = 3, .ks = 3, .stride = 1, .step = 1})
#define POINT(i, o)                                                                                \
    ((struct conv_shape){.in = i, .out = o, .kt = 1, .ks = 1, .stride = 1, .step = 1})

struct pair {
    struct tensor weight, bias;
};

/* out_all: rows the checkpoint's tensor has; this convolution takes shape->out from first_out on.
 * flat: the tensor is 4-D (no time axis). */
static int build_conv(struct frame_conv *c, const struct net_source *s,
                      const struct conv_shape *shape, int out_all, int first_out, bool flat,
                      const char *prefix, struct err *e)
{
    struct pair t;
    char weight[NAME + 8], bias[NAME + 8];
    s->on->ops->conv_carve(s->on, c, shape, s->arena);
    if (!s->weights) return 0;
    snprintf(weight, sizeof weight, "%s.weight", prefix);
    snprintf(bias, sizeof bias, "%s.bias", prefix);
    struct bind_row rows[] = {
        {.name = weight,
         .offset = offsetof(struct pair, weight),
         .n_dims = 5,
         .shape = {out_all, shape->in, shape->kt, shape->ks, shape->ks}},
        {.name = bias, .offset = offsetof(struct pair, bias), .n_dims = 1, .shape = {out_all}},
    };
    if (flat) {
        rows[0].n_dims = 4;
        rows[0].shape[2] = rows[0].shape[3] = shape->ks;
    }
    if (weights_bind(s->weights, &t, rows, 2, 0, e) < 0) return -1;
    if (s->check) return 0;
    s->on->ops->conv_pack(s->on, c, &t.weight, &t.bias, first_out);
    if (s->on->failed.code == ERR_NONE) return 0;
    *e = s->on->failed;
    return -1;
}

static int build_whole(struct frame_conv *c, const struct net_source *s, struct conv_shape shape,
                       bool flat, const char *prefix, struct err *e)
{
    return build_conv(c, s, &shape, shape.out, 0, flat, prefix, e);
}

/* gamma [C, 1, 1, 1], or [C, 1, 1] in attention. */
static int build_gamma(float **gamma, const struct net_source *s, int channels, bool flat,
                       const char *name, struct err *e)
{
    struct tensor t;
    *gamma = arena_take(s->arena, (size_t)pad_channels(channels) * sizeof(float));
    if (!s->weights) return 0;
    struct bind_row row = {.name = name, .n_dims = flat ? 3 : 4, .shape = {channels, 1, 1, 1}};
    if (weights_bind(s->weights, &t, &row, 1, 0, e) < 0) return -1;
    if (s->check) return 0;
    float *wide = calloc((size_t)pad_channels(channels), sizeof *wide);
    if (!wide) return err_set(e, ERR_RESOURCE, "no memory for a norm's weights");
    dtype_to_f32(wide, t.data, t.dtype, (size_t)channels);
    for (int i = 0; s->on->round && i < channels; i++)
        wide[i] = bf16_round(wide[i]);
    s->on->ops->put(s->on, *gamma, wide, (size_t)pad_channels(channels));
    free(wide);
    return 0;
}

static int build_resnet(struct resnet *r, const struct net_source *s, int in, int out,
                        const char *prefix, struct err *e)
{
    char n[6][NAME];
    static const char *const parts[] = {"norm1.gamma", "conv1", "norm2.gamma", "conv2",
                                        "conv_shortcut"};
    for (int i = 0; i < 5; i++)
        snprintf(n[i], NAME, "%s.%s", prefix, parts[i]);
    r->in = in;
    r->out = out;
    if (build_gamma(&r->gamma1, s, in, false, n[0], e) < 0 ||
        build_whole(&r->conv1.conv, s, CAUSAL3(in, out), false, n[1], e) < 0 ||
        build_gamma(&r->gamma2, s, out, false, n[2], e) < 0 ||
        build_whole(&r->conv2.conv, s, CAUSAL3(out, out), false, n[3], e) < 0)
        return -1;
    return in == out ? 0 : build_whole(&r->shortcut, s, POINT(in, out), false, n[4], e);
}

static int build_attention(struct attention *a, const struct net_source *s, int channels,
                           const char *prefix, struct err *e)
{
    char norm[NAME + 16], qkv[NAME + 16], proj[NAME + 16];
    struct conv_shape one = POINT(channels, channels);
    snprintf(norm, sizeof norm, "%s.norm.gamma", prefix);
    snprintf(qkv, sizeof qkv, "%s.to_qkv", prefix);
    snprintf(proj, sizeof proj, "%s.proj", prefix);
    a->channels = channels;
    if (build_gamma(&a->gamma, s, channels, true, norm, e) < 0 ||
        build_conv(&a->q, s, &one, 3 * channels, 0, true, qkv, e) < 0 ||
        build_conv(&a->k, s, &one, 3 * channels, channels, true, qkv, e) < 0 ||
        build_conv(&a->v, s, &one, 3 * channels, 2 * channels, true, qkv, e) < 0)
        return -1;
    return build_whole(&a->proj, s, one, true, proj, e);
}

static int build_mid(struct net *d, const struct net_source *s, const char *side, struct err *e)
{
    char a[NAME], r0[NAME], r1[NAME];
    int c = d->mid_channels;
    snprintf(r0, NAME, "%s.mid_block.resnets.0", side);
    snprintf(a, NAME, "%s.mid_block.attentions.0", side);
    snprintf(r1, NAME, "%s.mid_block.resnets.1", side);
    return build_resnet(&d->mid[0], s, c, c, r0, e) < 0 ||
                   build_attention(&d->attention, s, c, a, e) < 0 ||
                   build_resnet(&d->mid[1], s, c, c, r1, e) < 0
               ? -1
               : 0;
}

void past_advance(struct past *p, void **list, int n)
{
    if (n <= 0) return;
    if (n == 1) {
        void *old = p->frame[0];
        p->frame[0] = p->frame[1];
        p->frame[1] = list[0];
        list[0] = old;
    } else {
        for (int i = 0; i < 2; i++) {
            void *old = p->frame[i];
            p->frame[i] = list[n - 2 + i];
            list[n - 2 + i] = old;
        }
    }
    p->n = p->n + n > 2 ? 2 : p->n + n;
}

/* --- decoder --- */

static int build_up(struct level *l, const struct net_source *s, const char *prefix, struct err *e)
{
    char space[NAME], time[NAME];
    snprintf(space, NAME, "%s.resample.1", prefix);
    snprintf(time, NAME, "%s.time_conv", prefix);
    struct conv_shape up = {
        .in = l->out, .out = l->next, .kt = 1, .ks = 3, .stride = 1, .step = 1, .up = true};
    struct conv_shape t = {.in = l->out, .out = l->out, .kt = 3, .ks = 1, .stride = 1, .step = 1};
    for (int i = 0; l->in_time && i < 2; i++)
        if (build_conv(&l->time[i], s, &t, 2 * l->out, i * l->out, false, time, e) < 0) return -1;
    return build_whole(&l->space, s, up, true, space, e);
}

int net_decoder(struct net *d, const struct vae_config *c, const struct net_source *s,
                struct err *e)
{
    char name[NAME / 2];
    int n = c->n_levels, z = c->z_dim;
    memset(d, 0, sizeof *d);
    d->n_levels = n;
    d->mid_channels = c->decoder_base_dim * c->dim_mult[n - 1];
    if (build_whole(&d->quant, s, POINT(z, z), false, "post_quant_conv", e) < 0 ||
        build_whole(&d->conv_in.conv, s, CAUSAL3(z, d->mid_channels), false, "decoder.conv_in", e) <
            0 ||
        build_mid(d, s, "decoder", e) < 0)
        return -1;
    for (int i = 0; i < n; i++) {
        struct level *l = &d->levels[i];
        l->in = i ? d->levels[i - 1].next : d->mid_channels;
        l->out = c->decoder_base_dim * c->dim_mult[n - 1 - i];
        l->n_resnets = c->num_res_blocks + 1;
        l->resamples = i < n - 1;
        l->in_time = l->resamples && c->temporal_downsample[n - 2 - i];
        l->next = c->is_residual ? l->out : l->out / 2;
        for (int r = 0; r < l->n_resnets; r++) {
            snprintf(name, sizeof name, "decoder.up_blocks.%d.resnets.%d", i, r);
            if (build_resnet(&l->resnets[r], s, r ? l->out : l->in, l->out, name, e) < 0) return -1;
        }
        snprintf(name, sizeof name, "decoder.up_blocks.%d.%s", i,
                 c->is_residual ? "upsampler" : "upsamplers.0");
        if (l->resamples && build_up(l, s, name, e) < 0) return -1;
    }
    int last = d->levels[n - 1].out;
    if (build_gamma(&d->gamma_out, s, last, false, "decoder.norm_out.gamma", e) < 0) return -1;
    return build_whole(&d->conv_out.conv, s, CAUSAL3(last, c->out_channels), false,
                       "decoder.conv_out", e);
}

/* --- encoder --- */

static int build_down(struct level *l, const struct net_source *s, const char *prefix,
                      struct err *e)
{
    char space[NAME], time[NAME];
    snprintf(space, NAME, "%s.resample.1", prefix);
    snprintf(time, NAME, "%s.time_conv", prefix);
    struct conv_shape down = {
        .in = l->out, .out = l->out, .kt = 1, .ks = 3, .stride = 2, .step = 1};
    struct conv_shape t = {.in = l->out, .out = l->out, .kt = 3, .ks = 1, .stride = 1, .step = 2};
    if (l->in_time && build_whole(&l->time[0], s, t, false, time, e) < 0) return -1;
    return build_whole(&l->space, s, down, true, space, e);
}

int net_encoder(struct net *d, const struct vae_config *c, const struct net_source *s,
                struct err *e)
{
    char name[NAME / 2];
    int n = c->n_levels, z = 2 * c->z_dim, flat = 0; /* flat: number in 2.1's one list */
    memset(d, 0, sizeof *d);
    d->n_levels = n;
    d->mid_channels = c->base_dim * c->dim_mult[n - 1];
    if (build_whole(&d->conv_in.conv, s, CAUSAL3(c->in_channels, c->base_dim), false,
                    "encoder.conv_in", e) < 0)
        return -1;
    for (int i = 0; i < n; i++) {
        struct level *l = &d->levels[i];
        l->in = c->base_dim * (i ? c->dim_mult[i - 1] : 1);
        l->out = l->next = c->base_dim * c->dim_mult[i];
        l->n_resnets = c->num_res_blocks;
        l->resamples = i < n - 1;
        l->in_time = l->resamples && c->temporal_downsample[i];
        for (int r = 0; r < l->n_resnets; r++) {
            if (c->is_residual)
                snprintf(name, sizeof name, "encoder.down_blocks.%d.resnets.%d", i, r);
            else
                snprintf(name, sizeof name, "encoder.down_blocks.%d", flat++);
            if (build_resnet(&l->resnets[r], s, r ? l->out : l->in, l->out, name, e) < 0) return -1;
        }
        if (!l->resamples) continue;
        if (c->is_residual)
            snprintf(name, sizeof name, "encoder.down_blocks.%d.downsampler", i);
        else
            snprintf(name, sizeof name, "encoder.down_blocks.%d", flat++);
        if (build_down(l, s, name, e) < 0) return -1;
    }
    if (build_mid(d, s, "encoder", e) < 0 ||
        build_gamma(&d->gamma_out, s, d->mid_channels, false, "encoder.norm_out.gamma", e) < 0 ||
        build_whole(&d->conv_out.conv, s, CAUSAL3(d->mid_channels, z), false, "encoder.conv_out",
                    e) < 0)
        return -1;
    return build_whole(&d->quant, s, POINT(z, z), false, "quant_conv", e);
}
