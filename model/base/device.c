/* Devices: memory counted and limited, failures remembered, steps counted. What each kind can do by
 * itself is a table (device_table.h); the host's is device_cpu.c. Names: device_names.c. */
#include "model/base/device_table.h"

#include "model/base/cpu.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- opening --- */

int device_make(struct device **out, const struct device_table *t, void *own, const char *name,
                struct err *e)
{
    *out = NULL;
    struct device *d = calloc(1, sizeof *d);
    if (!d) return err_set(e, ERR_RESOURCE, "no memory for device %s", name);
    d->table = t;
    d->own = own;
    snprintf(d->name, sizeof d->name, "%s", name);
    *out = d;
    return 0;
}

void device_close(struct device *d)
{
    if (!d) return;
    if (d->kept) d->let_go(d, d->kept);
    for (struct device_block *b; (b = d->blocks) != NULL; free(b)) {
        d->blocks = b->next;
        d->table->release(d, b->at);
    }
    d->table->close(d);
    free(d);
}

const char *device_kind_name(enum device_kind k)
{
    static const char *const names[] = {"cpu", "cuda", "fake"};
    return names[k];
}

enum device_kind device_kind(const struct device *d) { return d ? d->table->kind : DEVICE_CPU; }
enum place device_place(const struct device *d) { return d ? d->table->place : PLACE_HOST; }
const char *device_name(const struct device *d) { return d ? d->name : "cpu"; }
const struct err *device_lost(const struct device *d) { return d->lost.code ? &d->lost : NULL; }

static void about_cpu(struct device_info *info)
{
    struct cpu c;
    cpu_detect(&c);
    *info = (struct device_info){.kind = DEVICE_CPU};
    snprintf(info->name, sizeof info->name, "cpu");
    snprintf(info->what, sizeof info->what, "%s", c.name);
}

/* What the limit leaves to device_alloc(). */
static size_t within_limit(const struct device *d)
{
    size_t used = d->held + device_beside(d);
    return !d->limit ? SIZE_MAX : d->limit > used ? d->limit - used : 0;
}

void device_about(const struct device *d, struct device_info *info)
{
    if (!d || !d->table->about) {
        about_cpu(info);
        return;
    }
    d->table->about(d, info);
    size_t within = within_limit(d);
    if (info->free > within) info->free = within;
}

/* --- failures --- */

/* Before a call: -1 when the device is lost. */
static int ready(const struct device *d, struct err *e)
{
    if (!d->lost.code) return 0;
    *e = d->lost;
    return -1;
}

/* After a call: a device that failed for good says the same from now on. */
static int noted(struct device *d, int rc, const struct err *e)
{
    if (rc < 0 && e->code == ERR_DEVICE && !d->lost.code) d->lost = *e;
    return rc;
}

static int not_recording(const struct device *d, const char *what, struct err *e)
{
    return d->recording ? err_set(e, ERR_BUG, "%s while a step is being recorded", what) : 0;
}

/* --- memory --- */

static double mib(size_t bytes) { return (double)bytes / 1048576; }

int device_alloc(struct device *d, void **at, size_t bytes, struct err *e)
{
    *at = NULL;
    if (ready(d, e) < 0 || not_recording(d, "memory is taken", e) < 0) return -1;
    if (!bytes) bytes = 1;
    if (d->fail_alloc && --d->fail_alloc == 0)
        return err_set(e, ERR_RESOURCE,
                       "%s: no memory for %.1f MiB; try a smaller size, or --device cpu", d->name,
                       mib(bytes));
    if (bytes > within_limit(d))
        return err_set(e, ERR_RESOURCE,
                       "%s: %.1f MiB beside %.1f MiB are more than the limit of %.1f MiB; try a "
                       "smaller size, a higher --max-vram, or --device cpu",
                       d->name, mib(bytes), mib(d->held + device_beside(d)), mib(d->limit));
    struct device_block *b = malloc(sizeof *b);
    if (!b) return err_set(e, ERR_RESOURCE, "no memory to note what device %s holds", d->name);
    if (noted(d, d->table->alloc(d, at, bytes, e), e) < 0) {
        free(b);
        return -1;
    }
    *b = (struct device_block){d->blocks, *at, bytes};
    d->blocks = b;
    d->held += bytes;
    if (d->held > d->peak) d->peak = d->held;
    device_taken(d);
    return 0;
}

