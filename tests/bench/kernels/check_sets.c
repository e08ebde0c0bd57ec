/* Kinds of data and exactness, as attention-kernels 9.4 lists them: 256 queries against 8,192 keys
 * of each set, blocks of keys in another order, one tile a row, lengths around the tiles, rows
 * without a tile, a plan of every tile. */
#include "tests/bench/kernels/checks.h"

#include "model/base/dtype.h"

#define BLOCK 128

static double value_at(const struct problem *p, const struct output *got, int head, int query,
                       int c)
{
    const struct attn_tensor *t = &p->host.o;
    const uint16_t *o = (const void *)(got->o + GUARD);
    return (double)bf16_to_f32(o[query * t->token + head * t->head + c]);
}

static double off_by(const struct problem *p, const struct output *got, const float *want,
                     double *cosine)
{
    const struct problem_want *w = &p->want;
    double off = 0, all = 0, ab = 0, aa = 0, bb = 0;
    for (int i = 0; i < w->len_q; i++)
        for (int h = 0; h < w->n_heads; h++)
            for (int c = 0; c < w->head_dim; c++) {
                double a = value_at(p, got, h, i, c), b = (double)*want++;
                off += fabs(a - b);
                all += fabs(b);
                ab += a * b;
                aa += a * a;
                bb += b * b;
            }
    *cosine = ab / sqrt(aa * bb);
    return off / all;
}

/* Values that are the same for all keys come out as they are, within bf16's rounding of weights and
 * outputs. */
static void check_one_value(const char *name, const struct problem *p, const struct output *got)
{
    const struct problem_want *w = &p->want;
    double most = 0;
    for (int h = 0; h < w->n_heads; h++)
        for (int c = 0; c < w->head_dim; c++) {
            double v = (double)bf16_to_f32(((uint16_t *)p->host.v.at)[h * p->host.v.head + c]);
            for (int i = 0; i < w->len_q; i++) {
                double d = fabs(value_at(p, got, h, i, c) - v) / (fabs(v) + 1e-30);
                if (!(d <= most)) most = d;
            }
        }
    CHECK_MSG(most <= 0x1p-8, "%s: a constant value comes out off by %.3g: %s", name, most,
              p->what);
}

/* Blocks of keys, values with them, last first: the error stays where it was. */
static void swap_blocks(struct problem *p)
{
    const struct problem_want *w = &p->want;
    const struct attn_tensor *t[2] = {&p->host.k, &p->host.v};
    size_t bytes = (size_t)w->head_dim * 2;
    uint16_t token[128];
    for (int x = 0; x < 2; x++)
        for (int h = 0; h < w->n_heads; h++)
            for (int i = 0; i < w->len_k / 2; i++) {
                int j = (w->len_k / BLOCK - 1 - i / BLOCK) * BLOCK + i % BLOCK;
                uint16_t *a = (uint16_t *)t[x]->at + i * t[x]->token + h * t[x]->head;
                uint16_t *b = (uint16_t *)t[x]->at + j * t[x]->token + h * t[x]->head;
                memcpy(token, a, bytes);
                memcpy(a, b, bytes);
                memcpy(b, token, bytes);
            }
}

static void check_set(struct test_rng *r, enum logits set, int dim, bool sparse, bool small)
{
    struct err e = {0};
    struct problem_want w = {.len_q = 256,
                             .len_k = 8192,
                             .n_heads = 1,
                             .head_dim = dim,
                             .block_q = small ? 64 : 128,
                             .block_k = small ? 64 : 128,
                             .density = .3,
                             .sparse = sparse,
                             .logits = set};
    struct problem p;
    problem_make(&p, &w, r);
    float *want = host_new((size_t)w.len_q * (size_t)dim * 4);
    double before[40] = {0}, cosine;
    struct attn_job judge = judged(&p.host, &p.plan);
    CHECK_OK(attn_judge(&judge, &(struct attn_judge){.o = want, .only_row = -1}, &e));
    for (int turn = 0; turn < (sparse ? 1 : 2); turn++) {
        for (int i = 0; i < kernels_under_test() && i < 40; i++) {
            const struct kernel_under_test *k = kernel_under_test(i);
            struct on_device d;
            upload(&d, &p);
            if (kernel_takes(k, &d.call)) {
                struct output got = run(k, &d, p.what);
                double off = off_by(&p, &got, want, &cosine);
                compare(k->name, &p, &got, want, NULL);
                CHECK_MSG(cosine >= .99999, "%s: cosine %.7f: %s", k->name, cosine, p.what);
                if (set == ONE_VALUE) check_one_value(k->name, &p, &got);
                CHECK_MSG(turn == 0 || fabs(off - before[i]) <= 1e-3,
                          "%s: relative L1 %.3g, %.3g with blocks of keys in another order: %s",
                          k->name, before[i], off, p.what);
                before[i] = off;
                output_free(&got);
            }
            release(&d);
        }
        swap_blocks(&p); /* the judge's answer stays */
    }
    free(want);
    problem_free(&p);
}

