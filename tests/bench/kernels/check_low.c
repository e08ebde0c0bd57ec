/* 8-bit attention of the room on this machine's GPU, by its own table: pick, scratch, put, run.
 *
 *   check_low [PROBLEMS [SEED]]     (40, 1)
 *
 * Codes must be those that follow from the means and value scales that the card made (quant_ref.c), what is
 * made of them what the emulation makes of the same codes, and both near exact attention, within the bounds
 * of attention-kernels 9.4. Each call is done twice for the same bytes, the second time from a recording;
 * memory around o is looked at. The codes themselves lie in the call's scratch. */
#include "attention/device.h"
#include "attention/kernels/cuda/sage_cuda.h"
#include "model/base/threads.h"
#include "tests/check.h"

#define EDGE 256 /* bytes before and after o */

static struct device *device;
static double worst[3]; /* relative L1, largest difference, against exact: shares of their bounds */

struct problem {
    int len_q, len_k, heads, dim;
    bool sparse, per_head, by_head, exact;
    enum attn_prec qk, pv;
    struct attn_codes codes;

    uint16_t *bits[3]; /* q, k, v */
    float *wide[3];
    struct heads view[4]; /* of the host: q, k, v, o; bf16 */
    uint32_t *kept;
    struct attn_plan plan;
    char what[200];
};

static void *must(void *p)
{
    if (!p) abort();
    return p;
}

static void *there(const void *from, size_t bytes)
{
    struct err e = {0};
    void *at = NULL;
    CHECK_OK(device_alloc(device, &at, bytes, &e));
    if (!at) exit(5);
    if (from) CHECK_OK(device_upload(device, at, from, bytes, &e));
    return at;
}

/* Keys share a large part, so that smoothing has something to do. */
static void make(struct problem *p, struct test_rng *r)
{
    struct err e = {0};
    for (int x = 0; x < 3; x++) {
        int len = x ? p->len_k : p->len_q;
        size_t n = (size_t)len * (size_t)p->heads * (size_t)p->dim;
        p->bits[x] = must(malloc(n * sizeof(uint16_t)));
        p->wide[x] = must(malloc(n * sizeof(float)));
        p->view[x] = (struct heads){.at = p->bits[x],
                                    .type = DTYPE_BF16,
                                    .len = len,
                                    .n = p->heads,
                                    .dim = p->dim,
                                    .token = p->by_head ? p->dim : (int64_t)p->heads * p->dim,
                                    .head = p->by_head ? (int64_t)len * p->dim : p->dim};
        for (size_t i = 0; i < n; i++) {
            p->bits[x][i] = f32_to_bf16((float)rng_normal(r) + (x == 1 ? (float)(i % 8) : 0));
            p->wide[x][i] = bf16_to_f32(p->bits[x][i]);
        }
    }
    p->view[3] = p->view[0];
    CHECK_OK(attn_plan_dense(&p->plan, p->len_q, p->len_k, p->heads, &e));
    CHECK_OK(attn_blocks_equal(&p->plan.q, p->len_q, 128, &e));
    CHECK_OK(attn_blocks_equal(&p->plan.k, p->len_k, 128, &e));
    p->plan.qk = p->qk, p->plan.pv = p->pv, p->plan.codes = p->codes;
    if (p->sparse) {
        p->plan.all = false, p->plan.may_be_empty = true, p->plan.per_head = p->per_head;
        size_t words = attn_plane_size(&p->plan);
        int cols = p->plan.k.n, row_words = attn_words(cols);
        p->kept = must(calloc(words, sizeof *p->kept));
        for (size_t row = 0; row < words / (size_t)row_words; row++)
            for (int t = 0; row != 1 && t < cols; t++) /* row 1 keeps nothing */
                if (rng_u64(r) % 3 || t == (int)row % cols)
                    p->kept[row * (size_t)row_words + (size_t)(t / 32)] |= 1u << (t % 32);
        p->plan.kept = p->kept;
    }
    snprintf(p->what, sizeof p->what, "%d queries, %d keys, %d x %d, qk int%d, pv %s%s%s%s%s",
             p->len_q, p->len_k, p->heads, p->dim, p->qk == ATTN_PREC_INT4 ? 4 : 8,
             p->pv == ATTN_PREC_FP8 ? "fp8" : "int8", p->codes.smooth_k ? ", smoothed" : "",
             p->codes.rotate ? ", rotated" : "",
             p->sparse ? p->per_head ? ", a plan a head" : ", a plan" : "",
             p->by_head ? ", head by head" : "");
}

