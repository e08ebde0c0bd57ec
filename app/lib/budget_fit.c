/* Means, and one straight line; see budget_fit.h. */
#include "app/lib/budget_fit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PROBES 6 /* steps, nearer to each other where gain falls fastest: at the start */
#define LEAST 1e-14 /* squared loss of latents that counts as one */

struct logs { /* mean of logarithms */
    double sum;
    int n;
};

struct point { /* a whole clip */
    int prompt;
    double db, raw, measured, expected;
};

struct budget_fit {
    struct budget_fit_shape s;
    int at[PROBES], probes, group_at;
    double *moved; /* [steps, units], sums over clips */
    int *clips; /* [steps, units] */
    double twice[PROBES]; /* moved² in two steps up to at[i] + 1, all units, sums over clips */
    int twice_n[PROBES];
    struct logs probe[PROBES], *group;
    struct point *point;
    int points, room;
};

static size_t units_of(const struct budget_fit *f)
{
    return (size_t)f->s.layers * (size_t)f->s.heads;
}

/* first + 1, and on by intervals that grow, to the last step. */
static void choose_probes(struct budget_fit *f)
{
    int from = f->s.first + 1, span = f->s.end - 1 - from;
    for (int i = 0; i < PROBES; i++) {
        int at = from + (int)lround(span * pow(i / (PROBES - 1.0), 1.6));
        if (span < 0 || (f->probes && at == f->at[f->probes - 1])) continue;
        f->at[f->probes++] = at;
    }
    f->group_at = f->probes ? f->at[f->probes / 3] : -1;
}

int budget_fit_open(struct budget_fit **out, const struct budget_fit_shape *s, struct err *e)
{
    struct budget_fit *f = *out = calloc(1, sizeof *f);
    if (!f) return err_set(e, ERR_RESOURCE, "no memory for a calibration");
    f->s = *s;
    size_t n = (size_t)s->steps * units_of(f);
    f->moved = calloc(n, sizeof *f->moved);
    f->clips = calloc(n, sizeof *f->clips);
    f->group = calloc((size_t)s->groups, sizeof *f->group);
    choose_probes(f);
    if (f->moved && f->clips && f->group) return 0;
    return err_set(e, ERR_RESOURCE, "no memory for a calibration");
}

void budget_fit_close(struct budget_fit *f)
{
    if (!f) return;
    free(f->moved);
    free(f->clips);
    free(f->group);
    free(f->point);
    free(f);
}

int budget_fit_probe_at(const struct budget_fit *f, int i) { return i < f->probes ? f->at[i] : -1; }

int budget_fit_group_at(const struct budget_fit *f) { return f->group_at; }

void budget_fit_group(const struct budget_fit *f, int group, int *from, int *to)
{
    *from = f->s.layers * group / f->s.groups * f->s.heads;
    *to = f->s.layers * (group + 1) / f->s.groups * f->s.heads;
}

void budget_fit_moved(struct budget_fit *f, int step, int unit, double moved)
{
    size_t i = (size_t)step * units_of(f) + (size_t)unit;
    f->moved[i] += moved;
    f->clips[i]++;
}

static void add(struct logs *to, double mse)
{
    to->sum += log(mse > LEAST ? mse : LEAST);
    to->n++;
}

void budget_fit_probe(struct budget_fit *f, int i, double mse) { add(&f->probe[i], mse); }

void budget_fit_twice(struct budget_fit *f, int i, int unit, double moved)
{
    f->twice[i] += moved;
    f->twice_n[i] += unit == 0;
}

void budget_fit_layers(struct budget_fit *f, int group, double mse) { add(&f->group[group], mse); }

/* --- costs -------------------------------------------------------------------------------------- */

static double mean(const struct budget_fit *f, size_t i)
{
    return f->clips[i] ? f->moved[i] / f->clips[i] : 0;
}

/* drift² of a layer: mean over its heads; head²: its share of that, over all steps. */
static void drifts(struct error_budget *b, const struct budget_fit *f)
{
    size_t units = units_of(f), heads = (size_t)f->s.heads, layers = (size_t)f->s.layers;
    for (size_t l = 0; l < layers; l++) {
        double all = 0;
        for (size_t s = 0; s < (size_t)f->s.steps; s++) {
            double sum = 0;
            for (size_t h = 0; h < heads; h++)
                sum += mean(f, s * units + l * heads + h);
            b->drift[s * layers + l] = (float)sqrt(sum / (double)heads);
            all += sum / (double)heads;
        }
        for (size_t h = 0; h < heads; h++) {
            double own = 0;
            for (size_t s = 0; s < (size_t)f->s.steps; s++)
                own += mean(f, s * units + l * heads + h);
            b->head[l * heads + h] = (float)sqrt(all > 0 ? own / all : 1);
        }
    }
}

