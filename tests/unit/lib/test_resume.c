/* Going on: from the state after any step, the rest of a run gives the bytes of the whole, asking the
 * model for the steps that are left and no more. */
#include "app/lib/ditgen.h"
#include "tests/check.h"

#define STEPS 5
#define SIDE 32

struct seen {
    uint64_t hash;
    int texts, steps; /* steps: asked for in this run */
    int last;
    struct ditgen_state kept[STEPS + 1]; /* by step */
    float *memory[STEPS + 1][1 + DITGEN_HISTORY + DITGEN_KEPT];
    size_t n;
};

static int on_frame(void *ctx, int index, const uint8_t *rgb, int width, int height)
{
    struct seen *s = ctx;
    (void)index;
    for (int i = 0; i < width * height * 3; i++)
        s->hash = (s->hash ^ rgb[i]) * 1099511628211u;
    return 0;
}

static int on_progress(void *ctx, const struct ditgen_progress *p)
{
    struct seen *s = ctx;
    if (p->phase == DITGEN_TEXT) s->texts++;
    if (p->phase != DITGEN_DENOISE) return 0;
    CHECK(p->first <= p->done);
    if (s->last < 0) CHECK(p->done == p->first);
    if (s->last >= 0 && p->done > s->last) s->steps += p->done - s->last;
    s->last = p->done;
    return 0;
}

static int on_state(void *ctx, const struct ditgen_state *s)
{
    struct seen *seen = ctx;
    struct ditgen_state *k = &seen->kept[s->step];
    size_t n =
        (size_t)s->shape[0] * (size_t)s->shape[1] * (size_t)s->shape[2] * (size_t)s->shape[3];
    *k = *s;
    seen->n = n;
    for (int i = 0; i <= s->n_history; i++) {
        float *copy = malloc(n * sizeof *copy);
        memcpy(copy, i ? s->history[i - 1] : s->latents, n * sizeof *copy);
        seen->memory[s->step][i] = copy;
        *(i ? &k->history[i - 1] : &k->latents) = copy;
    }
    for (int i = 0; i < s->n_kept; i++) {
        float *copy = malloc(s->kept_len[i] * sizeof *copy);
        memcpy(copy, s->kept[i], s->kept_len[i] * sizeof *copy);
        k->kept[i] = seen->memory[s->step][1 + DITGEN_HISTORY + i] = copy;
    }
    return 0;
}

static struct ditgen_settings *settings(struct ditgen *d, const char *solver, const char *guidance,
                                        const char *attention, const char *cache)
{
    struct ditgen_settings *s;
    struct ditgen_error e;
    const char *const all[][2] = {
        {"prompt", "a rocket"}, {"size", "32x32"},        {"frames", "5"},
        {"steps", "5"},         {"threads", "1"},         {"seed", "3"},
        {"solver", solver},     {"attention", attention}, {"guidance-scale", guidance},
        {"step-cache", cache}};
    CHECK(ditgen_settings_open(&s, d, &e) == 0);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        CHECK_MSG(ditgen_set(s, all[i][0], all[i][1], &e) == 0, "%s", e.message);
    return s;
}

static void every_step(struct ditgen *d, const char *solver, const char *guidance,
                       const char *attention, const char *cache)
{
    struct ditgen_error e = {0};
    struct ditgen_settings *s = settings(d, solver, guidance, attention, cache);
    struct seen whole = {.last = -1};
    struct ditgen_callbacks c = {
        .ctx = &whole, .frame = on_frame, .progress = on_progress, .state = on_state};
    CHECK_MSG(ditgen_generate(d, s, &c, &e) == 0, "%s", e.message);
    CHECK(whole.steps == STEPS);
    for (int step = 1; step <= STEPS; step++) {
        struct seen rest = {.last = -1};
        CHECK_MSG(whole.kept[step].step == step, "%s: no state after step %d", solver, step);
        c.ctx = &rest;
        c.state = NULL;
        c.resume = &whole.kept[step];
        CHECK_MSG(ditgen_generate(d, s, &c, &e) == 0, "%s from %d: %s", solver, step, e.message);
        CHECK_MSG(rest.hash == whole.hash, "%s, guidance %s: from step %d other bytes", solver,
                  guidance, step);
        CHECK_MSG(rest.steps == STEPS - step, "%s from step %d asks for %d steps, %d are left",
                  solver, step, rest.steps, STEPS - step);
        CHECK((rest.texts > 0) == (step < STEPS)); /* decoding alone reads no text */
    }
    /* what does not fit is refused */
    struct ditgen_state bad = whole.kept[2];
    struct seen refused = {.last = -1};
    c.ctx = &refused;
    c.resume = &bad;
    bad.shape[1]++;
    CHECK(ditgen_generate(d, s, &c, &e) < 0 && e.code == DITGEN_INPUT);
    bad = whole.kept[2];
    bad.model++;
    CHECK(ditgen_generate(d, s, &c, &e) < 0 && strstr(e.message, "other weights"));
    bad = whole.kept[2];
    if (bad.n_kept)
        bad.kept_len[0]--;
    else
        bad.n_kept = 1, bad.kept[0] = bad.latents, bad.kept_len[0] = 1;
    CHECK(ditgen_generate(d, s, &c, &e) < 0 && e.code == DITGEN_INPUT &&
          strstr(e.message, "step cache"));
    bad = whole.kept[2];
    bad.steps++;
    CHECK(ditgen_generate(d, s, &c, &e) < 0 && e.code == DITGEN_INPUT);
    for (int i = 0; i <= STEPS; i++)
        for (int k = 0; k <= DITGEN_HISTORY + DITGEN_KEPT; k++)
            free(whole.memory[i][k]);
    ditgen_settings_close(s);
}

int main(void)
{
    struct ditgen *d;
    struct ditgen_error e;
    CHECK(ditgen_open(&d, NULL, &e) == 0);
    every_step(d, "unipc", "4", "dense", "none");
    every_step(d, "euler", "1", "window:tiles=1", "none");
    every_step(d, "dpmpp", "4", "dense", "none");
    every_step(d, "unipc", "4", "dense", "easycache:threshold=1,first=2");
    every_step(d, "unipc", "4", "dense", "firstblock:threshold=.5");
    every_step(d, "euler", "1", "window:tiles=1", "firstblock:threshold=2,last=0");
    every_step(d, "unipc", "4", "resid:every=2,first=1,last=0,block=16", "none");
    every_step(d, "unipc", "4", "resid:density=0,first=1,last=0", "firstblock:threshold=.5");
    every_step(d, "euler", "4", "lite:first=0,block=16,threshold=-1", "none");
    every_step(d, "euler", "1", "svg2:q=2,k=3,first=1+haste:drift=.5", "none");
    every_step(d, "euler", "4", "ditfast:steps=FWAc,first=1,last=0,block=16", "none");
    ditgen_close(d);
    return TEST_RESULT();
}
