/* How a plan is executed: one row a kernel, best first in select.c.
 *
 * A kernel does one attn_job (plan/plan.h): the same bytes for one plan whatever the number of
 * threads, and for a plan that keeps every tile the bytes of a dense one. ref.c does every field
 * and is the judge of all others; what another kernel does is in `can`, and a job that asks for
 * more is refused with the fields' names before anything runs.
 *
 * Owner: tables are constants; scratch is the caller's. Threads: from the main thread, which hands
 * work to the pool. Nothing here allocates or prints, attn_judge() apart. */
#ifndef DITGEN_ATTENTION_KERNELS_KERNELS_H
#define DITGEN_ATTENTION_KERNELS_KERNELS_H

#include "attention/plan/plan.h"
#include "model/base/cpu.h"
#include "model/base/dtype.h"

#include <stdbool.h>

#define ATTN_MAX_HEAD_DIM 256

struct attn_size { /* what a kernel must be ready for: no job of a run is larger or asks for more */
    int len_q, len_k, n_heads, head_dim;
    int rows, cols; /* most blocks of queries and of keys of a plan; 0: only dense */
    int threads; /* workers that scratch must hold */
    enum precision precision; /* with the bf16 ones o is rounded to bf16 */
    unsigned needs; /* enum attn_need */
    int columns; /* most columns of a row of a plan */
    int block_q, block_k; /* tokens of equal blocks; 0: of any length, or only dense */
};

struct attn_kernel {
    const char *name, *summary; /* after --kernel; one line of help */
    enum cpu_level needs;
    unsigned can; /* enum attn_need */
    /* Of kernels over codes: keys whose 8-bit weights share a maximum. A chunk is chunk / panel
     * panels, each `panel` positions of one run of a row from a multiple of `panel` on; or `chunk`
     * keys where a row names them one by one: columns, and blocks by offsets. It ends where the
     * row's tiles, its columns, its means end, and each tile where alive is asked for. */
    int panel, chunk;
    /* Bits of ATTN_NEED_LOW by which a run of this size is faster here than without; NULL: none. */
    unsigned (*pays)(const struct attn_size *s);
    bool (*fits)(const struct attn_size *s);
    size_t (*scratch)(const struct attn_size *s); /* bytes; linear in tokens */
    void (*run)(const struct attn_job *j); /* COMPUTE and the residual rules */
};

/* What the fast kernels of a CPU do beside products of codes. */
#define ATTN_FLASH_CAN                                                                             \
    (((1u << ATTN_NEEDS) - 1) & ~(unsigned)(ATTN_NEED_DEVICE | ATTN_NEED_PREC | ATTN_NEED_LOW |    \
                                            ATTN_NEED_SKIP | ATTN_NEED_SOL | ATTN_NEED_BF16))

int attn_kernel_rows(void);
const struct attn_kernel *attn_kernel_row(int i); /* best first */
const struct attn_kernel *attn_kernel_find(const char *name);
/* The first row, or the one named `only`, that runs on this processor, fits and can do s->needs;
 * NULL with ERR_USAGE (no such name, sizes) or ERR_DEVICE (not on this machine, not for this
 * precision, not these fields). */
const struct attn_kernel *attn_kernel_pick(const struct attn_size *s, const struct cpu *cpu,
                                           const char *only, struct err *e);
/* Does the job whose plan was checked (attn_plan_check), by kernel k, whose scratch is for
 * *j->size. Refused whole: ERR_BUG (tensors, sizes), ERR_DEVICE (fields that k cannot do). */
int attn_kernel_run(const struct attn_kernel *k, const struct attn_job *j, struct err *e);

/* --- the judge (ref.c): host memory, fp32 or bf16, sums in double --- */

struct attn_judge { /* outputs beside the job's, each may be NULL */
    float *o; /* [q.len, N, D] by token, not rounded */
    /* [N * q.n, k.n] most of (largest score in the tile - largest before it), in powers of two, over
     * the queries of the row; -inf for tiles that are not computed */
    float *margin;
    int only_row; /* one row of every head, or -1: all */
    int panel, chunk; /* of the kernel that is judged, for plans over codes; 0: ref's */
};
/* Outputs of the job as well, where it has places for them; j->size and j->scratch play no part. */
int attn_judge(const struct attn_job *j, const struct attn_judge *out, struct err *e);

#endif
