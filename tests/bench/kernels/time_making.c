/* What it takes the card to make a plan, beside dense attention of the same size.
 *
 *   time_making [TOKENS [HEADS [HEAD_DIM]]]     (32760, 12, 128: Wan2.1 1.3B at 832x480x81) */
#include "attention/policy/select.h"
#include "model/base/clock.h"
#include "tests/bench/kernels/making.h"

static double seconds(void (*fn)(struct card *), struct card *c)
{
    struct err e = {0};
    double best[5];
    fn(c);
    for (int i = 0; i < 5; i++) {
        CHECK_OK(device_wait(device, &e));
        double begin = clock_seconds();
        for (int k = 0; k < 10; k++)
            fn(c);
        CHECK_OK(device_wait(device, &e));
        best[i] = (clock_seconds() - begin) / 10;
    }
    for (int i = 0; i < 5; i++)
        for (int k = i + 1; k < 5; k++)
            if (best[k] < best[i]) {
                double was = best[i];
                best[i] = best[k], best[k] = was;
            }
    return best[2];
}

static void dense(struct card *c)
{
    struct err e = {0};
    struct attn_plan p;
    struct attn_job j = {.q = c->made.q, .k = c->made.k, .v = c->made.k, .plan = &p};
    static void *o, *scratch;
    if (!o) o = there((size_t)c->made.q.len * (size_t)c->made.q.token * 2, NULL);
    if (!scratch) scratch = there(c->kernel->scratch(c->made.size), NULL);
    j.o = c->made.q;
    j.o.at = o, j.scratch = scratch, j.size = c->made.size;
    CHECK_OK(attn_plan_dense(&p, c->made.q.len, c->made.k.len, c->made.q.n, &e));
    p.where = device_place(device);
    CHECK_MSG(c->kernel->run(device, &j, NULL, &e) == 0, "%s", e.msg);
}

static void time_all(int len, int heads, int dim)
{
    static const struct {
        const char *name;
        int block;
        struct attn_making how;
        bool order;
    } rows[] = {
        {"means, top-k", 128, {.runs = 1, .k = 64}, false},
        {"means, top-k, in an order", 128, {.runs = 1, .k = 64}, true},
        {"means, top-p", 128, {.runs = 1, .pick = ATTN_PICK_TOP_P, .mass = .9}, false},
        {"means, percentile", 128, {.runs = 1, .pick = ATTN_PICK_PERCENTILE, .share = .25}, false},
        {"means of 4 runs, top-k", 128, {.runs = 4, .k = 64}, false},
        {"largest, top-k", 128, {.pool = ATTN_POOL_MAX, .runs = 1, .k = 64}, false},
        {"means, top-k", 64, {.runs = 1, .k = 128}, false},
        {"means, top-p", 64, {.runs = 1, .pick = ATTN_PICK_TOP_P, .mass = .9}, false},
        {"means, percentile", 64, {.runs = 1, .pick = ATTN_PICK_PERCENTILE, .share = .25}, false},
    };
    struct test_rng r = {1};
    struct err e = {0};
    struct one o = {0};
    size_t n = (size_t)len * (size_t)(heads * dim);
    o.x[0] = numbers(&r, n, false), o.x[1] = numbers(&r, n, false);
    o.order = need(malloc((size_t)len * sizeof *o.order));
    for (int i = 0; i < len; i++) /* sixteen rows of tokens interleaved, much as tiles have them */
        o.order[i] = i < len / 16 * 16 ? i % 16 * (len / 16) + i / 16 : i;
    int32_t *order = o.order;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct card c;
        o.how = rows[i].how;
        o.plan = (struct attn_plan){.n_heads = heads, .per_head = heads > 1};
        CHECK_OK(attn_blocks_equal(&o.plan.q, len, rows[i].block, &e));
        CHECK_OK(attn_blocks_equal(&o.plan.k, len, rows[i].block, &e));
        o.order = rows[i].order ? order : NULL;
        o.plan.q_order.token = o.plan.k_order.token = o.order;
        o.size = (struct attn_size){.len_q = len,
                                    .len_k = len,
                                    .n_heads = heads,
                                    .head_dim = dim,
                                    .rows = o.plan.q.n,
                                    .cols = o.plan.k.n,
                                    .block_q = rows[i].block,
                                    .block_k = rows[i].block,
                                    .precision = PRECISION_BF16,
                                    .needs = ATTN_NEED_BF16 | ATTN_NEED_PLANES |
                                             (o.order ? ATTN_NEED_Q_ORDER | ATTN_NEED_K_ORDER : 0)};
        o.kept = need(malloc(attn_plane_size(&o.plan) * 4));
        memset(o.kept, 0, attn_plane_size(&o.plan) * 4);
        for (size_t row = 0; row < (size_t)heads * (size_t)o.plan.q.n; row++)
            for (int t = 0; t < o.plan.k.n; t++)
                select_add(o.kept + row * (size_t)attn_words(o.plan.k.n), t);
        o.plan.kept = o.kept;
        if (card_open(&c, &o)) {
            double all = seconds(dense, &c), plan = seconds(make, &c);
            printf("%-28s blocks of %3d: %7.3f ms, %5.2f %% of dense (%.3f ms)\n", rows[i].name,
                   rows[i].block, 1e3 * plan, 100 * plan / all, 1e3 * all);
            fflush(stdout);
            card_close(&c);
        }
        free(o.kept);
    }
    o.order = order, o.kept = NULL;
    one_free(&o);
}

int main(int argc, char **argv)
{
    int rc = making_device();
    if (rc) return rc;
    time_all(argc > 1 ? atoi(argv[1]) : 32760, argc > 2 ? atoi(argv[2]) : 12,
             argc > 3 ? atoi(argv[3]) : 128);
    device_close(device);
    return checks_failed ? 1 : 0;
}
