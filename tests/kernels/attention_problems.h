/* Random attention problems, and what every kernel must do with them: judged against attn_ref,
 * which is judged against a loop written here from the mask's own question (block_mask_kept). */
#ifndef DITGEN_TESTS_KERNELS_ATTENTION_PROBLEMS_H
#define DITGEN_TESTS_KERNELS_ATTENTION_PROBLEMS_H

#include "attention/kernels/kernels.h"
#include "model/base/threads.h"
#include "tests/check.h"

#define GUARD 64 /* floats before and after o */
#define MAX_THREADS 3

enum logits { LOGITS_NORMAL, LOGITS_TINY, LOGITS_HUGE, LOGITS_EQUAL, LOGITS_PEAKY, LOGITS_COUNT };
enum bias { BIAS_NONE, BIAS_SOME, BIAS_HIDES_SOME, BIAS_HIDES_ALL, BIAS_COUNT };

struct problem {
    struct attn_size size;
    int block_k, n_plans;
    double density; /* chance of a tile; above 1: all */
    bool *keep; /* [n_plans, rows, cols]; NULL: dense */
    float *q, *k, *v, *before; /* before: what o holds when accumulating */
    float *key_bias;
    bool accumulate;
    enum logits logits;
    struct arena arena;
    struct block_mask mask;
    char what[256];
};

static double
    problem_worst; /* largest difference met, in tolerances: a margin that shrinks is news */

static bool problem_keep(void *ctx, int plan, int row, int col)
{
    const struct problem *p = ctx;
    return p->keep[((size_t)plan * (size_t)p->mask.rows + (size_t)row) * (size_t)p->mask.cols +
                   (size_t)col];
}

static size_t problem_out(const struct problem *p)
{
    return (size_t)p->size.len_q * (size_t)p->size.n_heads * (size_t)p->size.head_dim;
}

static float *random_floats(struct test_rng *r, size_t n, double scale, bool bf16)
{
    float *x = malloc(n * sizeof *x);
    if (!x) exit(70);
    for (size_t i = 0; i < n; i++) {
        x[i] = (float)(scale * (double)rng_normal(r));
        if (bf16) x[i] = bf16_round(x[i]);
    }
    return x;
}

static void problem_numbers(struct problem *p, struct test_rng *r, enum bias bias)
{
    static const double scales[LOGITS_COUNT] = {1, 1e-18, 24, 1, 3};
    const struct attn_size *s = &p->size;
    size_t row = (size_t)s->n_heads * (size_t)s->head_dim, nk = (size_t)s->len_k * row;
    bool bf16 = s->precision != PRECISION_FP32;
    p->q = random_floats(r, problem_out(p), scales[p->logits], bf16);
    p->k = random_floats(r, nk, scales[p->logits], bf16);
    p->v = random_floats(r, nk, 1, bf16);
    p->before = random_floats(r, problem_out(p), 1, bf16);
    if (p->logits == LOGITS_EQUAL)
        for (size_t i = row; i < nk; i++)
            p->k[i] = p->k[i % row];
    p->key_bias = NULL;
    if (bias == BIAS_NONE) return;
    p->key_bias = random_floats(r, (size_t)s->len_k, 2, false);
    for (int j = 0; j < s->len_k; j++)
        if (bias == BIAS_HIDES_ALL || (bias == BIAS_HIDES_SOME && rng_int(r, 0, 2) == 0))
            p->key_bias[j] = -INFINITY;
    p->mask.key_bias = p->key_bias;
}

/* Sizes are set; draws the plan, with empty rows when it is sparse, and the numbers. */
static void problem_fill(struct problem *p, struct test_rng *r, enum bias bias)
{
    struct err e = {0};
    struct attn_size *s = &p->size;
    struct arena count = {0};
    struct block_mask m;
    s->threads = MAX_THREADS;
    int bq = s->block_q ? s->block_q : s->len_q;
    CHECK_OK(block_mask_init(&m, s->len_q, s->len_k, bq, p->block_k, p->n_plans, &count, &e));
    CHECK_OK(arena_open(&p->arena, count.used, &e));
    CHECK_OK(
        block_mask_init(&p->mask, s->len_q, s->len_k, bq, p->block_k, p->n_plans, &p->arena, &e));
    p->keep = NULL;
    if (s->block_q) {
        size_t tiles = (size_t)p->n_plans * (size_t)m.rows * (size_t)m.cols;
        p->keep = calloc(tiles, sizeof *p->keep);
        if (!p->keep) exit(70);
        for (size_t i = 0; i < tiles; i++)
            p->keep[i] = rng_unit(r) < p->density;
    }
    problem_numbers(p, r, bias);
    snprintf(p->what, sizeof p->what,
             "q %d k %d heads %d x %d, tiles %d x %d, %d plans, density %.2f, "
             "logits %d, bias %d, accumulate %d, %s",
             s->len_q, s->len_k, s->n_heads, s->head_dim, s->block_q, p->block_k, p->n_plans,
             p->density, p->logits, bias, p->accumulate, precision_name(s->precision));
}

