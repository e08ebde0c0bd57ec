/* A run of a tiny transformer under a step cache, for the tests of step caches; included by each of
 * them: latents that drift, times that fall, a calibration and a budget. */
#ifndef DITGEN_TESTS_UNIT_DIT_CACHE_RUN_H
#define DITGEN_TESTS_UNIT_DIT_CACHE_RUN_H

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

/* Values of the calibration and of the budget's table. */
static void cache_run_begin(void)
{
    for (int t = 0; t < STEPS; t++)
        for (int b = 0; b < 2; b++)
            ratio[2 * t + b] = 1 + 0.002F * (float)((t * 7 + b * 3) % 11 + 1);
    for (int t = 2; t < STEPS; t++)
        gain[t] = .02F, drift[t] = .1F + .01F * (float)t;
}

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

#endif
