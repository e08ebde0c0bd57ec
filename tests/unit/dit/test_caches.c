/* What all step caches promise, by walking the list: exact at threshold 0, resumed at any step, as much
 * memory and as many steps as forecast. Which steps each leaves out: test_cache_steps.c. */
#include "tests/unit/dit/cache_run.h"

static void walk(void)
{
    struct dit *d = open_tiny("t2v", PRECISION_FP32);
    struct sample plain = {0}, got = {0}, again = {0};
    struct err e = {0};
    char words[200];
    if (!d) return;
    sample_open(&plain, d), sample_open(&got, d), sample_open(&again, d);
    CHECK_OK(prepare(d, NULL, &e));
    steps(d, &plain, 0, STEPS, true);
    for (int i = 0; i < dit_caches(); i++) {
        const char *name = dit_cache_info(i).name;
        if (dit_cache_info(i).budgeted) continue; /* budgeted() */
        /* nothing is close enough: no cache, bit for bit */
        snprintf(words, sizeof words, "%s:threshold=0", name);
        CHECK_OK(prepare(d, words, &e));
        steps(d, &got, 0, STEPS, true);
        CHECK_MSG(left_out(&got) == 0 && same(&plain, &got, 0), "%s at 0 is not exact", name);
        /* everything is: exactly the first and last steps are computed, whatever is in between */
        bool most = option_find(dit_cache_info(i).options, "most") != NULL;
        snprintf(words, sizeof words, "%s:threshold=1e9,first=3,last=2%s", name,
                 most ? ",most=1000" : "");
        CHECK_OK(prepare(d, words, &e));
        steps(d, &got, 0, STEPS, true);
        for (int t = 0; t < STEPS; t++)
            CHECK_MSG(got.skipped[t] == (t >= 3 && t < STEPS - 2), "%s at 1e9: step %d", name, t);
        CHECK_MSG(same(&plain, &got, STEPS - 2), "%s: the last steps are not computed", name);
        /* the next prompt begins anew; branches may come one by one */
        steps(d, &again, 0, STEPS, true);
        CHECK_MSG(same(&got, &again, 0), "%s: a second prompt is not as the first", name);
        steps(d, &again, 0, STEPS, false);
        CHECK_MSG(same(&got, &again, 0), "%s: branch by branch differs", name);
    }
    sample_close(&plain), sample_close(&got), sample_close(&again);
    dit_close(d);
}

/* Broken off after any step and gone on with in a new run. */
static void resumed(void)
{
    struct dit *d = open_tiny("t2v", PRECISION_FP32);
    struct sample whole = {0}, parts = {0};
    struct err e = {0};
    if (!d) return;
    sample_open(&whole, d), sample_open(&parts, d);
    for (int i = 0; i < dit_caches(); i++) {
        char words[200];
        snprintf(words, sizeof words, "%s:%sfirst=2,last=1", dit_cache_info(i).name,
                 dit_cache_info(i).budgeted ? "" : "threshold=.3,");
        CHECK_OK(prepare(d, words, &e));
        steps(d, &whole, 0, STEPS, true);
        for (int at = 1; at < STEPS; at += 3) {
            struct dit_cache_kept k;
            CHECK_OK(prepare(d, words, &e));
            steps(d, &parts, 0, at, true);
            CHECK_OK(dit_cache_fetch(d, &e));
            dit_cache_kept(d, &k);
            float *kept[2] = {0};
            double numbers[DIT_CACHE_NUMBERS];
            memcpy(numbers, k.numbers, (size_t)k.n_numbers * sizeof *numbers);
            for (int b = 0; b < k.n_blocks; b++) {
                kept[b] = malloc(k.blocks[b].n * sizeof(float));
                memcpy(kept[b], k.blocks[b].at, k.blocks[b].n * sizeof(float));
            }
            CHECK_OK(prepare(d, words, &e));
            dit_cache_kept(d, &k);
            memcpy(k.numbers, numbers, (size_t)k.n_numbers * sizeof *numbers);
            for (int b = 0; b < k.n_blocks; b++) {
                memcpy(k.blocks[b].at, kept[b], k.blocks[b].n * sizeof(float));
                free(kept[b]);
            }
            CHECK_OK(dit_cache_resume(d, at, &e));
            steps(d, &parts, at, STEPS, true);
            CHECK_MSG(same(&whole, &parts, at), "%s: broken off after %d steps it differs", words,
                      at);
        }
    }
    sample_close(&whole), sample_close(&parts);
    dit_close(d);
}

/* What the forecast says is what the arena grows by, and how many steps are computed. */
static void forecast(void)
{
    struct dit *d = open_tiny("t2v", PRECISION_FP32);
    struct attn_params attn = cpu_attention(PRECISION_FP32);
    struct sample got = {0};
    struct err e = {0};
    if (!d) return;
    sample_open(&got, d);
    for (int i = 0; i < dit_caches(); i++) {
        struct dit_run_params p = run_params(&clip, &attn);
        struct dit_cache_forecast f;
        size_t without, with;
        p.n_steps = STEPS;
        CHECK_OK(dit_bytes(&without, dit_config_of(d), PRECISION_FP32, &p, &e));
        p.cache = (struct dit_cache_params){
            .words = dit_cache_info(i).name, .calibration = &calibration, .budget = &budget};
        CHECK_OK(dit_cache_forecast(&f, dit_config_of(d), &p, &e));
        CHECK_OK(dit_bytes(&with, dit_config_of(d), PRECISION_FP32, &p, &e));
        CHECK_MSG(with - without >= f.bytes && with - without <= f.bytes + 4 * 256,
                  "%s: %zu bytes, said %zu", f.name, with - without, f.bytes);
        CHECK_OK(prepare(d, f.name, &e));
        steps(d, &got, 0, STEPS, true);
        int n = STEPS - left_out(&got);
        CHECK_MSG(f.least <= n && n <= f.most, "%s: computed %d, said %d to %d", f.name, n, f.least,
                  f.most);
        if (dit_cache_info(i).calibrated) {
            p.cache.calibration = NULL;
            p.cache.why_not = "x.ini is not there";
            CHECK(dit_bytes(&with, dit_config_of(d), PRECISION_FP32, &p, &e) < 0 &&
                  e.code == ERR_USAGE && strstr(e.msg, "x.ini is not there") &&
                  strstr(e.msg, "ditgen calibrate"));
        }
    }
    sample_close(&got);
    dit_close(d);
}

