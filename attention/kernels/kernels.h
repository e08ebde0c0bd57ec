/* How a plan is executed: one row a kernel, best first in select.c.
 *
 * A kernel computes o = softmax(scale * q·kᵀ + key_bias) · v over the kept tiles of its mask, for
 * every head; the same bytes for every encoding of one plan, whatever the number of threads. A row
 * that keeps nothing, or only keys of bias -inf, gives zeros. ref.c is the judge of all others.
 * Owner: tables are constants; scratch is the caller's. Threads: from the main thread, which hands
 * work to the pool. Nothing here allocates, prints or fails once attn_kernel_refuse() had no
 * objection. */
#ifndef DITGEN_ATTENTION_KERNELS_KERNELS_H
#define DITGEN_ATTENTION_KERNELS_KERNELS_H

#include "attention/block_mask.h"
#include "model/base/cpu.h"
#include "model/base/dtype.h"

#include <stdbool.h>

#define ATTN_MAX_HEAD_DIM 256

struct attn_size { /* what a kernel must be ready for */
    int len_q, len_k, n_heads, head_dim;
    int block_q; /* tokens of the plan's query tile; 0: only dense */
    int threads; /* workers that scratch must hold */
    enum precision precision;
};

struct attn_work { /* one launch; tensors are fp32 rows of n_heads * head_dim floats */
    const float *q, *k, *v; /* [len_q, N, D], [len_k, N, D] twice */
    float *o; /* [len_q, N, D]; overlaps nothing */
    const struct attn_size *size;
    const struct block_mask *mask; /* its lengths and query tile are those of size */
    bool accumulate; /* o += */
    void *scratch; /* scratch() bytes, 64-byte aligned */
};

struct attn_kernel {
    const char *name, *summary; /* after --kernel; one line of help */
    enum cpu_level needs;
    bool (*fits)(const struct attn_size *s);
    size_t (*scratch)(const struct attn_size *s); /* bytes; linear in tokens */
    void (*run)(const struct attn_work *w);
};

int attn_kernel_rows(void);
const struct attn_kernel *attn_kernel_row(int i); /* best first */
const struct attn_kernel *attn_kernel_find(const char *name);
/* The first row, or the one named `only`, that runs on this processor and fits; NULL with ERR_USAGE
 * (no such name, sizes) or ERR_DEVICE (not on this machine, not for this precision). */
const struct attn_kernel *attn_kernel_pick(const struct attn_size *s, const struct cpu *cpu,
                                           const char *only, struct err *e);

#endif
