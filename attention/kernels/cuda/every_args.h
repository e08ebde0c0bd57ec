/* What the kernels for any plan are told, and their launchers; see every_cuda.h. Private to every*. */
#ifndef DITGEN_ATTENTION_KERNELS_CUDA_EVERY_ARGS_H
#define DITGEN_ATTENTION_KERNELS_CUDA_EVERY_ARGS_H

#include "attention/kernels/cuda/every_cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

struct every_tensor { /* heads of a job */
    void *at;
    int64_t token, head;
    int bf16, wide; /* wide: rows may be read 16 bytes at a time */
};

struct every_args {
    const uint32_t *at; /* a prepared plan, or NULL: `here`, which names no arrays */
    struct every_plan here;
    struct every_tensor q, k, v, o, resid, k_mean, v_mean; /* v_mean: sums under sol_tau */
    const float *key_bias;
    float *lse, *mass;
    uint32_t *alive;
    /* [index of the plan's head * q_n + row, words], of tiles that kernels choose by themselves: those that
     * sol_tau computes, those that skip_log2 leaves in. Or NULL. */
    uint32_t *picked, *chosen;
    float alive_log2, skip_log2, sol_tau, scale;
    int make, add, accumulate, round; /* round: o to bf16 although it is fp32 */
    int down, choosing; /* choosing: scores alone, to fill chosen */
    int n_heads, len_q, dim, named; /* n_heads: of the plan; named: by heads[] */
    uint8_t heads[256];
};

int every_attend(const struct every_args *a, int pieces, void *stream, struct err *e);
/* mass of every tile under a->lse; rows, cols: of the plan. */
int every_mass(const struct every_args *a, int rows, int cols, void *stream, struct err *e);
/* Words of `plane` of the plan's heads: by their number, or by their index in the plan. */
int every_set(const struct every_args *a, uint32_t *plane, int by_index, int rows, int words,
              uint32_t value, void *stream, struct err *e);
/* Fills a->picked by sol_tau. */
int every_choose_sol(const struct every_args *a, int rows, void *stream, struct err *e);
/* o = 0, or the residual. */
int every_fill(const struct every_args *a, int copy, void *stream, struct err *e);

#ifdef __cplusplus
}
#endif

#endif
