/* 8-bit kernels, residuals, pairs and planners without a GPU: what is refused and why, which instance takes what, that each fits a
 * processor. */
#include "attention/kernels/cuda/cluster_cuda.h"
#include "attention/kernels/cuda/pair_cuda.h"
#include "attention/kernels/cuda/plan_cuda.h"
#include "attention/kernels/cuda/resid_cuda.h"
#include "attention/kernels/cuda/sage_cuda.h"
#include "tests/check.h"

static _Alignas(256) char memory[256];
static struct attn_tensor tensor = {memory, 128, 128};

static struct quant_codes codes(int dim, bool smooth_q, enum quant_values values)
{
    struct quant_codes c = {
        .len_q = 300,
        .len_k = 200,
        .n_heads = 2,
        .head_dim = dim,
        .how = {.bits = 8, .smooth_k = true, .smooth_q = smooth_q, .values = values, .pools = 2}};
    quant_codes_carve(&c, NULL);
    quant_codes_carve(&c, memory); /* addresses only: nothing is launched */
    return c;
}
static struct attn_cuda call(const struct quant_codes *c, const struct attn_lists *l)
{
    return (struct attn_cuda){.o = tensor,
                              .q = tensor,
                              .k = tensor,
                              .v = tensor,
                              .len_q = c->len_q,
                              .len_k = c->len_k,
                              .n_heads = c->n_heads,
                              .head_dim = c->head_dim,
                              .lists = l,
                              .alive_log2 = -3,
                              .scratch = memory};
}

static void check_refused(const char *words, const struct quant_codes *c, const struct attn_cuda *w,
                          enum err_code code)
{
    struct err e = {0};
    CHECK_MSG(sage_sm90(c, w, &e) < 0, "not refused: %s", words);
    CHECK_MSG(e.code == code && strstr(e.msg, words), "refused with \"%s\" (%d), wanted \"%s\"",
              e.msg, (int)e.code, words);
}

static void check_refusals(void)
{
    static const uint32_t bits[8];
    struct attn_lists l = {.rows = 3,
                           .cols = 2,
                           .block_q = 128,
                           .block_k = 128,
                           .n_plans = 1,
                           .words = 1},
                      x = l;
    struct quant_codes c = codes(128, false, QUANT_E4M3), b = c;
    struct attn_cuda w = call(&c, NULL), y = w;
    b.head_dim = 96;
    check_refused("64 or 128 channels, these have 96", &b, &w, ERR_USAGE);
    b = c;
    b.how.bits = 2;
    check_refused("8 or 4 bits", &b, &w, ERR_USAGE);
    b = c;
    b.how.pools = 3;
    check_refused("wanted 0, 1, 2 or 4", &b, &w, ERR_USAGE);
    b = c;
    b.len_k = 0;
    check_refused("all must be 1 or more", &b, &w, ERR_USAGE);
    b = c;
    b.len_k = 201;
    check_refused("do not fit a call", &b, &w, ERR_BUG);
    b = c;
    b.q = NULL;
    check_refused("quant_codes_carve() has cut", &b, &w, ERR_BUG);
    y.o.token = 12;
    check_refused("multiples of 8 elements", &c, &y, ERR_USAGE);
    y = w;
    y.o.at = NULL;
    check_refused("without memory for o", &c, &y, ERR_BUG);
    y = w;
    y.scratch = NULL;
    check_refused("scratch", &c, &y, ERR_BUG);
    y = w;
    y.key_bias = (const float *)(const void *)memory;
    check_refused("no key bias", &c, &y, ERR_USAGE);
    y = w;
    y.alive = (uint32_t *)(void *)memory;
    check_refused("for plans only", &c, &y, ERR_USAGE);
    y = w;
    y.lists = &x;
    x.block_q = x.block_k = 64;
    check_refused("tiles of 128 x 128, this plan has 64 x 64", &c, &y, ERR_USAGE);
    x = l;
    x.mean = bits;
    check_refused("no codes of mean keys", &c, &y, ERR_USAGE);
    x = l;
    x.cols = 3;
    check_refused("does not cover", &c, &y, ERR_BUG);
    x = l;
    b = codes(128, true, QUANT_S8);
    check_refused("no instance", &b, &w, ERR_USAGE);
    struct err e = {0};
    y = w;
    y.k.token = 4;
    CHECK(quant_qkv(&c, &y, &e) < 0 && strstr(e.msg, "multiples of 8"));
}

/* Whatever a method may ask for has an instance; the first of several is the default, and not one
 * of those to compare. */
