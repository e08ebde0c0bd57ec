/* Step caches against a scalar transcription of attention-kernels.md 5, on a tiny transformer: which
 * steps are left out and what velocity stands for them. And what all of them promise, by walking the
 * list. */
#include "tests/unit/dit/fixture.h"

#define STEPS 14

static const struct clip clip = {3, 6, 10, 5, 0, 0, NULL, false, 0};
static float ratio[STEPS * 2];
static struct dit_calibration calibration = {
    .has_poly = true,
    .poly = {{3, -2, 0.5, 1.5, 0.01}, {-2, 1, 0.25, 2, -0.005}},
    .n_steps = STEPS,
    .n_branches = 2,
    .ratio = ratio,
};

static float gain[STEPS], weight[1] = {1}, drift[STEPS];
static const struct budget_table table = {.n_steps = STEPS,
                                          .n_units = 1,
                                          .gain = gain,
                                          .weight = weight,
                                          .drift = drift,
                                          .power = 1,
                                          .at = 20,
                                          .slope = 1,
                                          .usual = 1};
static struct budget budget = {.table = &table, .db = 30};

/* --- a run: latents that drift, times that fall ------------------------------------------------- */

struct sample {
    float *latents[STEPS], time[STEPS];
    float *velocity[STEPS][2];
    size_t n;
    bool skipped[STEPS];
};

static void sample_open(struct sample *s, const struct dit *d)
{
    s->n = velocity_len(d, &clip);
    float *from = drawn("caches.from", s->n), *to = drawn("caches.to", s->n);
    for (int i = 0; i < STEPS; i++) {
        float a = (float)i * (float)i / (STEPS * STEPS);
        s->latents[i] = malloc(s->n * sizeof(float));
        for (size_t k = 0; k < s->n; k++)
            s->latents[i][k] = (1 - a) * from[k] + a * to[k];
        s->time[i] = 1000 * (1 - a);
        for (int b = 0; b < 2; b++)
            s->velocity[i][b] = calloc(s->n, sizeof(float));
    }
    free(from), free(to);
}

static void sample_close(struct sample *s)
{
    for (int i = 0; i < STEPS; i++) {
        free(s->latents[i]);
        for (int b = 0; b < 2; b++)
            free(s->velocity[i][b]);
    }
}

static int prepare(struct dit *d, const char *words, struct err *e)
{
    struct attn_params attn = cpu_attention(d->precision);
    struct dit_run_params p = run_params(&clip, &attn);
    p.n_steps = STEPS;
    p.cache =
        (struct dit_cache_params){.words = words, .calibration = &calibration, .budget = &budget};
    if (dit_prepare(d, &p, e) < 0) return -1;
    float *text = drawn("dit.text", (size_t)clip.rows * (size_t)dit_config_of(d)->text_dim);
    for (int b = 0; b < 2; b++)
        CHECK(dit_set_context(d, b, text, clip.rows - 2 * b, NULL, e) == 0);
    free(text);
    return 0;
}

static void steps(struct dit *d, struct sample *s, int from, int to, bool together)
{
    struct err e = {0};
    for (int i = from; i < to; i++) {
        struct dit_cache_stats before, after;
        struct dit_call c = {.step = i, .n_branches = together ? 2 : 1, .timestep = s->time[i]};
        dit_cache_stats(d, &before);
        CHECK_OK(dit_velocity(d, s->velocity[i], s->latents[i], &c, &e));
        c.branch = 1;
        if (!together) CHECK_OK(dit_velocity(d, &s->velocity[i][1], s->latents[i], &c, &e));
        dit_cache_stats(d, &after);
        s->skipped[i] = after.reused > before.reused;
    }
}

static bool same(const struct sample *a, const struct sample *b, int from)
{
    for (int i = from; i < STEPS; i++)
        for (int c = 0; c < 2; c++)
            if (memcmp(a->velocity[i][c], b->velocity[i][c], a->n * sizeof(float)) != 0)
                return false;
    return true;
}

static int left_out(const struct sample *s)
{
    int n = 0;
    for (int i = 0; i < STEPS; i++)
        n += s->skipped[i];
    return n;
}

/* --- the transcription -------------------------------------------------------------------------- */

static double d1(const float *a, const float *b, size_t n)
{
    double moved = 0, size = 0;
    for (size_t i = 0; i < n; i++)
        moved += fabs((double)a[i] - (double)b[i]), size += fabs((double)b[i]);
    return moved / size;
}

static double mean_abs(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += fabs((double)a[i] - (b ? (double)b[i] : 0));
    return sum / (double)n;
}

