/* Blocks made small: means, maxima and likeness of the tokens of each block.
 *
 * Sums run over the true tokens in rising place, in fp32; a mean of nothing is zero. Rows out are
 * contiguous. All functions are pure, take one head, and may run on any thread. */
#ifndef DITGEN_ATTENTION_POLICY_POOL_H
#define DITGEN_ATTENTION_POLICY_POOL_H

#include "attention/policy/blocks.h"

/* mean[n, dim] */
void pool_mean(float *mean, const struct blocks *b);
/* max[n, dim]: the largest of each channel; 0 for an empty block. */
void pool_max(float *max, const struct blocks *b);
/* SubBlock (attention-sparse.md 12.3): each block cut into `runs` runs of as equal a length as they
 * can have. mean[n * runs, dim], count[n * runs] tokens. */
void pool_runs(float *mean, int *count, const struct blocks *b, int runs);
/* SpargeAttn's likeness (arXiv 2502.18137): |mean of x / |x||^2, which is the mean of all cosines of
 * pairs. like[n] in [0, 1]; a zero vector counts as unlike everything. */
void pool_likeness(float *like, const struct blocks *b);
/* Mean of all tokens: what K smoothing takes away. mean[dim] */
void pool_all(float *mean, const struct blocks *b);

#endif
