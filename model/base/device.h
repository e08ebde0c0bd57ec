/* Where a model computes and in whose memory its numbers lie: the host's processor, or an NVIDIA GPU.
 *
 * A device has one line of work (a CUDA stream; on the host: the caller). Copies, the operations of
 * model/ops and recorded steps are put on it in the order of the calls and return at once; only
 * device_wait(), device_mark_wait(), device_download() and opening and closing wait. On the host
 * everything is done when it returns, and its memory is plain memory (PLACE_HOST).
 *
 * Owner: device_open → device_close, after everything that was opened on it. Threads: one call at a
 * time. Errors: ERR_USAGE (no such name), ERR_DEVICE (no driver, no card, a card too old, a lost
 * device), ERR_RESOURCE (no memory). A device that was lost stays lost: what fails once for that
 * reason is what every later call says, and closing still works. */
#ifndef DITGEN_BASE_DEVICE_H
#define DITGEN_BASE_DEVICE_H

#include "model/base/err.h"
#include "model/base/tensor.h"

#include <stdbool.h>

enum device_kind {
    DEVICE_CPU,
    DEVICE_CUDA,
    DEVICE_FAKE, /* of tests: host memory that only its own operations can reach */
};

struct device; /* opaque; device_table.h for who makes one */

/* "cpu", "cpu:avx2" (a cap of the process, model/base/cpu.h), "cuda" (the first), "cuda:1", or "auto": the
 * first GPU that can be used, else "cpu". */
int device_open(struct device **d, const char *name, struct err *e);
void device_close(struct device *d); /* takes NULL */
bool device_name_is_known(const char *name); /* by its spelling alone */

/* --- what there is ------------------------------------------------------------------------- */

struct device_info {
    enum device_kind kind;
    char name[16]; /* as device_open() takes it: "cpu", "cuda:0" */
    char what[96]; /* "NVIDIA H200" */
    int arch; /* of a GPU: 90; else 0 */
    size_t memory,
        free; /* bytes of its own memory, and of it what nobody has taken; 0: not known */
    char why_not[160]; /* it is there but cannot be used: why; else empty */
};
/* Of everything that device_open() can name, the processor first; false: no such. */
bool device_at(int i, struct device_info *info);
/* Why there is no GPU, in one sentence: the driver, the card, or the build. Empty when there is one. */
void device_no_gpu(char *why, size_t n);

enum device_kind device_kind(const struct device *d); /* NULL: DEVICE_CPU */
enum place device_place(const struct device *d); /* of its memory */
const char *device_name(const struct device *d); /* "cpu", "cuda:0" */
const char *device_kind_name(enum device_kind k); /* "cpu", "cuda", "fake": what a clip stores */
void device_about(const struct device *d, struct device_info *info); /* free: as of now */

/* --- memory -------------------------------------------------------------------------------- */

/* Of the device, 256-byte aligned (64 on the host), not zeroed. Never inside the denoising loop. */
int device_alloc(struct device *d, void **at, size_t bytes, struct err *e);
/* Waits for work that may use it. Takes NULL. */
void device_free(struct device *d, void *at);
/* Of the host, for copies that do not wait. */
int device_alloc_pinned(struct device *d, void **at, size_t bytes, struct err *e);
void device_free_pinned(struct device *d, void *at);
/* Bytes of device_alloc() held now, and the most so far since device_peak_reset(). */
size_t device_held(const struct device *d);
size_t device_peak(const struct device *d);
void device_peak_reset(struct device *d);
/* Of the card beside what device_alloc() gives: what its use alone takes (context, code of libraries,
 * recorded steps). A forecast, part of it measured when the device was opened; 0 on the host. */
size_t device_beside(const struct device *d);
/* All that is gone of the card's memory since just before this process came to it, others' changes
 * included; 0: not known. The most that this, each device_alloc() and each recording saw since
 * device_peak_reset() is device_taken_peak(). */
size_t device_taken(struct device *d);
size_t device_taken_peak(const struct device *d);
/* No more than so many bytes of the card may be taken, device_beside() counted in; 0: no limit but the
 * card's. ERR_RESOURCE then names it. */
void device_limit(struct device *d, size_t bytes);
/* Bytes that device_alloc() may still give, by what is free and by the limit; SIZE_MAX: not known. */
size_t device_room(const struct device *d);
/* Of the card in all, device_beside() counted in: what this process has and may still have; SIZE_MAX: not
 * known. */
