/* Frames of one resolution, and the residual block. */
#include "model/vae/stage.h"

int stage_cap(const struct frames_on *on, int h, int w, int channels, int least, int clip_frames)
{
    struct frame_size s = frame_size(h, w, channels);
    int cap = on->ops->piece(on, &s, least);
    if (cap > clip_frames) cap = clip_frames;
    cap -= cap % least; /* whole pairs */
    return cap < least ? least : cap;
}

void stage_carve(struct stage *s, struct frames_on *on, int h, int w, int in, int out, int cap,
                 bool keep_input, struct arena *a)
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
        frames_take(on, s->store[i], cap, &s->out, a);
    if (s->a_in != s->a) frames_take(on, s->a_in, cap, &s->in, a);
    if (s->x_in != s->x) frames_take(on, s->x_in, cap, &s->in, a);
}

void causal_carve(struct causal *c, struct frames_on *on, const struct frame_size *in,
                  struct arena *a)
{
    c->past.n = 0;
    frames_take(on, c->past.frame, 2, in, a);
}

void resnet_carve(struct resnet *r, struct frames_on *on, const struct stage *s, bool first,
                  struct arena *a)
{
    causal_carve(&r->conv1, on, first ? &s->in : &s->out, a);
    causal_carve(&r->conv2, on, &s->out, a);
}

size_t resnet_scratch(const struct resnet *r, const struct frames_on *on, const struct stage *s)
{
    size_t a = on->ops->conv_scratch(on, &r->conv1.conv, &s->out, s->cap);
    size_t b = on->ops->conv_scratch(on, &r->conv2.conv, &s->out, s->cap);
    size_t c = r->in == r->out ? 0 : on->ops->conv_scratch(on, &r->shortcut, &s->out, s->cap);
    if (b > a) a = b;
    return c > a ? c : a;
}

struct frame_call plain_call(void *const *frames, int n, const struct frame_size *in,
                             const struct frame_size *out)
{
    struct frame_call call = {.in = *in, .out = *out, .frames = n};
    for (int i = 0; i < n; i++)
        call.src[i] = frames[i];
    return call;
}

struct frame_call causal_call(const struct causal *c, void *const *frames, int n,
                              const struct frame_size *in, const struct frame_size *out)
{
    struct frame_call call = {.missing = 2 - c->past.n, .in = *in, .out = *out, .frames = n};
    for (int i = 0; i < 2; i++)
        call.src[i] = c->past.frame[i];
    for (int i = 0; i < n; i++)
        call.src[2 + i] = frames[i];
    return call;
}

void stage_conv(const struct clip_work *u, const struct frame_conv *c,
                const struct frame_call *call)
{
    u->on->ops->conv(u->on, c, call, u->scratch);
}

void resnet_run(struct resnet *r, struct stage *s, bool first, int n, const float *next_gamma,
                bool next_silu, const struct clip_work *u)
{
    void **residual = first ? s->x_in : s->x, **a = first ? s->a_in : s->a;
    const struct frame_size *in = first ? &s->in : &s->out;
    if (r->in != r->out) {
        struct frame_call call = plain_call(residual, n, in, &s->out);
        call.x = s->x;
        stage_conv(u, &r->shortcut, &call);
        residual = s->x;
    }
    struct frame_call one = causal_call(&r->conv1, a, n, in, &s->out);
    one.norm = s->b;
    one.gamma = r->gamma2;
    one.silu = true;
    stage_conv(u, &r->conv1.conv, &one);
    past_advance(&r->conv1.past, a, n);

    struct frame_call two = causal_call(&r->conv2, s->b, n, &s->out, &s->out);
    two.residual = residual;
    two.x = s->x;
    two.norm = next_gamma ? s->a : NULL;
    two.gamma = next_gamma;
    two.silu = next_silu;
    stage_conv(u, &r->conv2.conv, &two);
    past_advance(&r->conv2.past, s->b, n);
}
