/* Every GPU kernel against the judge: random, ragged and adversarial calls; guards; encodings;
 * repetition. Design, attention-kernels 9.4. */
#include "tests/bench/kernels/gpu.h"
#include "tests/bench/kernels/kernels_under_test.h"
#include "tests/bench/kernels/problem.h"

#include "model/base/dtype.h"

#define GUARD 4096 /* bytes before and after o */

struct on_device {
    struct attn_cuda call; /* device pointers; lists in host memory with device arrays */
    struct attn_lists lists;
    char *o; /* guards included */
    size_t o_bytes, lse_count, alive_count;
    void *owned[16];
    int n_owned;
};

static void *own(struct on_device *d, void *p) { return d->owned[d->n_owned++] = p; }

static void upload(struct on_device *d, const struct problem *p)
{
    const struct problem_want *w = &p->want;
    *d = (struct on_device){.call = p->host};
    struct attn_cuda *c = &d->call;
    c->q.at = own(d, gpu_copy(p->q, p->q_count * 2));
    c->k.at = own(d, gpu_copy(p->k, p->k_count * 2));
    c->v.at = own(d, gpu_copy(p->v, p->k_count * 2));
    d->o_bytes = p->q_count * 2;
    d->o = own(d, gpu_new(d->o_bytes + 2 * GUARD));
    c->o.at = d->o + GUARD;
    c->scratch = own(d, gpu_new(attn_cuda_scratch()));
    if (w->bias) c->key_bias = own(d, gpu_copy(p->key_bias, (size_t)w->len_k * 4));
    d->lse_count = (size_t)w->n_heads * (size_t)w->len_q;
    if (w->lse) c->lse = own(d, gpu_new(d->lse_count * 4));
    if (!w->sparse) return;
    d->lists = p->lists;
    d->lists.row_ptr = own(d, gpu_copy(p->row_ptr, p->size.row_ptr * 4));
    d->lists.steps = own(d, gpu_copy(p->steps, p->size.steps * 4));
    d->lists.order = own(d, gpu_copy(p->order, p->size.order * 4));
    if (w->mean) {
        d->lists.mean = own(d, gpu_copy(p->mean_out, p->size.mean * 4));
        c->k_mean.at = own(d, gpu_copy(p->k_mean, p->mean_count * 2));
        c->v_mean.at = own(d, gpu_copy(p->v_mean, p->mean_count * 2));
    }
    c->lists = &d->lists;
    d->alive_count = problem_rows(p) * (size_t)p->lists.words;
    if (w->alive) c->alive = own(d, gpu_new(d->alive_count * 4));
}

static void release(struct on_device *d)
{
    while (d->n_owned)
        GPU(cudaFree(d->owned[--d->n_owned]));
}

struct output {
    unsigned char *o; /* guards included */
    float *lse;
    uint32_t *alive;
};

static struct output run(const struct kernel_under_test *k, struct on_device *d, const char *what)
{
    struct err e = {0};
    struct output out = {.o = host_new(d->o_bytes + 2 * GUARD)};
    GPU(cudaMemset(d->o, 0xff, d->o_bytes + 2 * GUARD)); /* NaN */
    if (d->call.lse) GPU(cudaMemset(d->call.lse, 0xff, d->lse_count * 4));
    if (d->call.alive) GPU(cudaMemset(d->call.alive, 0xff, d->alive_count * 4));
    int r = k->run(&d->call, k->variant, &e);
    CHECK_MSG(r == 0, "%s: %s: %s", k->name, e.msg, what);
    GPU(cudaDeviceSynchronize());
    gpu_read(out.o, d->o, d->o_bytes + 2 * GUARD);
    if (d->call.lse) {
        out.lse = host_new(d->lse_count * 4);
        gpu_read(out.lse, d->call.lse, d->lse_count * 4);
    }
    if (d->call.alive) {
        out.alive = host_new(d->alive_count * 4);
        gpu_read(out.alive, d->call.alive, d->alive_count * 4);
    }
    return out;
}

static void output_free(struct output *o)
{
    free(o->o);
    free(o->lse);
    free(o->alive);
}