static void forget(struct problem *p)
{
    for (int x = 0; x < 3; x++)
        free(p->bits[x]), free(p->wide[x]);
    free(p->kept);
}

/* --- what it must be --- */

struct judging {
    const struct problem *p;
    const struct quant_codes *c;
    float *o; /* [L, N, D] */
};

/* Tiles of a row as the kernels go: the last one first. */
static int tiles_of(uint32_t *order, const struct problem *p, int head, int query)
{
    int n = 0, row = (p->plan.per_head ? head * p->plan.q.n : 0) + query / 128;
    for (int t = 0; t < p->plan.k.n; t++)
        if (p->plan.all || attn_bit(p->kept, (size_t)row, attn_words(p->plan.k.n), t))
            order[n++] = (uint32_t)t;
    if (n > 1) {
        uint32_t last = order[n - 1];
        memmove(order + 1, order, (size_t)(n - 1) * sizeof *order);
        order[0] = last;
    }
    return n;
}

static void judge_query(void *ctx, int task, int worker)
{
    const struct judging *g = ctx;
    int head = task % g->p->heads, query = task / g->p->heads;
    uint32_t *order = must(malloc((size_t)g->p->plan.k.n * sizeof *order));
    int n = tiles_of(order, g->p, head, query);
    (void)worker;
    quant_attend(g->o + (size_t)task * (size_t)g->p->dim, NULL, NULL, g->c, head, query, order, n);
    free(order);
}

static void same(const char *what, const void *a, const void *b, size_t bytes,
                 const struct problem *p)
{
    CHECK_MSG(memcmp(a, b, bytes) == 0, "other codes: %s: %s", what, p->what);
}

/* got: of the card, in host memory. */
static void check_codes(const struct quant_codes *got, const struct problem *p)
{
    struct quant_codes want = *got;
    struct quant_rows rows[3];
    size_t bytes = quant_codes_carve(&want, NULL), n = (size_t)p->heads, d = (size_t)p->dim;
    char *at = must(aligned_alloc(256, bytes));
    quant_codes_carve(&want, at);
    for (int x = 0; x < 3; x++)
        rows[x] = (struct quant_rows){p->wide[x], p->view[x].token, p->view[x].head};
    memcpy(want.k_mean, got->k_mean, n * d * sizeof(float));
    memcpy(want.v_scale, got->v_scale, n * d * sizeof(float));
    quant_ref_codes(&want, &rows[0], &rows[1], &rows[2]);
    size_t q = n * (size_t)got->q_blocks * QUANT_BLOCK, k = n * (size_t)got->k_blocks * QUANT_BLOCK;
    same("q", got->q, want.q, q * d, p);
    same("k", got->k, want.k, k * d, p);
    same("v", got->v, want.v, k * d, p);
    same("q_scale", got->q_scale, want.q_scale, q / 2 * sizeof(float), p);
    same("k_scale", got->k_scale, want.k_scale, k / QUANT_BLOCK * QUANT_K_SCALES * sizeof(float),
         p);
    free(at);
}

static double l1(const float *a, const float *b, size_t n, double *most)
{
    double off = 0, all = 0, far = 0, top = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        off += d, all += fabs((double)b[i]);
        if (!(d <= far)) far = d;
        if (fabs((double)b[i]) > top) top = fabs((double)b[i]);
    }
    if (most) *most = top > 0 ? far / top : far;
    return all > 0 ? off / all : off;
}

static void note(int i, double share)
{
    if (!(share <= worst[i])) worst[i] = share;
}

