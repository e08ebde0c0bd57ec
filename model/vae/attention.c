/* The mid block's attention: one head as wide as the channels, over the pixels of one frame. */
#include "model/vae/stage.h"

void attention_carve(struct attention_space *sp, struct frames_on *on, const struct attention *at,
                     const struct stage *s, struct arena *a)
{
    frames_take(on, &sp->q, 1, &s->out, a);
    frames_take(on, &sp->k, 1, &s->out, a);
    frames_take(on, &sp->v, 1, &s->out, a);
    on->ops->attend_carve(on, &sp->room, &s->out, at->channels, a);
}

size_t attention_scratch(const struct attention *at, const struct frames_on *on,
                         const struct stage *s)
{
    size_t n = on->ops->attend_scratch(on, &s->out, at->channels);
    size_t conv = on->ops->conv_scratch(on, &at->q, &s->out, s->cap);
    return conv > n ? conv : n;
}

void attention_run(struct attention *at, struct attention_space *sp, struct stage *s, int n,
                   const float *next_gamma, const struct clip_work *u)
{
    const struct frame_conv *parts[] = {&at->q, &at->k, &at->v};
    void *dst[] = {sp->q, sp->k, sp->v};
    for (int f = 0; f < n; f++) {
        for (int i = 0; i < 3; i++) {
            struct frame_call call = plain_call(&s->a[f], 1, &s->out, &s->out);
            call.x = &dst[i];
            stage_conv(u, parts[i], &call);
        }
        struct frame_attention a = {s->b[f], sp->q, sp->k, sp->v, s->out, at->channels};
        u->on->ops->attend(u->on, &a, &sp->room, u->scratch);
    }
    struct frame_call proj = plain_call(s->b, n, &s->out, &s->out);
    proj.residual = proj.x = s->x;
    proj.norm = s->a;
    proj.gamma = next_gamma;
    proj.silu = true;
    stage_conv(u, &at->proj, &proj);
}
