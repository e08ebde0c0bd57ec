/* The seam of method.h, proved by methods that exist only in tests: every hook, state, copies, residuals,
 * what a cap leaves out. */
#include "tests/unit/attention/seam_methods.h"

static float outputs[STEPS][LAYERS][BRANCHES][OUT];

/* One whole run; outputs behind an "output layer" that negates. */
static void run(struct attn *a, int from)
{
    static float qkv[3][OUT], o[OUT];
    struct err e = {0};
    for (int step = from; step < STEPS; step++)
        for (int layer = 0; layer < LAYERS; layer++)
            for (int branch = 0; branch < BRANCHES; branch++) {
                struct test_rng r = {(uint64_t)(step * 100 + layer * 10 + branch + 1)};
                float *out = outputs[step][layer][branch];
                for (int i = 0; i < 3 * OUT; i++)
                    qkv[i / OUT][i % OUT] = rng_normal(&r);
                struct attn_call c = {.q = qkv[0],
                                      .k = qkv[1],
                                      .v = qkv[2],
                                      .o = o,
                                      .at = {.step = step, .layer = layer, .branch = branch}};
                enum attn_ask answer;
                CHECK_OK(attn_ask(a, &c.at, out, &answer, &e));
                if (answer != ATTN_ASK_COMPUTE) continue;
                CHECK_OK(attn_run(a, &c, &e));
                for (int i = 0; i < OUT; i++)
                    out[i] = -o[i];
                CHECK_OK(attn_keep(a, &c.at, out, &e));
            }
}

static bool same(const float *a, const float *b) /* up to bf16, in which outputs are kept */
{
    for (int i = 0; i < OUT; i++)
        if (bf16_round(a[i]) != bf16_round(b[i])) return false;
    return true;
}

static const struct tensor *gate_of(void *ctx, int layer, const char *name)
{
    static const struct tensor gate = {.n_dims = 1, .shape = {1}};
    (void)ctx;
    return layer < LAYERS && strcmp(name, "gate.weight") == 0 ? &gate : NULL;
}

static void every_hook(void)
{
    struct attn_params p = params_of("probe:keep=3");
    struct session s;
    struct err e = {0};
    struct attn_stats st;
    struct attn_forecast f;
    p.tensor = gate_of;
    memset(&seen, 0, sizeof seen);
    seen.watch = true;
    CHECK_OK(session_open(&s, &p, &e));
    CHECK(seen.resets == 1);
    run(s.a, 0);
    /* of steps 1 .. 7, 1 4 7 are copies and 2 5 copy a branch; 0 and 8 are exact */
    for (int layer = 0; layer < LAYERS; layer++) {
        for (int b = 0; b < BRANCHES; b++) {
            CHECK(same(outputs[1][layer][b], outputs[0][layer][b]));
            CHECK(same(outputs[4][layer][b], outputs[3][layer][b]));
            CHECK(!same(outputs[3][layer][b], outputs[2][layer][b]));
        }
        CHECK(same(outputs[2][layer][1], outputs[2][layer][0]));
        CHECK(!same(outputs[3][layer][1], outputs[3][layer][0]));
    }
    attn_stats(s.a, &st);
    CHECK(st.calls == STEPS * LAYERS * BRANCHES && st.copies == (3 * BRANCHES + 2) * LAYERS);
    CHECK(st.sampled > 0 && st.error > 0 && st.error < 2 && st.recall > 0 && st.recall < 1);
    CHECK(st.drift > 0 && st.density > 0 && st.density < 1 && st.planning > 0 && st.planning < 1);
    /* computed and not exact: branch 0 of 2 5, both of 3 6 */
    CHECK(seen.planned == 6 * LAYERS && seen.exact == 2 * LAYERS * BRANCHES);
    CHECK(seen.observed == seen.planned + seen.exact &&
          seen.gate == gate_of(NULL, 0, "gate.weight"));
    /* every=2 from step 1 on: anew at 1 3 5 7, and at a pair's first: branch 0 at 2, 1 at 3 */
    CHECK(seen.anew == seen.scored && seen.scored == seen.selected && seen.anew == 4 * LAYERS);
    CHECK_OK(attn_forecast(&f, &p, &shape, &e));
    CHECK(f.planned[0] == seen.anew && f.planned[1] == seen.anew && f.plans == HEADS);
    CHECK(fabs(f.copied * (double)st.calls - (double)st.copies) < 1e-9 && !f.exact);
    CHECK(f.pairs == LAYERS * BRANCHES && f.pairs_left_out == 0 && f.cache_bytes == f.cache_wanted);
    CHECK(f.cache_bytes >= LAYERS * BRANCHES * OUT * 2);

    /* what was learned is text, and comes back */
    char *text = NULL;
    size_t n;
    FILE *to = open_memstream(&text, &n);
    CHECK_OK(attn_save(s.a, to, &e));
    fclose(to);
    CHECK_STR(text, "method probe 9\n12 calls\n");
    CHECK_OK(attn_load(s.a, text, n, &e));
    CHECK(attn_load(s.a, text, n - 1, &e) < 0 && e.code == ERR_INPUT);
    CHECK(attn_load(s.a, "", 0, &e) < 0 && e.code == ERR_INPUT);
    CHECK(attn_load(s.a, "method other 0\n", 15, &e) < 0 && strstr(e.msg, "other"));
    free(text);

    /* another prompt: the same run gives the same, because everything is forgotten */
    static float before[STEPS][LAYERS][BRANCHES][OUT];
    memcpy(before, outputs, sizeof before);
    run(s.a, 0);
    CHECK(seen.resets == 2 && memcmp(before, outputs, sizeof before) == 0);
    /* another expert, too */
    struct attn_ctx next = {.step = STEPS - 1, .expert = 1};
    enum attn_ask answer;
    CHECK_OK(attn_ask(s.a, &next, outputs[0][0][0], &answer, &e));
    CHECK(seen.resets == 3 && answer == ATTN_ASK_COMPUTE);
    session_close(&s);
}