/* o of the card as [L, N, D], against both. */
static void check_o(const float *o, const struct quant_codes *c, const struct problem *p)
{
    struct judging g = {p, c, NULL};
    size_t rows = (size_t)p->len_q * (size_t)p->heads, n = rows * (size_t)p->dim;
    double most;
    g.o = must(malloc(n * sizeof(float)));
    threads_run((int)rows, judge_query, &g);
    double off = l1(o, g.o, n, &most);
    note(0, off / 3e-3), note(1, most / 3e-2);
    CHECK_MSG(off <= 3e-3 && most <= 3e-2,
              "relative L1 %.3g, at most %.3g of the largest, off the emulation: %s", off, most,
              p->what);
    if (p->exact) { /* of random numbers: 9.4 */
        struct attn_plan plan = p->plan;
        struct err e = {0};
        plan.qk = plan.pv = ATTN_PREC_RUN;
        plan.codes = (struct attn_codes){0};
        struct attn_job j = {
            .q = p->view[0], .k = p->view[1], .v = p->view[2], .o = p->view[3], .plan = &plan};
        double bound = p->qk == ATTN_PREC_INT4 ? .30 : p->pv == ATTN_PREC_FP8 ? .060 : .027;
        CHECK_OK(attn_judge(&j, &(struct attn_judge){.o = g.o, .only_row = -1}, &e));
        off = l1(o, g.o, n, NULL);
        note(2, off / bound);
        CHECK_MSG(off <= bound, "relative L1 %.3g against exact attention, at most %.3g: %s", off,
                  bound, p->what);
    }
    free(g.o);
}

/* --- a call --- */

static void widen(float *to, const uint16_t *from, const struct problem *p)
{
    const struct heads *v = &p->view[3];
    for (int t = 0; t < p->len_q; t++)
        for (int h = 0; h < p->heads; h++)
            for (int i = 0; i < p->dim; i++)
                to[((size_t)t * (size_t)p->heads + (size_t)h) * (size_t)p->dim + (size_t)i] =
                    bf16_to_f32(from[t * v->token + h * v->head + i]);
}

static void run_once(const struct attn_device_kernel *k, const struct attn_job *j, const void *at,
                     bool recorded)
{
    struct err e = {0};
    struct device_steps *steps = NULL;
    if (recorded) CHECK_OK(device_record(device, &e));
    CHECK_OK(k->run(device, j, at, &e));
    if (recorded) {
        CHECK_OK(device_recorded(device, &steps, &e));
        CHECK_OK(device_replay(device, steps, &e));
    }
    CHECK_OK(device_wait(device, &e));
    device_steps_close(device, steps);
}

