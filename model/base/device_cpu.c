/* The host as a device: plain memory, everything done when the call returns. */
#include "model/base/device_table.h"

#include <stdlib.h>
#include <string.h>

#define ALIGN 64 /* a cache line, and the widest vector load */

static int take(struct device *d, void **at, size_t bytes, struct err *e)
{
    size_t size = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    (void)d;
    *at = size < bytes ? NULL : aligned_alloc(ALIGN, size);
    return *at ? 0
               : err_set(e, ERR_RESOURCE, "no memory for %.1f MiB; try a smaller size",
                         (double)bytes / 1048576);
}

static void release(struct device *d, void *at) { (void)d, free(at); }

static int copy(struct device *d, void *to, const void *from, size_t bytes, enum device_way way,
                struct err *e)
{
    (void)d, (void)way, (void)e;
    memcpy(to, from, bytes);
    return 0;
}

static int zero(struct device *d, void *at, size_t bytes, struct err *e)
{
    (void)d, (void)e;
    memset(at, 0, bytes);
    return 0;
}

static int wait(struct device *d, struct err *e) { return (void)d, (void)e, 0; }

struct device_mark { /* nothing is ever under way */
    char unused;
};

static int mark_open(struct device *d, struct device_mark **m, struct err *e)
{
    (void)d;
    *m = calloc(1, sizeof **m);
    return *m ? 0 : err_set(e, ERR_RESOURCE, "no memory for a mark");
}

static int mark_set(struct device *d, struct device_mark *m, struct err *e)
{
    return (void)d, (void)m, (void)e, 0;
}

static void mark_close(struct device *d, struct device_mark *m) { (void)d, free(m); }

static int fetch(struct device *d, void *to, const void *from, size_t bytes,
                 struct device_mark *after, struct device_mark *done, struct err *e)
{
    (void)d, (void)after, (void)done, (void)e;
    memcpy(to, from, bytes);
    return 0;
}

static int give(struct device *d, void *to, const void *from, size_t bytes, struct err *e)
{
    (void)d, (void)e;
    memcpy(to, from, bytes);
    return 0;
}

static void close_cpu(struct device *d) { (void)d; }

const struct device_table device_table_cpu = {
    .kind = DEVICE_CPU,
    .place = PLACE_HOST,
    .alloc = take,
    .release = release,
    .alloc_pinned = take,
    .release_pinned = release,
    .copy = copy,
    .zero = zero,
    .wait = wait,
    .mark_open = mark_open,
    .mark_set = mark_set,
    .mark_wait = mark_set,
    .mark_close = mark_close,
    .pass = mark_set,
    .fetch = fetch,
    .join = mark_set,
    .send = give,
    .sent = wait,
    .close = close_cpu,
};
