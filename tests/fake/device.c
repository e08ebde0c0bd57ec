/* Memory, copies and recorded steps of the fake; see fake.h. */
#include "tests/fake/lane.h"

#include "model/base/threads.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct call { /* written down */
    struct call *next;
    int (*run)(struct device *d, void *args, struct err *e);
    void *args;
};

struct kept {
    struct kept *next;
    void *at;
    size_t bytes; /* of pinned memory */
    void (*drop)(void *at); /* NULL: of pinned memory */
};

struct fake {
    struct call *first, **last; /* while recording */
    long replays, recordings;
    size_t memory, beside, others, pinned_most, pinned;
    struct kept *kept, *pins;
    struct fake_lane lane;
};

static int inside; /* operations of the fake under way */
static const struct device *guarded; /* the one that was opened last */

_Noreturn void fake_stop(const char *what)
{
    fprintf(stderr, "fake device: %s\n", what);
    abort();
}

static void *tagged(void *at) { return (void *)((uintptr_t)at | FAKE_BIT); }

void *fake_real(const void *at)
{
    if (!at) return NULL;
    if (!((uintptr_t)at & FAKE_BIT)) fake_stop("it was given an address of the host");
    return (void *)((uintptr_t)at & ~FAKE_BIT);
}

static void *host(const void *at)
{
    if ((uintptr_t)at & FAKE_BIT) fake_stop("one of its addresses was taken for the host's");
    return (void *)(uintptr_t)at;
}

/* What is gone beside device_alloc(): a sixteenth of it comes with the first recording. */
static size_t so_far(const struct fake *f)
{
    return f->recordings ? f->beside : f->beside / 16 * 15;
}

static size_t beside(const struct device *d) { return ((const struct fake *)d->own)->beside; }

static size_t taken(const struct device *d)
{
    const struct fake *f = d->own;
    return d->held + so_far(f) + f->others;
}

static size_t left(const struct device *d)
{
    size_t gone = taken(d), all = ((const struct fake *)d->own)->memory;
    return all > gone ? all - gone : 0;
}

static int take(struct device *d, void **at, size_t bytes, struct err *e)
{
    size_t size = (bytes + 255) / 256 * 256;
    void *real = size < bytes || bytes > left(d) ? NULL : aligned_alloc(256, size);
    if (!real) return err_set(e, ERR_RESOURCE, "%s: no memory for %zu bytes", d->name, bytes);
    memset(real, 0xab, size); /* whoever reads before writing sees it */
    *at = tagged(real);
    return 0;
}

static void release(struct device *d, void *at) { (void)d, free(fake_real(at)); }

static void note(struct kept **list, void *at, size_t bytes, void (*drop)(void *at))
{
    struct kept *k = malloc(sizeof *k);
    if (!k) fake_stop("no memory to note what it keeps");
    *k = (struct kept){*list, at, bytes, drop};
    *list = k;
}

void fake_keep(struct device *d, void *what, void (*drop)(void *what))
{
    note(&((struct fake *)d->own)->kept, what, 0, drop);
}

static int take_pinned(struct device *d, void **at, size_t bytes, struct err *e)
{
    struct fake *f = d->own;
    *at = f->pinned_most && bytes > f->pinned_most - f->pinned ? NULL : malloc(bytes);
    if (!*at)
        return err_set(e, ERR_RESOURCE, "%s: no pinned memory of the host for %zu bytes", d->name,
                       bytes);
    note(&f->pins, *at, bytes, NULL);
    f->pinned += bytes;
    return 0;
}

static void release_pinned(struct device *d, void *at)
{
    struct fake *f = d->own;
    struct kept **k = &f->pins;
    while (*k && (*k)->at != at)
        k = &(*k)->next;
    struct kept *gone = *k;
    if (!gone) fake_stop("memory that is not pinned is given back as such");
    *k = gone->next;
    f->pinned -= gone->bytes;
    free(gone->at);
    free(gone);
}