/* Largest |q||k| / sqrt(D) and |v| of a call: what rounding errors are relative to. */
static void extremes(const struct problem *p, double *score, double *value)
{
    const struct problem_want *w = &p->want;
    const struct attn_tensor *t[3] = {&p->host.q, &p->host.k, &p->host.v};
    double norm[3] = {0};
    *value = 0;
    for (int x = 0; x < 3; x++)
        for (int h = 0; h < w->n_heads; h++)
            for (int i = 0; i < (x ? w->len_k : w->len_q); i++) {
                double all = 0;
                for (int c = 0; c < w->head_dim; c++) {
                    double y = (double)bf16_to_f32(
                        ((uint16_t *)t[x]->at)[i * t[x]->token + h * t[x]->head + c]);
                    if (isnan(y)) continue;
                    all += y * y;
                    if (x == 2 && fabs(y) > *value) *value = fabs(y);
                }
                if (all > norm[x]) norm[x] = all;
            }
    *score = sqrt(norm[0] * norm[1] / w->head_dim);
    for (size_t i = 0; w->mean && i < p->mean_count; i++) {
        double y = fabs((double)bf16_to_f32(p->v_mean[i]));
        if (y > *value) *value = y;
    }
}

static void compare(const char *name, const struct problem *p, const struct output *got,
                    const float *want, const float *want_lse)
{
    const struct problem_want *w = &p->want;
    const struct attn_tensor *t = &p->host.o;
    size_t n = p->q_count;
    const uint16_t *o = (const void *)(got->o + GUARD);
    bool *written = host_new(n);
    double score, value, off = 0, all = 0, most = 0, lse_most = 0;
    extremes(p, &score, &value);
    for (int h = 0; h < w->n_heads; h++)
        for (int i = 0; i < w->len_q; i++) {
            for (int c = 0; c < w->head_dim; c++) {
                int64_t at = i * t->token + h * t->head + c;
                double g = (double)bf16_to_f32(o[at]),
                       x = (double)
                           want[((size_t)i * (size_t)w->n_heads + (size_t)h) * (size_t)w->head_dim +
                                (size_t)c];
                written[at] = true;
                off += fabs(g - x);
                all += fabs(x);
                if (!(fabs(g - x) <= most)) most = fabs(g - x);
            }
            if (!got->lse) continue;
            double g = (double)got->lse[(size_t)h * (size_t)w->len_q + (size_t)i],
                   x = (double)want_lse[(size_t)h * (size_t)w->len_q + (size_t)i];
            double d = g == x ? 0 : fabs(g - x);
            if (!(d <= lse_most)) lse_most = d;
        }
    /* P and o are rounded to bf16, half a step of 2^-8 each; a score is off by its sum's rounding,
     * and a weight by as much relatively */
    double weight = score * 0x1p-21, bound = value * (0x1p-8 + 2 * weight) + 1e-30;
    double l1 = w->logits == NORMAL ? .0035 : .0035 + 2 * weight;
    CHECK_MSG(most <= bound, "%s: off by %.3g, at most %.3g wanted: %s", name, most, bound,
              p->what);
    CHECK_MSG(off <= l1 * all, "%s: relative L1 %.3g, at most %.3g wanted: %s", name, off / all, l1,
              p->what);
    CHECK_MSG(lse_most <= 2e-5 + 2 * weight, "%s: lse off by %.3g: %s", name, lse_most, p->what);
    int touched = 0;
    for (int i = 0; i < GUARD; i++)
        touched += (got->o[i] != 0xff) + (got->o[GUARD + 2 * n + (size_t)i] != 0xff);
    for (size_t i = 0; i < n; i++)
        touched += !written[i] && o[i] != 0xffff;
    CHECK_MSG(!touched, "%s wrote %d values outside o: %s", name, touched, p->what);
    free(written);
}

static bool near_bound(const struct problem *p, const float *margin, size_t row, int tile)
{
    double m = (double)margin[row * (size_t)p->lists.cols + (size_t)tile];
    double score, value;
    extremes(p, &score, &value);
    return fabs(m - (double)p->host.alive_log2) < 1e-3 + score * 0x1p-18;
}

