/* Residuals under an error budget: heads of a call renewed apart from the others, what is sampled of them
 * against all rows, decisions that follow the budget, and a run that goes on where another stopped. */
#include "planned.h"

enum { T = 4, H = 8, W = 8, L = T * H * W, HEADS = 3, DIM = 16, N = L * HEADS * DIM, STEPS = 12 };
enum { LAYERS = 40, UNITS = LAYERS * HEADS };

static float x[2][3][N]; /* q, k, v of two steps */
static float gain[STEPS], weight[UNITS], drift[STEPS * UNITS];
static const struct budget_table table = {.n_steps = STEPS,
                                          .n_units = UNITS,
                                          .gain = gain,
                                          .weight = weight,
                                          .drift = drift,
                                          .power = 1,
                                          .at = 20,
                                          .slope = 1,
                                          .usual = 1,
                                          .least = 20,
                                          .most = 60};

struct run {
    struct attn *a;
    struct arena arena;
};

static int open_run(struct run *r, const char *stack, const struct budget *b, int layers,
                    struct err *e)
{
    struct attn_shape shape = {HEADS, DIM, T, H, W, layers, 1, STEPS};
    struct attn_params params = {.method = stack, .threads = threads_count(), .budget = b};
    struct arena count = {0};
    cpu_detect(&params.cpu);
    *r = (struct run){0};
    if (attn_open(&r->a, &params, &shape, &count, e) < 0) return -1;
    CHECK(arena_open(&r->arena, count.used, e) == 0);
    return attn_open(&r->a, &params, &shape, &r->arena, e);
}

static void close_run(struct run *r)
{
    attn_close(r->a);
    arena_close(&r->arena);
}

static void call(const struct run *r, int step, int layer, int which, float *o)
{
    struct err e = {0};
    struct attn_call c = {.q = x[which][0],
                          .k = x[which][1],
                          .v = x[which][2],
                          .o = o,
                          .at = {.step = step, .layer = layer}};
    CHECK_OK(attn_run(r->a, &c, &e));
}

/* --- sampling --- */

struct seen {
    double sum[HEADS], squares[HEADS];
    int n[HEADS];
};

static void take(void *ctx, int step, int unit, double moved)
{
    struct seen *s = ctx;
    (void)step;
    s->sum[unit % HEADS] += moved;
    s->squares[unit % HEADS] += moved * moved;
    s->n[unit % HEADS]++;
}

/* Forty layers see the same q, k, v and draw rows of their own: their mean is that of all rows. */
static void unbiased(void)
{
    static float o[N], exact[2][N], kept[2][N];
    struct seen all = {0}, some = {0};
    struct err e = {0};
    struct run r;
    struct budget b = {.mode = BUDGET_RENEW, .rows = L, .moved = take, .ctx = &all};
    const char *stack = "resid:every=budget,first=1,last=0,density=.1,block=16";
    CHECK_OK(open_run(&r, stack, &b, LAYERS, &e));
    for (int step = 1; step < 3; step++)
        call(&r, step, 0, step - 1, o);
    close_run(&r);
    b.rows = 8, b.ctx = &some;
    CHECK_OK(open_run(&r, stack, &b, LAYERS, &e));
    for (int step = 1; step < 3; step++)
        for (int layer = 0; layer < LAYERS; layer++)
            call(&r, step, layer, step - 1, o);
    close_run(&r);
    for (int h = 0; h < HEADS; h++) {
        CHECK(all.n[h] == 1 && some.n[h] == LAYERS);
        double mean = some.sum[h] / LAYERS;
        double off = sqrt((some.squares[h] / LAYERS - mean * mean) / LAYERS);
        CHECK_MSG(fabs(mean - all.sum[h]) < 4 * off + .03 * all.sum[h],
                  "head %d: %g sampled, %g of all rows, +- %g", h, mean, all.sum[h], off);
    }
    /* all rows against what the words say: R = exact - kept by other stacks */
    for (int i = 0; i < 2; i++) {
        CHECK_OK(open_run(&r, "dense", NULL, 1, &e));
        call(&r, 1, 0, i, exact[i]);
        close_run(&r);
        CHECK_OK(open_run(&r, "resid:every=1,first=1,last=0,density=.1,block=16", NULL, 1, &e));
        call(&r, 1, 0, i, o);
        for (int k = 0; k < N; k++)
            kept[i][k] = exact[i][k] - bf16_to_f32(r.a->residual[k]);
        close_run(&r);
    }
    double size = 0, moved[HEADS] = {0};
    for (int i = 0; i < N; i++) {
        double by = (double)(exact[1][i] - kept[1][i]) - (double)(exact[0][i] - kept[0][i]);
        moved[i / DIM % HEADS] += by * by;
        size += (double)exact[1][i] * (double)exact[1][i] / HEADS;
    }
    for (int h = 0; h < HEADS; h++)
        CHECK_MSG(fabs(all.sum[h] / (moved[h] / size) - 1) < .01, "head %d: %g, wanted %g", h,
                  all.sum[h], moved[h] / size);
}

