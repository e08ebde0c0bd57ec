/* 8-bit attention on a GPU under test: codes in device memory, the emulation beside them. */
#ifndef DITGEN_TESTS_BENCH_KERNELS_BENCH_SAGE_H
#define DITGEN_TESTS_BENCH_KERNELS_BENCH_SAGE_H

#include "attention/kernels/cuda/sage_cuda.h"
#include "tests/bench/kernels/bench_data.h"
#include "tests/bench/kernels/on_device.h"

struct codes_pair { /* one layout twice */
    struct quant_codes gpu, host;
    char *gpu_at, *host_at;
    size_t bytes;
};
void codes_make(struct codes_pair *c, const struct quant_codes *sizes);
void codes_read(struct codes_pair *c); /* all of it, to the host */
void codes_free(struct codes_pair *c);
/* c: read from the card. Codes must be those that follow from the card's own means; means those of a sum in double. */
void check_codes(struct codes_pair *c, const struct problem *p);

/* The first tile is the last of its row, as the kernels go. order: at least cols words. Returns how
 * many. */
int tiles_of(uint32_t *order, const struct attn_cuda *host, int head, int query);

void check_sage(int problems, int repeats, uint64_t seed); /* quantiser, emulation, sets */
void check_some(int problems, uint64_t seed); /* random ones alone */
void check_pair(int problems, uint64_t seed);
void check_resid(int problems, uint64_t seed);
void check_plan(uint64_t seed); /* planners on the device against attention/policy/ */
void time_plan(double seconds);
void check_cluster(uint64_t seed);
void time_cluster(void);
void time_sage(double seconds,
               const char *only); /* beside the bf16 kernels, launches interleaved */

#endif
