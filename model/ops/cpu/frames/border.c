/* Borders of the host's frames; see border.h. */
#include "model/ops/cpu/frames/border.h"

#include <stdint.h>
#include <sys/mman.h>

void frame_clear_border(float *f, const struct frame_size *s)
{
    size_t pitch = (size_t)frame_pitch(s), total = frame_floats(s);
    size_t inner = (size_t)s->w * (size_t)s->channels, head = pitch + (size_t)s->channels;
    memset(f, 0, head * sizeof *f); /* the row above, and left of row 0 */
    for (int y = 0; y + 1 < s->h; y++) /* right of row y, and left of the next */
        memset(f + head + (size_t)y * pitch + inner, 0, (pitch - inner) * sizeof *f);
    size_t end = head + (size_t)(s->h - 1) * pitch + inner;
    memset(f + end, 0, (total - end) * sizeof *f);
}

void arena_huge_pages(const struct arena *a)
{
#ifdef MADV_HUGEPAGE
    uintptr_t page = 2u << 20, from = ((uintptr_t)a->base + page - 1) / page * page;
    uintptr_t to = ((uintptr_t)a->base + a->size) / page * page;
    if (a->base && to > from) madvise((void *)from, to - from, MADV_HUGEPAGE);
#else
    (void)a;
#endif
}
