/* One random attention call with everything that a plan can say, in host and in device memory. */
#ifndef DITGEN_TESTS_BENCH_KERNELS_PROBLEM_H
#define DITGEN_TESTS_BENCH_KERNELS_PROBLEM_H

#include "attention/kernels/cuda/attn_cuda.h"
#include "attention/kernels/kernels.h"
#include "tests/check.h"

/* The last four: attention-kernels 9.1, at its sizes. */
enum logits {
    NORMAL,
    TINY,
    HUGE_LOGITS,
    EQUAL,
    PEAKY,
    OFFSET,
    LOGITS,
    STRUCTURED = LOGITS, /* smooth tokens, normed, gains by channel, offsets of keys and values */
    BIASED, /* 8 channels of the keys off by 25, values off by channel */
    ONE_KEY, /* each query has one dominant key */
    ONE_VALUE, /* values are the same for all keys */
};

/* Checks of all files; each hands its own over at the end of what it exports. */
struct tally {
    int done, failed;
};
extern struct tally tally;
static inline void tally_up(void)
{
    tally.done += checks_done;
    tally.failed += checks_failed;
    checks_done = checks_failed = 0;
}

struct problem_want { /* sizes and features, chosen by the caller */
    int len_q, len_k, n_heads, head_dim;
    bool sparse, per_head, forced, dead, mean, alive, lse, bias, by_head /* [N, L, D] */, gaps;
    int block_q, block_k;
    double density; /* chance of a tile; rows may be empty */
    enum logits logits;
    bool poison; /* keys that no row computes are NaN; wants a shared plan */
};

struct problem {
    struct problem_want want;
    size_t q_count, k_count, mean_count; /* elements allocated, gaps and guards included */
    uint16_t *q, *k, *v, *k_mean, *v_mean;
    float *key_bias;
    uint32_t *kept, *forced, *dead, *mean;
    struct attn_plan plan; /* dense calls: every tile, in blocks of JUDGE_DENSE */
    struct attn_lists lists; /* host arrays */
    uint32_t *row_ptr, *steps, *order, *mean_out;
    struct attn_lists_size size;
    struct attn_cuda host; /* host pointers, for the judge */
    char what[256];
};

void problem_make(struct problem *p, const struct problem_want *want, struct test_rng *r);
/* Lists of a plane that was changed, no larger than before, into the same arrays. */
void problem_lists(struct problem *p);
#define JUDGE_DENSE 128 /* tokens a tile of a call without a plan */
/* A call with host pointers as the judge takes it; plan: of equal blocks or not. */
struct attn_job judged(const struct attn_cuda *host, const struct attn_plan *plan);
void problem_free(struct problem *p);
size_t problem_rows(const struct problem *p); /* heads * rows of tiles */

#endif