static void compare_alive(const char *name, const struct problem *p, const uint32_t *got,
                          const uint32_t *want, const float *margin)
{
    int wrong = 0;
    for (size_t r = 0; r < problem_rows(p); r++)
        for (int t = 0; t < p->lists.cols; t++) {
            size_t at = r * (size_t)p->lists.words + (size_t)(t / 32);
            if (((got[at] ^ want[at]) >> (t % 32) & 1) && !near_bound(p, margin, r, t)) wrong++;
        }
    CHECK_MSG(!wrong, "%s: %d tiles dead or alive against the judge: %s", name, wrong, p->what);
}

/* Lists made on the device from this encoding: the same words as the host's. */
static void check_expand(struct problem *p, const char *encoding)
{
    const struct block_mask *m = &p->mask;
    struct err e = {0};
    struct on_device d = {0};
    struct block_mask map = *m;
    struct attn_plan plan = {.map = &map, .n_heads = p->want.n_heads};
    size_t rows = (size_t)m->n_plans * (size_t)m->rows, plane = rows * (size_t)p->lists.words * 4;
    map.row_ptr = own(&d, gpu_copy(m->row_ptr, (rows + 1) * sizeof *m->row_ptr));
    map.tiles = own(&d, gpu_copy(m->tiles, m->tiles_capacity * sizeof *m->tiles));
    map.bits = own(&d, gpu_copy(m->bits, rows * m->words * sizeof *m->bits));
    if (p->forced) plan.forced = own(&d, gpu_copy(p->forced, plane));
    if (p->dead) plan.dead = own(&d, gpu_copy(p->dead, plane));
    if (p->mean) plan.mean = own(&d, gpu_copy(p->mean, plane));
    void *row_ptr = own(&d, gpu_new(p->size.row_ptr * 4)),
         *order = own(&d, gpu_new(p->size.order * 4));
    void *mean = own(&d, gpu_new(p->size.mean * 4)),
         *scratch = own(&d, gpu_new(attn_expand_scratch(&plan)));
    void *steps = own(&d, gpu_new(attn_expand_steps(&plan) * 4));
    struct attn_lists l;
    CHECK_OK(attn_expand(&l, row_ptr, steps, order, mean, &plan, scratch, NULL, &e));
    GPU(cudaDeviceSynchronize());
    const struct {
        const void *device, *host;
        size_t n;
    } words[] = {{row_ptr, p->row_ptr, p->size.row_ptr},
                 {steps, p->steps, p->size.steps},
                 {order, p->order, p->size.order},
                 {mean, p->mean_out, p->size.mean}};
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        char *got = host_new(words[i].n * 4);
        gpu_read(got, words[i].device, words[i].n * 4);
        CHECK_MSG(memcmp(got, words[i].host, words[i].n * 4) == 0,
                  "expanded on the device from %s: array %d differs: %s", encoding, (int)i,
                  p->what);
        free(got);
    }
    release(&d);
}

