/* What a library of matrix products must do for linear layers: gemm_onednn.c, or gemm_plain.c in
 * builds without it. linear.c owns everything around it. */
#ifndef DITGEN_OPS_GEMM_H
#define DITGEN_OPS_GEMM_H

#include "model/base/err.h"

#include <stdbool.h>

enum gemm_type { GEMM_F32, GEMM_BF16 }; /* of x and weight; sums and y are fp32 */

struct gemm_kind {
    enum gemm_type type;
    int out, in;
    bool bias;
    bool borrow; /* the weight stays plain, where it lies */
};

struct gemm; /* y [rows, out] = x [rows, in] · Wᵀ + b, no activation */

/* weight [out, in] plain, aligned to the type; packed into the layout the backend likes
 * unless borrow (then it must outlive the gemm, or be replaced by gemm_rebind). bias fp32, NULL
 * without. */
int gemm_open(struct gemm **g, const struct gemm_kind *k, const void *weight, const float *bias,
              struct err *e);
void gemm_close(struct gemm *g);
void gemm_rebind(struct gemm *g, const void *weight, const float *bias);
/* Scratch bytes of a call with this row count; asks the backend, reads no weight. */
size_t gemm_scratch(const struct gemm_kind *k, int rows);
/* For calls with this row count by any worker of threads_run(): afterwards they allocate nothing.
 * scratch: bytes that each needs. Quick when it was prepared before. */
int gemm_prepare(struct gemm *g, int rows, size_t *scratch, struct err *e);
/* On the calling thread alone, so that sums do not depend on how many there are; workers call at
 * once, each under its own number. 0, or a code for gemm_fail(). */
int gemm_run(const struct gemm *g, float *y, const void *x, int rows, void *scratch, int worker);
int gemm_fail(int code, struct err *e);
const char *gemm_backend(void);
bool gemm_is_slow(void); /* plain C */
bool gemm_has_bf16(void);

#endif
