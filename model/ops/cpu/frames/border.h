/* Pictures of the VAE on the host: fp32, channels last and padded to CONV_LANES, with a border of zeros that
 * makes every window of a convolution legal: one pixel above and left, and below and right as many
 * as round the picture to whole 4x4 tiles plus one. Nothing writes the border after
 * frame_clear_border(). */
#ifndef DITGEN_OPS_CPU_FRAMES_BORDER_H
#define DITGEN_OPS_CPU_FRAMES_BORDER_H

#include "model/base/arena.h"
#include "model/ops/cpu/frames/kernels/kernels.h"
#include "model/ops/frame.h"

#include <string.h>

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

/* Zeroes what lies round the picture; the picture itself is written before it is read. */
void frame_clear_border(float *f, const struct frame_size *s);
/* An arena's pages in the largest size the system gives: fewer faults, and products that walk 36
 * planes at once miss the page tables less. A hint; call before the memory is touched. */
void arena_huge_pages(const struct arena *a);

#endif
