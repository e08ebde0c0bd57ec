/* 8-bit kernels against the emulation on the same codes, and against exact attention: sets, options, lengths, repeats.
 */
#include "tests/bench/kernels/bench_sage.h"

#include "model/base/dtype.h"
#include "model/base/threads.h"

int tiles_of(uint32_t *order, const struct attn_cuda *host, int head, int query)
{
    const struct attn_lists *l = host->lists;
    int n = l ? 0 : (host->len_k - 1) / QUANT_BLOCK + 1;
    const uint32_t *steps = NULL;
    if (l) {
        size_t row = (size_t)(l->n_plans > 1 ? head * l->rows : 0) + (size_t)(query / l->block_q);
        n = (int)(l->row_ptr[row + 1] - l->row_ptr[row]);
        steps = l->steps + l->row_ptr[row];
    }
    for (int i = 0; i < n; i++) {
        int at = i == 0 ? n - 1 : i - 1;
        order[i] = steps ? steps[at] : (uint32_t)at;
    }
    return n;
}

struct emulated {
    const struct quant_codes *c;
    const struct attn_cuda *host;
    float *o, *lse, *rise; /* [L, N, D], [N, L], [N, L, k_blocks] by tile */
};

static void emulate_query(void *ctx, int task, int worker)
{
    const struct emulated *m = ctx;
    const struct quant_codes *c = m->c;
    uint32_t *order = host_new((size_t)c->k_blocks * 4);
    float *rise = host_new((size_t)c->k_blocks * 4);
    int head = task % c->n_heads, query = task / c->n_heads,
        n = tiles_of(order, m->host, head, query);
    size_t at = (size_t)head * (size_t)c->len_q + (size_t)query;
    (void)worker;
    quant_attend(m->o + (size_t)task * (size_t)c->head_dim, m->lse + at, rise, c, head, query,
                 order, n);
    for (int i = 0; i < c->k_blocks; i++)
        m->rise[at * (size_t)c->k_blocks + (size_t)i] = -INFINITY;
    for (int i = 0; i < n; i++)
        m->rise[at * (size_t)c->k_blocks + order[i]] = rise[i];
    free(order);
    free(rise);
}

/* Bits of tiles that are alive: sure where the emulation is not at the bound itself. */
static void check_alive(const char *name, const struct problem *p, const struct output *got,
                        const struct emulated *m)
{
    const struct quant_codes *c = m->c;
    int words = (c->k_blocks + 31) / 32, rows = (c->len_q + 127) / 128, wrong = 0;
    float bound = p->host.alive_log2;
    for (int h = 0; h < c->n_heads; h++)
        for (int r = 0; r < rows; r++)
            for (int t = 0; t < c->k_blocks; t++) {
                float most = -INFINITY;
                for (int q = r * 128; q < c->len_q && q < r * 128 + 128; q++) {
                    float x =
                        m->rise[((size_t)h * (size_t)c->len_q + (size_t)q) * (size_t)c->k_blocks +
                                (size_t)t];
                    if (x > most) most = x;
                }
                bool bit = got->alive[(size_t)(h * rows + r) * (size_t)words + (size_t)(t / 32)] >>
                               (t % 32) &
                           1;
                if (fabsf(most - bound) > 1e-3f * (1 + fabsf(bound)))
                    wrong += bit != (most > bound);
            }
    CHECK_MSG(!wrong, "%s: %d tiles recorded wrongly: %s", name, wrong, p->what);
}

struct seen { /* against the emulation, and against exact attention */
    double l1, most, lse, exact, cosine;
};

