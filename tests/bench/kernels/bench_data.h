/* What is timed: tensors of unit normal values, plans of three patterns. */
#ifndef DITGEN_TESTS_BENCH_KERNELS_BENCH_DATA_H
#define DITGEN_TESTS_BENCH_KERNELS_BENCH_DATA_H

#include "tests/bench/kernels/problem.h"

enum pattern { DENSE, RANDOM, BANDED, CLUSTERED };

struct bench_keep {
    enum pattern pattern;
    double density;
    int rows, cols;
};
bool bench_keep(void *ctx, int plan, int row, int col); /* for block_mask_build */

uint16_t *bench_numbers(size_t n, uint64_t seed); /* bf16 */
/* Numbers below n in another order each call: who runs hot leaves less of the card's power to the
 * next, and that should not be the same one each round. */
void bench_shuffle(int *order, int n, struct test_rng *r);
void gpu_pause(unsigned microseconds); /* of the default stream (differ.cu) */
int bench_ascending(const void *a, const void *b); /* doubles, for qsort */

#endif
