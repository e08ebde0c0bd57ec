/* What is measured, summed and fitted; see calibrate.h. */
#include "app/lib/calibrate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_STEPS 1000
#define BRANCHES 2

struct kept { /* of a branch, in the step before */
    float *added, *velocity, *temb, *time6;
};

struct calibrate {
    struct dit_watch watch;
    struct kept before[BRANCHES];
    size_t added, velocity, time; /* lengths */
    int n_steps, n_branches;
    double ratio[MAX_STEPS][BRANCHES];
    int clips[MAX_STEPS][BRANCHES];
    double *x[2], *y; /* points to fit: of the modulation, of time */
    int n, room;
    bool no_memory;
};

static void forget(struct calibrate *c)
{
    for (int b = 0; b < BRANCHES; b++) {
        free(c->before[b].added);
        free(c->before[b].velocity);
        free(c->before[b].temb);
        free(c->before[b].time6);
        c->before[b] = (struct kept){0};
    }
}

/* Other sizes than before: another clip. */
static bool take_sizes(struct calibrate *c, const struct dit_seen *s)
{
    size_t added = (size_t)s->tokens * (size_t)s->width;
    if (c->before[0].added && c->added == added && c->velocity == s->n && c->time == s->n_time)
        return true;
    forget(c);
    c->added = added, c->velocity = s->n, c->time = s->n_time;
    for (int b = 0; b < BRANCHES; b++) {
        struct kept *k = &c->before[b];
        k->added = malloc(c->added * sizeof(float));
        k->velocity = malloc(c->velocity * sizeof(float));
        k->temb = malloc(c->time * sizeof(float));
        k->time6 = malloc(6 * c->time * sizeof(float));
        if (!k->added || !k->velocity || !k->temb || !k->time6) return false;
    }
    return true;
}

static bool grow(struct calibrate *c)
{
    if (c->n < c->room) return true;
    int room = c->room ? 2 * c->room : 256;
    double **all[] = {&c->x[0], &c->x[1], &c->y};
    for (int i = 0; i < 3; i++) {
        double *more = realloc(*all[i], (size_t)room * sizeof *more);
        if (!more) return false;
        *all[i] = more;
    }
    c->room = room;
    return true;
}

static double change(const float *a, const float *b, size_t n)
{
    double moved = 0, size = 0;
    for (size_t i = 0; i < n; i++)
        moved += fabs((double)a[i] - (double)b[i]), size += fabs((double)b[i]);
    return size > 0 ? moved / size : 0;
}

/* Mean over tokens of |a| / |b|. */
static double growth(const float *a, const float *b, int tokens, int width)
{
    double sum = 0;
    for (int t = 0; t < tokens; t++) {
        const float *p = a + (size_t)t * (size_t)width, *q = b + (size_t)t * (size_t)width;
        double x = 0, y = 0;
        for (int i = 0; i < width; i++)
            x += (double)p[i] * (double)p[i], y += (double)q[i] * (double)q[i];
        sum += y > 0 ? sqrt(x / y) : 1;
    }
    return sum / tokens;
}

static void seen(void *ctx, const struct dit_seen *s)
{
    struct calibrate *c = ctx;
    if (c->no_memory || s->branch >= BRANCHES || s->n_steps > MAX_STEPS) return;
    if (!take_sizes(c, s) || !grow(c)) {
        c->no_memory = true;
        return;
    }
    struct kept *k = &c->before[s->branch];
    c->n_steps = s->n_steps, c->n_branches = s->n_branches;
    if (s->step > 0) {
        c->x[0][c->n] = change(s->time6, k->time6, 6 * c->time);
        c->x[1][c->n] = change(s->temb, k->temb, c->time);
        c->y[c->n++] = change(s->velocity, k->velocity, c->velocity);
        c->ratio[s->step][s->branch] += growth(s->added, k->added, s->tokens, s->width);
        c->clips[s->step][s->branch]++;
    }
    memcpy(k->added, s->added, c->added * sizeof(float));
    memcpy(k->velocity, s->velocity, c->velocity * sizeof(float));
    memcpy(k->temb, s->temb, c->time * sizeof(float));
    memcpy(k->time6, s->time6, 6 * c->time * sizeof(float));
}