static void check_problem(struct problem *p)
{
    static const enum block_map maps[] = {BLOCK_MAP_RANGES, BLOCK_MAP_BITS};
    const struct problem_want *w = &p->want;
    struct err e = {0};
    size_t rows = problem_rows(p), cols = w->sparse ? (size_t)p->lists.cols : 1;
    float *want = host_new((size_t)w->len_q * (size_t)w->n_heads * (size_t)w->head_dim * 4);
    float *lse = host_new((size_t)w->len_q * (size_t)w->n_heads * 4);
    float *margin = host_new(rows * cols * 4);
    uint32_t *alive = host_new(rows * ((cols + 31) / 32) * 4);
    struct attn_cuda judge = p->host;
    judge.lse = lse;
    judge.alive = w->alive ? alive : NULL;
    CHECK_OK(attn_ref_plan(
        &judge,
        &(struct attn_judge){.o = want, .margin = w->sparse ? margin : NULL, .only_row = -1}, &e));
    for (int i = 0; i < kernels_under_test(); i++) {
        const struct kernel_under_test *k = kernel_under_test(i);
        struct on_device d;
        upload(&d, p);
        if (!kernel_takes(k, &d.call)) {
            release(&d);
            continue;
        }
        struct output first = run(k, &d, p->what);
        compare(k->name, p, &first, want, lse);
        if (w->alive) compare_alive(k->name, p, first.alive, alive, margin);
        release(&d);
        for (size_t x = 0; w->sparse && x < ARRAY_LEN(maps); x++) {
            problem_encode(p, maps[x]);
            upload(&d, p);
            struct output again = run(k, &d, p->what);
            CHECK_MSG(memcmp(first.o, again.o, d.o_bytes) == 0,
                      "%s: other bytes for encoding %d: %s", k->name, (int)maps[x], p->what);
            output_free(&again);
            release(&d);
        }
        output_free(&first);
    }
    static const char *const map_names[] = {"ranges", "bits"};
    for (size_t x = 0; w->sparse && x < ARRAY_LEN(maps); x++) {
        problem_encode(p, maps[x]);
        check_expand(p, map_names[x]);
    }
    if (w->sparse) {
        problem_encode(p, BLOCK_MAP_LIST);
        check_expand(p, "a list");
    }
    if (w->sparse && !w->bias && !w->poison && w->lse &&
        w->block_q == 128) { /* mass of every tile under this lse */
        float *mass = host_new(rows * cols * 4), *got = host_new(rows * cols * 4);
        CHECK_OK(attn_ref_plan(&judge, &(struct attn_judge){.mass = mass, .only_row = -1}, &e));
        struct on_device d;
        upload(&d, p);
        void *device_mass = own(&d, gpu_new(rows * cols * 4)),
             *device_lse = own(&d, gpu_copy(lse, d.lse_count * 4));
        GPU(cudaMemset(device_mass, 0xff, rows * cols * 4));
        CHECK_OK(attn_mass_sm80(device_mass, &d.call, device_lse, 128, w->block_k, &e));
        GPU(cudaDeviceSynchronize());
        gpu_read(got, device_mass, rows * cols * 4);
        double score, value, most = 0;
        extremes(p, &score, &value);
        for (size_t i = 0; i < rows * cols; i++) {
            double d2 = fabs((double)got[i] - (double)mass[i]) / ((double)mass[i] + 1e-6);
            /* exp overflows where a plan left out what matters most: both say so */
            if (isinf(got[i]) && isinf(mass[i])) d2 = 0;
            if (!(d2 <= most)) most = d2;
        }
        CHECK_MSG(most <= 1e-3 + score * 0x1p-20 || score > 1000, "mass off by %.3g relatively: %s",
                  most, p->what);
        release(&d);
        free(mass);
        free(got);
    }
    free(want);
    free(lse);
    free(margin);
    free(alive);
}

struct tokens { /* variable blocks as the judge takes them: tiles of one query and one key */
    const struct attn_blocks *b;
    const int *q_block, *k_block; /* [n_plans, len] */
};

static bool keep_token(void *ctx, int plan, int q, int k)
{
    const struct tokens *t = ctx;
    const struct attn_blocks *b = t->b;
    int row = t->q_block[plan * b->len_q + q], col = t->k_block[plan * b->len_k + k];
    return b->keep[(size_t)(plan * b->rows + row) * (size_t)((b->cols + 31) / 32) +
                   (size_t)(col / 32)] >>
               (col % 32) &
           1;
}

/* Random cuts, some of them equal: empty blocks, blocks of one token. */
static void cut_blocks(struct test_rng *r, int32_t *at, int *block, int n, int len)
{
    at[0] = 0;
    for (int i = 1; i < n; i++)
        at[i] = rng_int(r, 0, len);
    at[n] = len;
    for (int i = 1; i < n; i++)
        for (int k = i; k > 0 && at[k] < at[k - 1]; k--) {
            int32_t t = at[k];
            at[k] = at[k - 1];
            at[k - 1] = t;
        }
    for (int i = 0; i < n; i++)
        for (int t = at[i]; t < at[i + 1]; t++)
            block[t] = i;
}