static void check_picks(void)
{
    struct attn_lists l = {
        .rows = 3, .cols = 2, .block_q = 128, .block_k = 128, .n_plans = 1, .words = 1};
    for (int i = 0; i < 32; i++) {
        struct quant_codes c = codes(i & 1 ? 64 : 128, i & 2, i & 4 ? QUANT_S8 : QUANT_E4M3);
        struct attn_cuda w = call(&c, i & 8 ? &l : NULL);
        struct sage_tile t = {0};
        int variant = 0;
        if (i & 16) w.alive = (uint32_t *)(void *)memory;
        while (sage_sm90_variant(variant, &t) && !sage_sm90_takes(&c, &w, variant))
            variant++;
        const char *name = sage_sm90_variant(variant, NULL);
        bool wanted = !((i & 2) && (i & 4)) && (!(i & 16) || ((i & 8) && !(i & 6)));
        CHECK_MSG((name != NULL) == wanted, "case %d: %s", i, name ? name : "no instance");
        if (!name) continue;
        CHECK_STR(t.kernel, i & 8 ? "sage_sparse_sm90" : "sage_sm90");
        CHECK(t.head_dim == c.head_dim && (!(i & 8) || t.block_q == 128));
        CHECK_MSG(!strstr(name, "dense 128"), "%s is a default", name);
    }
    struct sage_tile t;
    for (int i = 0; sage_sm90_variant(i, &t); i++) {
        CHECK_MSG(t.shared <= 232448 && t.threads == t.block_q * 2 + 128,
                  "%s: %zu bytes, %d threads", sage_sm90_variant(i, NULL), t.shared, t.threads);
        printf("%s: %s, %d stages, %d threads, %zu bytes\n", sage_sm90_variant(i, NULL), t.kernel,
               t.stages, t.threads, t.shared);
    }
}

static void check_says(const char *words, int result, const struct err *e, enum err_code code)
{
    CHECK_MSG(result < 0 && e->code == code && strstr(e->msg, words), "\"%s\" (%d), wanted \"%s\"",
              e->msg, (int)e->code, words);
}

static void check_others(void)
{
    static const uint32_t bits[8];
    struct err e = {0};
    struct quant_codes c = codes(64, false, QUANT_E4M3);
    struct attn_lists l = {.rows = 3,
                           .cols = 2,
                           .block_q = 128,
                           .block_k = 128,
                           .n_plans = 1,
                           .words = 1},
                      x = l;
    struct attn_cuda w = call(&c, NULL);
    struct attn_tensor odd = {memory, 12, 128};
    check_says("wants a plan", attn_resid_sm90(&w, &tensor, ATTN_MAKE_RESIDUAL, &e), &e, ERR_USAGE);
    w.lists = &x;
    x.mean = bits;
    check_says("this plan has 128 x 128, means",
               attn_resid_sm90(&w, &tensor, ATTN_MAKE_RESIDUAL, &e), &e, ERR_USAGE);
    x = l;
    check_says("residual at", attn_resid_sm90(&w, &odd, ATTN_ADD_RESIDUAL, &e), &e, ERR_USAGE);
    check_says("64 x 64 tiles", attn_pair_sm90(&w, &e), &e, ERR_USAGE);
    x = (struct attn_lists){
        .rows = 4, .cols = 4, .block_q = 64, .block_k = 64, .n_plans = 1, .words = 1};
    check_says("does not cover", attn_pair_sm90(&w, &e), &e, ERR_BUG);
    w.head_dim = 128;
    check_says("heads of 64 channels", attn_pair_sm90(&w, &e), &e, ERR_USAGE);
    struct plan_shape s = {.n_heads = 1,
                           .rows = 3,
                           .cols = PLAN_MOST_COLS + 1,
                           .head_dim = 64,
                           .runs = 1,
                           .block_q = 128,
                           .block_k = 128};
    float *f = (float *)(void *)memory;
    uint32_t *u = (uint32_t *)(void *)memory;
    check_says("1 to 2048 blocks a side", plan_top_k(u, f, 1, &s, &e), &e, ERR_USAGE);
    s.cols = 3;
    check_says("wanted 0 or more", plan_top_k(u, f, -1, &s, &e), &e, ERR_USAGE);
    check_says("a share of", plan_top_p(u, f, (double)NAN, 0, &s, &e), &e, ERR_USAGE);
    s.runs = 3;
    check_says("wanted 1, 2 or 4", plan_scores(f, f, f, &s, &e), &e, ERR_USAGE);
    s.runs = 4;
    s.head_dim = 40;
    check_says("must be a multiple of 32", plan_scores(f, f, f, &s, &e), &e, ERR_USAGE);
}

static void check_clusters(void)
{
    struct err e = {0};
    struct cluster_call good = {.x = tensor,
                                .len = 100,
                                .n_heads = 2,
                                .head_dim = 64,
                                .n = 10,
                                .iterations = 1,
                                .scratch = memory},
                        c = good;
    CHECK(cluster_cuda_scratch(&c) % 256 == 0 && cluster_cuda_scratch(&c) >= 2 * 32 * 64 * 2 * 2);
    c.head_dim = 80;
    check_says("these have 80", cluster_cuda(&c, &e), &e, ERR_USAGE);
    c = good;
    c.n = 101;
    check_says("no more than tokens", cluster_cuda(&c, &e), &e, ERR_USAGE);
    c.n = CLUSTER_MOST + 1;
    check_says("1 to 2048 clusters", cluster_cuda_seed(&c, &e), &e, ERR_USAGE);
    c = good;
    c.x.token = 100;
    check_says("multiples of 8 elements", cluster_cuda(&c, &e), &e, ERR_USAGE);
    c = good;
    c.scratch = NULL;
    check_says("256-byte aligned", cluster_cuda(&c, &e), &e, ERR_BUG);
}

int main(void)
{
    check_clusters();
    check_refusals();
    check_others();
    check_picks();
    return TEST_RESULT();
}