static struct seen look(const struct problem *p, const struct output *got, const struct emulated *m,
                        const float *exact)
{
    const struct problem_want *w = &p->want;
    const struct attn_tensor *t = &p->host.o;
    const uint16_t *o = (const void *)(got->o + GUARD);
    double off = 0, all = 0, most = 0, top = 0, far = 0, sum = 0, ab = 0, aa = 0, bb = 0;
    struct seen s = {0};
    for (int i = 0; i < w->len_q; i++)
        for (int h = 0; h < w->n_heads; h++) {
            for (int c = 0; c < w->head_dim; c++) {
                size_t at =
                    ((size_t)i * (size_t)w->n_heads + (size_t)h) * (size_t)w->head_dim + (size_t)c;
                double g = (double)bf16_to_f32(o[i * t->token + h * t->head + c]),
                       x = (double)m->o[at];
                off += fabs(g - x);
                all += fabs(x);
                if (!(fabs(g - x) <= most)) most = fabs(g - x);
                if (fabs(x) > top) top = fabs(x);
                if (!exact) continue;
                double y = (double)exact[at];
                far += fabs(g - y);
                sum += fabs(y);
                ab += g * y;
                aa += g * g;
                bb += y * y;
            }
            if (!got->lse) continue;
            size_t at = (size_t)h * (size_t)w->len_q + (size_t)i;
            double g = (double)got->lse[at], x = (double)m->lse[at], d = g == x ? 0 : fabs(g - x);
            if (!(d <= s.lse)) s.lse = d;
        }
    s.l1 = all > 0 ? off / all : off;
    s.most = top > 0 ? most / top : most;
    if (exact) {
        s.exact = far / sum;
        s.cosine = ab / sqrt(aa * bb);
    }
    return s;
}

static int touched(const struct problem *p, const struct output *got)
{
    int n = 0;
    for (int i = 0; i < GUARD; i++)
        n += (got->o[i] != 0xff) + (got->o[GUARD + 2 * p->q_count + (size_t)i] != 0xff);
    return n;
}

struct bounds { /* attention-kernels 9.4, by set: NORMAL, STRUCTURED, BIASED, ONE_KEY */
    double e4m3, s8;
};
static struct bounds bounds_of(enum logits set)
{
    switch (set) {
    case NORMAL:
        return (struct bounds){.060, .027};
    case STRUCTURED:
        return (struct bounds){.0045, .0035};
    case BIASED:
        return (struct bounds){.0060, .0035};
    case ONE_KEY:
        return (struct bounds){.035, .020};
    default:
        return (struct bounds){.060, .060};
    }
}

static const struct quant_codes *bound_codes;
static int run_bound(const struct attn_cuda *w, int variant, struct err *e)
{
    return sage_sm90_as(bound_codes, w, variant, e);
}

static void check_repeats8(struct on_device *d, const struct kernel_under_test *k, int repeats,
                           const char *what)
{
    struct err e = {0};
    size_t bytes = d->o_bytes / 4 * 4;
    void *first = gpu_new(bytes);
    unsigned *count = gpu_new(4), n = 0;
    GPU(cudaMemset(count, 0, 4));
    for (int i = 0; i < repeats; i++) {
        CHECK_OK(k->run(&d->call, k->variant, &e));
        if (i == 0)
            GPU(cudaMemcpy(first, d->o + GUARD, bytes, cudaMemcpyDeviceToDevice));
        else
            gpu_differ(count, first, d->o + GUARD, bytes);
    }
    GPU(cudaDeviceSynchronize());
    gpu_read(&n, count, 4);
    CHECK_MSG(!n, "%s: %u words differ over %d launches: %s", k->name, n, repeats, what);
    GPU(cudaFree(first));
    GPU(cudaFree(count));
}