void device_free(struct device *d, void *at)
{
    if (!at) return;
    struct device_block **b = &d->blocks;
    while (*b && (*b)->at != at)
        b = &(*b)->next;
    assert(*b); /* else it was not taken here, or is freed twice */
    struct device_block *gone = *b;
    *b = gone->next;
    d->held -= gone->bytes;
    free(gone);
    d->table->release(d, at);
}

int device_alloc_pinned(struct device *d, void **at, size_t bytes, struct err *e)
{
    *at = NULL;
    if (ready(d, e) < 0 || not_recording(d, "memory is taken", e) < 0) return -1;
    if (d->fail_alloc && --d->fail_alloc == 0)
        return err_set(e, ERR_RESOURCE, "%s: no pinned memory for %.1f MiB", d->name, mib(bytes));
    return noted(d, d->table->alloc_pinned(d, at, bytes ? bytes : 1, e), e);
}

void device_free_pinned(struct device *d, void *at)
{
    if (at) d->table->release_pinned(d, at);
}

size_t device_held(const struct device *d) { return d->held; }
size_t device_peak(const struct device *d) { return d->peak; }

void device_peak_reset(struct device *d)
{
    d->peak = d->held;
    d->taken_peak = 0;
    device_taken(d);
}

size_t device_beside(const struct device *d)
{
    return d && d->table->beside ? d->table->beside(d) : 0;
}

size_t device_taken(struct device *d)
{
    size_t now = d && d->table->taken && !d->lost.code ? d->table->taken(d) : 0;
    if (d && now > d->taken_peak) d->taken_peak = now;
    return now;
}

size_t device_taken_peak(const struct device *d) { return d->taken_peak; }

void device_limit(struct device *d, size_t bytes) { d->limit = bytes; }

/* What others leave to device_alloc(). */
static size_t within_card(const struct device *d)
{
    struct device_info info = {0};
    if (!d->table->about) return SIZE_MAX;
    d->table->about(d, &info);
    if (!info.memory) return SIZE_MAX;
    size_t taken = d->table->taken ? d->table->taken(d) : 0, beside = device_beside(d);
    size_t so_far = taken > d->held ? taken - d->held : beside; /* not known: all of it is there */
    size_t later = beside > so_far ? beside - so_far : 0;
    return info.free > later ? info.free - later : 0;
}

size_t device_room(const struct device *d)
{
    if (!d) return SIZE_MAX;
    size_t card = within_card(d), limit = within_limit(d);
    return card < limit ? card : limit;
}

size_t device_ceiling(const struct device *d)
{
    size_t card = d ? within_card(d) : SIZE_MAX;
    if (card < SIZE_MAX) card += d->held + device_beside(d);
    return d && d->limit && d->limit < card ? d->limit : card;
}

/* --- copies --- */

static int move(struct device *d, void *to, const void *from, size_t bytes, enum device_way way,
                struct err *e)
{
    if (ready(d, e) < 0) return -1;
    if (!bytes) return 0;
    return noted(d, d->table->copy(d, to, from, bytes, way, e), e);
}

int device_upload(struct device *d, void *to, const void *from, size_t bytes, struct err *e)
{
    if (not_recording(d, "device_upload", e) < 0) return -1;
    return move(d, to, from, bytes, DEVICE_UP, e);
}

int device_upload_pinned(struct device *d, void *to, const void *from, size_t bytes, struct err *e)
{
    return move(d, to, from, bytes, DEVICE_UP_PINNED, e);
}

int device_download(struct device *d, void *to, const void *from, size_t bytes, struct err *e)
{
    if (not_recording(d, "device_download", e) < 0) return -1;
    return move(d, to, from, bytes, DEVICE_DOWN, e);
}

int device_download_pinned(struct device *d, void *to, const void *from, size_t bytes,
                           struct err *e)
{
    return move(d, to, from, bytes, DEVICE_DOWN_PINNED, e);
}

int device_copy(struct device *d, void *to, const void *from, size_t bytes, struct err *e)
{
    return move(d, to, from, bytes, DEVICE_ACROSS, e);
}

int device_zero(struct device *d, void *at, size_t bytes, struct err *e)
{
    if (ready(d, e) < 0) return -1;
    return bytes ? noted(d, d->table->zero(d, at, bytes, e), e) : 0;
}

int device_wait(struct device *d, struct err *e)
{
    if (ready(d, e) < 0 || not_recording(d, "device_wait", e) < 0) return -1;
    return noted(d, d->table->wait(d, e), e);
}

/* --- marks --- */

int device_mark_open(struct device *d, struct device_mark **m, struct err *e)
{
    *m = NULL;
    if (ready(d, e) < 0) return -1;
    return noted(d, d->table->mark_open(d, m, e), e);
}

