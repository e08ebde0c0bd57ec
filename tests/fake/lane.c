/* Copies beside the work: as late as they may be, and never while earlier work still reads what they
 * overwrite; see fake.h. */
#include "tests/fake/lane.h"

#include <stdlib.h>
#include <string.h>

struct device_mark {
    long passed; /* when; 0: never */
};

struct fake_fetch {
    struct fake_fetch *next;
    void *to; /* real */
    const void *from;
    size_t bytes;
    struct device_mark *done;
};

struct fake_use { /* of memory, the last time */
    struct fake_use *next;
    const char *at; /* real */
    size_t bytes;
    long when;
};

int fake_mark_open(struct device *d, struct device_mark **m, struct err *e)
{
    (void)d;
    *m = calloc(1, sizeof **m);
    return *m ? 0 : err_set(e, ERR_RESOURCE, "no memory for a mark");
}

void fake_mark_close(struct device *d, struct device_mark *m) { (void)d, free(m); }

void fake_used(struct device *d, const void *at, size_t bytes)
{
    struct fake_lane *l = fake_lane_of(d);
    const char *real = fake_real(at);
    struct fake_use *u = l->uses;
    while (u && !(u->at == real && u->bytes == bytes))
        u = u->next;
    for (struct fake_fetch *f = l->first; f; f = f->next)
        if ((char *)f->to < real + bytes && real < (char *)f->to + f->bytes)
            fake_stop("work reads what a copy beside it is writing");
    if (!u) {
        u = calloc(1, sizeof *u);
        if (!u) fake_stop("no memory to note a use");
        *u = (struct fake_use){l->uses, real, bytes, 0};
        l->uses = u;
    }
    u->when = ++l->now;
}

static int do_pass(struct device *d, void *args, struct err *e)
{
    struct device_mark **m = args;
    struct fake_lane *l = fake_lane_of(d);
    (void)e;
    (*m)->passed = ++l->now;
    return 0;
}

int fake_pass(struct device *d, struct device_mark *m, struct err *e)
{
    return fake_do(d, do_pass, &m, sizeof m, e);
}

struct fetch {
    void *to;
    const void *from;
    size_t bytes;
    struct device_mark *after, *done;
};

static int do_fetch(struct device *d, void *args, struct err *e)
{
    struct fetch *a = args;
    struct fake_lane *l = fake_lane_of(d);
    struct fake_fetch *f = calloc(1, sizeof *f), **last = &l->first;
    (void)e;
    if (!f) fake_stop("no memory to note a copy");
    if (!a->after->passed) fake_stop("a copy waits for a mark that was never passed");
    for (const struct fake_use *u = l->uses; u; u = u->next)
        if (u->when > a->after->passed && u->at < (char *)a->to + a->bytes &&
            (const char *)a->to < u->at + u->bytes)
            fake_stop("a copy may overwrite what earlier work still reads");
    *f = (struct fake_fetch){NULL, a->to, a->from, a->bytes, a->done};
    memset(a->to, 0xcd, a->bytes);
    while (*last)
        last = &(*last)->next;
    *last = f;
    l->fetches++;
    return 0;
}

int fake_fetch(struct device *d, void *to, const void *from, size_t bytes,
               struct device_mark *after, struct device_mark *done, struct err *e)
{
    struct fetch a = {fake_real(to), from, bytes, after, done};
    if ((uintptr_t)from & FAKE_BIT) fake_stop("a copy up begins on the device");
    if (device_is_recording(d) && !fake_is_pinned(d, from, bytes))
        fake_stop("a copy of memory that is not pinned is recorded");
    return fake_do(d, do_fetch, &a, sizeof a, e);
}

static void do_oldest(struct fake_lane *l)
{
    struct fake_fetch *f = l->first;
    memcpy(f->to, f->from, f->bytes);
    l->first = f->next;
    free(f);
}

static int do_join(struct device *d, void *args, struct err *e)
{
    struct device_mark **m = args;
    struct fake_lane *l = fake_lane_of(d);
    const struct fake_fetch *last = NULL;
    (void)e;
    for (const struct fake_fetch *f = l->first; f; f = f->next)
        if (f->done == *m) last = f;
    while (last) { /* the lane keeps its order */
        bool end = l->first == last;
        do_oldest(l);
        if (end) break;
    }
    return 0;
}

int fake_join(struct device *d, struct device_mark *done, struct err *e)
{
    return fake_do(d, do_join, &done, sizeof done, e);
}

void fake_lane_wait(struct fake_lane *l)
{
    while (l->first)
        do_oldest(l);
}

void fake_lane_cut(struct fake_lane *l)
{
    if (l->first) fake_stop("a copy beside the work was not joined within its recorded step");
}

void fake_lane_close(struct fake_lane *l)
{
    fake_lane_wait(l);
    for (struct fake_use *u; (u = l->uses) != NULL; free(u))
        l->uses = u->next;
}
