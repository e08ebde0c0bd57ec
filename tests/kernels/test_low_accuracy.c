/* Products over codes from end to end, against softmax in double of the numbers that came in, on the
 * sets of attention-kernels.md 9.1; limits of its table 9.4. And that the judge tells codes from what
 * is wider: a kernel that multiplies q and k as they are must fail where a kernel over codes passes. */
#include "attention/kernels/kernels.h"
#include "model/base/threads.h"
#include "tests/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LQ = 8, LK = 8192, MOST = 128 };
enum set { RANDOM, STRUCTURED, BIASED, PEAKY, SETS };
static const char *const set_names[SETS] = {"random", "structured", "biased", "peaky"};

static float q[LQ * MOST], k[LK * MOST], v[LK * MOST], o[LQ * MOST], wide[LQ * MOST];
static double exact[LQ * MOST];

/* A token of a smooth path, as a norm over channels leaves it, times gains by channel. */
static void smooth(float *to, int dim, double at, const double *speed, const double *phase,
                   const double *gain, struct test_rng *r)
{
    double x[MOST], squares = 0;
    for (int c = 0; c < dim; c++) {
        x[c] = sin(speed[c] * at + phase[c]) + .2 * (double)rng_normal(r);
        squares += x[c] * x[c] / dim;
    }
    for (int c = 0; c < dim; c++)
        to[c] = (float)(gain[c] * x[c] / sqrt(squares));
}

static void draw(enum set set, int dim, uint64_t seed)
{
    struct test_rng r = {seed};
    double gain[MOST], k_off[MOST], v_off[MOST], phase[MOST], speed[MOST], one[MOST];
    bool offset = set == STRUCTURED || set == BIASED;
    for (int c = 0; c < dim; c++) {
        one[c] = 1;
        gain[c] = exp(.3 * (double)rng_normal(&r));
        k_off[c] = set == STRUCTURED                     ? 2 * (double)rng_normal(&r)
                   : set == BIASED && c % (dim / 8) == 0 ? 25
                                                         : 0;
        v_off[c] = offset ? 2 * (double)rng_normal(&r) : 0;
        phase[c] = 6.28 * rng_unit(&r);
        speed[c] = .0005 + .005 * rng_unit(&r);
    }
    for (int t = 0; t < LK; t++) {
        float *kt = k + t * dim, *vt = v + t * dim;
        for (int c = 0; c < dim; c++)
            kt[c] = rng_normal(&r), vt[c] = rng_normal(&r);
        if (set == STRUCTURED) smooth(kt, dim, t, speed, phase, gain, &r);
        if (set == STRUCTURED) smooth(vt, dim, t, speed, phase, one, &r);
        for (int c = 0; c < dim; c++) {
            kt[c] = bf16_round(kt[c] + (float)k_off[c]);
            vt[c] = bf16_round(vt[c] + (float)v_off[c]);
        }
    }
    for (int t = 0; t < LQ; t++) {
        float *qt = q + t * dim;
        for (int c = 0; c < dim; c++)
            qt[c] = set == PEAKY ? 1.5f * k[t * 337 % LK * dim + c] : rng_normal(&r);
        if (set == STRUCTURED) smooth(qt, dim, t * LK / LQ, speed, phase, gain, &r);
        for (int c = 0; c < dim; c++)
            qt[c] = bf16_round(qt[c]);
    }
}

static void exactly(int dim)
{
    for (int i = 0; i < LQ; i++) {
        static double s[LK];
        double top = -HUGE_VAL, sum = 0;
        for (int j = 0; j < LK; j++) {
            s[j] = 0;
            for (int c = 0; c < dim; c++)
                s[j] += (double)q[i * dim + c] * (double)k[j * dim + c] / sqrt((double)dim);
            top = fmax(top, s[j]);
        }
        for (int c = 0; c < dim; c++)
            exact[i * dim + c] = 0;
        for (int j = 0; j < LK; j++) {
            double p = exp(s[j] - top);
            sum += p;
            for (int c = 0; c < dim; c++)
                exact[i * dim + c] += p * (double)v[j * dim + c];
        }
        for (int c = 0; c < dim; c++)
            exact[i * dim + c] /= sum;
    }
}

static double off_exact(const float *x, int n)
{
    double off = 0, all = 0;
    for (int i = 0; i < n; i++)
        off += fabs((double)x[i] - exact[i]), all += fabs(exact[i]);
    return off / all;
}

static double off(const float *x, const float *y, int n)
{
    double sum = 0, all = 0;
    for (int i = 0; i < n; i++)
        sum += fabs((double)x[i] - (double)y[i]), all += fabs((double)y[i]);
    return sum / all;
}

static struct attn_job job_of(struct attn_plan *p, float *to, int dim)
{
    return (struct attn_job){.q = heads_f32(q, LQ, 1, dim),
                             .k = heads_f32(k, LK, 1, dim),
                             .v = heads_f32(v, LK, 1, dim),
                             .o = heads_f32(to, LQ, 1, dim),
                             .plan = p};
}

static void run(const struct attn_kernel *kernel, const struct attn_plan *plan, float *to, int dim,
                enum precision precision)
{
    struct attn_plan p = *plan;
    struct attn_job j = job_of(&p, to, dim);
    struct err e = {0};
    struct attn_size s = {.len_q = LQ,
                          .len_k = LK,
                          .n_heads = 1,
                          .head_dim = dim,
                          .threads = threads_count(),
                          .precision = precision,
                          .needs = attn_plan_needs(plan)};
    size_t bytes = (kernel->scratch(&s) + 63) / 64 * 64;
    j.size = &s;
    j.scratch = aligned_alloc(64, bytes);
    CHECK_OK(attn_kernel_run(kernel, &j, &e));
    free(j.scratch);
}

