/* The layers of the VAE's two nets, decoder and encoder: which there are, their names in the checkpoint, their
 * shapes. wan.md 4.3 (decoder), 4.4 (encoder). Weights and states live in arenas. */
#ifndef DITGEN_VAE_NET_H
#define DITGEN_VAE_NET_H

#include "model/ops/frames.h"
#include "model/vae/vae.h"
#include "model/weights/weights.h"

#define MAX_RESNETS (VAE_MAX_RES_BLOCKS + 1)

/* What a causal convolution looks back on: the last two frames of its input. */
struct past {
    void *frame[2]; /* older first */
    int n; /* how many have been seen, at most 2: frame[2 - n ..] are real */
};
/* After the n frames of `list` were consumed: the last two become the past, the old past the
 * list's. */
void past_advance(struct past *p, void **list, int n);

struct causal { /* a convolution that looks back two frames */
    struct frame_conv conv;
    struct past past;
};

struct resnet {
    int in, out;
    float *gamma1, *gamma2;
    struct causal conv1, conv2;
    struct frame_conv shortcut; /* when in != out */
};

struct attention {
    int channels;
    float *gamma;
    struct frame_conv q, k, v, proj; /* 1x1 */
};

struct level {
    int in, out; /* channels */
    int n_resnets;
    struct resnet resnets[MAX_RESNETS];
    bool resamples, in_time; /* changes size after the resnets; time too */
    int next; /* channels after that */
    struct frame_conv space; /* doubles (decoder) or halves (encoder) */
    struct frame_conv time[2]; /* decoder: earlier and later frame of a pair; encoder: [0] */
    struct past past; /* of the decoder's time convolution */
    void *last; /* encoder: the frame before this chunk */
};

struct net {
    struct frame_conv quant; /* decoder: post_quant_conv, first; encoder: quant_conv, last */
    struct causal conv_in, conv_out;
    struct resnet mid[2];
    struct attention attention;
    int n_levels;
    struct level levels[VAE_MAX_LEVELS];
    float *gamma_out;
    int mid_channels;
};

/* Lays out one net in the arena; with weights, binds and packs it too (the arena must be placed). */
struct net_source {
    struct arena *arena;
    struct frames_on *on; /* where, and whether weights are rounded to bf16 */
    struct weights *weights; /* NULL: only sizes */
    bool check; /* with weights: binds only, and the arena need not be placed */
};
int net_decoder(struct net *d, const struct vae_config *c, const struct net_source *s,
                struct err *e);
int net_encoder(struct net *d, const struct vae_config *c, const struct net_source *s,
                struct err *e);

#endif