int device_mark_set(struct device *d, struct device_mark *m, struct err *e)
{
    if (ready(d, e) < 0 || not_recording(d, "device_mark_set", e) < 0) return -1;
    return noted(d, d->table->mark_set(d, m, e), e);
}

int device_mark_wait(struct device *d, struct device_mark *m, struct err *e)
{
    if (ready(d, e) < 0 || not_recording(d, "device_mark_wait", e) < 0) return -1;
    return noted(d, d->table->mark_wait(d, m, e), e);
}

void device_mark_close(struct device *d, struct device_mark *m)
{
    if (m) d->table->mark_close(d, m);
}

/* --- copies beside the line of work --- */

int device_pass(struct device *d, struct device_mark *m, struct err *e)
{
    if (ready(d, e) < 0) return -1;
    return noted(d, d->table->pass(d, m, e), e);
}

int device_fetch(struct device *d, void *to, const void *from, size_t bytes,
                 struct device_mark *after, struct device_mark *done, struct err *e)
{
    if (ready(d, e) < 0) return -1;
    return noted(d, d->table->fetch(d, to, from, bytes, after, done, e), e);
}

int device_join(struct device *d, struct device_mark *done, struct err *e)
{
    if (ready(d, e) < 0) return -1;
    return noted(d, d->table->join(d, done, e), e);
}

/* Of another thread, which neither reads nor writes what this file keeps: a device that is lost says so
 * by the call, and the next of the other thread's notes it. */
int device_send(struct device *d, void *to, const void *from, size_t bytes, struct err *e)
{
    return d->table->send(d, to, from, bytes, e);
}

int device_sent(struct device *d, struct err *e) { return d->table->sent(d, e); }

/* --- recorded steps --- */

bool device_can_record(const struct device *d) { return d && d->table->record; }
bool device_is_recording(const struct device *d) { return d && d->recording; }

int device_record(struct device *d, struct err *e)
{
    if (ready(d, e) < 0 || not_recording(d, "device_record", e) < 0) return -1;
    if (!device_can_record(d)) return err_set(e, ERR_BUG, "device %s records no steps", d->name);
    struct device_steps *s = calloc(1, sizeof *s);
    if (!s) return err_set(e, ERR_RESOURCE, "no memory to record a step");
    if (noted(d, d->table->record(d, e), e) < 0) {
        free(s);
        return -1;
    }
    d->recording = s;
    return 0;
}

int device_recorded(struct device *d, struct device_steps **steps, struct err *e)
{
    struct device_steps *s = d->recording;
    struct err ignored = {0};
    bool failed = e->code != ERR_NONE;
    *steps = NULL;
    if (!s) return err_set(e, ERR_BUG, "device_recorded without device_record");
    d->recording = NULL;
    int rc = d->table->recorded(d, &s->own, failed ? &ignored : e);
    if (!failed) noted(d, rc, e);
    if (failed || rc < 0) {
        if (rc == 0) d->table->steps_close(d, s->own);
        free(s);
        return -1;
    }
    *steps = s;
    device_taken(d);
    return 0;
}

int device_replay(struct device *d, struct device_steps *s, struct err *e)
{
    if (ready(d, e) < 0 || not_recording(d, "device_replay", e) < 0) return -1;
    if (noted(d, d->table->replay(d, s->own, e), e) < 0) return -1;
    for (int i = 0; i < DEVICE_OPS; i++)
        d->counts[i] += s->counts[i];
    return 0;
}

void device_steps_close(struct device *d, struct device_steps *s)
{
    if (!s) return;
    d->table->steps_close(d, s->own);
    free(s);
}

/* --- counts --- */

void device_did(struct device *d, int op)
{
    if (!d) return;
    assert(op >= 0 && op < DEVICE_OPS);
    if (d->recording)
        d->recording->counts[op]++;
    else
        d->counts[op]++;
}

void device_counts(const struct device *d, long counts[DEVICE_OPS])
{
    memcpy(counts, d->counts, sizeof d->counts);
}

void device_counts_reset(struct device *d) { memset(d->counts, 0, sizeof d->counts); }

void device_hosts_turn(struct device *d, bool on)
{
    if (d) d->hosts_turn = on;
}

void device_note(struct device *d, int label)
{
    if (d && !d->note) d->note = label;
}

int device_noted(struct device *d)
{
    int label = d ? d->note : 0;
    if (d) d->note = 0;
    return label;
}
