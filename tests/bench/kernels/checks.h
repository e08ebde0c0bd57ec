/* Parts of `bench_kernels check`, one file each. */
#ifndef DITGEN_TESTS_BENCH_KERNELS_CHECKS_H
#define DITGEN_TESTS_BENCH_KERNELS_CHECKS_H

#include "tests/bench/kernels/on_device.h"

void check_problem(struct problem *p); /* every kernel that takes it, all encodings */
void check_ragged(struct test_rng *r, int repeats);
void check_sets(struct test_rng *r); /* kinds of data, exactness */
void check_repeats(struct test_rng *r, int repeats);

#endif