/* moved² in two steps by a power, beside what it was: falls as the power rises. */
static double twice_off(const struct error_budget *b, const struct budget_fit *f, double power)
{
    double is = 0, said = 0;
    size_t units = units_of(f), heads = (size_t)f->s.heads, layers = (size_t)f->s.layers;
    for (int i = 0; i < f->probes; i++) {
        const float *drift = b->drift + (size_t)f->at[i] * layers;
        if (!f->twice_n[i]) continue;
        is += f->twice[i] / f->twice_n[i];
        for (size_t u = 0; u < units; u++)
            said += pow(pow((double)(drift[u / heads] * b->head[u]), power) +
                            pow((double)(drift[layers + u / heads] * b->head[u]), power),
                        2 / power);
    }
    return said - is;
}

static double fit_power(const struct error_budget *b, const struct budget_fit *f)
{
    double lo = 1, hi = 4;
    if (twice_off(b, f, lo) <= 0)
        return lo; /* further than along a straight way; or nothing was seen */
    if (twice_off(b, f, hi) > 0) return hi;
    for (int i = 0; i < 40; i++) {
        double mid = (lo + hi) / 2;
        *(twice_off(b, f, mid) > 0 ? &lo : &hi) = mid;
    }
    return lo;
}

static double squares(const struct error_budget *b, int step, int from, int to, bool weighed)
{
    double sum = 0;
    for (int u = from; u < to; u++) {
        double d = (double)b->table.drift[(size_t)step * (size_t)b->table.n_units + (size_t)u];
        d = pow(d, 2 / b->table.power);
        sum += d * (weighed ? (double)b->table.weight[u] : 1);
    }
    return sum;
}

/* Of each group its loss a drift², such that all together weigh what they would with 1. */
static void weights(struct error_budget *b, const struct budget_fit *f)
{
    double sum = 0;
    for (int l = 0; l < f->s.layers; l++)
        b->weight[l] = 1;
    error_budget_spread(b);
    for (int g = 0; g < f->s.groups; g++) {
        int from, to;
        budget_fit_group(f, g, &from, &to);
        double moved = f->group_at >= 0 ? squares(b, f->group_at, from, to, false) : 0;
        bool known = f->group[g].n > 0 && moved > 0;
        double w = known ? exp(f->group[g].sum / f->group[g].n) / moved : 0;
        for (int l = from / f->s.heads; l < to / f->s.heads; l++)
            b->weight[l] = (float)w;
        sum += w * moved;
    }
    int units = f->s.layers * f->s.heads;
    double scale = sum > 0 ? squares(b, f->group_at, 0, units, false) / sum : 0;
    for (int l = 0; l < f->s.layers; l++)
        b->weight[l] = sum > 0 ? (float)((double)b->weight[l] * scale) : 1;
    error_budget_spread(b);
}

static void gains(struct error_budget *b, const struct budget_fit *f)
{
    double at[PROBES];
    int step[PROBES], n = 0;
    for (int i = 0; i < f->probes; i++) {
        double moved = squares(b, f->at[i], 0, f->s.layers * f->s.heads, true);
        if (!f->probe[i].n || !(moved > 0)) continue;
        at[n] = f->probe[i].sum / f->probe[i].n - log(moved);
        step[n++] = f->at[i];
    }
    for (int s = 0, i = 0; n && s < f->s.steps; s++) {
        while (i + 1 < n && step[i + 1] <= s)
            i++;
        double way = i + 1 < n && s > step[i] ? (s - step[i]) / (double)(step[i + 1] - step[i]) : 0;
        b->gain[s] = (float)exp(at[i] + way * ((i + 1 < n ? at[i + 1] : at[i]) - at[i]));
    }
}

void budget_fit_costs(struct error_budget *b, const struct budget_fit *f)
{
    b->table.power = 1;
    drifts(b, f);
    b->table.power = fit_power(b, f);
    weights(b, f);
    gains(b, f);
    b->table.usual = b->table.slope = 1;
}

/* --- whole clips -------------------------------------------------------------------------------- */