static struct problem problem_random(struct test_rng *r, enum precision precision)
{
    static const int dims[] = {64, 128, 80, 16, 64, 8, 72, 40, 1, 7, 33, 96, 20, 256, 255};
    static const int lens[] = {1, 2, 7, 31, 63, 64, 65, 97, 127, 128, 129, 191, 255, 256, 257, 293};
    static const int blocks[] = {128, 64, 32, 16, 48, 7, 100, 300, 1, 13};
    struct problem p = {0};
    p.size.precision = precision;
    p.size.len_q = rng_int(r, 0, 1) ? rng_int(r, 1, 300) : lens[rng_int(r, 0, 15)];
    p.size.len_k = rng_int(r, 0, 1) ? rng_int(r, 1, 300) : lens[rng_int(r, 0, 15)];
    p.size.n_heads = rng_int(r, 1, 3);
    p.size.head_dim = dims[rng_int(r, 0, (int)ARRAY_LEN(dims) - 1)];
    p.block_k = blocks[rng_int(r, 0, (int)ARRAY_LEN(blocks) - 1)];
    p.n_plans = 1;
    p.density = 2;
    if (rng_int(r, 0, 2)) {
        static const double densities[] = {0, .05, .3, .7, .95, 2};
        p.size.block_q = blocks[rng_int(r, 0, (int)ARRAY_LEN(blocks) - 1)];
        p.density = densities[rng_int(r, 0, 5)];
        if (rng_int(r, 0, 1)) p.n_plans = p.size.n_heads;
    }
    p.accumulate = rng_int(r, 0, 3) == 0;
    p.logits = (enum logits)(rng_int(r, 0, 2) ? LOGITS_NORMAL : rng_int(r, 0, LOGITS_COUNT - 1));
    problem_fill(&p, r, (enum bias)(rng_int(r, 0, 2) ? BIAS_NONE : rng_int(r, 1, BIAS_COUNT - 1)));
    return p;
}

static void problem_free(struct problem *p)
{
    arena_close(&p->arena);
    free(p->keep);
    free(p->q);
    free(p->k);
    free(p->v);
    free(p->before);
    free(p->key_bias);
}

/* Runs into a buffer poisoned with NaN between guards; returns o, the caller's. */
static float *problem_run(const struct attn_kernel *kernel, const struct problem *p)
{
    size_t n = problem_out(p), bytes = kernel->scratch(&p->size);
    float *buf = malloc((n + 2 * GUARD) * sizeof *buf);
    unsigned char *scratch = aligned_alloc(64, (bytes + 64 + 63) / 64 * 64);
    if (!buf || !scratch) exit(70);
    for (size_t i = 0; i < n + 2 * GUARD; i++)
        buf[i] = NAN;
    memset(scratch, 0xff, bytes + 64); /* NaN to whoever reads before writing */
    if (p->accumulate) memcpy(buf + GUARD, p->before, n * sizeof *buf);
    kernel->run(&(struct attn_work){.q = p->q,
                                    .k = p->k,
                                    .v = p->v,
                                    .o = buf + GUARD,
                                    .size = &p->size,
                                    .mask = &p->mask,
                                    .accumulate = p->accumulate,
                                    .scratch = scratch});
    int touched = 0;
    for (int i = 0; i < GUARD; i++)
        touched += !isnan(buf[i]) + !isnan(buf[(size_t)GUARD + n + (size_t)i]) +
                   (scratch[bytes + (size_t)i] != 0xff);
    CHECK_MSG(!touched, "%s wrote outside its memory: %s", kernel->name, p->what);
    memmove(buf, buf + GUARD, n * sizeof *buf);
    free(scratch);
    return buf;
}

static int problem_plan(const struct problem *p, int head) { return p->n_plans > 1 ? head : 0; }

/* The definition, one query at a time.
 * *most_abs: largest sum of |q||k| * scale of any kept pair. */