static void check_one(const struct problem_want *want, const struct quant_how *how,
                      bool against_exact, int repeats, struct test_rng *r, bool talk)
{
    struct err e = {0};
    struct problem p;
    struct on_device d;
    struct codes_pair c;
    problem_make(&p, want, r);
    upload(&d, &p);
    struct quant_codes sizes = {.len_q = want->len_q,
                                .len_k = want->len_k,
                                .n_heads = want->n_heads,
                                .head_dim = want->head_dim,
                                .how = *how};
    codes_make(&c, &sizes);
    CHECK_OK(quant_qkv(&c.gpu, &d.call, &e));
    GPU(cudaDeviceSynchronize());
    codes_read(&c);
    check_codes(&c, &p);
    size_t rows = (size_t)want->len_q * (size_t)want->n_heads, n = rows * (size_t)want->head_dim;
    struct emulated m = {&c.host, &p.host, host_new(n * 4), host_new(rows * 4),
                         host_new(rows * (size_t)c.host.k_blocks * 4)};
    float *exact = against_exact ? host_new(n * 4) : NULL;
    threads_run((int)rows, emulate_query, &m);
    struct attn_job judge = judged(&p.host, &p.plan);
    if (exact) CHECK_OK(attn_judge(&judge, &(struct attn_judge){.o = exact, .only_row = -1}, &e));
    bound_codes = &c.gpu;
    struct bounds bound = bounds_of(want->logits);
    for (int i = 0; sage_sm90_variant(i, NULL); i++) {
        if (!sage_sm90_takes(&c.gpu, &d.call, i)) continue;
        struct kernel_under_test k = {.variant = i, .run = run_bound};
        snprintf(k.name, sizeof k.name, "sage %s", sage_sm90_variant(i, NULL));
        struct output got = run(&k, &d, p.what);
        struct seen s = look(&p, &got, &m, exact);
        double limit = how->values == QUANT_S8 ? bound.s8 : bound.e4m3;
        if (how->bits == 4) limit = .30;
        CHECK_MSG(s.l1 <= 3e-3 && s.most <= 3e-2,
                  "%s: relative L1 %.3g, at most %.3g of the largest, off the emulation: %s",
                  k.name, s.l1, s.most, p.what);
        CHECK_MSG(s.lse <= 2e-3, "%s: lse off the emulation's by %.3g: %s", k.name, s.lse, p.what);
        CHECK_MSG(!touched(&p, &got), "%s wrote outside o: %s", k.name, p.what);
        CHECK_MSG(!exact || s.exact <= limit,
                  "%s: relative L1 %.3g against exact attention, at most %.3g wanted: %s", k.name,
                  s.exact, limit, p.what);
        if (got.alive) check_alive(k.name, &p, &got, &m);
        if (talk)
            printf("%-22s set %d D %3d %s%s%s: emulation L1 %.2e most %.2e lse %.1e; exact L1 %.4f "
                   "cos %.6f\n",
                   k.name, (int)want->logits, want->head_dim, want->sparse ? "list " : "",
                   how->rotate ? "rotated " : "", how->bits == 4 ? "4 bits" : "", s.l1, s.most,
                   s.lse, s.exact, s.cosine);
        output_free(&got);
        if (repeats) check_repeats8(&d, &k, repeats, p.what);
    }
    free(exact);
    free(m.o);
    free(m.lse);
    free(m.rise);
    codes_free(&c);
    release(&d);
    problem_free(&p);
    tally_up();
}

/* A plan of every tile is the dense kernel, to the byte. */
static void check_every_tile8(struct test_rng *r, int dim, enum quant_values values)
{
    struct problem_want w = {.len_q = 777,
                             .len_k = 1100,
                             .n_heads = 2,
                             .head_dim = dim,
                             .block_q = 128,
                             .block_k = 128,
                             .density = 2,
                             .sparse = true};
    struct quant_how how = {.bits = 8, .smooth_k = true, .values = values};
    struct quant_codes sizes = {
        .len_q = w.len_q, .len_k = w.len_k, .n_heads = 2, .head_dim = dim, .how = how};
    struct err e = {0};
    struct problem p;
    struct on_device d;
    struct codes_pair c;
    problem_make(&p, &w, r);
    upload(&d, &p);
    codes_make(&c, &sizes);
    CHECK_OK(quant_qkv(&c.gpu, &d.call, &e));
    unsigned char *o[2];
    for (int i = 0; i < 2; i++) {
        o[i] = host_new(d.o_bytes);
        if (i) d.call.lists = NULL;
        GPU(cudaMemset(d.o, 0xff, d.o_bytes + 2 * GUARD));
        CHECK_OK(sage_sm90(&c.gpu, &d.call, &e));
        GPU(cudaDeviceSynchronize());
        gpu_read(o[i], d.o + GUARD, d.o_bytes);
    }
    CHECK_MSG(memcmp(o[0], o[1], d.o_bytes) == 0,
              "sage: a list of every tile has other bytes than dense: %s", p.what);
    free(o[0]);
    free(o[1]);
    codes_free(&c);
    release(&d);
    problem_free(&p);
    tally_up();
}

