/* The judge on what only it does yet, and what stands between a job and a kernel: walks, tiles left
 * out by a bound, tiles chosen by means, tensors of bf16; heads that are zeros or copies; jobs and
 * fields that are refused. The rest of it is checked with all other kernels. */
#include "attention/kernels/kernels.h"
#include "model/base/threads.h"
#include "tests/check.h"

#define LQ 70
#define LK 90
#define HEADS 2
#define DIM 24
#define BLOCK 16
#define ROWS ((LQ + BLOCK - 1) / BLOCK)
#define COLS ((LK + BLOCK - 1) / BLOCK)

struct setting {
    float q[LQ * HEADS * DIM], k[LK * HEADS * DIM], v[LK * HEADS * DIM], o[LQ * HEADS * DIM];
    float k_mean[COLS * HEADS * DIM], v_mean[COLS * HEADS * DIM], v_sum[COLS * HEADS * DIM];
    float lse[HEADS * LQ], mass[HEADS * ROWS * COLS], margin[HEADS * ROWS * COLS];
    uint32_t alive[HEADS * ROWS], plane[HEADS * ROWS], more[HEADS * ROWS];
    struct attn_plan plan;
    struct attn_job job;
};

static void make(struct setting *s, struct test_rng *r)
{
    struct err e = {0};
    *s = (struct setting){.plan = {.n_heads = HEADS, .per_head = true, .all = true}};
    for (int i = 0; i < LQ; i++) /* queries of a row want the same keys */
        for (int c = 0; c < HEADS * DIM; c++) {
            float like = i % BLOCK ? s->q[i / BLOCK * BLOCK * HEADS * DIM + c] : 2 * rng_normal(r);
            s->q[i * HEADS * DIM + c] = bf16_round(like + .05f * rng_normal(r));
        }
    for (int i = 0; i < LK * HEADS * DIM; i++) {
        s->k[i] = bf16_round(rng_normal(r));
        s->v[i] = bf16_round(rng_normal(r));
    }
    CHECK_OK(attn_blocks_equal(&s->plan.q, LQ, BLOCK, &e));
    CHECK_OK(attn_blocks_equal(&s->plan.k, LK, BLOCK, &e));
    for (int i = 0; i < LK; i++) /* true means, over true counts */
        for (int c = 0; c < HEADS * DIM; c++) {
            int t = i / BLOCK, n = t == COLS - 1 ? LK - t * BLOCK : BLOCK, at = t * HEADS * DIM + c;
            s->k_mean[at] += s->k[i * HEADS * DIM + c] / (float)n;
            s->v_mean[at] += s->v[i * HEADS * DIM + c] / (float)n;
            s->v_sum[at] += s->v[i * HEADS * DIM + c];
        }
    s->job = (struct attn_job){.q = heads_f32(s->q, LQ, HEADS, DIM),
                               .k = heads_f32(s->k, LK, HEADS, DIM),
                               .v = heads_f32(s->v, LK, HEADS, DIM),
                               .k_mean = heads_f32(s->k_mean, COLS, HEADS, DIM),
                               .v_mean = heads_f32(s->v_mean, COLS, HEADS, DIM),
                               .v_sum = heads_f32(s->v_sum, COLS, HEADS, DIM),
                               .plan = &s->plan,
                               .alive_log2 = -2};
}

static void judge(struct setting *s, float *o, struct attn_plan *p)
{
    struct err e = {0};
    s->job.plan = p;
    CHECK_OK(
        attn_judge(&s->job, &(struct attn_judge){.o = o, .margin = s->margin, .only_row = -1}, &e));
}

/* Every tile weighs something, and all together 1; the same from lse alone. */
static void test_mass(struct setting *s)
{
    struct err e = {0};
    s->job.lse = s->lse;
    s->job.mass = s->mass;
    judge(s, s->o, &s->plan);
    for (int turn = 0; turn < 2; turn++) {
        for (int i = 0; i < HEADS * ROWS; i++) {
            double sum = 0;
            for (int t = 0; t < COLS; t++)
                sum += (double)s->mass[i * COLS + t];
            CHECK_MSG(fabs(sum - 1) < 1e-6, "masses of a row add up to %.9g", sum);
        }
        memset(s->mass, 0xff, sizeof s->mass);
        CHECK_OK(attn_judge(&s->job, &(struct attn_judge){.only_row = -1}, &e));
    }
    s->job.lse = s->job.mass = NULL;
}