static float *problem_by_hand(const struct problem *p, double *most_abs, double *most_v)
{
    const struct attn_size *s = &p->size;
    int d = s->head_dim;
    size_t row = (size_t)s->n_heads * (size_t)d;
    float *out = malloc(problem_out(p) * sizeof *out);
    double *weight = malloc((size_t)s->len_k * sizeof *weight);
    if (!out || !weight) exit(70);
    *most_abs = *most_v = 0;
    for (int h = 0; h < s->n_heads; h++) {
        for (int i = 0; i < s->len_q; i++) {
            const float *q = p->q + (size_t)i * row + (size_t)(h * d);
            double top = -HUGE_VAL, sum = 0;
            for (int j = 0; j < s->len_k; j++) {
                const float *k = p->k + (size_t)j * row + (size_t)(h * d);
                double dot = 0, all = 0;
                weight[j] = -HUGE_VAL;
                if (!block_mask_kept(&p->mask, problem_plan(p, h), i / p->mask.block_q,
                                     j / p->mask.block_k))
                    continue;
                for (int c = 0; c < d; c++)
                    dot += (double)q[c] * (double)k[c], all += fabs((double)q[c] * (double)k[c]);
                weight[j] = dot / sqrt((double)d) + (p->key_bias ? (double)p->key_bias[j] : 0);
                if (all / sqrt((double)d) > *most_abs) *most_abs = all / sqrt((double)d);
                if (weight[j] > top) top = weight[j];
                for (int c = 0; c < d; c++) {
                    double v = fabs((double)p->v[(size_t)j * row + (size_t)(h * d + c)]);
                    if (v > *most_v) *most_v = v;
                }
            }
            for (int j = 0; j < s->len_k; j++) {
                weight[j] = weight[j] == -HUGE_VAL ? 0 : exp(weight[j] - top);
                sum += weight[j];
            }
            for (int c = 0; c < d; c++) {
                double o = 0;
                size_t at = (size_t)i * row + (size_t)(h * d + c);
                for (int j = 0; j < s->len_k; j++)
                    if (weight[j] > 0)
                        o += weight[j] * (double)p->v[(size_t)j * row + (size_t)(h * d + c)];
                bool round = s->precision != PRECISION_FP32;
                float x = (float)(sum > 0 ? o / sum : 0);
                if (round) x = bf16_round(x);
                if (p->accumulate) x = round ? bf16_round(p->before[at] + x) : p->before[at] + x;
                out[at] = x;
            }
        }
    }
    free(weight);
    return out;
}

/* Largest difference allowed in one output. eps32 = 2^-24. A score of n products is off by about
 * eps32 * (2 + sqrt n) * sum|q||k|, a weight by as much relatively plus its exp2 (2.1e-7
 * or 7.5e-5), a sum of len_k terms by eps32 * sqrt(len_k); numerator and denominator each. Native
 * bf16 narrows each weight by up to 2^-9. Twice that is the margin. */
static double problem_tolerance(const struct problem *p, const struct attn_kernel *kernel,
                                double most_abs, double most_v)
{
    double eps32 = 0x1p-24, weight = 2.1e-7;
    bool native = kernel->needs >= CPU_AVX512_BF16;
    if (native) weight = 7.5e-5;
    if (kernel->needs == CPU_REF) weight = 0, eps32 = 0x1p-53;
    weight += eps32 * ((2 + sqrt(p->size.head_dim)) * (most_abs + 8) + sqrt(p->size.len_k) + 4);
    return 2 * most_v * (2 * weight + (native ? 0x1p-9 : 0) + 0x1p-24) + 1e-37;
}

static void problem_compare(const struct problem *p, const struct attn_kernel *kernel,
                            const float *got, const float *want, double tol)
{
    size_t n = problem_out(p), worst = 0;
    double most = -1;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - (double)want[i]),
               room = tol + 0x1p-23 * fabs((double)want[i]);
        if (p->size.precision !=
            PRECISION_FP32) /* one step of bf16, two when it was added to another */
            room += (p->accumulate ? 2 : 1) * 0x1p-7 *
                    fmax(fabs((double)got[i]), fabs((double)want[i]));
        if (p->size.precision != PRECISION_FP32 && p->accumulate)
            room += 0x1p-7 * (1 + fabs((double)p->before[i]));
        if (!(d / room <= most)) most = d / room, worst = i;
        if (isnan(d)) break;
    }
    if (most > problem_worst) problem_worst = most;
    CHECK_MSG(most <= 1, "%s: [%zu] is %.9g, wanted %.9g (%.2f x the tolerance): %s", kernel->name,
              worst, (double)got[worst], (double)want[worst], most, p->what);
}

