/* For who brings attention to a device: what the room asks of it.
 *
 * Tensors, scratch and prepared plans are the device's memory; the plan itself (attn_job.plan) is the
 * host's, made by the same methods as ever. Everything is put on the device's line of work
 * (model/base/device.h) and nothing waits; run() may be recorded. Counting (device_did) is the room's. */
#ifndef DITGEN_ATTENTION_DEVICE_H
#define DITGEN_ATTENTION_DEVICE_H

#include "attention/kernels/kernels.h"
#include "model/base/device.h"

struct attn_device_kernel {
    const char *name, *summary;
    unsigned can; /* enum attn_need; LSE, MASS and ALIVE are not asked of it */
    size_t (*scratch)(const struct attn_size *s); /* bytes of the device that a call needs */
    /* Bytes of the device that one prepared plan of at most s->rows x s->cols tiles takes. NULL: dense
     * calls alone. */
    size_t (*plan_bytes)(const struct attn_size *s);
    /* A checked plan of the host → `at`, in the form that run() reads. Not while recording. */
    int (*put)(struct device *d, void *at, const struct attn_plan *plan, const struct attn_size *s,
               struct err *e);
    /* j->q, k, v, o and the plan's key_bias: of the device, one type, any strides. The plan says sizes;
     * its planes are not read: at is what put() made of them; NULL: all tiles. */
    int (*run)(struct device *d, const struct attn_job *j, const void *at, struct err *e);
};

struct attn_device {
    /* What computes calls of this size on d, best first, or the one named `only`. NULL with e:
     * ERR_USAGE (no such name, sizes), ERR_DEVICE (not on this card, not this precision, not s->needs). */
    const struct attn_device_kernel *(*pick)(struct device *d, const struct attn_size *s,
                                             const char *only, struct err *e);
};

/* The table of a device; NULL: it has none. */
const struct attn_device *attn_device_of(const struct device *d);

#endif
