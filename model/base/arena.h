/* One block of memory a model, carved once before the first step, of the host or of a device.
 *
 * An arena without base only counts: run the same carve code twice, first to measure, then to
 * place, and the two cannot disagree. Every piece is 256-byte aligned. Nothing is given back but the
 * whole. Owner: caller of arena_open(). Threads: carve from one thread. Errors: ERR_RESOURCE. */
#ifndef DITGEN_BASE_ARENA_H
#define DITGEN_BASE_ARENA_H

#include "model/base/device.h"

struct arena {
    char *base; /* NULL: counting */
    size_t size, used;
    struct device *device; /* whose memory; NULL: the host's */
};

/* bytes == used of a counting arena. Memory is not zeroed. */
int arena_open(struct arena *a, size_t bytes, struct err *e);
/* In d's memory; d NULL, or the host: as arena_open(). */
int arena_open_on(struct arena *a, struct device *d, size_t bytes, struct err *e);
void arena_close(struct arena *a);
/* NULL while counting (or when bytes is 0). Overrunning a placed arena is a bug and aborts. */
void *arena_take(struct arena *a, size_t bytes);

#endif
