/* What every kernel must do with a problem: outputs within tolerances that follow from the types, the
 * same bytes on any number of threads, nothing written elsewhere. */
#ifndef DITGEN_TESTS_KERNELS_ATTENTION_CHECKS_H
#define DITGEN_TESTS_KERNELS_ATTENTION_CHECKS_H

#include "tests/kernels/attention_judged.h"

#define GUARD 64 /* floats before and after what is written */

/* largest difference met, in tolerances: a margin that shrinks is news */
static double problem_worst;

struct output { /* as the job lays it; floats beyond `n` are guards, before and after */
    float *memory, *o, *residual, *lse, *mass;
    uint32_t *alive;
    size_t n; /* floats in memory */
};

static struct attn_job problem_job(const struct problem *x, struct attn_plan *plan,
                                   struct output *out)
{
    *plan = x->plan;
    if (plan->heads) plan->heads = x->heads;
    struct attn_job j = {.q = x->q,
                         .k = x->k,
                         .v = x->v,
                         .o = x->o,
                         .plan = plan,
                         .accumulate = x->accumulate,
                         .alive_log2 = -3,
                         .size = &x->size};
    j.o.at = out->o;
    if (x->plan.mean) j.k_mean = x->k_mean, j.v_mean = x->v_mean;
    if (x->plan.rule != ATTN_COMPUTE) j.residual = x->residual;
    if (x->plan.rule != ATTN_COMPUTE) j.residual.at = out->residual;
    j.lse = x->lse ? out->lse : NULL;
    j.mass = x->mass ? out->mass : NULL;
    j.alive = x->alive ? out->alive : NULL;
    return j;
}

/* Runs into buffers poisoned with NaN between guards. */
static struct output problem_run(const struct attn_kernel *kernel, struct problem *x)
{
    size_t tiles = (size_t)x->size.n_heads * (size_t)x->plan.q.n;
    size_t parts[] = {heads_count(&x->o), heads_count(&x->residual),
                      (size_t)x->size.n_heads * (size_t)x->size.len_q, tiles * (size_t)x->plan.k.n,
                      tiles * (size_t)attn_words(x->plan.k.n)};
    struct output out = {.n = GUARD};
    size_t at[ARRAY_LEN(parts)];
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        at[i] = out.n;
        out.n += parts[i] + GUARD;
    }
    struct attn_plan plan;
    struct err e = {0};
    out.memory = must(malloc(out.n * sizeof *out.memory));
    for (size_t i = 0; i < out.n; i++)
        out.memory[i] = NAN;
    out.o = out.memory + at[0];
    out.residual = out.memory + at[1];
    out.lse = out.memory + at[2];
    out.mass = out.memory + at[3];
    out.alive = (uint32_t *)(void *)(out.memory + at[4]);
    if (x->accumulate) memcpy(out.o, x->before, parts[0] * sizeof(float));
    if (x->plan.rule == ATTN_ADD_RESIDUAL)
        memcpy(out.residual, x->residual_before, parts[1] * dtype_size(x->residual.type));
    struct attn_job j = problem_job(x, &plan, &out);
    x->size.needs = attn_job_needs(&j);
    size_t bytes = kernel->scratch(&x->size);
    unsigned char *scratch = must(aligned_alloc(64, (bytes + 64 + 63) / 64 * 64));
    memset(scratch, 0xff, bytes + 64); /* NaN to whoever reads before writing */
    j.scratch = scratch;
    uint32_t *seen = must(malloc(attn_seen_size(x->size.len_q, x->size.len_k) * sizeof *seen));
    CHECK_OK(attn_plan_check(&plan, x->size.len_q, x->size.len_k, seen, &e));
    CHECK_OK(attn_kernel_run(kernel, &j, &e));
    int touched = 0;
    for (int i = 0; i < GUARD; i++) {
        touched += !isnan(out.memory[i]) + (scratch[bytes + (size_t)i] != 0xff);
        for (size_t p = 0; p < ARRAY_LEN(parts); p++)
            touched += !isnan(out.memory[at[p] + parts[p] + (size_t)i]);
    }
    CHECK_MSG(!touched, "%s wrote outside its memory: %s", kernel->name, x->what);
    free(seen);
    free(scratch);
    return out;
}

