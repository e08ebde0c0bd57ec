/* Dense and sparse launches of one size against each other: every contender is launched once a
 * round, in another order each round, so that clocks and heat meet all alike. */
#ifndef DITGEN_TESTS_BENCH_KERNELS_CONTEST_H
#define DITGEN_TESTS_BENCH_KERNELS_CONTEST_H

#include "tests/bench/kernels/bench_data.h"
#include "tests/bench/kernels/kernels_under_test.h"

#include <cuda_runtime.h>

#define MOST_ROUNDS 400
#define MOST_CONTENDERS 64

extern const char *const pattern_names[]; /* of enum pattern */

struct contender {
    char name[80];
    enum pattern pattern;
    double asked, density, ms[MOST_ROUNDS] /* by round */;
    double median, fastest, slowest, quarter[2];
    double tenth; /* a tenth of the launches took no longer */
    double mhz, watt; /* means while it ran, 0: not seen */
    const struct kernel_under_test *kernel; /* NULL: cuDNN */
    struct attn_cuda call;
    struct attn_lists lists; /* device arrays */
    struct attn_lists host; /* the same in host memory */
    void *arrays[7]; /* host: 0 to 2, 6; device: 3 to 5 */
    struct attn_plan *plan; /* of lists */
    double off; /* relative L1 of the spot check, -1: none */
};

struct contest_size {
    int len, heads, dim;
};

struct contest {
    struct contest_size size;
    struct attn_cuda call, host; /* device and host tensors */
    uint16_t *data[3];
    void *o;
    struct contender c[MOST_CONTENDERS];
    int n, rounds;
    double flop /* dense */, warm_s;
    float *dense_want; /* the judge's answer to the dense spot check, once asked */
    cudaEvent_t from, to;
#ifdef DITGEN_CUDNN
    struct attn_cudnn *cudnn;
    void *workspace;
#endif
};

struct contest *contest_open(const struct contest_size *s);
void contest_close(struct contest *b);
void contest_add_dense(struct contest *b); /* cuDNN and every dense kernel */
void contest_add_list(struct contest *b, const struct kernel_under_test *k, enum pattern pattern,
                      double density);
int contest_launch(struct contest *b, struct contender *c, struct err *e);
/* One row of tiles of every head against the judge. */
void contest_check(struct contest *b, struct contender *c);
/* warm: seconds of launches before, at least; up to three times that until the clocks settle. */
void contest_measure(struct contest *b, double seconds, double warm);
/* The dense one with the best median; NULL where there is none. */
const struct contender *contest_dense(const struct contest *b, bool cudnn);

#endif