static void check_ragged(struct test_rng *r, int block_q)
{
    struct err e = {0};
    struct problem_want w = {.len_q = rng_int(r, 1, 400),
                             .len_k = rng_int(r, 1, 1200),
                             .n_heads = rng_int(r, 1, 2),
                             .head_dim = rng_int(r, 0, 1) ? 128 : 64,
                             .lse = true,
                             .by_head = rng_int(r, 0, 1),
                             .logits = (enum logits)(rng_int(r, 0, 1) ? NORMAL : PEAKY)};
    struct problem p;
    problem_make(&p, &w, r);
    int plans = rng_int(r, 0, 1) ? w.n_heads : 1, rows = rng_int(r, 1, 6), cols = rng_int(r, 1, 40);
    int words = (cols + 31) / 32, chance = rng_int(r, 1, 4);
    int32_t *q_at = host_new((size_t)(plans * (rows + 1)) * 4),
            *k_at = host_new((size_t)(plans * (cols + 1)) * 4);
    int *q_block = host_new((size_t)(plans * w.len_q) * sizeof(int)),
        *k_block = host_new((size_t)(plans * w.len_k) * sizeof(int));
    uint32_t *keep = host_new((size_t)(plans * rows * words) * 4);
    for (int i = 0; i < plans; i++) {
        cut_blocks(r, q_at + i * (rows + 1), q_block + i * w.len_q, rows, w.len_q);
        cut_blocks(r, k_at + i * (cols + 1), k_block + i * w.len_k, cols, w.len_k);
    }
    for (int i = 0; i < plans * rows; i++)
        for (int c = 0; c < cols; c++)
            if (rng_int(r, 1, 4) <= chance) keep[i * words + c / 32] |= (uint32_t)1 << (c % 32);
    struct attn_blocks b = {w.n_heads, plans, w.len_q, w.len_k, rows, cols, q_at, k_at, keep};
    struct tokens tokens = {&b, q_block, k_block};
    struct arena count = {0}, arena = {0};
    struct block_mask m;
    CHECK_OK(block_mask_init(&m, w.len_q, w.len_k, 1, 1, plans, &count, &e));
    CHECK_OK(arena_open(&arena, count.used, &e));
    CHECK_OK(block_mask_init(&m, w.len_q, w.len_k, 1, 1, plans, &arena, &e));
    CHECK_OK(block_mask_build(&m, BLOCK_MAP_BITS, keep_token, &tokens, &e));
    struct attn_plan plan = {.map = &m, .n_heads = w.n_heads};
    struct attn_lists_size s;
    struct attn_lists l;
    CHECK_OK(attn_lists_size(&s, &plan, &e));
    uint32_t *lists[3] = {host_new(s.row_ptr * 4), host_new(s.steps * 4), host_new(s.order * 4)};
    CHECK_OK(attn_lists_fill(&l, lists[0], lists[1], lists[2], NULL, &plan, &e));
    size_t n = (size_t)w.len_q * (size_t)w.n_heads;
    float *want = host_new(n * (size_t)w.head_dim * 4), *lse = host_new(n * 4);
    struct attn_cuda judge = p.host;
    judge.lists = &l;
    judge.lse = lse;
    CHECK_OK(attn_ref_plan(&judge, &(struct attn_judge){.o = want, .only_row = -1}, &e));
    size_t n_rows, n_stages;
    struct attn_ragged ragged;
    CHECK_OK(attn_ragged_size(&n_rows, &n_stages, &b, block_q, &e));
    struct attn_ragged_row *row = host_new(n_rows * sizeof *row);
    struct attn_ragged_stage *stage = host_new(n_stages * sizeof *stage);
    CHECK_OK(attn_ragged_fill(&ragged, row, stage, &b, block_q, &e));
    struct on_device d;
    upload(&d, &p);
    ragged.row = own(&d, gpu_copy(row, n_rows * sizeof *row));
    ragged.stage = own(&d, gpu_copy(stage, n_stages * sizeof *stage));
    struct output got = {.o = host_new(d.o_bytes + 2 * GUARD), .lse = host_new(n * 4)};
    GPU(cudaMemset(d.o, 0xff, d.o_bytes + 2 * GUARD));
    CHECK_OK(attn_ragged_sm90(&d.call, &ragged, &e));
    GPU(cudaDeviceSynchronize());
    gpu_read(got.o, d.o, d.o_bytes + 2 * GUARD);
    gpu_read(got.lse, d.call.lse, n * 4);
    char name[64];
    snprintf(name, sizeof name, "ragged_sm90 rows of %d, %d x %d blocks", block_q, rows, cols);
    compare(name, &p, &got, want, lse);
    output_free(&got);
    release(&d);
    for (int i = 0; i < 3; i++)
        free(lists[i]);
    free(want);
    free(lse);
    free(row);
    free(stage);
    free(q_at);
    free(k_at);
    free(q_block);
    free(k_block);
    free(keep);
    arena_close(&arena);
    problem_free(&p);
}