/* Second products over pairs of bf16, which narrow weights: of a row of parts, those of such runs. */
static bool narrows(const struct problem *x, const struct attn_kernel *kernel)
{
    if (x->plan.pv == ATTN_PREC_INT8) return false;
    return kernel->needs >= CPU_AVX512_BF16 ||
           (kernel->needs >= CPU_AVX512_VNNI && x->size.precision == PRECISION_BF16);
}

/* Relative error of a weight. eps32 = 2^-24. A score of n products is off by about
 * eps32 * (2 + sqrt n) * sum|q||k|, a weight by as much relatively plus its exp2 (2.1e-7 or
 * 7.5e-5), a sum of len_k terms by eps32 * sqrt(len_k). */
static double weight_tolerance(const struct problem *x, const struct attn_kernel *kernel,
                               const struct answer *a)
{
    double eps32 = 0x1p-24, weight = 2.1e-7;
    if (narrows(x, kernel)) weight = 7.5e-5;
    if (kernel->needs == CPU_REF) weight = 0, eps32 = 0x1p-53;
    return weight +
           eps32 * ((2 + sqrt(x->size.head_dim)) * (a->most_abs + 8) + sqrt(x->size.len_k) + 4);
}

/* Weights that lie between two codes may go either way: that of 255ths of the largest, that of e4m3
 * relatively. */
static double code_step(const struct problem *x)
{
    return x->plan.pv == ATTN_PREC_INT8 ? 1 / 255.0 : x->plan.pv == ATTN_PREC_FP8 ? 0x1p-4 : 0;
}

/* Largest difference allowed in one output: numerator and denominator are off by a weight's error
 * each, native bf16 narrows each weight by up to 2^-9. Twice that is the margin. */
static double problem_tolerance(const struct problem *x, const struct attn_kernel *kernel,
                                const struct answer *a)
{
    double weight = weight_tolerance(x, kernel, a);
    return 2 * a->most_v *
               (2 * weight + code_step(x) + (narrows(x, kernel) ? 0x1p-9 : 0) + 0x1p-24) +
           1e-37;
}

static float hand_output(const struct problem *x, double o, double residual, double before)
{
    bool round = x->size.precision != PRECISION_FP32;
    float y = (float)o;
    if (x->plan.rule == ATTN_ADD_RESIDUAL) y = (float)(o + residual);
    if (round) y = bf16_round(y);
    if (x->accumulate) y = round ? bf16_round((float)before + y) : (float)before + y;
    return y;
}

static void compare_outputs(const struct problem *x, const struct attn_kernel *kernel,
                            const struct output *got, const struct answer *want)
{
    const struct attn_size *s = &x->size;
    bool bf16 = s->precision != PRECISION_FP32, make = x->plan.rule == ATTN_MAKE_RESIDUAL;
    bool narrow = x->residual.type == DTYPE_BF16;
    double tol = problem_tolerance(x, kernel, want), most = -1, l2 = 0, all = 0;
    int touched = 0;
    for (int t = 0; t < s->len_q; t++)
        for (int h = 0; h < s->n_heads; h++)
            for (int c = 0; c < s->head_dim; c++) {
                size_t i = ((size_t)t * (size_t)s->n_heads + (size_t)h) * (size_t)s->head_dim +
                           (size_t)c,
                       at = (size_t)t * (size_t)x->o.token + (size_t)(h * s->head_dim + c);
                double g = (double)got->o[at], before = (double)x->before[at];
                double r = narrow ? (double)bf16_to_f32(((uint16_t *)(void *)got->residual)[i])
                                  : (double)got->residual[i];
                if (isnan(want->o[i])) { /* a head that is not the plan's */
                    touched += x->accumulate ? g != before : !isnan(g);
                    continue;
                }
                double w = (double)hand_output(x, want->o[i], r, before);
                double room = tol + 0x1p-23 * fabs(w);
                if (bf16) /* one step of bf16, two when it was added to another */
                    room += (x->accumulate ? 2 : 1) * 0x1p-7 * fmax(fabs(g), fabs(w));
                if (bf16 && x->accumulate) room += 0x1p-7 * (1 + fabs(before));
                if (!(fabs(g - w) / room <= most)) most = fabs(g - w) / room;
                l2 += (g - w) * (g - w);
                all += w * w;
                if (!make) continue;
                w = want->residual[i]; /* a difference of two */
                room = 2 * tol + (narrow ? 0x1p-7 : 0x1p-23) * fmax(fabs(r), fabs(w));
                if (!(fabs(r - w) / room <= most)) most = fabs(r - w) / room;
            }
    if (most > problem_worst) problem_worst = most;
    CHECK_MSG(most <= 1, "%s: off by %.2f x the tolerance: %s", kernel->name, most, x->what);
    CHECK_MSG(!touched, "%s: %d values of other heads: %s", kernel->name, touched, x->what);
    double typical = 0;
    if (x->plan.pv != ATTN_PREC_RUN)
        typical = x->logits == LOGITS_NORMAL && s->len_q * s->head_dim >= 1000 ? .003 : 0;
    else if (s->precision == PRECISION_FP32 && x->logits != LOGITS_HUGE)
        /* errors of single products add up as a random walk: far below the worst case above */
        typical = 4 * (2.1e-7 + 0x1p-24 * (4 + sqrt(s->head_dim) / 2));
    else if (x->logits == LOGITS_NORMAL && !x->accumulate && s->len_q * s->head_dim >= 1000)
        typical = .0035; /* the design's 9.4 */
    if (typical > 0)
        CHECK_MSG(sqrt(l2) <= typical * sqrt(all), "%s: relative L2 %.3g, wanted %.3g: %s",
                  kernel->name, sqrt(l2 / all), typical, x->what);
}

