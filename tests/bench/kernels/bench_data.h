/* What is timed: tensors of unit normal values, plans of three patterns. */
#ifndef DITGEN_TESTS_BENCH_KERNELS_BENCH_DATA_H
#define DITGEN_TESTS_BENCH_KERNELS_BENCH_DATA_H

#include "tests/bench/kernels/problem.h"

enum pattern { DENSE, RANDOM, BANDED, CLUSTERED };

/* A plan a head, of equal blocks, density 1 or more: every tile. Its plane is the caller's. */
uint32_t *bench_plan(struct attn_plan *p, int len, int block_q, int block_k, int heads,
                     enum pattern pattern, double density);

uint16_t *bench_numbers(size_t n, uint64_t seed); /* bf16 */
/* Numbers below n in another order each call: who runs hot leaves less of the card's power to the
 * next, and that should not be the same one each round. */
void bench_shuffle(int *order, int n, struct test_rng *r);
void gpu_pause(unsigned microseconds); /* of the default stream (differ.cu) */
int bench_ascending(const void *a, const void *b); /* doubles, for qsort */

#endif