/* The order of tiles changes which stay alive, not o: a tile above all others is alive both ways. */
static void test_walk(struct setting *s)
{
    static float other[LQ * HEADS * DIM], margin[HEADS * ROWS * COLS];
    struct attn_plan down = s->plan;
    down.walk = ATTN_WALK_DOWN;
    s->job.alive = s->alive;
    judge(s, s->o, &s->plan);
    memcpy(margin, s->margin, sizeof margin);
    memcpy(s->more, s->alive, sizeof s->more);
    judge(s, other, &down);
    check_close("another walk", other, s->o, LQ * HEADS * DIM, 1e-7);
    int differ = 0;
    for (int i = 0; i < HEADS * ROWS; i++) {
        CHECK(isinf(margin[i * COLS]) && isinf(s->margin[i * COLS + COLS - 1])); /* the first */
        CHECK((s->more[i] & 1) && (s->alive[i] >> (COLS - 1) & 1));
        differ += s->alive[i] != s->more[i];
        for (int t = 0; t < COLS; t++)
            CHECK((s->alive[i] >> t & 1) == (s->margin[i * COLS + t] > -2));
    }
    CHECK(differ > 0);
    s->job.alive = NULL;
}

/* A bound leaves out the tiles that are not alive under it, and only those. */
static void test_skip(struct setting *s)
{
    static float want[LQ * HEADS * DIM];
    struct attn_plan skip = s->plan, kept = s->plan;
    int dead = 0;
    s->job.alive = s->alive;
    s->job.alive_log2 = -1;
    judge(s, s->o, &s->plan);
    s->job.alive = NULL;
    kept.all = false;
    kept.kept = s->alive;
    judge(s, want, &kept);
    skip.skip_log2 = -1;
    judge(s, s->o, &skip);
    check_close("tiles skipped", s->o, want, LQ * HEADS * DIM, 1e-7);
    for (int i = 0; i < HEADS * ROWS; i++)
        dead += s->alive[i] != (1 << COLS) - 1;
    CHECK(dead > 0);
    skip.skip_log2 = -INFINITY;
    judge(s, s->o, &skip);
    judge(s, want, &s->plan);
    check_close("nothing skipped", s->o, want, LQ * HEADS * DIM, 1e-7);
}

/* Chosen by means: tau = -inf is dense; else a plan that holds the same set, with means. */
static void test_sol(struct setting *s)
{
    static float want[LQ * HEADS * DIM];
    struct attn_plan sol = s->plan, same = s->plan;
    sol.all = same.all = false;
    sol.sol_tau = -INFINITY;
    judge(s, s->o, &sol);
    judge(s, want, &s->plan);
    check_close("every tile is above", s->o, want, LQ * HEADS * DIM, 1e-7);
    sol.sol_tau = .7f;
    memset(s->more, 0, sizeof s->more);
    s->more[1] = 1 << (COLS - 1); /* a sink */
    sol.forced = s->more;
    judge(s, s->o, &sol);
    int kept = 0;
    for (int i = 0; i < HEADS * ROWS; i++) {
        s->plane[i] = 0;
        for (int t = 0; t < COLS; t++) /* those that were visited */
            if (s->margin[i * COLS + t] > -HUGE_VALF) s->plane[i] |= 1u << t, kept++;
        for (int t = 0; t < COLS; t++)
            CHECK(abs(t - i % ROWS) > 1 || (s->plane[i] >> t & 1));
    }
    CHECK((s->plane[1] >> (COLS - 1) & 1) && kept > 0 && kept < HEADS * ROWS * COLS);
    memset(s->alive, 0xff, sizeof s->alive);
    for (int i = 0; i < HEADS * ROWS; i++)
        s->alive[i] = (1 << COLS) - 1;
    same.kept = s->plane;
    same.mean = s->alive;
    judge(s, want, &same);
    check_close("the set as a plan", s->o, want, LQ * HEADS * DIM, 1e-6);
}

static void test_bf16(struct setting *s)
{
    static uint16_t narrow[3][LK * HEADS * DIM];
    static float want[LQ * HEADS * DIM];
    const float *from[3] = {s->q, s->k, s->v};
    struct heads *to[3] = {&s->job.q, &s->job.k, &s->job.v};
    judge(s, want, &s->plan);
    for (int x = 0; x < 3; x++) {
        for (int i = 0; i < (x ? LK : LQ) * HEADS * DIM; i++)
            narrow[x][i] = f32_to_bf16(from[x][i]); /* exact */
        to[x]->at = narrow[x];
        to[x]->type = DTYPE_BF16;
        if (x == 1) judge(s, s->o, &s->plan); /* types that differ */
    }
    check_close("q and k in bf16", s->o, want, LQ * HEADS * DIM, 1e-7);
    judge(s, s->o, &s->plan);
    check_close("all in bf16", s->o, want, LQ * HEADS * DIM, 1e-7);
}