/* Everything asked of one kernel on one problem. */
static void problem_check(struct problem *p, const struct attn_kernel *kernel)
{
    static const enum block_map maps[] = {BLOCK_MAP_LIST, BLOCK_MAP_RANGES, BLOCK_MAP_BITS};
    struct err e = {0};
    size_t bytes = problem_out(p) * sizeof(float);
    double most_abs, most_v;
    if (!kernel->fits(&p->size)) return;
    if (p->keep) CHECK_OK(block_mask_build(&p->mask, BLOCK_MAP_LIST, problem_keep, p, &e));
    float *want = problem_by_hand(p, &most_abs, &most_v);
    threads_set(1);
    float *got = problem_run(kernel, p);
    problem_compare(p, kernel, got, want, problem_tolerance(p, kernel, most_abs, most_v));
    if (p->size.precision == PRECISION_FP32 && p->logits != LOGITS_HUGE) {
        /* errors of single products add up as a random walk: far below the worst case above */
        double typical = 2.1e-7 + 0x1p-24 * (4 + sqrt(p->size.head_dim) / 2);
        check_close(p->what, got, want, problem_out(p), 4 * typical);
    } else if (p->logits == LOGITS_NORMAL && !p->accumulate && problem_out(p) >= 1000) {
        check_close(p->what, got, want, problem_out(p), .0035); /* the design's 9.4 */
    }
    threads_set(MAX_THREADS);
    for (int i = 0; i < (p->keep ? (int)ARRAY_LEN(maps) : 1); i++) {
        if (p->keep) CHECK_OK(block_mask_build(&p->mask, maps[i], problem_keep, p, &e));
        float *again = problem_run(kernel, p);
        CHECK_MSG(memcmp(got, again, bytes) == 0,
                  "%s: other bytes for encoding %d on %d threads: %s", kernel->name, i, MAX_THREADS,
                  p->what);
        free(again);
    }
    if (p->keep && p->density > 1) { /* a list of all tiles is dense attention */
        CHECK_OK(block_mask_build(&p->mask, BLOCK_MAP_DENSE, NULL, NULL, &e));
        float *again = problem_run(kernel, p);
        CHECK_MSG(memcmp(got, again, bytes) == 0, "%s: a full list differs from dense: %s",
                  kernel->name, p->what);
        free(again);
    }
    free(got);
    free(want);
}

/* A constant V comes out as that constant; keys that no row keeps are not read (poisoned with NaN);
 * len_k = 1 copies v; exactly one kept tile a row. */
static void check_exact(const struct attn_kernel *kernel, struct test_rng *r,
                        enum precision precision)
{
    static const int lens[] = {1, 7, 63, 64, 65, 127, 128, 129, 255, 300};
    for (size_t n = 0; n < ARRAY_LEN(lens); n++) {
        for (int one_tile = 0; one_tile < 2; one_tile++) {
            struct problem p = {.size = {.len_q = lens[n],
                                         .len_k = lens[n],
                                         .n_heads = 2,
                                         .head_dim = n % 2 ? 64 : 80,
                                         .block_q = one_tile ? 32 : 0,
                                         .precision = precision},
                                .block_k = 32,
                                .n_plans = 1};
            struct err e = {0};
            problem_fill(&p, r, BIAS_NONE);
            int d = p.size.head_dim, row = 2 * d,
                kept = (lens[n] + 31) / 32 / 2; /* the middle tile */
            if (one_tile) {
                for (int i = 0; i < p.mask.rows; i++)
                    p.keep[i * p.mask.cols + kept] = true;
                CHECK_OK(block_mask_build(&p.mask, BLOCK_MAP_LIST, problem_keep, &p, &e));
                if (kept >= p.mask.cols) exit(70);
            }
            for (int j = 0; j < lens[n]; j++) {
                bool used = !one_tile || j / 32 == kept;
                for (int c = 0; c < row; c++) {
                    p.v[j * row + c] = used ? (float)(c - d) / 8 : NAN;
                    if (!used) p.k[j * row + c] = NAN;
                }
            }
            if (!kernel->fits(&p.size)) {
                problem_free(&p);
                continue;
            }
            float *o = problem_run(kernel, &p);
            double most = 0,
                   step = precision == PRECISION_FP32 ? 0x1p-24 * (4 + 2 * sqrt(lens[n])) : 0x1p-8;
            for (int i = 0; i < lens[n] * row; i++) {
                double want = (double)(i % row - d) / 8,
                       off = fabs((double)o[i] - want) / (step * (fabs(want) + 1e-30));
                if (!(off <= most)) most = off;
            }
            CHECK_MSG(most <= 1, "%s: constant V of %d keys, one tile %d: %.3g steps off",
                      kernel->name, lens[n], one_tile, most);
            free(o);
            problem_free(&p);
        }
    }
}

static void check_kernel(const struct attn_kernel *kernel, struct test_rng *r, int problems)
{
    static const enum precision all[] = {PRECISION_FP32, PRECISION_BF16, PRECISION_BF16_EMULATED};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        int before = checks_done;
        problem_worst = 0;
        for (int n = 0; n < problems; n++) {
            struct problem p = problem_random(r, all[i]);
            problem_check(&p, kernel);
            problem_free(&p);
        }
        check_exact(kernel, r, all[i]);
        struct attn_size any = {.head_dim = 64, .precision = all[i]};
        if (kernel->fits(&any))
            printf("%s, %s: %d checks, worst difference %.2f of the tolerance\n", kernel->name,
                   precision_name(all[i]), checks_done - before, problem_worst);
    }
}

#endif
