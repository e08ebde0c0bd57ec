/* For who makes a device: what each can do, behind device.h, which checks, counts and remembers.
 *
 * A member gets sizes above 0 and pointers that are not NULL. It returns -1 with e filled; ERR_DEVICE
 * means that the device is lost, everything else concerns the call alone. */
#ifndef DITGEN_BASE_DEVICE_TABLE_H
#define DITGEN_BASE_DEVICE_TABLE_H

#include "model/base/device.h"

enum device_way { DEVICE_UP, DEVICE_UP_PINNED, DEVICE_DOWN, DEVICE_DOWN_PINNED, DEVICE_ACROSS };

struct device_table {
    enum device_kind kind;
    enum place place;
    int (*alloc)(struct device *d, void **at, size_t bytes, struct err *e);
    void (*release)(struct device *d, void *at);
    int (*alloc_pinned)(struct device *d, void **at, size_t bytes, struct err *e);
    void (*release_pinned)(struct device *d, void *at);
    int (*copy)(struct device *d, void *to, const void *from, size_t bytes, enum device_way way,
                struct err *e);
    int (*zero)(struct device *d, void *at, size_t bytes, struct err *e);
    int (*wait)(struct device *d, struct err *e);
    int (*mark_open)(struct device *d, struct device_mark **m, struct err *e);
    int (*mark_set)(struct device *d, struct device_mark *m, struct err *e);
    int (*mark_wait)(struct device *d, struct device_mark *m, struct err *e);
    void (*mark_close)(struct device *d, struct device_mark *m);
    int (*pass)(struct device *d, struct device_mark *m, struct err *e);
    int (*fetch)(struct device *d, void *to, const void *from, size_t bytes,
                 struct device_mark *after, struct device_mark *done, struct err *e);
    int (*join)(struct device *d, struct device_mark *done, struct err *e);
    int (*send)(struct device *d, void *to, const void *from, size_t bytes, struct err *e);
    int (*sent)(struct device *d, struct err *e); /* both by a thread of their own */
    /* NULL, all four: cannot record */
    int (*record)(struct device *d, struct err *e);
    int (*recorded)(struct device *d, void **steps, struct err *e); /* called after a failure too */
    int (*replay)(struct device *d, void *steps, struct err *e);
    void (*steps_close)(struct device *d, void *steps);
    void (*about)(const struct device *d, struct device_info *info);
    size_t (*beside)(const struct device *d); /* NULL, both: nothing and not known */
    size_t (*taken)(const struct device *d);
    void (*close)(struct device *d); /* what own is; d itself is device.c's */
};

struct device_steps {
    long counts[DEVICE_OPS]; /* operations of one replay */
    void *own; /* the table's */
};
struct device_block { /* of device_alloc() */
    struct device_block *next;
    void *at;
    size_t bytes;
};

struct device {
    const struct device_table *table;
    void *own; /* the table's: a stream, handles of libraries */
    char name[16];
    /* What rooms above do on it, by their own tables. NULL: they know by kind. */
    const struct ops *ops; /* model/ops/ops.h */
    const struct attn_device *attn; /* attention */
    /* What a table of operations keeps with the device (handles of libraries, their room), and how it
     * goes, before anything else does. */
    void *kept;
    void (*let_go)(struct device *d, void *kept);
    struct device_block *blocks;
    size_t held, peak, taken_peak, limit;
    long counts[DEVICE_OPS];
    struct device_steps *recording;
    int note; /* of numbers that are none */
    bool hosts_turn; /* device_hosts_turn() */
    int fail_alloc; /* tests: this allocation from now on fails, counted from 1; 0: none */
    struct err lost;
};

/* A device of this table; own and name are taken over. For device_open() and for tests. */
int device_make(struct device **d, const struct device_table *t, void *own, const char *name,
                struct err *e);

extern const struct device_table device_table_cpu; /* device_cpu.c */

/* cuda/device.c, in builds that have CUDA. device_cuda_at: as device_at(), GPUs alone. */
int device_open_cuda(struct device **d, int index, struct err *e);
bool device_cuda_at(int i, struct device_info *info);
void device_cuda_no_gpu(char *why, size_t n);
/* The device's stream, a cudaStream_t, for launchers. NULL on others. */
void *device_stream(const struct device *d);

#endif
