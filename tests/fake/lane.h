/* Copies beside the work of the fake, for its table (device.c). */
#ifndef DITGEN_TESTS_FAKE_LANE_H
#define DITGEN_TESTS_FAKE_LANE_H

#include "tests/fake/fake.h"

struct fake_lane {
    long now; /* uses of memory and marks, counted */
    long fetches;
    struct fake_fetch *first; /* under way, oldest first */
    struct fake_use *uses;
};
struct fake_lane *fake_lane_of(const struct device *d); /* device.c */
bool fake_is_pinned(const struct device *d, const void *at, size_t bytes);

int fake_mark_open(struct device *d, struct device_mark **m, struct err *e);
void fake_mark_close(struct device *d, struct device_mark *m);
int fake_pass(struct device *d, struct device_mark *m, struct err *e);
int fake_fetch(struct device *d, void *to, const void *from, size_t bytes,
               struct device_mark *after, struct device_mark *done, struct err *e);
int fake_join(struct device *d, struct device_mark *done, struct err *e);
/* Everything that is under way is done. */
void fake_lane_wait(struct fake_lane *l);
/* A recording begins or ends, or its replay: nothing may be under way. */
void fake_lane_cut(struct fake_lane *l);
void fake_lane_close(struct fake_lane *l);

#endif
