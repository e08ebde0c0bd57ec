/* What the files of the judge share; see ref.c. Private to it. */
#ifndef DITGEN_ATTENTION_KERNELS_REF_H
#define DITGEN_ATTENTION_KERNELS_REF_H

#include "attention/kernels/kernels.h"

#include <math.h>

#define LOG2E 1.4426950408889634

/* Codes of a job's keys and values: ref_low.c. on: plan.qk is not the run's. */
struct low {
    bool on;
    int panel, chunk; /* attn_kernel's */
    float *less, *v_scale; /* [N, D] */
    int8_t *k, *mean; /* [N, k.len, D], [N, k.n, D] */
    float *k_scale, *mean_scale; /* [N, k.len], [N, k.n] */
    float *v, *v_mean; /* [N, k.len, D], [N, k.n, D] codes, or what FP8 leaves */
};

struct judging {
    const struct attn_job *j;
    const struct attn_judge *out;
    bool round; /* o to bf16 */
    bool whole; /* a task is a row: something of it belongs to all of its queries */
    double *scratch; /* [workers, each] */
    size_t each;
    struct low low; /* of plans over codes */
};

struct query { /* the softmax of one query */
    const struct judging *g;
    int head, plan, row, token;
    int position; /* of token, in the plan's order */
    double *score; /* [k.len + k.n] of positions, then of means */
    enum attn_fate *fate; /* [k.n] of this row, when the kernel's own rule decides; else NULL */
    double most;
    int8_t code[ATTN_MAX_HEAD_DIM]; /* of the query, under plan.qk */
    double code_scale, shift; /* shift: of its scores, by what was taken off the keys */
    float mean[ATTN_MAX_HEAD_DIM]; /* what smooth_q took off it */
};

static double element(const struct heads *h, int token, int head, int c)
{
    const void *at = heads_at(h, token, head);
    if (h->type == DTYPE_BF16) return (double)bf16_to_f32(((const uint16_t *)at)[c]);
    return (double)((const float *)at)[c];
}

/* Fates of a row's tiles under sol_tau: fate [k.n]. */
void sol_fates(enum attn_fate *fate, const struct attn_job *j, int head, int plan, int row);

/* Bytes of the codes of so many keys, and their places; at NULL: counts. */
size_t low_carve(struct low *l, int len_k, int cols, int n_heads, int dim, void *at);
void low_make(struct judging *g); /* all codes of g->j */
void low_query(struct query *q); /* those of the query q->token */
/* Scores over codes of a key, of a mean key; natural units, without bias and count. */
double low_score(const struct query *q, int token);
double low_score_mean(const struct query *q, int tile);
/* The softmax sums of the plan, or of all positions, from q->score, weights and values as plan.pv
 * says: acc [dim], returns the sum of weights; q->most is their base. */
double low_sums(struct query *q, double *acc);
double low_all_sums(struct query *q, double *acc);

#endif
