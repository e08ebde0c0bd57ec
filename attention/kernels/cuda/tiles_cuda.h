/* Jobs of the room by kernels for tiles: rows sm90, sage, sm80, tf32 and simt of device_cuda.c (tiles_plan.c, host; tiles_run.c).
 *
 * A prepared plan is in one piece: bits of tiles, offsets of rows and the order of starting, from which a launch makes
 * lists (attn_lists) in scratch, since plans that are kept over steps must be small; or rows of queries and runs of
 * keys (attn_ragged, sm90 alone) where blocks are of any length or columns stand beside them; and the tables of its
 * orders. Tokens of a plan with orders are put in order in scratch and its outputs put back (moved_cuda.h). Heads of a
 * plan that are neighbours are one launch of lists. Codes of sage are made anew at every call, in scratch (sage_cuda.h).
 *
 * A residual is made in one pass where resid_sm90 takes the lists, else of two: exact, and the plan's. */
#ifndef DITGEN_ATTENTION_KERNELS_CUDA_TILES_CUDA_H
#define DITGEN_ATTENTION_KERNELS_CUDA_TILES_CUDA_H

#include "attention/device.h"
#include "attention/kernels/cuda/attn_cuda.h"
#include "attention/kernels/kernels.h"
#include "model/base/device.h"

#define TILES_CAN                                                                                  \
    (ATTN_NEED_DEVICE | ATTN_NEED_BF16 | ATTN_NEED_PLANES | ATTN_NEED_MEAN | ATTN_NEED_Q_ORDER |   \
     ATTN_NEED_K_ORDER | ATTN_NEED_HEADS | ATTN_NEED_ZERO | ATTN_NEED_COPY |                       \
     ATTN_NEED_MAKE_RESIDUAL | ATTN_NEED_ADD_RESIDUAL | ATTN_NEED_WALK | ATTN_NEED_LSE |           \
     ATTN_NEED_ALIVE)
#define TILES_CAN_SM90 (TILES_CAN | ATTN_NEED_BLOCKS | ATTN_NEED_COLUMNS)
#define TILES_CAN_SAGE                                                                             \
    (ATTN_NEED_DEVICE | ATTN_NEED_BF16 | ATTN_NEED_PLANES | ATTN_NEED_Q_ORDER |                    \
     ATTN_NEED_K_ORDER | ATTN_NEED_QK_INT8 | ATTN_NEED_QK_INT4 | ATTN_NEED_PV_INT8 |               \
     ATTN_NEED_PV_FP8)
#define TILES_CAN_SM80 (TILES_CAN | ATTN_NEED_KEY_BIAS)
#define TILES_CAN_SIMT                                                                             \
    (ATTN_NEED_DEVICE | ATTN_NEED_BF16 | ATTN_NEED_PLANES | ATTN_NEED_KEY_BIAS | ATTN_NEED_LSE)

#define TILES_CAN_TF32 (TILES_CAN_SIMT & ~(unsigned)ATTN_NEED_BF16)

/* Whether the row's kernels take plans that are cut like this, beside what `can` says; why: what they would. */
bool tiles_take_sm90(const struct attn_size *s, const char **why);
bool tiles_take_sage(const struct attn_size *s, const char **why);
bool tiles_take_sm80(const struct attn_size *s, const char **why);
bool tiles_take_simt(const struct attn_size *s, const char **why);

/* Of equal tiles, by tiles_make.c. */
extern const struct attn_planner tiles_planner;

/* As attn_device_kernel's members. */
size_t tiles_scratch(const struct attn_size *s);
size_t tiles_plan_bytes(const struct attn_size *s, int heads, int plans);
int tiles_put(struct device *d, void *at, const struct attn_plan *p, const struct attn_size *s,
              struct err *e);
int tiles_run_sm90(struct device *d, const struct attn_job *j, const void *at, struct err *e);
int tiles_run_sage(struct device *d, const struct attn_job *j, const void *at, struct err *e);
int tiles_run_sm80(struct device *d, const struct attn_job *j, const void *at, struct err *e);
int tiles_run_simt(struct device *d, const struct attn_job *j, const void *at, struct err *e);
int tiles_run_tf32(struct device *d, const struct attn_job *j, const void *at, struct err *e);

/* --- between the two files --- */

/* Of a prepared plan: where each part begins, in 32-bit words; 0 where there is none. */
struct tiles_parts {
    bool runs; /* rows and runs, else lists */
    size_t order, kept, mean; /* lists; row_ptr is the first of all */
    size_t rows, n_rows, run; /* n_rows: entries, of which the last may be of no queries */
    size_t q_token, k_token;
    size_t words;
};

/* Words of the steps of plans of so many rows and columns, at most. */
size_t tiles_steps(size_t plan_rows, size_t cols, int block_k, bool mean);
struct tiles_parts tiles_parts(const struct attn_plan *p, const struct attn_size *s);
bool tiles_by_runs(const struct attn_size *s);
/* Tiles are listed falling: the plan walks down and the run may record. */
bool tiles_fall(const struct attn_plan *p, const struct attn_size *s);
/* End of the neighbours among a plan's heads that begin with the i-th. */
int tiles_heads_end(const struct attn_plan *p, int i);

#endif
