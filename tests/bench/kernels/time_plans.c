/* What plans cost on this machine's GPU, by the room's own table: pick, put, run. Milliseconds a launch beside dense
 * attention of the same size, and what the share of pairs alone would make of that.
 *
 *   time_plans [TOKENS [HEADS [HEAD_DIM]]]     (32760, 12, 128: Wan2.1 1.3B at 832x480x81) */
#include "attention/device.h"
#include "model/base/clock.h"
#include "tests/check.h"

static struct device *device;
static struct attn_size size;
static double dense_ms;

static void must(int rc, const struct err *e)
{
    if (rc == 0) return;
    fprintf(stderr, "%s\n", e->msg);
    exit((int)e->code);
}

static void *alloc(size_t bytes)
{
    struct err e = {0};
    void *at = NULL;
    must(device_alloc(device, &at, bytes, &e), &e);
    must(device_zero(device, at, bytes, &e), &e);
    return at;
}

static struct heads tensor(struct test_rng *r, int len)
{
    size_t n = (size_t)len * (size_t)size.n_heads * (size_t)size.head_dim;
    struct heads h = {.type = DTYPE_BF16,
                      .where = PLACE_DEVICE,
                      .len = len,
                      .n = size.n_heads,
                      .dim = size.head_dim,
                      .token = (int64_t)size.n_heads * size.head_dim,
                      .head = size.head_dim};
    uint16_t *x = malloc(n * sizeof *x);
    struct err e = {0};
    if (!x) exit(4);
    for (size_t i = 0; i < n; i++)
        x[i] = i < 65536 ? f32_to_bf16(rng_normal(r)) : x[i - 65536 + i / 65536 % 61];
    h.at = alloc(n * sizeof *x);
    must(device_upload(device, h.at, x, n * sizeof *x, &e), &e);
    free(x);
    return h;
}

static void time_one(const char *what, struct attn_job *j, const struct attn_plan *plan,
                     const char *only)
{
    struct attn_size s = size;
    struct attn_plan there = *plan;
    struct err e = {0};
    s.needs = attn_plan_needs(plan) | ATTN_NEED_BF16;
    s.rows = plan->q.n, s.cols = plan->k.n;
    s.block_q = plan->q.size, s.block_k = plan->k.size;
    const struct attn_device_kernel *k = attn_device_of(device)->pick(device, &s, only, &e);
    if (!k) must(-1, &e);
    void *scratch = alloc(k->scratch(&s)), *at = NULL;
    double put = 0, run = 0, density = attn_plan_density(plan, size.len_k);
    if (!plan->all) {
        size_t bytes = k->plan_bytes(&s, plan->n_heads, attn_plans(plan));
        at = alloc(bytes);
        double began = clock_seconds();
        must(k->put(device, at, plan, &s, &e), &e);
        must(device_wait(device, &e), &e);
        put = 1e3 * (clock_seconds() - began);
    }
    there.where = PLACE_DEVICE;
    j->plan = &there, j->size = &s, j->scratch = scratch;
    must(k->run(device, j, at, &e), &e);
    must(device_wait(device, &e), &e);
    int times = 1;
    for (; run < .2 && times < 1000; times *= 2) {
        double began = clock_seconds();
        for (int i = 0; i < times; i++)
            must(k->run(device, j, at, &e), &e);
        must(device_wait(device, &e), &e);
        run = clock_seconds() - began;
    }
    run = 1e3 * run / (times / 2);
    if (dense_ms == 0) dense_ms = run;
    printf("%-44s %-6s %9.3f ms  density %.3f  of dense %.3f  put %8.2f ms\n", what, k->name, run,
           density, run / dense_ms, put);
    fflush(stdout);
    device_free(device, scratch);
    device_free(device, at);
}

/* A stride that visits every token once. */
static int32_t *shuffled(int len)
{
    int32_t *at = malloc((size_t)len * sizeof *at);
    int step = 1009;
    if (!at) exit(4);
    while (len % step == 0)
        step += 2;
    for (int i = 0; i < len; i++)
        at[i] = (int32_t)((int64_t)i * step % len);
    return at;
}

/* Blocks of about `mean` tokens, none alike. */
static int32_t *cuts(struct test_rng *r, int len, int n)
{
    int32_t *at = malloc(((size_t)n + 1) * sizeof *at);
    if (!at) exit(4);
    for (int i = 0; i < n; i++)
        at[i] = (int32_t)((int64_t)len * i / n) + (i ? rng_int(r, -len / n / 3, len / n / 3) : 0);
    at[n] = len;
    return at;
}

static uint32_t *plane(struct test_rng *r, const struct attn_plan *p, double share)
{
    size_t words = (size_t)attn_words(p->k.n), n = attn_plane_size(p);
    uint32_t *x = calloc(n, sizeof *x);
    if (!x) exit(4);
    for (size_t i = 0; i < n / words; i++)
        for (int t = 0; t < p->k.n; t++)
            if (rng_unit(r) < share || t == (int)(i % (size_t)p->q.n) % p->k.n)
                x[i * words + (size_t)(t / 32)] |= 1u << (t % 32);
    return x;
}

int main(int argc, char **argv)
{
    struct test_rng r = {1};
    struct err e = {0};
    struct attn_plan p, q;
    size = (struct attn_size){.len_q = argc > 1 ? atoi(argv[1]) : 32760,
                              .n_heads = argc > 2 ? atoi(argv[2]) : 12,
                              .head_dim = argc > 3 ? atoi(argv[3]) : 128,
                              .precision = PRECISION_BF16};
    size.len_k = size.len_q;
    int len = size.len_q;
    must(device_open(&device, "cuda", &e), &e);
    struct attn_job j = {
        .q = tensor(&r, len), .k = tensor(&r, len), .v = tensor(&r, len), .o = tensor(&r, len)};
    must(attn_plan_dense(&p, len, len, size.n_heads, &e), &e);
    time_one("dense", &j, &p, NULL);
    p.all = false, p.per_head = true;
    must(attn_blocks_equal(&p.q, len, 128, &e), &e);
    must(attn_blocks_equal(&p.k, len, 128, &e), &e);
    p.kept = plane(&r, &p, .25);
    time_one("tiles of 128, a quarter", &j, &p, NULL);
    time_one("the same", &j, &p, "every");
    q = p;
    q.q_order.token = q.k_order.token = shuffled(len);
    time_one("in an order", &j, &q, NULL);
    j.residual = tensor(&r, len);
    p.rule = q.rule = ATTN_ADD_RESIDUAL;
    time_one("a residual added", &j, &p, NULL);
    time_one("in an order, a residual added", &j, &q, NULL);
    p.rule = q.rule = ATTN_MAKE_RESIDUAL;
    time_one("a residual made", &j, &p, NULL);
    time_one("in an order, a residual made", &j, &q, NULL);
    q.rule = ATTN_COMPUTE;
    q.q = (struct attn_blocks){.len = len, .n = len / 320 + 1, .at = cuts(&r, len, len / 320 + 1)};
    q.k = (struct attn_blocks){.len = len, .n = len / 64 + 1, .at = cuts(&r, len, len / 64 + 1)};
    q.kept = plane(&r, &q, .25);
    time_one("clusters of 320 x 64, a quarter, in an order", &j, &q, NULL);
    time_one("the same", &j, &q, "every");
    p.rule = ATTN_COMPUTE;
    p.mean = plane(&r, &p, .5);
    j.k_mean = tensor(&r, p.k.n), j.v_mean = tensor(&r, p.k.n);
    time_one("tiles of 128, a quarter, half by mean", &j, &p, NULL);
    device_close(device);
    return 0;
}