bool fake_is_pinned(const struct device *d, const void *at, size_t bytes)
{
    for (const struct kept *k = ((const struct fake *)d->own)->pins; k; k = k->next)
        if ((const char *)k->at <= (const char *)at &&
            (const char *)at + bytes <= (const char *)k->at + k->bytes)
            return true;
    return false;
}

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
    if ((way == DEVICE_UP_PINNED && !fake_is_pinned(d, from, bytes)) ||
        (way == DEVICE_DOWN_PINNED && !fake_is_pinned(d, to, bytes)))
        fake_stop("memory that is not pinned is said to be");
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

static int wait(struct device *d, struct err *e)
{
    (void)e;
    fake_lane_wait(&((struct fake *)d->own)->lane);
    return 0;
}

static int mark_set(struct device *d, struct device_mark *m, struct err *e)
{
    return (void)d, (void)m, (void)e, 0;
}

/* Of another thread: touches nothing else. */
static int give(struct device *d, void *to, const void *from, size_t bytes, struct err *e)
{
    (void)d, (void)e;
    memcpy(fake_real(to), host(from), bytes);
    return 0;
}

static int sent(struct device *d, struct err *e) { return (void)d, (void)e, 0; }

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
    if (!c || !kept) fake_stop("no memory to record a call");
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
    f->recordings++;
    *steps = f->first;
    f->first = NULL;
    return 0;
}

static int replay(struct device *d, void *steps, struct err *e)
{
    struct fake *f = d->own;
    f->replays++;
    fake_lane_cut(&f->lane);
    for (struct call *c = steps; c; c = c->next) {
        inside++;
        int rc = c->run(d, c->args, e);
        inside--;
        if (rc < 0) return -1;
    }
    fake_lane_cut(&f->lane);
    return 0;
}

static void steps_close(struct device *d, void *steps) { (void)d, free_calls(steps); }

long fake_replays(const struct device *d) { return ((const struct fake *)d->own)->replays; }

struct fake_lane *fake_lane_of(const struct device *d) { return &((struct fake *)d->own)->lane; }

/* --- what it has --- */

void fake_has(struct device *d, size_t memory, size_t beside_bytes, size_t pinned)
{
    struct fake *f = d->own;
    f->memory = memory ? memory : (size_t)1 << 30;
    f->beside = beside_bytes;
    f->pinned_most = pinned;
}

void fake_others(struct device *d, size_t bytes) { ((struct fake *)d->own)->others = bytes; }
size_t fake_pinned(const struct device *d) { return ((const struct fake *)d->own)->pinned; }
bool fake_under_way(const struct device *d) { return fake_lane_of(d)->first != NULL; }
long fake_fetches(const struct device *d) { return ((const struct fake *)d->own)->lane.fetches; }

/* --- who computes --- */

static void watched(void)
{
    if (!inside && !(guarded && guarded->hosts_turn)) fake_stop("the host's threads compute");
}

void fake_guard(bool on) { threads_watch(on ? watched : NULL); }

static void close_fake(struct device *d)
{
    struct fake *f = d->own;
    if (guarded == d) guarded = NULL;
    fake_guard(false);
    free_calls(f->first);
    fake_lane_close(&f->lane);
    for (struct kept *k; (k = f->kept) != NULL; free(k)) {
        f->kept = k->next;
        k->drop(k->at);
    }
    if (f->pins) fake_stop("pinned memory was not given back");
    free(f);
}

static void about(const struct device *d, struct device_info *info)
{
    const struct fake *f = d->own;
    *info = (struct device_info){.kind = DEVICE_FAKE, .memory = f->memory, .free = left(d)};
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
    .mark_open = fake_mark_open,
    .mark_set = mark_set,
    .mark_wait = mark_set,
    .mark_close = fake_mark_close,
    .pass = fake_pass,
    .fetch = fake_fetch,
    .join = fake_join,
    .send = give,
    .sent = sent,
    .beside = beside,
    .taken = taken,
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
    fake_has(*d, 0, 0, 0);
    (*d)->ops = together ? &fake_ops_together : &fake_ops;
    (*d)->attn = &fake_attention;
    guarded = *d;
    return 0;
}
