/* The mid block's attention: one head as wide as the channels, over the pixels of one frame. Scores
 * of a few rows of queries at a time against all keys, so that memory grows with the pixels, not
 * their square. */
#include "model/base/threads.h"
#include "model/vae/stage.h"

#include <math.h>

#define QUERIES 32 /* rows of scores a task holds */
#define KEY_BLOCK 256 /* keys summed at a time: a panel of values stays in L1 */

struct panels { /* how many columns of `width` cover n */
    int width, count;
};

static struct panels panels_of(const struct attention *at, int n)
{
    int width = at->q.kernels->lanes * at->q.kernels->max_vectors;
    return (struct panels){width, (n + width - 1) / width};
}

void attention_carve(struct attention_space *sp, const struct attention *at, const struct stage *s,
                     struct arena *a)
{
    int pixels = s->out.h * s->out.w;
    struct panels keys = panels_of(at, pixels), values = panels_of(at, s->out.channels);
    frames_take(&sp->q, 1, &s->out, a);
    frames_take(&sp->k, 1, &s->out, a);
    frames_take(&sp->v, 1, &s->out, a);
    sp->key_panels = arena_take(a, (size_t)keys.count * (size_t)keys.width *
                                       (size_t)s->out.channels * sizeof(float));
    sp->value_panels =
        arena_take(a, (size_t)pixels * (size_t)(values.count * values.width) * sizeof(float));
}

size_t attention_scratch(const struct attention *at, const struct stage *s, int threads)
{
    struct panels keys = panels_of(at, s->out.h * s->out.w),
                  values = panels_of(at, s->out.channels);
    size_t n =
        QUERIES * ((size_t)keys.count * (size_t)keys.width + (size_t)(values.count * values.width));
    size_t conv = conv_scratch(&at->q, &s->out, s->cap, threads);
    return conv > n ? conv : n;
}

struct attend {
    const struct attention *at;
    const struct attention_space *sp;
    const struct stage *s;
    const struct clip_work *u;
    float *o; /* frame */
};

/* Keys: [panel][channel][width], the pixels of a panel side by side. */
static void pack_keys(void *ctx, int panel, int worker)
{
    const struct attend *t = ctx;
    const struct frame_size *f = &t->s->out;
    int width = panels_of(t->at, 1).width, pixels = f->h * f->w;
    float *dst = t->sp->key_panels + (size_t)panel * (size_t)width * (size_t)f->channels;
    (void)worker;
    for (int i = 0; i < width; i++) {
        int p = panel * width + i;
        const float *src = p < pixels ? t->sp->k + frame_at(f, p / f->w, p % f->w) : NULL;
        for (int c = 0; c < f->channels; c++)
            dst[c * width + i] = src ? src[c] : 0.0f;
    }
}

/* Values: [panel of channels][pixel][width]; a task is a row of the picture. */
static void pack_values(void *ctx, int y, int worker)
{
    const struct attend *t = ctx;
    const struct frame_size *f = &t->s->out;
    struct panels values = panels_of(t->at, f->channels);
    size_t pixels = (size_t)f->h * (size_t)f->w;
    (void)worker;
    for (int x = 0; x < f->w; x++) {
        const float *src = t->sp->v + frame_at(f, y, x);
        for (int p = 0; p < values.count; p++) {
            float *dst =
                t->sp->value_panels +
                ((size_t)p * pixels + (size_t)y * (size_t)f->w + (size_t)x) * (size_t)values.width;
            for (int i = 0; i < values.width; i++) {
                int c = p * values.width + i;
                dst[i] = c < f->channels ? src[c] : 0.0f;
            }
        }
    }
}

static int chunks_of(const struct frame_size *f) { return (f->w + QUERIES - 1) / QUERIES; }

static void attend_task(void *ctx, int task, int worker)
{
    const struct attend *t = ctx;
    const struct frame_size *f = &t->s->out;
    const struct vae_kernels *k = t->at->q.kernels;
    struct panels keys = panels_of(t->at, f->h * f->w), values = panels_of(t->at, f->channels);
    int pixels = f->h * f->w, y = task / chunks_of(f), x = task % chunks_of(f) * QUERIES;
    int rows = f->w - x < QUERIES ? f->w - x : QUERIES;
    ptrdiff_t ls = (ptrdiff_t)keys.count * keys.width, lo = (ptrdiff_t)values.count * values.width,
              zero = 0;
    float *scores = t->u->scratch + (size_t)worker * t->u->stride, *out = scores + QUERIES * ls;
    for (int p = 0; p < keys.count; p++)
        k->gemm(scores + p * keys.width, ls, t->sp->q + frame_at(f, y, x), f->channels, &zero, 1,
                f->channels,
                t->sp->key_panels + (size_t)p * (size_t)keys.width * (size_t)f->channels, rows,
                k->max_vectors, false);
    float inverse[QUERIES];
    for (int r = 0; r < rows; r++)
        inverse[r] = k->softmax(scores + r * ls, pixels, 1.0f / sqrtf((float)t->at->channels));
    for (int p = 0; p < values.count; p++)
        for (int j = 0; j < pixels; j += KEY_BLOCK) {
            int n = pixels - j < KEY_BLOCK ? pixels - j : KEY_BLOCK;
            k->gemm(out + p * values.width, lo, scores + j, ls, &zero, 1, n,
                    t->sp->value_panels +
                        ((size_t)p * (size_t)pixels + (size_t)j) * (size_t)values.width,
                    rows, k->max_vectors, j > 0);
        }
    for (int r = 0; r < rows; r++) {
        float *dst = t->o + frame_at(f, y, x + r);
        for (int c = 0; c < f->channels; c++) {
            float v = out[r * lo + c] * inverse[r];
            dst[c] = t->u->round ? bf16_round(v) : v;
        }
    }
}

void attention_run(struct attention *at, struct attention_space *sp, struct stage *s, int n,
                   const float *next_gamma, const struct clip_work *u)
{
    const struct conv *parts[] = {&at->q, &at->k, &at->v};
    float *dst[] = {sp->q, sp->k, sp->v};
    int pixels = s->out.h * s->out.w;
    for (int f = 0; f < n; f++) {
        for (int i = 0; i < 3; i++) {
            struct conv_call call = {.src = (const float *const *)&s->a[f],
                                     .in = s->out,
                                     .out = s->out,
                                     .frames = 1,
                                     .x = &dst[i],
                                     .round = u->round};
            conv_run(parts[i], &call, u->scratch, u->stride, u->threads);
        }
        struct attend t = {at, sp, s, u, s->b[f]};
        threads_run(panels_of(at, pixels).count, pack_keys, &t);
        threads_run(s->out.h, pack_values, &t);
        threads_run(s->out.h * chunks_of(&s->out), attend_task, &t);
    }
    struct conv_call proj = {.src = (const float *const *)s->b,
                             .in = s->out,
                             .out = s->out,
                             .frames = n,
                             .residual = s->x,
                             .x = s->x,
                             .norm = s->a,
                             .gamma = next_gamma,
                             .silu = true,
                             .round = u->round};
    conv_run(&at->proj, &proj, u->scratch, u->stride, u->threads);
}
