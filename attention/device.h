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
#include "attention/plan/making.h"
#include "model/base/device.h"

struct attn_made { /* a plan that is made there; all heads, each its own */
    const struct attn_plan *plan; /* sizes, and whether it has orders: of equal blocks */
    const struct attn_making *how;
    struct heads q, k; /* of this call, there */
    const uint32_t *forced; /* there: [q.n, words] bits that every head keeps besides, or NULL */
    uint64_t *
        pairs; /* there: becomes the number of pairs of tokens that the plan computes, of all heads */
    void *scratch; /* there: scratch() bytes, 256-byte aligned */
    const struct attn_size *size;
};

/* Who makes plans there. A plan is changed in place: what put() left of one of the same sizes and orders, of
 * which the kept set and what follows from it become new. Everything is put on the device's line of work,
 * nothing waits, all of it may be recorded. Same sets as attention/policy/ makes wherever scores are the same
 * numbers; scores themselves are sums in another order. A row that keeps no key gets the block at its own
 * place, as on the host. */
struct attn_planner {
    size_t (*scratch)(const struct attn_size *s,
                      const struct attn_making *how); /* 0: not such ones */
    int (*make)(struct device *d, void *at, const struct attn_made *m, struct err *e);
    /* Bytes from a prepared plan's first to its kept set, which lies there as on the host. */
    size_t (*kept_at)(const struct attn_plan *p, const struct attn_size *s);
    int (*tally)(struct device *d, uint64_t *sum, const uint64_t *pairs,
                 struct err *e); /* *sum += *pairs */
};

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
    const struct attn_planner *planner; /* NULL: plans are the host's */
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