/* What the room of the transformer gives in one step without a cache, as values. */
struct inside {
    float *in[2], *first[2], *out[2]; /* streams in front of block 0, behind it, behind the last */
    float *temb, *time6;
    size_t stream, n_temb;
};

static void forward(struct dit *d, const struct sample *s, int i, struct inside *f)
{
    struct dit_run *r = &d->run;
    struct err e = {0};
    struct dit_call c = {.step = i, .n_branches = 2, .timestep = s->time[i]};
    f->stream = (size_t)r->tokens * (size_t)r->width;
    f->n_temb = (size_t)r->width;
    CHECK_OK(dit_set_time(d, &c, &e));
    CHECK_OK(dit_embed_time(d, &e));
    f->temb = r->temb.at, f->time6 = r->time6.at;
    CHECK_OK(dit_embed_latents(d, s->latents[i], 2, &e));
    for (int layer = 0; layer < d->config.n_layers; layer++) {
        for (int b = 0; b < 2 && layer == 0; b++)
            memcpy(f->in[b], (float *)r->streams.at + (size_t)b * f->stream,
                   f->stream * sizeof(float));
        CHECK_OK(dit_block_run(d, layer, &c, &e));
        for (int b = 0; b < 2 && layer == 0; b++)
            memcpy(f->first[b], (float *)r->streams.at + (size_t)b * f->stream,
                   f->stream * sizeof(float));
    }
    for (int b = 0; b < 2; b++)
        memcpy(f->out[b], (float *)r->streams.at + (size_t)b * f->stream,
               f->stream * sizeof(float));
}

static void head(struct dit *d, const struct inside *f, const float *stream, float *velocity)
{
    struct err e = {0};
    dit_stream(&d->run, 0, 1);
    memcpy(d->run.x.at, stream, f->stream * sizeof(float));
    CHECK_OK(dit_head(d, &velocity, 0, 1, &e));
}

enum which { TEA_MODULATION, TEA_TIME, FIRST, MAG, EASY };

/* d: prepared without a cache. Steps [0, first) and [last, STEPS) are computed. */
static void transcribe(struct dit *d, struct sample *s, enum which which, double threshold,
                       int most, int first, int last)
{
    struct inside f = {0};
    size_t len = (size_t)d->run.tokens * (size_t)d->run.width, n = s->n;
    float *r[2], *u = NULL, *h = malloc(len * sizeof *h), *h_ref = calloc(len, sizeof *h_ref);
    float *x_prev = calloc(n, sizeof *x_prev), *x_computed = calloc(n, sizeof *x_computed),
          *v_prev = calloc(n, sizeof *v_prev), *easy[2];
    double acc = 0, a[2] = {1, 1}, err[2] = {0, 0}, k = -1;
    int in_row = 0, computed = 0;
    for (int b = 0; b < 2; b++) {
        f.in[b] = malloc(len * sizeof(float)), f.first[b] = malloc(len * sizeof(float));
        f.out[b] = malloc(len * sizeof(float)), r[b] = calloc(len, sizeof(float));
        easy[b] = calloc(n, sizeof(float));
    }
    for (int t = 0; t < STEPS; t++) {
        bool skip = false;
        forward(d, s, t, &f);
        if (which == TEA_MODULATION || which == TEA_TIME) {
            size_t m = which == TEA_TIME ? f.n_temb : 6 * f.n_temb;
            const float *now = which == TEA_TIME ? f.temb : f.time6;
            const double *p = calibration.poly[which == TEA_TIME];
            if (u) {
                double x = d1(now, u, m),
                       y = p[0] * x * x * x * x + p[1] * x * x * x + p[2] * x * x + p[3] * x + p[4];
                acc += y > 0 ? y : 0;
            }
            if (!u) u = malloc(m * sizeof *u);
            memcpy(u, now, m * sizeof *u);
            skip = acc < threshold;
        } else if (which == FIRST) {
            for (size_t i = 0; i < len; i++)
                h[i] = f.first[0][i] - f.in[0][i];
            skip = t > 0 && d1(h, h_ref, len) <= threshold;
        } else if (which == MAG) {
            skip = in_row + 1 <= most;
            for (int b = 0; b < 2; b++) {
                a[b] *= (double)ratio[2 * t + b];
                err[b] += fabs(1 - a[b]);
                skip = skip && err[b] <= threshold;
            }
        } else if (k >= 0 && t >= first) {
            acc += k * mean_abs(s->latents[t], x_prev, n) / mean_abs(v_prev, NULL, n);
            skip = acc < threshold;
        }
        if (t < first || t >= last) skip = false;
        s->skipped[t] = skip;
        for (int b = 0; b < 2; b++) {
            float *from = which == FIRST ? f.first[b] : f.in[b];
            for (size_t i = 0; i < len; i++) {
                if (!skip) r[b][i] = f.out[b][i] - from[i];
                from[i] = skip ? from[i] + r[b][i] : f.out[b][i];
            }
            head(d, &f, from, s->velocity[t][b]);
            if (which != EASY) continue;
            for (size_t i = 0; i < n; i++) {
                if (!skip) easy[b][i] = s->velocity[t][b][i] - s->latents[t][i];
                if (skip) s->velocity[t][b][i] = s->latents[t][i] + easy[b][i];
            }
        }
        memcpy(x_prev, s->latents[t], n * sizeof(float));
        in_row = skip ? in_row + 1 : 0;
        if (skip) continue;
        acc = 0;
        memcpy(h_ref, h, len * sizeof *h);
        a[0] = a[1] = 1, err[0] = err[1] = 0;
        if (computed++)
            k = mean_abs(s->velocity[t][0], v_prev, n) / mean_abs(s->latents[t], x_computed, n);
        memcpy(x_computed, s->latents[t], n * sizeof(float));
        memcpy(v_prev, s->velocity[t][0], n * sizeof(float));
    }
    for (int b = 0; b < 2; b++)
        free(f.in[b]), free(f.first[b]), free(f.out[b]), free(r[b]), free(easy[b]);
    free(u), free(h), free(h_ref), free(x_prev), free(x_computed), free(v_prev);
}