static int some_length(struct test_rng *r)
{
    static const int lens[] = {1,   2,   7,   63,  64,  65,  97,  127, 128,
                               129, 175, 176, 177, 191, 193, 255, 257};
    return rng_int(r, 0, 1) ? rng_int(r, 1, 300) : lens[rng_int(r, 0, (int)ARRAY_LEN(lens) - 1)];
}

static void check_random(struct test_rng *r, int problems)
{
    static const double densities[] = {0, .1, .3, .6, 2};
    for (int n = 0; n < problems; n++) {
        struct problem_want w = {.len_q = some_length(r),
                                 .len_k = some_length(r),
                                 .n_heads = rng_int(r, 1, 3),
                                 .head_dim = rng_int(r, 0, 1) ? 128 : 64,
                                 .block_q = 128,
                                 .block_k = rng_int(r, 0, 2) ? 128 : 64,
                                 .density = densities[rng_int(r, 0, 4)],
                                 .sparse = rng_int(r, 0, 2) > 0,
                                 .lse = rng_int(r, 0, 1),
                                 .by_head = rng_int(r, 0, 1),
                                 .gaps = rng_int(r, 0, 1),
                                 .bias = rng_int(r, 0, 4) == 0};
        if (rng_int(r, 0, 2) == 0) w.block_q = w.block_k = 64;
        if (n % 5 == 0) { /* longer rows: the ring of stages goes round */
            w.len_k = rng_int(r, 600, 1500);
            w.len_q = rng_int(r, 100, 400);
            w.n_heads = 1;
        }
        w.logits = (enum logits)(rng_int(r, 0, 1) ? NORMAL : rng_int(r, 0, LOGITS - 1));
        if (w.sparse) {
            w.per_head = rng_int(r, 0, 1);
            w.forced = rng_int(r, 0, 2) == 0;
            w.dead = rng_int(r, 0, 2) == 0;
            w.mean = rng_int(r, 0, 2) == 0;
            w.alive = rng_int(r, 0, 1);
            w.poison = !w.per_head && !w.alive && rng_int(r, 0, 1);
        }
        struct problem p;
        problem_make(&p, &w, r);
        check_problem(&p);
        problem_free(&p);
    }
}

/* Rows enough for every processor to take several: the counter, turns and phases over rows. Dense,
 * the keys of a text beside them, and sparse. */
static void check_many_rows(struct test_rng *r)
{
    static const int keys[] = {200, 264, 328, 392, 512, 77};
    for (int n = 0; n < (int)ARRAY_LEN(keys); n++) {
        struct problem_want w = {.len_q = 9000 + 37 * n,
                                 .len_k = keys[n],
                                 .n_heads = 5,
                                 .head_dim = n % 2 ? 64 : 128,
                                 .block_q = 128,
                                 .block_k = 128,
                                 .density = .6,
                                 .sparse = n == 2 || n == 3,
                                 .per_head = n == 3,
                                 .lse = true};
        struct problem p;
        problem_make(&p, &w, r);
        check_problem(&p);
        problem_free(&p);
    }
}

