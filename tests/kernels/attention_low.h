/* Kernels over codes: random problems under every plan.qk and pv that the kernel can, held against the
 * judge on the same codes (attention-kernels.md 9.4). */
#ifndef DITGEN_TESTS_KERNELS_ATTENTION_LOW_H
#define DITGEN_TESTS_KERNELS_ATTENTION_LOW_H

#include "tests/kernels/attention_checks.h"

static void random_codes(struct problem *x, struct test_rng *r, const struct attn_kernel *kernel,
                         bool codes_only)
{
    static const enum attn_prec qk[] = {ATTN_PREC_INT8, ATTN_PREC_INT8, ATTN_PREC_INT4},
                                pv[] = {ATTN_PREC_RUN, ATTN_PREC_INT8, ATTN_PREC_FP8};
    int d = x->size.head_dim;
    do {
        x->plan.qk = qk[rng_int(r, 0, 2)];
        x->plan.pv = pv[rng_int(r, 0, 2)];
        x->plan.codes.smooth_k = rng_int(r, 0, 3) > 0;
        x->plan.codes.smooth_q = rng_int(r, 0, 3) == 0;
        x->plan.codes.rotate = !(d & (d - 1)) && rng_int(r, 0, 1);
    } while (attn_plan_needs(&x->plan) & ATTN_NEED_LOW & ~kernel->can ||
             (x->plan.pv == ATTN_PREC_RUN && codes_only));
    size_t n = strlen(x->what);
    snprintf(x->what + n, sizeof x->what - n, "; qk %d pv %d smooth %d %d rotate %d",
             (int)x->plan.qk, (int)x->plan.pv, x->plan.codes.smooth_k, x->plan.codes.smooth_q,
             x->plan.codes.rotate);
}

/* codes_only: a part of a kernel that does no other values. */
static void check_low(const struct attn_kernel *kernel, struct test_rng *r, int problems,
                      bool codes_only)
{
    static const enum precision all[] = {PRECISION_FP32, PRECISION_BF16, PRECISION_BF16_EMULATED};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        struct attn_size any = {.head_dim = 64, .precision = all[i]};
        int before = checks_done;
        problem_worst = 0;
        if (!kernel->fits(&any)) continue;
        for (int n = 0; n < problems; n++) {
            struct problem x = problem_random(r, all[i]);
            random_codes(&x, r, kernel, codes_only);
            problem_check(&x, kernel);
            problem_free(&x);
        }
        printf("%s, %s: %d checks, worst difference %.2f of the tolerance\n", kernel->name,
               precision_name(all[i]), checks_done - before, problem_worst);
    }
}

#endif