/* One tile a row, one row in three without any. */
static void check_rows(struct test_rng *r, int dim, int block)
{
    struct problem_want w = {.len_q = 1000,
                             .len_k = 1111,
                             .n_heads = 2,
                             .head_dim = dim,
                             .block_q = block,
                             .block_k = block,
                             .density = 2,
                             .sparse = true,
                             .per_head = true,
                             .lse = true};
    struct err e = {0};
    struct problem p;
    problem_make(&p, &w, r);
    for (int none = 0; none < 2; none++) {
        int cols = p.plan.k.n, words = attn_words(cols);
        for (int i = 0; i < attn_plans(&p.plan) * p.plan.q.n; i++) {
            memset(p.kept + i * words, 0, (size_t)words * 4);
            int c = (7 * i + 3) % cols;
            if (!none || i % 3 != 1) p.kept[i * words + c / 32] |= (uint32_t)1 << (c % 32);
        }
        problem_lists(&p);
        CHECK_OK(attn_lists_size(&p.size, &p.plan, &e));
        check_problem(&p);
    }
    problem_free(&p);
}

static bool first_to_take(const struct kernel_under_test *k, const struct attn_cuda *w)
{
    for (int i = 0; i < kernels_under_test(); i++)
        if (kernel_under_test(i)->row == k->row && kernel_takes(kernel_under_test(i), w))
            return kernel_under_test(i) == k;
    return false;
}

/* A plan of every tile is dense attention, to the byte where a dense kernel has the same tiles: the
 * list that calls get, and the first dense kernel of its tiles. Others add in other orders. */
static void check_every_tile(struct test_rng *r, int dim, int block_k)
{
    struct problem_want w = {.len_q = 777,
                             .len_k = 1100,
                             .n_heads = 2,
                             .head_dim = dim,
                             .block_q = 128,
                             .block_k = block_k,
                             .density = 2,
                             .sparse = true};
    struct problem p;
    problem_make(&p, &w, r);
    for (int i = 0; i < kernels_under_test(); i++) {
        bool compared = false;
        for (int j = 0; j < kernels_under_test() && !compared; j++) {
            const struct kernel_under_test *list = kernel_under_test(i),
                                           *dense = kernel_under_test(j);
            struct attn_tile a = {0}, b = {0};
            struct on_device d;
            if (list->row != dense->row) continue;
            if (list->row == ATTN_SM90) {
                attn_sm90_variant(list->variant, &a);
                attn_sm90_variant(dense->variant, &b);
            }
            upload(&d, &p);
            struct attn_cuda all = d.call;
            all.lists = NULL;
            compared = a.block_q == b.block_q && a.block_k == b.block_k &&
                       first_to_take(list, &d.call) && kernel_takes(dense, &all);
            if (compared) {
                struct output x = run(list, &d, p.what);
                d.call.lists = NULL;
                struct output y = run(dense, &d, p.what);
                CHECK_MSG(memcmp(x.o, y.o, d.o_bytes + 2 * GUARD) == 0,
                          "%s of every tile has other bytes than %s: %s", list->name, dense->name,
                          p.what);
                output_free(&x);
                output_free(&y);
            }
            release(&d);
        }
    }
    problem_free(&p);
}

static void check_length(struct test_rng *r, int len, int dim, bool sparse)
{
    struct problem_want w = {.len_q = len,
                             .len_k = len,
                             .n_heads = 2,
                             .head_dim = dim,
                             .block_q = 128,
                             .block_k = 128,
                             .density = .7,
                             .sparse = sparse,
                             .lse = true,
                             .gaps = true};
    struct problem p;
    problem_make(&p, &w, r);
    check_problem(&p);
    problem_free(&p);
}

void check_sets(struct test_rng *r)
{
    static const int lens[] = {1, 7, 63, 64, 65, 127, 128, 129, 255, 1000};
    static const enum logits sets[] = {NORMAL, STRUCTURED, BIASED, ONE_KEY, ONE_VALUE};
    for (int dim = 64; dim <= 128; dim += 64) {
        for (int i = 0; i < (int)ARRAY_LEN(sets); i++) {
            check_set(r, sets[i], dim, false, false);
            check_set(r, sets[i], dim, true, false);
            check_set(r, sets[i], dim, true, true);
        }
        check_rows(r, dim, 128);
        check_rows(r, dim, 64);
        check_every_tile(r, dim, 64);
        check_every_tile(r, dim, 128);
        for (int i = 0; i < (int)ARRAY_LEN(lens); i++) {
            check_length(r, lens[i], dim, false);
            check_length(r, lens[i], dim, true);
        }
    }
    tally_up();
}