static void against(struct dit *d, const char *name, const char *more, enum which which,
                    double threshold, int most, int first, int last, int *mixed)
{
    struct sample want = {0}, got = {0};
    struct err e = {0};
    char words[200], text[2][STEPS + 1] = {"", ""};
    snprintf(words, sizeof words, "%s:threshold=%g,first=%d,last=%d%s", name, threshold, first,
             STEPS - last, more);
    if (which == MAG)
        snprintf(words + strlen(words), sizeof words - strlen(words), ",most=%d", most);
    sample_open(&want, d), sample_open(&got, d);
    CHECK_OK(prepare(d, NULL, &e));
    transcribe(d, &want, which, threshold, most, first, last);
    CHECK_OK(prepare(d, words, &e));
    steps(d, &got, 0, STEPS, true);
    for (int i = 0; i < STEPS; i++)
        text[0][i] = want.skipped[i] ? '-' : 'c', text[1][i] = got.skipped[i] ? '-' : 'c';
    CHECK_MSG(strcmp(text[0], text[1]) == 0, "%s: steps %s, transcribed %s", words, text[1],
              text[0]);
    CHECK_MSG(same(&want, &got, 0), "%s: other velocities", words);
    int n = left_out(&got);
    if (n > 0 && n < last - first) ++*mixed;
    printf("%-60s %s\n", words, text[1]);
    sample_close(&want), sample_close(&got);
}

static void transcriptions(void)
{
    static const struct {
        const char *name, *more;
        enum which which;
        double thresholds[3];
    } cases[] = {
        {"teacache", "", TEA_MODULATION, {2, 5, 20}},
        {"teacache", ",of=time", TEA_TIME, {0.1, 0.3, 0.6}},
        {"firstblock", "", FIRST, {0.5, 0.8, 1.2}},
        {"magcache", "", MAG, {0.03, 0.1, 0.4}},
        {"easycache", "", EASY, {1, 2, 4}},
    };
    struct dit *d = open_tiny("t2v", PRECISION_FP32);
    if (!d) return;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int mixed = 0;
        for (int k = 0; k < 3; k++)
            against(d, cases[i].name, cases[i].more, cases[i].which, cases[i].thresholds[k], 2 + k,
                    1 + k, STEPS - k, &mixed);
        CHECK_MSG(mixed > 0, "%s: no threshold left out some steps", cases[i].name);
    }
    dit_close(d);
}

/* --- what all promise --------------------------------------------------------------------------- */

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
    for (int t = 0; t < STEPS; t++)
        for (int b = 0; b < 2; b++)
            ratio[2 * t + b] = 1 + 0.002F * (float)((t * 7 + b * 3) % 11 + 1);
    for (int t = 2; t < STEPS; t++)
        gain[t] = .02F, drift[t] = .1F + .01F * (float)t;
    words();
    transcriptions();
    budgeted();
    walk();
    resumed();
    forecast();
    return TEST_RESULT();
}
