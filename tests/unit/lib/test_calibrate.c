/* Fits that give back what they were made of, sums over steps made up here, and calibrations that go
 * through a file; hostile ones are refused with their line. */
#include "app/lib/calibrate.h"
#include "tests/check.h"

static void fit(void)
{
    const double want[DIT_POLY] = {-5e4, 9e3, -500, 13, -0.05};
    double x[60], y[60], got[DIT_POLY];
    struct err e;
    for (int i = 0; i < 60; i++) {
        x[i] = 0.005 + 0.001 * i;
        y[i] = 0;
        for (int k = 0; k < DIT_POLY; k++)
            y[i] = y[i] * x[i] + want[k];
    }
    CHECK_OK(calibrate_fit(got, x, y, 60, &e));
    for (int k = 0; k < DIT_POLY; k++)
        CHECK_MSG(fabs(got[k] - want[k]) < 1e-4 * fabs(want[k]), "power %d: %g, wanted %g",
                  DIT_POLY - 1 - k, got[k], want[k]);
    /* noise around it: nearer than any neighbour */
    double least = 0, other;
    for (int i = 0; i < 60; i++)
        y[i] += 0.01 * ((i * 37 % 11) - 5);
    CHECK_OK(calibrate_fit(got, x, y, 60, &e));
    for (int way = -1; way < 2 * DIT_POLY; way++) {
        double c[DIT_POLY];
        memcpy(c, got, sizeof c);
        if (way >= 0) c[way / 2] *= way % 2 ? 1.001 : 0.999;
        other = 0;
        for (int i = 0; i < 60; i++) {
            double v = 0;
            for (int k = 0; k < DIT_POLY; k++)
                v = v * x[i] + c[k];
            other += (v - y[i]) * (v - y[i]);
        }
        if (way < 0) least = other;
        CHECK_MSG(other >= least, "a neighbour is nearer: %g, %g", other, least);
    }
    CHECK(calibrate_fit(got, x, y, 5, &e) < 0 && e.code == ERR_USAGE);
    for (int i = 0; i < 60; i++)
        x[i] = i % 3;
    CHECK(calibrate_fit(got, x, y, 60, &e) < 0);
}

/* Two clips of steps whose changes are known. */
static void sums(void)
{
    enum { STEPS = 9, TOKENS = 4, WIDTH = 3 };
    struct calibrate *c;
    struct calibration r = {0};
    struct err e;
    CHECK_OK(calibrate_open(&c, &e));
    const struct dit_watch *w = calibrate_watch(c);
    for (int clip = 0; clip < 2; clip++)
        for (int t = 0; t < STEPS; t++)
            for (int b = 0; b < 2; b++) {
                float added[TOKENS * WIDTH], velocity[5], time[6 * 2];
                for (int i = 0; i < TOKENS * WIDTH;
                     i++) /* grows by 2 and 4, in tokens of any size */
                    added[i] = powf(clip ? 4 : 2, (float)t) * (float)(1 + i / WIDTH);
                float u = 1;
                for (int k = 1; k <= t; k++)
                    u *= 1 + 0.01F * (float)k; /* moves by 1 %, 2 % ... */
                for (int i = 0; i < 12; i++)
                    time[i] = u;
                for (int i = 0; i < 5; i++)
                    velocity[i] = u * u * (b ? -1 : 1);
                w->seen(w->ctx, &(struct dit_seen){.step = t,
                                                   .n_steps = STEPS,
                                                   .branch = b,
                                                   .n_branches = 2,
                                                   .added = added,
                                                   .tokens = TOKENS,
                                                   .width = WIDTH,
                                                   .velocity = velocity,
                                                   .n = 5,
                                                   .temb = time,
                                                   .time6 = time,
                                                   .n_time = 2});
            }
    CHECK_OK(calibrate_result(&r, c, &e));
    CHECK(r.of.n_steps == STEPS && r.of.n_branches == 2 && r.known);
    for (int t = 0; t < STEPS; t++)
        CHECK_MSG(fabsf(r.ratio[2 * t] - (t ? 3 : 1)) < 1e-5F, "step %d grows by %g", t,
                  (double)r.ratio[2 * t]);
    double x = 0.05, y = 0; /* the velocity is a square: moves by 2x + x^2 */
    for (int k = 0; k < DIT_POLY; k++)
        y = y * x + r.of.poly[0][k];
    CHECK_MSG(fabs(y - (2 * x + x * x)) < 1e-4, "%g moves it by %g", x, y);
    r.mark = 42;
    char *text = calibration_text(&r, "a test");
    struct calibration back = {0};
    CHECK_OK(calibration_parse(&back, text, strlen(text), "back", &e));
    CHECK(back.mark == 42 && back.of.n_steps == STEPS && back.of.has_poly);
    for (int i = 0; i < 2 * STEPS; i++)
        CHECK(fabsf(back.ratio[i] - r.ratio[i]) < 1e-4F);
    free(text);
    calibration_fini(&back);
    calibration_fini(&r);
    calibrate_close(c);
}

static void hostile(void)
{
    static const char *const bad[] = {
        "",
        "[model]\nmark = 1\n",
        "[model]\nmark = -1\n",
        "[teacache]\ntime = 1/2/3/4\n",
        "[teacache]\ntime = 1/2/3/4/5/6\n",
        "[teacache]\ntime = 1/2/3/4/nan\n",
        "[teacache]\nspace = 1/2/3/4/5\n",
        "[magcache]\nratio = 1/1\n",
        "[magcache]\nsteps = 2\nbranches = 1\nratio = 1\n",
        "[magcache]\nsteps = 2\nbranches = 1\nratio = 1/0\n",
        "[magcache]\nsteps = 2\nbranches = 1\nratio = 1/1\nsteps = 3\n",
        "[magcache]\nsteps = 2\nbranches = 1\nratio = 1/1\nratio = 1/x\n",
        "[magcache]\nsteps = 1001\n",
        "[magcache]\nbranches = 3\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct calibration c = {0};
        struct err e = {0};
        CHECK_MSG(calibration_parse(&c, bad[i], strlen(bad[i]), "bad.ini", &e) < 0 &&
                      e.code == ERR_INPUT && strstr(e.msg, "bad.ini"),
                  "%s", bad[i]);
        CHECK(!c.known);
        calibration_fini(&c);
    }
}

int main(void)
{
    fit();
    sums();
    hostile();
    return TEST_RESULT();
}
