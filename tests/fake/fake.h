/* A device for tests: host memory in an address space of its own.
 *
 * Its addresses have a bit set that no address of a process has, so that whoever reads or writes them on
 * the host is stopped by the machine, and whoever hands it an address of the host is stopped here. Its
 * operations are the host's behind that bit, and so give the host's bytes. Recording writes them down
 * with copies of their parameters and does nothing, as a graph does; a replay does them. While it is
 * guarded, work that the host's threads do for anybody else ends the test. */
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

/* For the files of this folder: an address of the device as the host's, NULL stays NULL. */
void *fake_real(const void *at);
/* Does run(args) now, or writes it down with a copy of the args. */
int fake_do(struct device *d, int (*run)(struct device *d, void *args, struct err *e), void *args,
            size_t bytes, struct err *e);
extern const struct ops fake_ops, fake_ops_together;
extern const struct attn_device fake_attention;
extern const struct text_ops fake_text;
extern const struct frame_ops fake_frames;

#endif
