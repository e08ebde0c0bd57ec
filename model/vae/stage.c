/* Frames of one resolution, and the residual block. */
#include "model/vae/stage.h"

int stage_cap(int h, int w, int channels, int least, int clip_frames)
{
    struct frame_size s = frame_size(h, w, channels);
    size_t bytes = frame_floats(&s) * sizeof(float);
    size_t fit =
        ((size_t)24 << 20) / bytes; /* three lists of it and the past: about a last-level cache */
    int cap = fit > 8 ? 8 : (int)fit;
    if (cap > clip_frames) cap = clip_frames;
    cap -= cap % least; /* whole pairs */
    return cap < least ? least : cap;
}

void stage_carve(struct stage *s, int h, int w, int in, int out, int cap, bool keep_input,
                 struct arena *a)
{
    s->in = frame_size(h, w, in);
    s->out = frame_size(h, w, out);
    s->cap = cap;
    bool same = s->in.channels == s->out.channels;
    s->x = s->store[0];
    s->a = s->store[1];
    s->b = s->store[2];
    s->a_in = same ? s->a : s->store[3];
    s->x_in = same && !keep_input ? s->x : s->store[4];
    for (int i = 0; i < 3; i++)
        frames_take(s->store[i], cap, &s->out, a);
    if (s->a_in != s->a) frames_take(s->a_in, cap, &s->in, a);
    if (s->x_in != s->x) frames_take(s->x_in, cap, &s->in, a);
}

void causal_carve(struct causal *c, const struct frame_size *in, struct arena *a)
{
    c->past.n = 0;
    frames_take(c->past.frame, 2, in, a);
}

void resnet_carve(struct resnet *r, const struct stage *s, bool first, struct arena *a)
{
    causal_carve(&r->conv1, first ? &s->in : &s->out, a);
    causal_carve(&r->conv2, &s->out, a);
}

size_t resnet_scratch(const struct resnet *r, const struct stage *s, int threads)
{
    size_t a = conv_scratch(&r->conv1.conv, &s->out, s->cap, threads);
    size_t b = conv_scratch(&r->conv2.conv, &s->out, s->cap, threads);
    size_t c = r->in == r->out ? 0 : conv_scratch(&r->shortcut, &s->out, s->cap, threads);
    if (b > a) a = b;
    return c > a ? c : a;
}

struct conv_call causal_call(const struct causal *c, struct causal_src *src, float *const *frames,
                             int n, const struct frame_size *in, const struct frame_size *out)
{
    for (int i = 0; i < 2; i++)
        src->list[i] = c->past.frame[i];
    for (int i = 0; i < n; i++)
        src->list[2 + i] = frames[i];
    return (struct conv_call){
        .src = src->list, .missing = 2 - c->past.n, .in = *in, .out = *out, .frames = n};
}

void resnet_run(struct resnet *r, struct stage *s, bool first, int n, const float *next_gamma,
                bool next_silu, const struct clip_work *u)
{
    struct causal_src src;
    float **residual = first ? s->x_in : s->x, **a = first ? s->a_in : s->a;
    const struct frame_size *in = first ? &s->in : &s->out;
    if (r->in != r->out) {
        struct conv_call call = {.src = (const float *const *)residual,
                                 .in = *in,
                                 .out = s->out,
                                 .frames = n,
                                 .x = s->x,
                                 .round = u->round};
        conv_run(&r->shortcut, &call, u->scratch, u->stride, u->threads);
        residual = s->x;
    }
    struct conv_call one = causal_call(&r->conv1, &src, a, n, in, &s->out);
    one.norm = s->b;
    one.gamma = r->gamma2;
    one.silu = true;
    one.round = u->round;
    conv_run(&r->conv1.conv, &one, u->scratch, u->stride, u->threads);
    past_advance(&r->conv1.past, a, n);

    struct conv_call two = causal_call(&r->conv2, &src, s->b, n, &s->out, &s->out);
    two.residual = residual;
    two.x = s->x;
    two.norm = next_gamma ? s->a : NULL;
    two.gamma = next_gamma;
    two.silu = next_silu;
    two.round = u->round;
    conv_run(&r->conv2.conv, &two, u->scratch, u->stride, u->threads);
    past_advance(&r->conv2.past, s->b, n);
}