/* Rules that compute nothing, and what is refused before anything runs, for every kernel. */
static void test_doors(struct setting *s)
{
    struct cpu cpu;
    struct err e = {0};
    static const uint8_t last[1] = {HEADS - 1};
    cpu_detect(&cpu);
    for (int i = 0; i < attn_kernel_rows(); i++) {
        const struct attn_kernel *k = attn_kernel_row(i);
        struct attn_size size = {LQ, LK, HEADS, DIM, ROWS, COLS, 1, PRECISION_FP32, 0, 0, 0, 0};
        if (k->needs > cpu.level || !k->fits(&size)) continue;
        void *scratch = aligned_alloc(64, (k->scratch(&size) + 127) / 64 * 64);
        struct attn_plan p = s->plan;
        struct attn_job j = s->job;
        p.per_head = false;
        j.o = heads_f32(s->o, LQ, HEADS, DIM);
        j.residual = heads_f32(s->q, LQ, HEADS, DIM);
        j.plan = &p;
        j.size = &size;
        j.scratch = scratch;
        memset(s->o, 0xff, sizeof s->o);
        p.heads = last;
        p.n_heads = 1;
        p.rule = ATTN_ZERO;
        CHECK_OK(attn_kernel_run(k, &j, &e));
        CHECK(isnan(s->o[0]) && s->o[DIM] == 0 && s->o[2 * DIM - 1] == 0);
        p.rule = ATTN_COPY;
        CHECK_OK(attn_kernel_run(k, &j, &e));
        CHECK(isnan(s->o[0]) && memcmp(s->o + DIM, s->q + DIM, DIM * sizeof(float)) == 0);
        j.lse = s->lse;
        CHECK(attn_kernel_run(k, &j, &e) < 0 && strstr(e.msg, "left out"));
        j.lse = NULL;
        p.rule = ATTN_COMPUTE;
        p.qk = ATTN_PREC_FP4;
        CHECK(attn_kernel_run(k, &j, &e) < 0 && e.code == ERR_DEVICE && strstr(e.msg, "plan.qk, "));
        p.qk = ATTN_PREC_INT8;
        p.pv = ATTN_PREC_INT8;
        bool low = k->can & ATTN_NEED_QK_INT8;
        CHECK(attn_kernel_run(k, &j, &e) < 0 &&
              strstr(e.msg, low ? "not opened for plan.qk int8" : "cannot do plan.qk int8"));
        CHECK(low || strstr(e.msg, "plan.pv int8"));
        p.pv = ATTN_PREC_RUN;
        p.qk = ATTN_PREC_RUN;
        p.rule = ATTN_MAKE_RESIDUAL; /* scratch was not asked to hold it */
        CHECK(attn_kernel_run(k, &j, &e) < 0 && strstr(e.msg, "not opened for plan.rule make"));
        p.rule = ATTN_COMPUTE;
        p.sol_tau = 1;
        p.all = false;
        unsigned can = k->can & ATTN_NEED_SOL;
        CHECK(attn_kernel_run(k, &j, &e) == (can ? 0 : -1));
        if (!can) CHECK(strstr(e.msg, "plan.sol_tau") && strstr(e.msg, k->name));
        size.needs = ATTN_NEED_SOL; /* asked when a run is opened */
        const struct attn_kernel *picked = attn_kernel_pick(&size, &cpu, k->name, &e);
        CHECK(can ? picked == k : !picked && strstr(e.msg, "plan.sol_tau"));
        p.sol_tau = 0;
        p.all = true;
        size.needs = 0;
        size.len_k = LK - 1;
        CHECK(attn_kernel_run(k, &j, &e) < 0 && strstr(e.msg, "opened for"));
        size.len_k = LK;
        threads_set(2);
        CHECK(attn_kernel_run(k, &j, &e) < 0 && strstr(e.msg, "for 1 threads"));
        threads_set(1);
        CHECK_OK(attn_kernel_run(k, &j, &e));
        free(scratch);
    }
    struct attn_size size = {LQ, LK, HEADS, DIM, 0, 0, 1, PRECISION_FP32, ATTN_NEED_PREC, 0, 0, 0};
    CHECK(!attn_kernel_pick(&size, &cpu, NULL, &e) &&
          strstr(e.msg, "no attention kernel here does"));
}

int main(int argc, char **argv)
{
    static struct setting s;
    struct test_rng r = test_seed(argc, argv);
    threads_set(1);
    for (int n = 0; n < 10; n++) {
        make(&s, &r);
        test_mass(&s);
        test_walk(&s);
        test_skip(&s);
        test_sol(&s);
        test_doors(&s);
        test_bf16(&s);
    }
    return TEST_RESULT();
}