static void random_problems(int problems, struct test_rng *r)
{
    for (int i = 0; i < problems; i++) {
        struct problem_want w = {.len_q = rng_int(r, 1, 700),
                                 .len_k = rng_int(r, 1, 900),
                                 .n_heads = rng_int(r, 1, 3),
                                 .head_dim = rng_int(r, 0, 1) ? 64 : 128,
                                 .sparse = rng_int(r, 0, 2) > 0,
                                 .per_head = rng_int(r, 0, 1),
                                 .forced = rng_int(r, 0, 1),
                                 .dead = rng_int(r, 0, 1),
                                 .lse = rng_int(r, 0, 1),
                                 .by_head = rng_int(r, 0, 1),
                                 .gaps = rng_int(r, 0, 1),
                                 .block_q = 128,
                                 .block_k = 128,
                                 .density = rng_unit(r),
                                 .logits = (enum logits)rng_int(r, NORMAL, OFFSET)};
        w.alive = w.sparse && rng_int(r, 0, 1);
        struct quant_how how = {.bits = rng_int(r, 0, 3) ? 8 : 4,
                                .smooth_k = rng_int(r, 0, 1),
                                .smooth_q = !w.alive && rng_int(r, 0, 3) == 0,
                                .rotate = rng_int(r, 0, 1),
                                .values = rng_int(r, 0, 2) ? QUANT_E4M3 : QUANT_S8,
                                .pools = 1 << rng_int(r, 0, 2)};
        if (how.smooth_q || w.alive) how.values = QUANT_E4M3;
        if (!rng_int(r, 0, 3)) how.pools = 0;
        check_one(&w, &how, false, 0, r, false);
    }
}

void check_sage(int problems, int repeats, uint64_t seed)
{
    static const enum logits sets[] = {NORMAL, STRUCTURED, BIASED, ONE_KEY, ONE_VALUE};
    static const int lens[] = {1, 7, 63, 64, 65, 127, 128, 129, 255, 1000};
    struct test_rng r = {seed};
    struct quant_how plain = {.bits = 8, .smooth_k = true, .pools = 2};
    for (int dim = 64; dim <= 128; dim += 64) {
        for (int i = 0; i < (int)ARRAY_LEN(sets); i++)
            for (int v = 0; v < 2; v++)
                for (int sparse = 0; sparse < 2; sparse++) {
                    struct problem_want w = {.len_q = 256,
                                             .len_k = 8192,
                                             .n_heads = 1,
                                             .head_dim = dim,
                                             .block_q = 128,
                                             .block_k = 128,
                                             .density = .3,
                                             .sparse = sparse,
                                             .logits = sets[i],
                                             .lse = true};
                    struct quant_how how = plain;
                    how.values = v ? QUANT_S8 : QUANT_E4M3;
                    check_one(&w, &how, true, sparse ? 0 : repeats, &r, true);
                }
        for (int i = 0; i < 4; i++) { /* rotation, smoothed queries, four bits */
            struct problem_want w = {.len_q = 256,
                                     .len_k = 8192,
                                     .n_heads = 1,
                                     .head_dim = dim,
                                     .block_q = 128,
                                     .block_k = 128,
                                     .density = .3,
                                     .sparse = i % 2,
                                     .logits = BIASED,
                                     .lse = true};
            struct quant_how how = plain;
            how.rotate = i != 2;
            how.smooth_q = i >= 2;
            how.bits = i == 3 ? 4 : 8;
            check_one(&w, &how, how.bits == 8, 0, &r, true);
        }
        check_every_tile8(&r, dim, QUANT_E4M3);
        check_every_tile8(&r, dim, QUANT_S8);
        for (int i = 0; i < (int)ARRAY_LEN(lens); i++) {
            struct problem_want w = {.len_q = lens[i],
                                     .len_k = lens[i],
                                     .n_heads = 2,
                                     .head_dim = dim,
                                     .block_q = 128,
                                     .block_k = 128,
                                     .density = .7,
                                     .sparse = i % 2,
                                     .lse = true,
                                     .gaps = true};
            check_one(&w, &plain, false, 0, &r, false);
        }
    }
    random_problems(problems, &r);
    tally_up();
}

void check_some(int problems, uint64_t seed)
{
    struct test_rng r = {seed};
    random_problems(problems, &r);
    tally_up();
}