/* A cap leaves the last pairs without a place: they are computed. */
static void capped(void)
{
    struct attn_params p = params_of("probe");
    struct attn_forecast all, f;
    struct session s;
    struct err e = {0};
    struct attn_stats st;
    CHECK_OK(attn_forecast(&all, &p, &shape, &e));
    seen.watch = false;
    p.cap_cache = true;
    p.cache_mem = all.cache_wanted / 4 + 1; /* one pair of four */
    CHECK_OK(attn_forecast(&f, &p, &shape, &e));
    CHECK(f.pairs_left_out == 3 && f.cache_bytes <= p.cache_mem && f.cache_wanted > p.cache_mem);
    CHECK_OK(session_open(&s, &p, &e));
    run(s.a, 0);
    CHECK(same(outputs[4][0][0], outputs[3][0][0]) && !same(outputs[4][0][1], outputs[3][0][1]));
    CHECK(!same(outputs[4][1][0], outputs[3][1][0]));
    attn_stats(s.a, &st);
    CHECK(fabs(f.copied * (double)st.calls - (double)st.copies) < 1e-9);
    session_close(&s);
    p.cache_mem = 0;
    CHECK_OK(attn_forecast(&f, &p, &shape, &e));
    CHECK(f.pairs_left_out == 4 && f.cache_bytes == 0);
}

/* Numbers that are the same at every step when `still`, and else drift. */
static void run_still(struct attn *a, bool still)
{
    static float qkv[3][OUT];
    struct err e = {0};
    for (int step = 0; step < STEPS; step++)
        for (int layer = 0; layer < LAYERS; layer++)
            for (int branch = 0; branch < BRANCHES; branch++) {
                struct test_rng r = {(uint64_t)(layer * 10 + branch + 1)},
                                drift = {(uint64_t)(step * 100 + layer)};
                for (int i = 0; i < 3 * OUT; i++)
                    qkv[i / OUT][i % OUT] =
                        rng_normal(&r) + (still ? 0 : .05f * rng_normal(&drift));
                struct attn_call c = {.q = qkv[0],
                                      .k = qkv[1],
                                      .v = qkv[2],
                                      .o = outputs[step][layer][branch],
                                      .at = {.step = step, .layer = layer, .branch = branch}};
                CHECK_OK(attn_run(a, &c, &e));
            }
}

static double apart(float (*a)[LAYERS][BRANCHES][OUT], int step)
{
    return rel_l2(&outputs[step][0][0][0], &a[step][0][0][0], LAYERS * BRANCHES * OUT);
}

