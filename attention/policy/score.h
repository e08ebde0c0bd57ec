/* How much does a block of keys matter to a block of queries: scores[rows, cols] of one head.
 *
 * Scores are natural-log softmax scores unless a function says mass; scale = 1/sqrt(dim) of the head
 * (also where fewer channels are looked at). Larger is more. A block without tokens scores -inf (or
 * no mass). All functions are pure but for the scratch they are given, take one head, and may run on
 * any thread. Sections: attention-sparse.md. */
#ifndef DITGEN_ATTENTION_POLICY_SCORE_H
#define DITGEN_ATTENTION_POLICY_SCORE_H

#include "attention/policy/blocks.h"
#include "attention/policy/dots.h"

#include <stdbool.h>

/* Pooled vectors (means, maxima, centroids) of queries qp[rows, dim] and keys kp[cols, dim]:
 * scale * qp . kp + ln count. count: tokens of each key block, or NULL (no size weight). */
void score_pooled(float *scores, const float *qp, const float *kp, const int *count, int rows,
                  int cols, int dim, float scale, dots_fn *dots);

/* Section 12.3: ln of the sum over runs of both blocks of counts * exp(scale * mean . mean).
 * qm[rows * runs, dim] and km[cols * runs, dim] from pool_runs(), with their counts; scratch
 * [runs, cols * runs] floats. */
void score_runs(float *scores, const float *qm, const int *q_count, const float *km,
                const int *k_count, int rows, int cols, int runs, int dim, float scale,
                float *scratch, dots_fn *dots);

/* Section 8, XAttention (arXiv 2503.16428): softmax over the sums of every `stride`-th antidiagonal,
 * summed over each pair of blocks: mass[rows, cols], each row adding up to its groups of queries. The
 * tokens of a block past its last whole group are a shorter group; sums of fewer pairs are scaled to
 * `stride` of them. scratch: score_antidiagonal_scratch() bytes. */
size_t score_antidiagonal_scratch(const struct blocks *q, const struct blocks *k, int stride);
void score_antidiagonal(float *mass, const struct blocks *q, const struct blocks *k, int stride,
                        float scale, void *scratch, dots_fn *dots);

/* Section 3, AdaSpa (arXiv 2502.21079): exact mass, sum over tokens of both blocks of exp(scale * q.k
 * - lse), every step-th place of the query block standing for all of it. lse[len of q] natural log
 * by token, or NULL: made in a first pass and, if lse_out is given, kept there for the rows looked
 * at. scratch: score_mass_scratch() bytes. */
size_t score_mass_scratch(const struct blocks *q, const struct blocks *k);
void score_mass(float *mass, const struct blocks *q, const struct blocks *k, int step, float scale,
                const float *lse, float *lse_out, void *scratch, dots_fn *dots);
/* The same by what `see` makes of each token: to[dim], dim at most that of q. */
struct score_view {
    int dim;
    void (*see)(float *to, const float *x, bool key, const void *ctx);
    const void *ctx;
};
void score_mass_seen(float *mass, const struct blocks *q, const struct blocks *k, int step,
                     float scale, const struct score_view *view, void *scratch, dots_fn *dots);
/* Loki (arXiv 2406.02542): the directions in which keys differ most (1,024 of them, spread evenly),
 * basis[rank, dim], orthonormal, by `iterations` of subspace iteration from the channels that vary
 * most; a direction in which they do not differ is zero. scratch: score_basis_scratch() bytes. */
size_t score_basis_scratch(int rank, int dim);
void score_basis(float *basis, int rank, const struct blocks *k, int iterations, void *scratch);
/* 4-bit codes of one token, -7 to 7 of its largest channel, as the numbers that they stand for; minus
 * mean[dim] before, or NULL. SALE, arXiv 2505.24179; smoothing as attention-kernels.md 1.2. */
void score_codes(float *to, const float *x, const float *mean, int dim);

/* Exact softmax of chosen queries over all keys: p[n, len of k] by token, whatever the orders;
 * token[n] numbers rows of q.x. What probes of kinds, of hot keys and of recall look at. */
void score_probe(float *p, const struct blocks *q, const int32_t *token, int n,
                 const struct blocks *k, float scale, dots_fn *dots);

/* scores to probabilities of each row, in place; a row of -inf becomes zeros. */
void score_softmax(float *scores, int rows, int cols);

#endif
