/* Arenas; see arena.h. */
#include "model/base/arena.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>

#define ALIGN 256 /* cuBLASLt's plans are made for that; cache lines and vector loads want 64 */

int arena_open(struct arena *a, size_t bytes, struct err *e)
{
    *a = (struct arena){0};
    size_t size = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    if (size < bytes) return err_set(e, ERR_RESOURCE, "no memory for %zu bytes of scratch", bytes);
    a->base = aligned_alloc(ALIGN, size ? size : ALIGN);
    if (!a->base)
        return err_set(e, ERR_RESOURCE, "no memory for %.1f MiB of scratch; try a smaller size",
                       (double)bytes / 1048576);
    a->size = size;
    return 0;
}

int arena_open_on(struct arena *a, struct device *d, size_t bytes, struct err *e)
{
    void *base;
    if (device_place(d) == PLACE_HOST) return arena_open(a, bytes, e);
    *a = (struct arena){0};
    if (bytes == SIZE_MAX) /* what counting makes of an impossible size */
        return err_set(e, ERR_RESOURCE, "%s: no memory for a size past all bounds", device_name(d));
    if (device_alloc(d, &base, bytes, e) < 0) return -1;
    a->base = base;
    a->size = bytes; /* what counting made, whole pieces */
    a->device = d;
    return 0;
}

void arena_close(struct arena *a)
{
    if (a->device)
        device_free(a->device, a->base); /* NULL: counting */
    else
        free(a->base);
    *a = (struct arena){0};
}

void *arena_take(struct arena *a, size_t bytes)
{
    if (bytes > SIZE_MAX - ALIGN || (bytes + ALIGN - 1) / ALIGN * ALIGN > SIZE_MAX - a->used) {
        assert(!a->base);
        a->used = SIZE_MAX; /* counting: an impossible size, which arena_open() will refuse */
        return NULL;
    }
    size_t at = a->used;
    a->used += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    if (!a->base || !bytes) return NULL;
    if (a->used > a->size) abort();
    return a->base + at;
}