/* --- heads apart --- */

/* One head is carried: it is as if nothing were renewed, the others as if all were. */
static void by_head(void)
{
    static float o[3][N];
    struct err e = {0};
    struct run r;
    struct budget all = {.mode = BUDGET_RENEW};
    struct budget one = {.mode = BUDGET_PROBE, .step = 2, .from = 1, .to = 2};
    struct budget none = {.mode = BUDGET_PROBE, .step = 2, .from = 0, .to = HEADS};
    const struct budget *of[] = {&all, &one, &none};
    struct attn_stats s;
    for (int i = 0; i < 3; i++) {
        CHECK_OK(
            open_run(&r, "resid:every=budget,first=1,last=0,density=.1,block=16", of[i], 1, &e));
        call(&r, 1, 0, 0, o[i]);
        call(&r, 2, 0, 1, o[i]);
        attn_stats(r.a, &s);
        struct budget_spent spent = s.spent;
        CHECK(s.budgeted);
        CHECK(spent.carried == (i == 2 ? HEADS : i) && spent.renewed == HEADS - spent.carried);
        double least = (2 - spent.carried / (double)HEADS) / 2; /* carried heads compute a little */
        CHECK_MSG(s.density >= least && s.density <= least + .2, "%g, %g", s.density, least);
        close_run(&r);
    }
    for (int i = 0; i < N; i++) {
        bool carried = i / DIM % HEADS == 1;
        if (o[1][i] == o[carried ? 2 : 0][i]) continue;
        CHECK_MSG(false, "value %d of head %d: %g, of all %g, of none %g", i, i / DIM % HEADS,
                  (double)o[1][i], (double)o[0][i], (double)o[2][i]);
        break;
    }
    CHECK(memcmp(o[0], o[2], sizeof o[0]) != 0);
    /* where another part looks at a call's plan, heads stay together */
    struct budget half = {.mode = BUDGET_PROBE, .step = 2, .from = 0, .to = 1};
    CHECK_OK(open_run(&r, "draft+resid:every=budget,first=1,last=0", &half, 1, &e));
    CHECK(!r.a->by_head);
    close_run(&r);
}

/* --- steered --- */

static void make_table(void)
{
    for (int s = 0; s < STEPS; s++) {
        gain[s] = .01f;
        for (int u = 0; s > 1 && u < UNITS; u++)
            drift[s * UNITS + u] = .1f * (float)(1 + u % HEADS);
    }
    for (int u = 0; u < UNITS; u++)
        weight[u] = 1;
}

