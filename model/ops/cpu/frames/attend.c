/* The mid block's attention: one head as wide as the channels, over the pixels of one frame. Scores
 * of a few rows of queries at a time against all keys, so that memory grows with the pixels, not
 * their square. */
#include "model/ops/cpu/frames/host.h"

#include "model/base/threads.h"

#include <math.h>

#define QUERIES 32 /* rows of scores a task holds */
#define KEY_BLOCK 256 /* keys summed at a time: a panel of values stays in L1 */

struct panels { /* how many columns of `width` cover n */
    int width, count;
};

static struct panels panels_of(const struct vae_kernels *k, int n)
{
    int width = k->lanes * k->max_vectors;
    return (struct panels){width, (n + width - 1) / width};
}

void host_attend_carve(const struct frames_on *on, struct frame_attention_room *room,
                       const struct frame_size *s, int channels, struct arena *a)
{
    int pixels = s->h * s->w;
    struct panels keys = panels_of(on->kernels, pixels),
                  values = panels_of(on->kernels, s->channels);
    (void)channels;
    room->keys = arena_take(a, (size_t)keys.count * (size_t)keys.width * (size_t)s->channels *
                                   sizeof(float));
    room->values =
        arena_take(a, (size_t)pixels * (size_t)(values.count * values.width) * sizeof(float));
}

size_t host_attend_scratch(const struct frames_on *on, const struct frame_size *s, int channels)
{
    struct panels keys = panels_of(on->kernels, s->h * s->w),
                  values = panels_of(on->kernels, s->channels);
    (void)channels;
    return QUERIES *
           ((size_t)keys.count * (size_t)keys.width + (size_t)(values.count * values.width)) *
           sizeof(float);
}

struct attend {
    const struct frames_on *on;
    struct frame_size size;
    int channels;
    const float *q, *k, *v;
    float *o; /* frames */
    float *key_panels, *value_panels;
    float *scratch;
};

/* Keys: [panel][channel][width], the pixels of a panel side by side. */
static void pack_keys(void *ctx, int panel, int worker)
{
    const struct attend *t = ctx;
    const struct frame_size *f = &t->size;
    int width = panels_of(t->on->kernels, 1).width, pixels = f->h * f->w;
    float *dst = t->key_panels + (size_t)panel * (size_t)width * (size_t)f->channels;
    (void)worker;
    for (int i = 0; i < width; i++) {
        int p = panel * width + i;
        const float *src = p < pixels ? t->k + frame_at(f, p / f->w, p % f->w) : NULL;
        for (int c = 0; c < f->channels; c++)
            dst[c * width + i] = src ? src[c] : 0.0f;
    }
}

/* Values: [panel of channels][pixel][width]; a task is a row of the picture. */
static void pack_values(void *ctx, int y, int worker)
{
    const struct attend *t = ctx;
    const struct frame_size *f = &t->size;
    struct panels values = panels_of(t->on->kernels, f->channels);
    size_t pixels = (size_t)f->h * (size_t)f->w;
    (void)worker;
    for (int x = 0; x < f->w; x++) {
        const float *src = t->v + frame_at(f, y, x);
        for (int p = 0; p < values.count; p++) {
            float *dst =
                t->value_panels +
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
    const struct frame_size *f = &t->size;
    const struct vae_kernels *k = t->on->kernels;
    struct panels keys = panels_of(t->on->kernels, f->h * f->w),
                  values = panels_of(t->on->kernels, f->channels);
    int pixels = f->h * f->w, y = task / chunks_of(f), x = task % chunks_of(f) * QUERIES;
    int rows = f->w - x < QUERIES ? f->w - x : QUERIES;
    ptrdiff_t ls = (ptrdiff_t)keys.count * keys.width, lo = (ptrdiff_t)values.count * values.width,
              zero = 0;
    float *scores = t->scratch + (size_t)worker * t->on->stride, *out = scores + QUERIES * ls;
    for (int p = 0; p < keys.count; p++)
        k->gemm(scores + p * keys.width, ls, t->q + frame_at(f, y, x), f->channels, &zero, 1,
                f->channels, t->key_panels + (size_t)p * (size_t)keys.width * (size_t)f->channels,
                rows, k->max_vectors, false);
    float inverse[QUERIES];
    for (int r = 0; r < rows; r++)
        inverse[r] = k->softmax(scores + r * ls, pixels, 1.0f / sqrtf((float)t->channels));
    for (int p = 0; p < values.count; p++)
        for (int j = 0; j < pixels; j += KEY_BLOCK) {
            int n = pixels - j < KEY_BLOCK ? pixels - j : KEY_BLOCK;
            k->gemm(out + p * values.width, lo, scores + j, ls, &zero, 1, n,
                    t->value_panels +
                        ((size_t)p * (size_t)pixels + (size_t)j) * (size_t)values.width,
                    rows, k->max_vectors, j > 0);
        }
    for (int r = 0; r < rows; r++) {
        float *dst = t->o + frame_at(f, y, x + r);
        for (int c = 0; c < f->channels; c++) {
            float v = out[r * lo + c] * inverse[r];
            dst[c] = t->on->round ? bf16_round(v) : v;
        }
    }
}

void host_attend(struct frames_on *on, const struct frame_attention *a,
                 const struct frame_attention_room *room, void *scratch)
{
    struct attend t = {on,   a->size, a->channels, a->q,         a->k,
                       a->v, a->o,    room->keys,  room->values, scratch};
    int pixels = a->size.h * a->size.w;
    threads_run(panels_of(on->kernels, pixels).count, pack_keys, &t);
    threads_run(a->size.h, pack_values, &t);
    threads_run(a->size.h * chunks_of(&a->size), attend_task, &t);
}
