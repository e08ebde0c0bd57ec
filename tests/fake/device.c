/* Memory, copies and recorded steps of the fake; see fake.h. */
#include "tests/fake/fake.h"

#include "model/base/threads.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct call { /* written down */
    struct call *next;
    int (*run)(struct device *d, void *args, struct err *e);
    void *args;
};

struct fake {
    struct call *first, **last; /* while recording */
    long replays;
};

static int inside; /* operations of the fake under way */

static _Noreturn void stop(const char *what)
{
    fprintf(stderr, "fake device: %s\n", what);
    abort();
}

static void *tagged(void *at) { return (void *)((uintptr_t)at | FAKE_BIT); }

void *fake_real(const void *at)
{
    if (!at) return NULL;
    if (!((uintptr_t)at & FAKE_BIT)) stop("it was given an address of the host");
    return (void *)((uintptr_t)at & ~FAKE_BIT);
}

static void *host(const void *at)
{
    if ((uintptr_t)at & FAKE_BIT) stop("one of its addresses was taken for the host's");
    return (void *)(uintptr_t)at;
}

static int take(struct device *d, void **at, size_t bytes, struct err *e)
{
    size_t size = (bytes + 255) / 256 * 256;
    void *real = size < bytes ? NULL : aligned_alloc(256, size);
    if (!real) return err_set(e, ERR_RESOURCE, "%s: no memory for %zu bytes", d->name, bytes);
    memset(real, 0xab, size); /* whoever reads before writing sees it */
    *at = tagged(real);
    return 0;
}

static void release(struct device *d, void *at) { (void)d, free(fake_real(at)); }

static int take_pinned(struct device *d, void **at, size_t bytes, struct err *e)
{
    *at = malloc(bytes);
    return *at ? 0 : err_set(e, ERR_RESOURCE, "%s: no memory for %zu bytes", d->name, bytes);
}

static void release_pinned(struct device *d, void *at) { (void)d, free(at); }

struct copy {
    void *to;
    const void *from;
    size_t bytes;
};

static int do_copy(struct device *d, void *args, struct err *e)
{
    struct copy *c = args;
    (void)d, (void)e;
    memcpy(c->to, c->from, c->bytes);
    return 0;
}

static int copy(struct device *d, void *to, const void *from, size_t bytes, enum device_way way,
                struct err *e)
{
    bool up = way == DEVICE_UP || way == DEVICE_UP_PINNED;
    bool down = way == DEVICE_DOWN || way == DEVICE_DOWN_PINNED;
    struct copy c = {down ? host(to) : fake_real(to), up ? host(from) : fake_real(from), bytes};
    return fake_do(d, do_copy, &c, sizeof c, e);
}

static int do_zero(struct device *d, void *args, struct err *e)
{
    struct copy *c = args;
    (void)d, (void)e;
    memset(c->to, 0, c->bytes);
    return 0;
}

static int zero(struct device *d, void *at, size_t bytes, struct err *e)
{
    struct copy c = {fake_real(at), NULL, bytes};
    return fake_do(d, do_zero, &c, sizeof c, e);
}

static int wait(struct device *d, struct err *e) { return (void)d, (void)e, 0; }

static int mark_open(struct device *d, struct device_mark **m, struct err *e)
{
    void *at = malloc(1);
    (void)d;
    if (!at) return err_set(e, ERR_RESOURCE, "no memory for a mark");
    *m = at;
    return 0;
}

static int mark_set(struct device *d, struct device_mark *m, struct err *e)
{
    return (void)d, (void)m, (void)e, 0;
}

static void mark_close(struct device *d, struct device_mark *m) { (void)d, free((void *)m); }

/* --- steps --- */

static void free_calls(struct call *c)
{
    for (struct call *next; c; c = next) {
        next = c->next;
        free(c->args);
        free(c);
    }
}

int fake_do(struct device *d, int (*run)(struct device *d, void *args, struct err *e), void *args,
            size_t bytes, struct err *e)
{
    struct fake *f = d->own;
    if (!f->last) {
        inside++;
        int rc = run(d, args, e);
        inside--;
        return rc;
    }
    struct call *c = calloc(1, sizeof *c);
    void *kept = malloc(bytes);
    if (!c || !kept) stop("no memory to record a call");
    memcpy(kept, args, bytes);
    *c = (struct call){NULL, run, kept};
    *f->last = c;
    f->last = &c->next;
    return 0;
}

static int record(struct device *d, struct err *e)
{
    struct fake *f = d->own;
    (void)e;
    f->first = NULL;
    f->last = &f->first;
    return 0;
}

static int recorded(struct device *d, void **steps, struct err *e)
{
    struct fake *f = d->own;
    (void)e;
    f->last = NULL;
    *steps = f->first;
    f->first = NULL;
    return 0;
}

static int replay(struct device *d, void *steps, struct err *e)
{
    struct fake *f = d->own;
    f->replays++;
    for (struct call *c = steps; c; c = c->next) {
        inside++;
        int rc = c->run(d, c->args, e);
        inside--;
        if (rc < 0) return -1;
    }
    return 0;
}

static void steps_close(struct device *d, void *steps) { (void)d, free_calls(steps); }

long fake_replays(const struct device *d) { return ((const struct fake *)d->own)->replays; }

/* --- who computes --- */

static void watched(void)
{
    if (!inside) stop("the host's threads compute");
}

void fake_guard(bool on) { threads_watch(on ? watched : NULL); }

static void close_fake(struct device *d)
{
    struct fake *f = d->own;
    fake_guard(false);
    free_calls(f->first);
    free(f);
}

static void about(const struct device *d, struct device_info *info)
{
    *info = (struct device_info){.kind = DEVICE_FAKE, .memory = (size_t)1 << 30};
    info->free = info->memory - d->held;
    snprintf(info->name, sizeof info->name, "%.15s", d->name);
    snprintf(info->what, sizeof info->what, "a device of tests");
}

static const struct device_table table = {
    .kind = DEVICE_FAKE,
    .place = PLACE_DEVICE,
    .alloc = take,
    .release = release,
    .alloc_pinned = take_pinned,
    .release_pinned = release_pinned,
    .copy = copy,
    .zero = zero,
    .wait = wait,
    .mark_open = mark_open,
    .mark_set = mark_set,
    .mark_wait = mark_set,
    .mark_close = mark_close,
    .record = record,
    .recorded = recorded,
    .replay = replay,
    .steps_close = steps_close,
    .about = about,
    .close = close_fake,
};

int fake_open(struct device **d, bool together, struct err *e)
{
    struct fake *f = calloc(1, sizeof *f);
    if (!f) return err_set(e, ERR_RESOURCE, "no memory for a fake device");
    if (device_make(d, &table, f, "fake:0", e) < 0) {
        free(f);
        return -1;
    }
    (*d)->ops = together ? &fake_ops_together : &fake_ops;
    (*d)->attn = &fake_attention;
    return 0;
}
