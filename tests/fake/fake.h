/* A device for tests: host memory in an address space of its own.
 *
 * Its addresses have a bit set that no address of a process has, so that whoever reads or writes them on
 * the host is stopped by the machine, and whoever hands it an address of the host is stopped here. Its
 * operations are the host's behind that bit, and so give the host's bytes. Recording writes them down
 * with copies of their parameters and does nothing, as a graph does; a replay does them. While it is
 * guarded, work that the host's threads do for anybody else ends the test, but in the host's turn
 * (device_hosts_turn).
 *
 * Copies beside the work (device_fetch) come as late as they may: at the join; until then what lies there
 * is spoilt. One that may begin while earlier work still reads what it overwrites ends the test, as does
 * memory that is said to be pinned and is not, and a recording that waits for what it does not hold. */
#ifndef DITGEN_TESTS_FAKE_H
#define DITGEN_TESTS_FAKE_H

#include "attention/device.h"
#include "model/base/device_table.h"
#include "model/ops/ops.h"

#define FAKE_BIT ((uintptr_t)1 << 50)

/* together: as ops->together. */
int fake_open(struct device **d, bool together, struct err *e);
/* From here on (until device_close or guard false) only the device computes. */
void fake_guard(bool on);
long fake_replays(const struct device *d);
/* What it has: bytes of memory; of those, what its use takes beside device_alloc(), all of it from
 * opening on but for a recording's share (a sixteenth); bytes of pinned memory. 0: plenty, nothing, plenty. */
void fake_has(struct device *d, size_t memory, size_t beside, size_t pinned);
/* Somebody else takes (or gives back) so many bytes of it. */
void fake_others(struct device *d, size_t bytes);
size_t fake_pinned(const struct device *d); /* bytes taken now */
long fake_fetches(const struct device *d);
bool fake_under_way(const struct device *d); /* a copy beside the work that nobody joined */

/* For the files of this folder: an address of the device as the host's, NULL stays NULL. */
void *fake_real(const void *at);
_Noreturn void fake_stop(const char *what);
/* The work that is done now reads or writes these bytes, which copies beside it may overwrite. */
void fake_used(struct device *d, const void *at, size_t bytes);
/* Goes with the device. */
void fake_keep(struct device *d, void *what, void (*drop)(void *what));
/* Does run(args) now, or writes it down with a copy of the args. */
int fake_do(struct device *d, int (*run)(struct device *d, void *args, struct err *e), void *args,
            size_t bytes, struct err *e);
extern const struct ops fake_ops, fake_ops_together;
extern const struct attn_device fake_attention;
extern const struct attn_planner fake_planner;
long fake_plans_made(void); /* so far, by any fake, replays among them */
extern const struct text_ops fake_text;
extern const struct frame_ops fake_frames;

#endif