/* Heads more than 2^31 elements apart, all four tensors in one allocation: the same bytes. */
static void check_far(struct test_rng *r)
{
    const int64_t apart = ((int64_t)1 << 31) + 64;
    const size_t each = 4 << 20; /* bytes a head of a tensor */
    struct problem_want w = {
        .len_q = 300, .len_k = 500, .n_heads = 2, .head_dim = 128, .by_head = true};
    struct err e = {0};
    struct problem p;
    char *far = NULL;
    if (cudaMalloc((void **)&far, (size_t)apart * 2 + 4 * each) != cudaSuccess) {
        (void)cudaGetLastError();
        printf("no memory for heads 2^31 elements apart: not checked\n");
        return;
    }
    problem_make(&p, &w, r);
    for (int i = 0; i < kernels_under_test(); i++) {
        const struct kernel_under_test *k = kernel_under_test(i);
        struct on_device d;
        upload(&d, &p);
        if (kernel_takes(k, &d.call)) {
            struct output near = run(k, &d, p.what);
            struct attn_cuda c = d.call;
            struct attn_tensor *to[4] = {&c.q, &c.k, &c.v, &c.o};
            size_t bytes = (size_t)w.len_q * 128 * 2, wrong = 0;
            unsigned char *got = host_new(bytes);
            for (int t = 0; t < 4; t++) {
                struct attn_tensor from = *to[t];
                to[t]->at = far + (size_t)t * each;
                to[t]->head = apart;
                for (int h = 0; h < 2 && t < 3; h++)
                    GPU(cudaMemcpy(
                        (char *)to[t]->at + 2 * apart * h, (char *)from.at + 2 * from.head * h,
                        (size_t)(t ? w.len_k : w.len_q) * 128 * 2, cudaMemcpyDeviceToDevice));
            }
            CHECK_OK(k->run(&c, k->variant, &e));
            GPU(cudaDeviceSynchronize());
            for (int h = 0; h < 2; h++) {
                gpu_read(got, (char *)c.o.at + 2 * apart * h, bytes);
                wrong += memcmp(got, near.o + GUARD + 2 * p.host.o.head * h, bytes) != 0;
            }
            CHECK_MSG(!wrong, "%s: other bytes for heads 2^31 elements apart", k->name);
            free(got);
            output_free(&near);
        }
        release(&d);
    }
    GPU(cudaFree(far));
    problem_free(&p);
}

static void check_repeats(struct test_rng *r, int repeats)
{
    for (int n = 0; n < 4; n++) {
        struct problem_want w = {.len_q = 1100,
                                 .len_k = 1337,
                                 .n_heads = 4,
                                 .head_dim = n % 2 ? 64 : 128,
                                 .block_q = 128,
                                 .block_k = 128,
                                 .density = .5,
                                 .sparse = n >= 2,
                                 .per_head = true,
                                 .mean = n >= 2,
                                 .lse = true};
        struct problem p;
        problem_make(&p, &w, r);
        for (int i = 0; i < kernels_under_test(); i++) {
            const struct kernel_under_test *k = kernel_under_test(i);
            struct on_device d;
            upload(&d, &p);
            if (kernel_takes(k, &d.call)) {
                struct output first = run(k, &d, p.what);
                int differ = 0;
                for (int x = 0; x < repeats; x++) {
                    struct output again = run(k, &d, p.what);
                    differ += memcmp(first.o, again.o, d.o_bytes + 2 * GUARD) != 0;
                    differ += memcmp(first.lse, again.lse, d.lse_count * 4) != 0;
                    output_free(&again);
                }
                CHECK_MSG(!differ, "%s: %d of %d runs differ from the first: %s", k->name, differ,
                          repeats, p.what);
                output_free(&first);
            }
            release(&d);
        }
        problem_free(&p);
    }
}

int check_kernels(int problems, int repeats, uint64_t seed)
{
    struct test_rng r = {seed};
    int before = checks_failed;
    check_random(&r, problems);
    for (int i = 0; kernels_have(ATTN_SM90) && i < (problems + 3) / 4; i++)
        check_ragged(&r, i % 2 ? 64 : 128);
    if (problems >= 20) {
        check_many_rows(&r);
        check_far(&r);
    }
    if (repeats > 1) check_repeats(&r, repeats);
    printf("check: %d problems, %d repeats, seed %llu: %d checks, %d failed\n", problems, repeats,
           (unsigned long long)seed, checks_done, checks_failed);
    return checks_failed > before;
}