static void judged(const struct attn_kernel *kernel, struct attn_plan *p, float *to, int dim)
{
    static float unused[LQ * MOST];
    struct err e = {0};
    struct attn_job j = job_of(p, unused, dim);
    CHECK_OK(
        attn_judge(&j,
                   &(struct attn_judge){
                       .o = to, .only_row = -1, .panel = kernel->panel, .chunk = kernel->chunk},
                   &e));
}

struct limit {
    const char *name;
    enum attn_prec pv;
    double most[SETS]; /* relative L1, 9.4 */
};
static const struct limit limits[] = {
    {"run", ATTN_PREC_RUN, {.020, .0035, .0035, .0075}},
    {"int8", ATTN_PREC_INT8, {.027, .0035, .0035, .020}},
    {"fp8", ATTN_PREC_FP8, {.060, .0045, .0060, .035}},
};

static void check_kernel(const struct attn_kernel *kernel, enum precision precision, int dim)
{
    static float mine[LQ * MOST];
    struct attn_plan plain, p;
    struct err e = {0};
    struct attn_size any = {.head_dim = dim, .precision = precision, .needs = ATTN_NEED_QK_INT8};
    if (!kernel->fits(&any)) return;
    CHECK_OK(attn_plan_dense(&plain, LQ, LK, 1, &e));
    for (int set = 0; set < SETS; set++) {
        draw((enum set)set, dim, (uint64_t)set + 3);
        exactly(dim);
        run(kernel, &plain, wide, dim, precision);
        for (size_t i = 0; i < ARRAY_LEN(limits); i++) {
            p = plain;
            p.qk = ATTN_PREC_INT8;
            p.pv = limits[i].pv;
            p.codes.smooth_k = true;
            if (attn_plan_needs(&p) & ATTN_NEED_LOW & ~kernel->can) continue;
            run(kernel, &p, o, dim, precision);
            judged(kernel, &p, mine, dim);
            double error = off_exact(o, LQ * dim), codes = off(o, mine, LQ * dim),
                   wider = off(wide, mine, LQ * dim);
            printf("%-12s %s %3d channels, pv %-4s %-10s off %.5f; from the judge %.6f, without "
                   "codes %.5f\n",
                   kernel->name, precision == PRECISION_FP32 ? "fp32" : "bf16", dim, limits[i].name,
                   set_names[set], error, codes, wider);
            CHECK(error <= limits[i].most[set]);
            /* one step of bf16 in o, and weights that lie between two codes */
            CHECK(codes <= (precision == PRECISION_FP32 ? .0005 : .003));
            if (set == RANDOM) CHECK(wider > 2 * .003);
        }
        /* without smoothing a common offset of the keys takes the codes' range */
        p.codes.smooth_k = false;
        p.pv = ATTN_PREC_RUN;
        run(kernel, &p, mine, dim, precision);
        p.codes.smooth_k = true;
        run(kernel, &p, o, dim, precision);
        if (set == BIASED && precision == PRECISION_FP32) /* else o's rounding hides it */
            CHECK(off_exact(mine, LQ * dim) > 1.5 * off_exact(o, LQ * dim));
        /* a constant on all keys changes nothing */
        for (int t = 0; t < LK; t++)
            for (int c = 0; c < dim; c++)
                k[t * dim + c] += (float)(c % 5 - 2);
        run(kernel, &p, mine, dim, precision);
        CHECK(off(mine, o, LQ * dim) <= .002);
    }
}

/* What queries have in common takes the range of 4-bit codes, unless it is taken off them. */
static void check_smooth_q(const struct attn_kernel *kernel, int dim)
{
    static float without[LQ * MOST];
    struct test_rng r = {11};
    struct attn_plan p;
    struct err e = {0};
    float common[MOST];
    draw(RANDOM, dim, 3);
    for (int c = 0; c < dim; c++)
        common[c] = rng_normal(&r);
    for (int i = 0; i < LQ * dim; i++)
        q[i] = .2f * q[i] + common[i % dim];
    exactly(dim);
    CHECK_OK(attn_plan_dense(&p, LQ, LK, 1, &e));
    p.qk = ATTN_PREC_INT4;
    p.codes.smooth_k = true;
    run(kernel, &p, without, dim, PRECISION_FP32);
    p.codes.smooth_q = true;
    run(kernel, &p, o, dim, PRECISION_FP32);
    double before = off_exact(without, LQ * dim), after = off_exact(o, LQ * dim);
    printf("%-12s %3d channels, qk int4, queries alike: off %.4f, smoothed %.4f\n", kernel->name,
           dim, before, after);
    CHECK(before > 2 * after); /* of lengths: 1.02 against .2 */
}

int main(void)
{
    struct cpu cpu;
    cpu_detect(&cpu);
    threads_set(2);
    for (int i = 0; i < attn_kernel_rows(); i++) {
        const struct attn_kernel *kernel = attn_kernel_row(i);
        if (!(kernel->can & ATTN_NEED_QK_INT8) || kernel->needs > cpu.level) continue;
        for (int dim = 64; dim <= MOST; dim += 64) {
            check_kernel(kernel, PRECISION_FP32, dim);
            if (dim == 64) check_smooth_q(kernel, dim);
            if (cpu.level >= CPU_AVX512_BF16 || kernel->needs == CPU_REF)
                check_kernel(kernel, PRECISION_BF16, dim);
        }
    }
    return TEST_RESULT();
}