int calibrate_open(struct calibrate **out, struct err *e)
{
    struct calibrate *c = *out = calloc(1, sizeof *c);
    if (!c) return err_set(e, ERR_RESOURCE, "no memory for a calibration");
    c->watch = (struct dit_watch){.seen = seen, .ctx = c};
    return 0;
}

void calibrate_close(struct calibrate *c)
{
    if (!c) return;
    forget(c);
    free(c->x[0]);
    free(c->x[1]);
    free(c->y);
    free(c);
}

const struct dit_watch *calibrate_watch(const struct calibrate *c) { return &c->watch; }

/* --- the fit ------------------------------------------------------------------------------------ */

/* Solves the n equations of a (n x (n + 1)), largest pivots first; false: they are too alike. */
static bool solve(double a[DIT_POLY][DIT_POLY + 1])
{
    for (int i = 0; i < DIT_POLY; i++) {
        int best = i;
        for (int r = i + 1; r < DIT_POLY; r++)
            if (fabs(a[r][i]) > fabs(a[best][i])) best = r;
        if (!(fabs(a[best][i]) > 1e-13)) return false;
        for (int k = 0; k <= DIT_POLY; k++) {
            double t = a[i][k];
            a[i][k] = a[best][k], a[best][k] = t;
        }
        for (int r = 0; r < DIT_POLY; r++) {
            double f = r == i ? 0 : a[r][i] / a[i][i];
            for (int k = i; f != 0 && k <= DIT_POLY; k++)
                a[r][k] -= f * a[i][k];
        }
    }
    return true;
}

/* Normal equations in x / largest x, so that powers stay near 1. */
int calibrate_fit(double poly[DIT_POLY], const double *x, const double *y, int n, struct err *e)
{
    double a[DIT_POLY][DIT_POLY + 1] = {{0}}, most = 0, scale = 1;
    int different = 0;
    for (int i = 0; i < n; i++) {
        bool again = false;
        for (int k = 0; k < i && !again; k++)
            again = x[k] == x[i];
        different += !again;
        most = fmax(most, fabs(x[i]));
    }
    if (different <= DIT_POLY || !(most > 0))
        return err_set(e, ERR_USAGE,
                       "%d different changes of time are too few to fit %d coefficients: take more "
                       "steps",
                       different, DIT_POLY);
    for (int i = 0; i < n; i++) {
        double power[DIT_POLY] = {1};
        for (int k = 1; k < DIT_POLY; k++)
            power[k] = power[k - 1] * (x[i] / most);
        for (int r = 0; r < DIT_POLY; r++) {
            for (int k = 0; k < DIT_POLY; k++)
                a[r][k] += power[r] * power[k] / n;
            a[r][DIT_POLY] += power[r] * y[i] / n;
        }
    }
    for (int r = 0; r < DIT_POLY; r++)
        a[r][r] += 1e-12; /* points that nearly coincide */
    if (!solve(a)) return err_set(e, ERR_USAGE, "the changes of time are too alike to be fitted");
    for (int k = 0; k < DIT_POLY; k++, scale *= most)
        poly[DIT_POLY - 1 - k] = a[k][DIT_POLY] / a[k][k] / scale;
    return 0;
}

int calibrate_result(struct calibration *to, struct calibrate *c, struct err *e)
{
    if (c->no_memory) return err_set(e, ERR_RESOURCE, "no memory for a calibration");
    for (int i = 0; i < 2; i++)
        if (calibrate_fit(to->of.poly[i], c->x[i], c->y, c->n, e) < 0) return -1;
    size_t n = (size_t)c->n_steps * (size_t)c->n_branches;
    to->of.ratio = to->ratio = malloc(n * sizeof *to->ratio);
    if (!to->ratio) return err_set(e, ERR_RESOURCE, "no memory for a calibration");
    for (int t = 0; t < c->n_steps; t++)
        for (int b = 0; b < c->n_branches; b++)
            to->ratio[t * c->n_branches + b] =
                c->clips[t][b] ? (float)(c->ratio[t][b] / c->clips[t][b]) : 1;
    to->of.has_poly = true;
    to->of.n_steps = c->n_steps;
    to->of.n_branches = c->n_branches;
    to->known = true;
    return 0;
}