static void compare_extras(const struct problem *x, const struct attn_kernel *kernel,
                           const struct output *got, const struct answer *want)
{
    const struct attn_plan *p = &x->plan;
    double weight = weight_tolerance(x, kernel, want), lse_most = 0, mass_most = 0, exact = weight;
    size_t cols = (size_t)p->k.n, words = (size_t)attn_words(p->k.n);
    int wrong = 0;
    if (p->pv == ATTN_PREC_INT8) weight += code_step(x); /* their sum is of codes */
    for (int i = 0; i < p->n_heads; i++) {
        size_t head = (size_t)attn_head(p, i);
        for (int t = 0; x->lse && t < x->size.len_q; t++) {
            size_t at = head * (size_t)x->size.len_q + (size_t)t;
            double w = want->lse[at], g = (double)got->lse[at];
            double off = g == w ? 0 : fabs(g - w) / (2 * weight + 0x1p-22 * (1 + fabs(w)));
            if (!(off <= lse_most)) lse_most = off;
        }
        for (size_t r = head * (size_t)p->q.n; r < (head + 1) * (size_t)p->q.n; r++)
            for (size_t t = 0; t < cols; t++) {
                double w = want->mass[r * cols + t], m = want->margin[r * cols + t];
                double g = x->mass ? (double)got->mass[r * cols + t] : w;
                /* the logarithm was rounded to fp32; a mean key may weigh more than all keys do */
                if (w > 1e30 && g > 1e30) continue; /* what a plan left out can weigh anything */
                double room = w * (4 * weight + 0x1p-22 * (8 + want->most_abs)) + 1e-7;
                if (!(fabs(g - w) / room <= mass_most)) mass_most = fabs(g - w) / room;
                if (!x->alive) continue;
                bool on = got->alive[r * words + t / 32] >> (t % 32) & 1;
                if (fabs(m + 3) > 1e-4 + 4 * exact * (1 + want->most_abs)) wrong += on != (m > -3);
            }
    }
    CHECK_MSG(lse_most <= 1, "%s: lse off by %.3g x the tolerance: %s", kernel->name, lse_most,
              x->what);
    CHECK_MSG(mass_most <= 1, "%s: mass off by %.3g x the tolerance: %s", kernel->name, mass_most,
              x->what);
    CHECK_MSG(!wrong, "%s: %d tiles dead or alive: %s", kernel->name, wrong, x->what);
}

/* Everything asked of one kernel on one problem. */
static void problem_check(struct problem *x, const struct attn_kernel *kernel)
{
    if (!kernel->fits(&x->size)) return;
    if (x->plan.heads) x->plan.heads = x->heads; /* the problem has moved */
    struct answer want = x->plan.qk == ATTN_PREC_RUN ? by_hand(x) : by_judge(x, kernel);
    threads_set(1);
    struct output got = problem_run(kernel, x);
    compare_outputs(x, kernel, &got, &want);
    compare_extras(x, kernel, &got, &want);
    threads_set(MAX_THREADS);
    struct output again = problem_run(kernel, x);
    CHECK_MSG(memcmp(got.memory, again.memory, got.n * sizeof(float)) == 0,
              "%s: other bytes on %d threads: %s", kernel->name, MAX_THREADS, x->what);
    if (!x->plan.all && x->density > 1 && !x->alive) { /* all tiles kept is dense attention */
        free(again.memory);
        x->plan.all = true;
        again = problem_run(kernel, x);
        x->plan.all = false;
        CHECK_MSG(memcmp(got.memory, again.memory, got.n * sizeof(float)) == 0,
                  "%s: a full plan differs from dense: %s", kernel->name, x->what);
    }
    free(got.memory);
    free(again.memory);
    answer_free(&want);
}