size_t device_ceiling(const struct device *d);

/* --- copies -------------------------------------------------------------------------------- */

/* from: any host memory, which may change as soon as the call returns. Not while recording. */
int device_upload(struct device *d, void *to, const void *from, size_t bytes, struct err *e);
/* from: pinned, and left alone until the work up to here is done. May be recorded: a replay reads what
 * is there then. */
int device_upload_pinned(struct device *d, void *to, const void *from, size_t bytes, struct err *e);
/* Waits for all work, then `to` holds it. Not while recording. */
int device_download(struct device *d, void *to, const void *from, size_t bytes, struct err *e);
/* to: pinned; there once the work up to here is done. */
int device_download_pinned(struct device *d, void *to, const void *from, size_t bytes,
                           struct err *e);
/* Both of the device; they may not overlap. */
int device_copy(struct device *d, void *to, const void *from, size_t bytes, struct err *e);
int device_zero(struct device *d, void *at, size_t bytes, struct err *e);

/* All work is done, copies beside it too, and nothing failed since the last wait. */
int device_wait(struct device *d, struct err *e);

/* A place in the line of work that can be waited for alone, while work behind it goes on. */
struct device_mark;
int device_mark_open(struct device *d, struct device_mark **m, struct err *e);
int device_mark_set(struct device *d, struct device_mark *m, struct err *e); /* here, now */
int device_mark_wait(struct device *d, struct device_mark *m, struct err *e);
void device_mark_close(struct device *d, struct device_mark *m); /* takes NULL */

/* --- copies beside the line of work -------------------------------------------------------- */

/* A lane of copies up that go on while the device computes, in the order of their calls. Marks of their
 * own order lane and line against each other; the host waits for none. All three may be recorded: then
 * what a fetch comes after was passed, and each fetch is joined, within the same recording. */
int device_pass(struct device *d, struct device_mark *m,
                struct err *e); /* the line of work is here */
/* Once what `after` passed is done. from: pinned, left alone until it was joined and that work done
 * (recorded: as long as the steps live). Of other memory of the host the call may wait for the copy, and
 * cannot be recorded. */
int device_fetch(struct device *d, void *to, const void *from, size_t bytes,
                 struct device_mark *after, struct device_mark *done, struct err *e);
/* Work behind this sees what was fetched under this mark. */
int device_join(struct device *d, struct device_mark *done, struct err *e);

/* The copies of one further thread, which calls these two alone while others call everything else; no
 * other call waits for them. Memory of the device that nobody uses meanwhile, from any of the host. */
int device_send(struct device *d, void *to, const void *from, size_t bytes, struct err *e);
int device_sent(struct device *d, struct err *e); /* all of them are there */

/* --- recorded steps ------------------------------------------------------------------------ */

/* Between record and recorded, work is written down and not done: addresses, sizes and scalars are
 * those of now for ever, so what changes from step to step lies in memory of the device. A failure
 * in between ends with device_recorded() all the same (*steps is NULL, e is left alone). */
struct device_steps;
bool device_can_record(const struct device *d); /* false: on the host */
int device_record(struct device *d, struct err *e);
int device_recorded(struct device *d, struct device_steps **steps, struct err *e);
bool device_is_recording(const struct device *d);
int device_replay(struct device *d, struct device_steps *steps, struct err *e);
void device_steps_close(struct device *d, struct device_steps *s); /* takes NULL */

/* --- counts and failures ------------------------------------------------------------------- */

/* Operations done on the device (recorded ones at each replay), by number: enum op of model/ops/ops.h,
 * from 0 on. Whoever does one says so, once a call. */
#define DEVICE_OPS 64
enum { DEVICE_OP_ATTENTION = DEVICE_OPS - 1 }; /* attention's, which knows nothing of model/ops */
void device_did(struct device *d, int op);
void device_counts(const struct device *d, long counts[DEVICE_OPS]);
void device_counts_reset(struct device *d);

/* The first label (above 0) noted since it was last asked for, for devices that note on the host; 0: none. */
void device_note(struct device *d, int label);
int device_noted(struct device *d);

/* While the host works for the device: plans, what is looked at. Between two operations; NULL: nothing. For
 * devices that watch who computes. */
void device_hosts_turn(struct device *d, bool on);

/* What went wrong for good, or NULL. */
const struct err *device_lost(const struct device *d);

#endif