static void steered(void)
{
    static float o[2][N];
    enum { SOME = 2 };
    struct err e = {0};
    struct budget_table few = table; /* two layers */
    static float few_drift[STEPS * SOME * HEADS];
    for (int i = 0; i < STEPS * SOME * HEADS; i++)
        few_drift[i] = drift[i / (SOME * HEADS) * UNITS + i % HEADS];
    few.n_units = SOME * HEADS;
    few.drift = few_drift;
    long before = -1;
    for (double db = 25; db <= 55; db += 10) {
        struct budget b = {.table = &few, .mode = BUDGET_HOLD, .db = db};
        const char *stack = "resid:every=budget,first=1,last=0,density=.1,block=16";
        struct run r, again;
        struct budget_spent spent, then;
        CHECK_OK(open_run(&r, stack, &b, SOME, &e));
        CHECK_OK(open_run(&again, stack, &b, SOME, &e));
        for (int step = 0; step < STEPS; step++) {
            if (step == 6) { /* goes on elsewhere */
                struct attn_kept from, to;
                attn_kept(r.a, &from);
                attn_kept(again.a, &to);
                CHECK(from.bytes && from.bytes == to.bytes);
                memcpy(to.at, from.at, from.bytes);
                CHECK_OK(attn_kept_check(again.a, &e));
            }
            for (int layer = 0; layer < SOME; layer++) {
                call(&r, step, layer, step % 2, o[0]);
                if (step < 6) continue;
                call(&again, step, layer, step % 2, o[1]);
                CHECK(memcmp(o[0], o[1], sizeof o[0]) == 0);
            }
        }
        struct attn_stats stats, stats_then;
        attn_stats(r.a, &stats);
        attn_stats(again.a, &stats_then);
        spent = stats.spent, then = stats_then.spent;
        CHECK(memcmp(&spent, &then, sizeof spent) == 0);
        CHECK_MSG(spent.renewed >= before, "%g dB: %ld renewed", db, spent.renewed);
        before = spent.renewed;
        /* a forecast that the run keeps to, were it as lively as was calibrated */
        struct attn_shape shape = {HEADS, DIM, T, H, W, SOME, 1, STEPS};
        struct attn_params params = {.method = stack, .threads = 1, .budget = &b};
        struct attn_forecast f;
        cpu_detect(&params.cpu);
        CHECK_OK(attn_forecast(&f, &params, &shape, &e));
        CHECK_MSG(f.density[0] <= f.density[1] && f.density[0] > .1 && f.density[1] <= 1, "%g %g",
                  f.density[0], f.density[1]);
        close_run(&r);
        close_run(&again);
    }
    CHECK(before > 0);
}

static void refused(void)
{
    struct err e = {0};
    struct run r;
    struct budget b = {.mode = BUDGET_RENEW};
    CHECK(open_run(&r, "resid:every=budget", NULL, 1, &e) < 0 && strstr(e.msg, "--error-budget"));
    CHECK(open_run(&r, "resid:every=budget,density=0", &b, 1, &e) < 0 &&
          strstr(e.msg, "density=0"));
    CHECK(open_run(&r, "haste+resid:every=budget", &b, 1, &e) < 0 && strstr(e.msg, "haste") &&
          strstr(e.msg, "resid"));
    b = (struct budget){.table = &table, .mode = BUDGET_HOLD, .db = 40};
    CHECK(open_run(&r, "resid:every=budget", &b, 1, &e) < 0 && strstr(e.msg, "calibrated"));
}

int main(void)
{
    struct test_rng r = {5};
    threads_set(2);
    for (int i = 0; i < 2 * 3 * N; i++)
        (&x[0][0][0])[i] = rng_normal(&r) + (i % DIM == i % N / (HEADS * DIM) / 16 % DIM ? 2 : 0);
    for (int i = 0; i < 3 * N; i++) /* the second is near the first */
        x[1][i / N][i % N] = x[0][i / N][i % N] + .3f * x[1][i / N][i % N];
    make_table();
    unbiased();
    by_head();
    steered();
    refused();
    return TEST_RESULT();
}