static void open_and_run(const char *stack, bool still, struct attn_stats *st)
{
    struct attn_params p = params_of(stack);
    struct session s;
    struct err e = {0};
    CHECK_OK(session_open(&s, &p, &e));
    if (s.a) {
        run_still(s.a, still);
        attn_stats(s.a, st);
    }
    session_close(&s);
}

/* Heads that are left out, copied and computed in one call. */
static void rules(void)
{
    static float dense[STEPS][LAYERS][BRANCHES][OUT];
    struct attn_stats st;
    open_and_run("plain", false, &st);
    memcpy(dense, outputs, sizeof dense);
    open_and_run("rules", false, &st);
    for (int step = 0; step < STEPS; step++)
        for (int layer = 0; layer < LAYERS; layer++)
            for (int i = 0; i < OUT; i++) {
                int head = i / DIM % HEADS;
                for (int b = 0; b < BRANCHES; b++) {
                    float got = outputs[step][layer][b][i], want = dense[step][layer][b][i];
                    if (head == 0) want = 0;
                    if (head == 1) want = dense[step][layer][0][i];
                    if (fabsf(got - want) > 1e-6f) {
                        CHECK_MSG(0, "step %d, branch %d, head %d: %g, wanted %g", step, b, head,
                                  (double)got, (double)want);
                        return;
                    }
                }
            }
    CHECK(fabs(st.density - (2 + 1) / 6.) < 1e-9); /* 2 heads of 3, and 1 of 3 */
    struct attn_params p = params_of("twice");
    struct session s;
    struct err e = {0};
    static float x[4 * OUT];
    CHECK_OK(session_open(&s, &p, &e));
    struct attn_call c = {.q = x, .k = x + OUT, .v = x + 2 * OUT, .o = x + 3 * OUT};
    CHECK(attn_run(s.a, &c, &e) < 0 && e.code == ERR_BUG && strstr(e.msg, "head"));
    session_close(&s);
}

/* attention-sparse.md 15, 10: at a refresh o is exact; on the q, k, v of the refresh the sum is exact
 * up to bf16; between, the residual is worth more than nothing; reset forgets it. */
static void residual(void)
{
    static float dense[STEPS][LAYERS][BRANCHES][OUT];
    struct attn_stats st, band;
    struct attn_forecast f;
    struct err e = {0};
    open_and_run("plain", true, &st);
    memcpy(dense, outputs, sizeof dense);
    open_and_run("carried", true, &st);
    for (int step = 0; step < STEPS; step++)
        CHECK_MSG(apart(dense, step) < 4e-3, "step %d: %g", step, apart(dense, step));
    CHECK(st.error < 8e-3 && st.recall < 0.9);

    open_and_run("plain", false, &st);
    memcpy(dense, outputs, sizeof dense);
    open_and_run("mild:tile=2x2x2", false, &band); /* the same selection alone */
    double without = apart(dense, 2);
    open_and_run("carried", false, &st);
    for (int step = 0; step < STEPS; step++) { /* exact at 0; refreshed at 1 4 7 */
        bool exact = step % 3 == 1 || step == 0;
        double d = apart(dense, step);
        CHECK_MSG(exact ? d < 1e-6 : d > 1e-4 && d < 0.5 * without, "step %d: %g", step, d);
    }
    struct attn_params p = params_of("carried");
    CHECK_OK(attn_forecast(&f, &p, &shape, &e));
    CHECK(f.density[0] == f.density[1] && fabs(f.density[0] - st.density) < 1e-9);
    CHECK(fabs(f.refreshed - 3. / STEPS) < 1e-9 && f.cache_bytes > 0);
    /* with no place for the residuals: exact */
    p.cap_cache = true;
    struct session s;
    CHECK_OK(session_open(&s, &p, &e));
    run_still(s.a, false);
    for (int step = 0; step < STEPS; step++)
        CHECK(apart(dense, step) < 1e-6);
    session_close(&s);
    /* everything kept: the residual is 0, and the run exact */
    open_and_run("carried:tiles=99", false, &st);
    for (int step = 0; step < STEPS; step++)
        CHECK(apart(dense, step) < 1e-6);
    CHECK(st.density == 1);
    /* beside another's selection */
    open_and_run("other:keep=1+carried", false, &st);
    CHECK(apart(dense, 4) < 1e-6 && apart(dense, 2) > 1e-4);
}

int main(void)
{
    threads_set(1);
    every_hook();
    capped();
    rules();
    residual();
    return TEST_RESULT();
}