/* A constant V comes out as that constant; keys that no row keeps are not read (poisoned with NaN);
 * len_k = 1 copies v; exactly one kept tile a row, equal blocks or by offsets. */
static void check_exact(const struct attn_kernel *kernel, struct test_rng *r,
                        enum precision precision)
{
    static const int lens[] = {1, 7, 63, 64, 65, 127, 128, 129, 255, 300};
    for (size_t n = 0; n < ARRAY_LEN(lens); n++) {
        for (int way = 0; way < 3; way++) { /* dense; one tile; one tile, blocks by offsets */
            struct problem x = {.size = {.len_q = lens[n],
                                         .len_k = lens[n],
                                         .n_heads = 2,
                                         .head_dim = n % 2 ? 64 : 80,
                                         .threads = MAX_THREADS,
                                         .precision = precision}};
            struct err e = {0};
            struct attn_plan *p = &x.plan;
            CHECK_OK(attn_plan_dense(p, lens[n], lens[n], 2, &e));
            if (way) {
                p->all = false;
                CHECK_OK(attn_blocks_equal(&p->q, lens[n], 32, &e));
                CHECK_OK(attn_blocks_equal(&p->k, lens[n], 32, &e));
                p->kept = x.kept = random_plane(r, p, 0);
            }
            int kept = p->k.n / 2; /* the middle tile */
            for (int i = 0; way && i < p->q.n; i++)
                x.kept[i * attn_words(p->k.n)] |= (uint32_t)1 << kept;
            if (way == 2) {
                x.k_at = must(malloc((size_t)(p->k.n + 1) * sizeof *x.k_at));
                for (int i = 0; i <= p->k.n; i++)
                    x.k_at[i] = attn_block_at(&p->k, 0, i);
                p->k.size = 0;
                p->k.at = x.k_at;
            }
            x.size.rows = p->q.n;
            x.size.cols = p->k.n;
            random_numbers(&x, r, BIAS_NONE);
            for (int j = 0; j < lens[n]; j++)
                for (int c = 0; c < 2 * x.size.head_dim; c++) {
                    bool used = !way || j / 32 == kept;
                    ((float *)heads_at(&x.v, j, 0))[c] =
                        used ? (float)(c - x.size.head_dim) / 8 : NAN;
                    if (!used) ((float *)heads_at(&x.k, j, 0))[c] = NAN;
                }
            if (kernel->fits(&x.size)) {
                struct output got = problem_run(kernel, &x);
                double most = 0, step = precision == PRECISION_FP32
                                            ? 0x1p-24 * (4 + 2 * sqrt(lens[n]))
                                            : 0x1p-8;
                for (int i = 0; i < lens[n]; i++)
                    for (int c = 0; c < 2 * x.size.head_dim; c++) {
                        double want = (double)(c - x.size.head_dim) / 8;
                        double off =
                            fabs((double)got.o[(size_t)i * (size_t)x.o.token + (size_t)c] - want) /
                            (step * (fabs(want) + 1e-30));
                        if (!(off <= most)) most = off;
                    }
                CHECK_MSG(most <= 1, "%s: constant V of %d keys, way %d: %.3g steps off",
                          kernel->name, lens[n], way, most);
                free(got.memory);
            }
            problem_free(&x);
        }
    }
}

static inline void check_kernel(const struct attn_kernel *kernel, struct test_rng *r, int problems)
{
    static const enum precision all[] = {PRECISION_FP32, PRECISION_BF16, PRECISION_BF16_EMULATED};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        int before = checks_done;
        problem_worst = 0;
        for (int n = 0; n < problems; n++) {
            struct problem x = problem_random(r, all[i]);
            problem_check(&x, kernel);
            problem_free(&x);
        }
        check_exact(kernel, r, all[i]);
        struct attn_size any = {.head_dim = 64, .precision = all[i]};
        if (kernel->fits(&any))
            printf("%s, %s: %d checks, worst difference %.2f of the tolerance\n", kernel->name,
                   precision_name(all[i]), checks_done - before, problem_worst);
    }
}

#endif
