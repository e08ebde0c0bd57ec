/* One resolution of a net while a clip runs: its frames, and the residual and attention blocks over
 * them. Frames come in pieces of at most `cap`; lists:
 *   x_in  the level's input
 *   a_in  norm1 and SiLU of it: what the first conv1 reads
 *   x     the residual stream
 *   a     the norm of x that the next block reads
 *   b     norm2 and SiLU between the two convolutions of a block
 * x_in is x and a_in is a where sizes allow. Every convolution writes the norm its reader wants, so
 * that no pass over the frames is made for norms alone. */
#ifndef DITGEN_VAE_STAGE_H
#define DITGEN_VAE_STAGE_H

#include "model/vae/net.h"

struct clip_work { /* what every call of a clip shares */
    struct frames_on *on;
    void *scratch;
};

struct stage {
    struct frame_size in, out;
    int cap;
    void *store[5][MAX_FRAMES];
    void **x_in, **a_in, **x, **a, **b;
};

/* keep_input: x_in stays as it was until the level ends (2.2's shortcuts). */
void stage_carve(struct stage *s, struct frames_on *on, int h, int w, int in, int out, int cap,
                 bool keep_input, struct arena *a);
/* Frames a piece, no more than the clip has; whole groups of `least`. */
int stage_cap(const struct frames_on *on, int h, int w, int channels, int least, int clip_frames);

void causal_carve(struct causal *c, struct frames_on *on, const struct frame_size *in,
                  struct arena *a);
void resnet_carve(struct resnet *r, struct frames_on *on, const struct stage *s, bool first,
                  struct arena *a);
size_t resnet_scratch(const struct resnet *r, const struct frames_on *on, const struct stage *s);

/* A call with the past of c in front of n frames; the caller adds outputs. */
struct frame_call causal_call(const struct causal *c, void *const *frames, int n,
                              const struct frame_size *in, const struct frame_size *out);
/* The same of a convolution that does not look back. */
struct frame_call plain_call(void *const *frames, int n, const struct frame_size *in,
                             const struct frame_size *out);
void stage_conv(const struct clip_work *u, const struct frame_conv *c,
                const struct frame_call *call);

/* x_in, a_in (first) or x, a → x, and a = norm of it by next_gamma (NULL: none), through SiLU or not. */
void resnet_run(struct resnet *r, struct stage *s, bool first, int n, const float *next_gamma,
                bool next_silu, const struct clip_work *u);

/* Of the mid block: queries, keys and values of one frame. */
struct attention_space {
    void *q, *k, *v; /* frames */
    struct frame_attention_room room;
};
void attention_carve(struct attention_space *sp, struct frames_on *on, const struct attention *at,
                     const struct stage *s, struct arena *a);
size_t attention_scratch(const struct attention *at, const struct frames_on *on,
                         const struct stage *s);
/* x += proj(attend(a)), a = SiLU(norm(x)) by next_gamma; a frame at a time. */
void attention_run(struct attention *at, struct attention_space *sp, struct stage *s, int n,
                   const float *next_gamma, const struct clip_work *u);

#endif