static double change(const float *a, const float *b, size_t n)
{
    double by = 0, size = 0;
    for (size_t i = 0; i < n; i++)
        by += fabs((double)a[i] - (double)b[i]), size += fabs((double)b[i]);
    return by / size;
}

static void on_moved(void *ctx, int step, int unit, double moved)
{
    double *to = ctx;
    CHECK(unit == 0);
    to[step] = moved;
}

/* Which steps are left out is the budget's alone; how far the others moved is told. */
static void budgeted(void)
{
    struct dit *d = open_tiny("t2v", PRECISION_FP32);
    struct sample plain = {0}, got = {0};
    const struct budget before = budget;
    struct err e = {0};
    struct dit_cache_stats stats;
    double moved[STEPS];
    if (!d) return;
    sample_open(&plain, d), sample_open(&got, d);
    CHECK_OK(prepare(d, NULL, &e));
    steps(d, &plain, 0, STEPS, true);
    for (int t = 0; t < STEPS; t++)
        moved[t] = -1;
    budget = (struct budget){.mode = BUDGET_RENEW, .moved = on_moved, .ctx = moved};
    CHECK_OK(prepare(d, "budget:first=2,last=1", &e));
    steps(d, &got, 0, STEPS, true);
    CHECK(left_out(&got) == 0 && same(&plain, &got, 0));
    for (int t = 0; t < STEPS; t++) {
        double by = t ? change(plain.velocity[t][0], plain.velocity[t - 1][0], plain.n) : 0;
        if (t < 2 || t == STEPS - 1)
            CHECK(moved[t] == -1);
        else
            CHECK_MSG(fabs(moved[t] / (by * by) - 1) < 1e-4, "step %d: %g, wanted %g", t, moved[t],
                      by * by);
    }
    budget = (struct budget){.mode = BUDGET_PROBE, .step = 2, .from = 0, .to = 1};
    CHECK_OK(prepare(d, "budget:first=2,last=1", &e));
    steps(d, &got, 0, STEPS, true);
    CHECK(left_out(&got) == 1 && got.skipped[2]);
    /* a larger budget leaves out no more */
    int most = STEPS;
    for (double db = 15; db < 85; db += 5) {
        budget = (struct budget){.table = &table, .db = db};
        CHECK_OK(prepare(d, "budget", &e));
        steps(d, &got, 0, STEPS, true);
        CHECK_MSG(left_out(&got) <= most, "%g dB: %d left out, %d before", db, left_out(&got),
                  most);
        most = left_out(&got);
        dit_cache_stats(d, &stats);
        CHECK(stats.budgeted && stats.spent.carried == most &&
              stats.spent.renewed + stats.spent.carried == STEPS - 2);
        if (db == 15) CHECK(most > 2);
    }
    CHECK(most == 0);
    budget = before;
    struct attn_params attn = cpu_attention(PRECISION_FP32);
    struct dit_run_params p = run_params(&clip, &attn);
    p.n_steps = STEPS;
    p.cache.words = "budget";
    size_t bytes;
    CHECK(dit_bytes(&bytes, dit_config_of(d), PRECISION_FP32, &p, &e) < 0 &&
          strstr(e.msg, "--error-budget"));
    sample_close(&plain), sample_close(&got);
    dit_close(d);
}

static void words(void)
{
    static const char *const bad[] = {"none2",
                                      "teacache:what=1",
                                      "teacache:threshold=-1",
                                      "teacache:threshold=nan",
                                      "teacache:poly=1/2/3/4",
                                      "teacache:poly=1/2/3/4/5/6",
                                      "teacache:poly=1/2/3/4/x",
                                      "teacache:of=space",
                                      "magcache:most=0",
                                      "magcache:first=1001",
                                      "easycache:last=",
                                      ":"};
    struct err e;
    char one[400], two[400];
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        CHECK_MSG(dit_cache_check(bad[i], NULL, 0, &e) < 0 && e.code == ERR_USAGE, "%s", bad[i]);
    for (int i = 0; i < dit_caches(); i++) {
        CHECK_OK(dit_cache_check(dit_cache_info(i).name, one, sizeof one, &e));
        CHECK_OK(dit_cache_check(one, two, sizeof two, &e));
        CHECK_MSG(strcmp(one, two) == 0, "%s became %s", one, two);
        CHECK(dit_cache_check(one, two, 5, &e) < 0);
    }
    CHECK(dit_cache_check("none", one, sizeof one, &e) == 0 && strcmp(one, "none") == 0);
    CHECK(dit_cache_check(NULL, one, sizeof one, &e) == 0 && strcmp(one, "none") == 0);
    CHECK_OK(dit_cache_check("teacache:poly=1/-2/3e2/.4/0", NULL, 0, &e));
}

int main(void)
{
    cache_run_begin();
    words();
    budgeted();
    walk();
    resumed();
    forecast();
    return TEST_RESULT();
}