static void check(struct problem *p, struct test_rng *r)
{
    struct err e = {0};
    make(p, r);
    struct attn_size s = {.len_q = p->len_q,
                          .len_k = p->len_k,
                          .n_heads = p->heads,
                          .head_dim = p->dim,
                          .rows = p->plan.q.n,
                          .cols = p->plan.k.n,
                          .block_q = 128,
                          .block_k = 128,
                          .threads = 1,
                          .precision = PRECISION_BF16,
                          .needs = attn_plan_needs(&p->plan)};
    const struct attn_device_kernel *k = attn_device_of(device)->pick(device, &s, NULL, &e);
    CHECK_MSG(k && strcmp(k->name, "sage") == 0, "%s for %s", k ? k->name : e.msg, p->what);
    if (!k) {
        forget(p);
        return;
    }
    struct attn_plan plan = p->plan;
    struct attn_job j = {.plan = &plan, .size = &s};
    struct heads *views[] = {&j.q, &j.k, &j.v, &j.o};
    size_t o_bytes = (size_t)p->len_q * (size_t)p->heads * (size_t)p->dim * sizeof(uint16_t);
    size_t scratch = k->scratch(&s);
    unsigned char *o[2], *codes_at = must(aligned_alloc(256, (scratch + 255) / 256 * 256));
    char *o_there = there(NULL, o_bytes + 2 * EDGE), *plan_there = NULL;
    for (int x = 0; x < 4; x++) {
        *views[x] = p->view[x];
        views[x]->where = PLACE_DEVICE;
        size_t n = (size_t)views[x]->len * (size_t)p->heads * (size_t)p->dim;
        views[x]->at = x == 3 ? o_there + EDGE : there(p->bits[x], n * sizeof(uint16_t));
    }
    plan.where = PLACE_DEVICE;
    memset(codes_at, 0xab, scratch); /* whoever reads before writing */
    j.scratch = there(codes_at, scratch);
    if (p->sparse) {
        plan_there = there(NULL, k->plan_bytes(&s, p->heads, attn_plans(&plan)));
        CHECK_OK(k->put(device, plan_there, &p->plan, &s, &e));
    }
    int touched = 0;
    for (int i = 0; i < 2; i++) {
        o[i] = must(malloc(o_bytes + 2 * EDGE));
        memset(o[i], 0xff, o_bytes + 2 * EDGE);
        CHECK_OK(device_upload(device, o_there, o[i], o_bytes + 2 * EDGE, &e));
        run_once(k, &j, plan_there, i);
        CHECK_OK(device_download(device, o[i], o_there, o_bytes + 2 * EDGE, &e));
        for (size_t b = 0; b < EDGE; b++)
            touched += (o[i][b] != 0xff) + (o[i][EDGE + o_bytes + b] != 0xff);
    }
    CHECK_MSG(!touched, "%d bytes written outside o: %s", touched, p->what);
    CHECK_MSG(memcmp(o[0], o[1], o_bytes + 2 * EDGE) == 0, "recorded, other bytes: %s", p->what);
    struct quant_codes c;
    CHECK_OK(device_download(device, codes_at, j.scratch, scratch, &e));
    void *scratch_there = j.scratch;
    j.scratch = codes_at; /* the same layout here */
    CHECK_OK(sage_codes(&c, &j, &e));
    check_codes(&c, p);
    float *got = must(malloc(o_bytes * 2));
    widen(got, (uint16_t *)(void *)(o[0] + EDGE), p);
    check_o(got, &c, p);
    for (int x = 0; x < 3; x++)
        device_free(device, views[x]->at);
    device_free(device, o_there), device_free(device, plan_there);
    device_free(device, scratch_there);
    free(got), free(o[0]), free(o[1]), free(codes_at);
    forget(p);
}

static struct problem drawn(struct test_rng *r)
{
    struct problem p = {.len_q = rng_int(r, 1, 500),
                        .len_k = rng_int(r, 1, 700),
                        .heads = rng_int(r, 1, 3),
                        .dim = rng_int(r, 0, 1) ? 64 : 128,
                        .sparse = rng_int(r, 0, 1),
                        .per_head = rng_int(r, 0, 1),
                        .by_head = rng_int(r, 0, 1),
                        .qk = rng_int(r, 0, 3) ? ATTN_PREC_INT8 : ATTN_PREC_INT4,
                        .pv = rng_int(r, 0, 2) ? ATTN_PREC_FP8 : ATTN_PREC_INT8,
                        .codes = {.smooth_k = rng_int(r, 0, 3) > 0, .rotate = rng_int(r, 0, 1)}};
    return p;
}

int main(int argc, char **argv)
{
    struct err e = {0};
    int problems = argc > 1 ? atoi(argv[1]) : 40;
    struct test_rng r = {argc > 2 ? (uint64_t)atoi(argv[2]) : 1};
    if (device_open(&device, "cuda", &e) < 0) {
        fprintf(stderr, "%s\n", e.msg);
        return (int)e.code;
    }
    for (int i = 0; i < 16; i++) { /* against exact attention too */
        struct problem p = {.len_q = 777,
                            .len_k = 1100,
                            .heads = 2,
                            .dim = i & 1 ? 64 : 128,
                            .sparse = i & 2,
                            .exact = true,
                            .qk = i == 12 || i == 15 ? ATTN_PREC_INT4 : ATTN_PREC_INT8,
                            .pv = i & 4 ? ATTN_PREC_INT8 : ATTN_PREC_FP8,
                            .codes = {.smooth_k = true, .rotate = i & 8}};
        check(&p, &r);
    }
    for (int i = 0; i < problems; i++) {
        struct problem p = drawn(&r);
        check(&p, &r);
    }
    device_close(device);
    printf("%d calls, %d checks, %d failed; worst, of their bounds: relative L1 off the emulation "
           "%.2f, largest %.2f; off exact attention %.2f\n",
           2 * (16 + problems), checks_done, checks_failed, worst[0], worst[1], worst[2]);
    return checks_failed ? 1 : 0;
}