int budget_fit_clip(struct budget_fit *f, int prompt, double db, const struct budget_spent *s,
                    struct err *e)
{
    if (f->points == f->room) {
        int room = f->room ? 2 * f->room : 32;
        struct point *more = realloc(f->point, (size_t)room * sizeof *more);
        if (!more) return err_set(e, ERR_RESOURCE, "no memory for a calibration");
        f->point = more;
        f->room = room;
    }
    f->point[f->points++] = (struct point){prompt, db, s->raw, s->measured, s->expected};
    return 0;
}

/* What the formula will say of a clip that came to this: 10 log10 of its error. */
static double said(const struct error_budget *b, const struct point *p)
{
    return 10 * log10(p->raw * budget_scale2(&b->table, p->measured, p->expected));
}

/* Of all prompts but one (-1: of all) at and slope; clips that it is made of. */
static int line(struct error_budget *b, const struct budget_fit *f, int but)
{
    struct budget_table *t = &b->table;
    double x = 0, y = 0, xx = 0, xy = 0;
    int n = 0;
    for (int i = 0; i < f->points; i++) {
        if (!(f->point[i].raw > 0) || f->point[i].prompt == but) continue;
        double v = said(b, &f->point[i]);
        x += v, y += f->point[i].db, xx += v * v, xy += v * f->point[i].db, n++;
    }
    if (!n) return 0;
    double spread = xx - x * x / n;
    t->slope = spread > 1e-9 ? -(xy - x * y / n) / spread : 1;
    /* 1 by its definition while losses are small; few clips may hide that */
    if (!(t->slope > 0.7)) t->slope = 0.7;
    if (t->slope > 1.3) t->slope = 1.3;
    t->at = (y + t->slope * x) / n;
    return n;
}

/* The most by which a prompt's clips (-1: any) fell short of the line that is there; NAN: it has none. */
static double shortest(const struct error_budget *b, const struct budget_fit *f, int prompt)
{
    double most = NAN;
    for (int i = 0; i < f->points; i++) {
        const struct point *p = &f->point[i];
        if (!(p->raw > 0) || (prompt >= 0 && p->prompt != prompt)) continue;
        most = fmax(most, b->table.at - b->table.slope * said(b, p) - p->db);
    }
    return most;
}

/* Student's t of which a tenth lies above (Abramowitz and Stegun 26.7.5 from 4 on). */
static double tenth_above(int freedom)
{
    static const double few[] = {3.078, 1.886, 1.638};
    if (freedom <= (int)ARRAY_LEN(few)) return few[freedom - 1];
    return 1.2816 + 0.8466 / freedom + 0.5709 / freedom / freedom;
}

/* What nine in ten prompts that were not calibrated with are to stay within: each is held against the
 * line of the others, and of these the bound of one more is taken. The worst of those that made the
 * line, which is all that is known of one prompt, is passed by a quarter of further ones after three. */
static double margin_of(const struct error_budget *b, const struct budget_fit *f)
{
    struct error_budget without = *b;
    double sum = 0, square = 0;
    int n = 0, end = 0;
    for (int i = 0; i < f->points; i++)
        if (f->point[i].prompt >= end) end = f->point[i].prompt + 1;
    for (int p = 0; p < end; p++) {
        if (!line(&without, f, p)) continue;
        double by = shortest(&without, f, p);
        if (isnan(by)) continue;
        sum += by, square += by * by, n++;
    }
    double worst = fmax(shortest(b, f, -1), 0);
    if (n < 2) return worst;
    double spread = sqrt(fmax(square - sum * sum / n, 0) / (n - 1));
    return fmax(worst, sum / n + tenth_above(n - 1) * spread * sqrt(1 + 1.0 / n));
}

int budget_fit_line(struct error_budget *b, const struct budget_fit *f, struct err *e)
{
    struct budget_table *t = &b->table;
    double measured = 0, expected = 0;
    for (int i = 0; i < f->points; i++)
        measured += f->point[i].measured, expected += f->point[i].expected;
    t->usual = expected > 0 && measured > 0 ? measured / expected : 1;
    if (!line(b, f, -1))
        return err_set(
            e, ERR_USAGE,
            "no clip lost anything by carrying: %d of %d steps carry, and few tokens are all "
            "kept; take more of either",
            f->s.end - f->s.first, f->s.steps);
    t->margin = margin_of(b, f), t->least = 1e9, t->most = -1e9;
    for (int i = 0; i < f->points; i++) {
        if (!(f->point[i].raw > 0)) continue;
        double db = t->at - t->slope * said(b, &f->point[i]) - t->margin;
        t->least = fmin(t->least, db), t->most = fmax(t->most, db);
    }
    return 0;
}
