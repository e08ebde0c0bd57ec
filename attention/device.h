/* For who brings attention to a device: what the room asks of it.
 *
 * Tensors, scratch and prepared plans are the device's memory; the plan itself (attn_job.plan) is the
 * host's, made by the same methods as ever. Everything is put on the device's line of work
 * (model/base/device.h) and nothing waits; run() may be recorded. Counting (device_did) is the room's.
 *
 * A call is a list of launches, one after another, whose heads cover every head once. The room brings up
 * what its plans name beside q, k, v and o, and brings down what methods look at; neither is the kernel's
 * to do. Where a plan stands over steps, what put() made stands too. */
#ifndef DITGEN_ATTENTION_DEVICE_H
#define DITGEN_ATTENTION_DEVICE_H

#include "attention/kernels/kernels.h"
#include "model/base/device.h"

struct attn_device_kernel {
    const char *name, *summary;
    /* enum attn_need: fields of plans and jobs. pick() holds attn_size.needs against it, once a run. */
    unsigned can;
    size_t (*scratch)(const struct attn_size *s); /* bytes of the device that a launch needs */
    /* Bytes of the device that one prepared plan takes: of so many heads, with `plans` tables (1: they
     * share one; else as many as heads), of at most s->rows x s->cols tiles and s->columns columns a row,
     * with the fields of s->needs. n heads take no more than n times what one takes. NULL: dense calls
     * alone. */
    size_t (*plan_bytes)(const struct attn_size *s, int heads, int plans);
    /* A checked plan of the host → `at`, 256-byte aligned, in the form that run() reads: planes, orders,
     * offsets, columns, heads. Not key_bias. Not while recording; the plan's arrays may change as soon as
     * it returns. */
    int (*put)(struct device *d, void *at, const struct attn_plan *plan, const struct attn_size *s,
               struct err *e);
    /* A job as the host's kernels do it (plan/plan.h), with these rules:
     *
     * at        what put() made of this very plan. Of j->plan sizes, rule, walk, precisions and `heads` may
     *           be read, which are the host's; other arrays not, key_bias apart, which is the device's.
     *           NULL: every tile of every key, in raster order; heads, key_bias and k, v of fewer tokens
     *           than q has may still be asked for.
     * q k v o   of the device and of one type, any strides.
     * residual  bf16 of any strides for MAKE and ADD. COPY takes either type and may have token stride 0;
     *           o is of either type there, too, and q, k and v are not: this is how the room moves and
     *           converts what it keeps.
     * k_mean v_mean v_sum   of q's type, [k.n, N, D] by the plan's block.
     * lse mass alive        of the device, laid out as on the host, or NULL. Heads that are not the
     *                       launch's are left alone.
     * A row that keeps nothing gives o = 0 and lse = -inf. */
    int (*run)(struct device *d, const struct attn_job *j, const void *at, struct err *e);
    /* Bits of ATTN_NEED_LOW by which a run of this size is faster here than without; NULL: none. */
    unsigned (*pays)(const struct attn_size *s);
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
