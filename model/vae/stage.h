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
    float *scratch;
    size_t stride; /* floats a worker */
    int threads;
    bool round;
};

struct stage {
    struct frame_size in, out;
    int cap;
    float *store[5][MAX_FRAMES];
    float **x_in, **a_in, **x, **a, **b;
};

/* keep_input: x_in stays as it was until the level ends (2.2's shortcuts). */
void stage_carve(struct stage *s, int h, int w, int in, int out, int cap, bool keep_input,
                 struct arena *a);
/* Frames a piece: enough to share the transforms of the past, few enough to stay near the caches. */
int stage_cap(int h, int w, int channels, int least, int clip_frames);

void causal_carve(struct causal *c, const struct frame_size *in, struct arena *a);
void resnet_carve(struct resnet *r, const struct stage *s, bool first, struct arena *a);
size_t resnet_scratch(const struct resnet *r, const struct stage *s, int threads);

/* A call with the past of c in front of the n frames of src; the caller adds outputs. */
struct causal_src {
    const float *list[MAX_FRAMES + 2];
};
struct conv_call causal_call(const struct causal *c, struct causal_src *src, float *const *frames,
                             int n, const struct frame_size *in, const struct frame_size *out);

/* x_in, a_in (first) or x, a → x, and a = norm of it by next_gamma (NULL: none), through SiLU or not. */
void resnet_run(struct resnet *r, struct stage *s, bool first, int n, const float *next_gamma,
                bool next_silu, const struct clip_work *u);

/* Scratch of the mid block's attention: keys and values of one frame, packed. */
struct attention_space {
    float *q, *k, *v; /* frames */
    float *key_panels, *value_panels;
};
void attention_carve(struct attention_space *sp, const struct attention *at, const struct stage *s,
                     struct arena *a);
size_t attention_scratch(const struct attention *at, const struct stage *s, int threads);
/* x += proj(attend(a)), a = SiLU(norm(x)) by next_gamma; a frame at a time. */
void attention_run(struct attention *at, struct attention_space *sp, struct stage *s, int n,
                   const float *next_gamma, const struct clip_work *u);

#endif
