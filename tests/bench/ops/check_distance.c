/* Sums of absolute differences against sums in another order, both in double. */
#include "tests/bench/ops/check_ops.h"

#include "model/ops/cuda/rows_cuda.h"

struct distance_case {
    double *room;
    struct numbers *a, *b; /* b NULL: none */
};

static int run_distance(void *ctx, struct err *e)
{
    struct distance_case *c = ctx;
    return cuda_distance(c->room, c->a->device, c->a->type, c->b ? c->b->device : NULL,
                         c->b ? c->b->type : DTYPE_F32, c->a->n, NULL, e);
}

static void one(struct test_rng *r, size_t n, enum dtype a_type, enum dtype b_type, bool alone)
{
    struct numbers a = numbers_new(a_type, n), b = numbers_new(b_type, n);
    struct distance_case c = {gpu_new(CUDA_DISTANCE_ROOM * sizeof(double)), &a, alone ? NULL : &b};
    struct err e = {0};
    double got[2][2], apart = 0, size = 0;
    numbers_normal(&a, r, .5, 3), numbers_normal(&b, r, .4, 3);
    for (size_t i = n; i-- > 0;) {
        double y = alone ? 0 : (double)b.host[i];
        apart += fabs((double)a.host[i] - y), size += fabs(y);
    }
    verdict_case("%zu of %s and %s", n, dtype_name(a_type), alone ? "none" : dtype_name(b_type));
    for (int i = 0; i < 2; i++) {
        GPU(cudaMemset(c.room, 0xff, CUDA_DISTANCE_ROOM * sizeof(double)));
        verdict_that(run_distance(&c, &e) == 0, e.msg);
        gpu_read(got[i], c.room, sizeof got[i]);
    }
    verdict_that(memcmp(got[0], got[1], sizeof got[0]) == 0, "the same bytes twice");
    /* each order rounds as often as there are numbers, at most, once of the sum so far */
    double bound = 2 * (double)n * 0x1p-53;
    double off = fmax(fabs(got[0][0] - apart) / apart, size > 0 ? fabs(got[0][1] / size - 1) : 0);
    verdict_note(off / bound, off);
    verdict_that(off <= bound && (size > 0 || got[0][1] == 0), "both sums, within their roundings");
    gpu_free(c.room);
    numbers_free(&a), numbers_free(&b);
}

void check_distance(struct test_rng *r, bool small)
{
    static const size_t sizes[] = {1, 255, 9216, 262144, 262145, 3000001};
    struct err e = {0};
    double room;
    verdict_begin("distances (step caches)");
    for (size_t i = 0; i < (small ? 3 : ARRAY_LEN(sizes)); i++)
        for (int kind = 0; kind < 6; kind++)
            one(r, sizes[i], kind & 1 ? DTYPE_BF16 : DTYPE_F32, kind & 2 ? DTYPE_BF16 : DTYPE_F32,
                kind >= 4);
    verdict_that(cuda_distance(&room, &room, DTYPE_F16, NULL, DTYPE_F32, 1, NULL, &e) < 0 &&
                     e.code == ERR_BUG,
                 "halves are refused");
}
