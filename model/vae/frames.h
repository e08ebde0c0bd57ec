/* Pictures of the VAE: fp32, channels last and padded to CONV_LANES, with a border of zeros that
 * makes every window of a convolution legal: one pixel above and left, and below and right as many
 * as round the picture to whole 4x4 tiles plus one. Nothing writes the border after frames_clear().
 *
 * Frames live in an arena; lists of pointers name them, so that a frame becomes the past of a
 * causal convolution by a swap of pointers and never by a copy. */
#ifndef DITGEN_VAE_FRAMES_H
#define DITGEN_VAE_FRAMES_H

#include "model/base/arena.h"
#include "model/vae/kernels/kernels.h"

#include <string.h>

struct frame_size {
    int h, w; /* pixels */
    int channels; /* padded: a multiple of CONV_LANES */
};

static inline int pad_channels(int c) { return (c + CONV_LANES - 1) / CONV_LANES * CONV_LANES; }

static inline struct frame_size frame_size(int h, int w, int channels)
{
    return (struct frame_size){h, w, pad_channels(channels)};
}

/* floats from a row to the next */
static inline ptrdiff_t frame_pitch(const struct frame_size *s)
{
    return (ptrdiff_t)((s->w + 3) / 4 * 4 + 2) * s->channels;
}

static inline size_t frame_floats(const struct frame_size *s)
{
    return (size_t)((s->h + 3) / 4 * 4 + 2) * (size_t)frame_pitch(s);
}

/* Offset of pixel (y, x); -1 is the border. */
static inline ptrdiff_t frame_at(const struct frame_size *s, int y, int x)
{
    return (ptrdiff_t)(y + 1) * frame_pitch(s) + (ptrdiff_t)(x + 1) * s->channels;
}

#define MAX_FRAMES 16 /* of one stage in one call */

/* What a causal convolution looks back on: the last two frames of its input. */
struct past {
    float *frame[2]; /* older first */
    int n; /* how many have been seen, at most 2: frame[2 - n ..] are real */
};

/* Zeroes what lies round the picture; the picture itself is written before it is read. */
void frame_clear_border(float *f, const struct frame_size *s);
/* Takes n frames from the arena, borders cleared; counting arenas give NULL. */
void frames_take(float **list, int n, const struct frame_size *s, struct arena *a);
/* The same, all zero: for frames whose channels past the real ones nobody writes. */
void frames_take_zero(float **list, int n, const struct frame_size *s, struct arena *a);
/* An arena's pages in the largest size the system gives: fewer faults, and products that walk 36
 * planes at once miss the page tables less. A hint; call before the memory is touched. */
void arena_huge_pages(const struct arena *a);

/* After the n frames of `list` were consumed: the last two become the past, the old past the
 * list's. */
static inline void past_advance(struct past *p, float **list, int n)
{
    if (n <= 0) return;
    if (n == 1) {
        float *old = p->frame[0];
        p->frame[0] = p->frame[1];
        p->frame[1] = list[0];
        list[0] = old;
    } else {
        for (int i = 0; i < 2; i++) {
            float *old = p->frame[i];
            p->frame[i] = list[n - 2 + i];
            list[n - 2 + i] = old;
        }
    }
    p->n = p->n + n > 2 ? 2 : p->n + n;
}

#endif
