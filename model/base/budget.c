/* Prices, what is foreseen under one, and the state of a run; see budget.h. */
#include "model/base/budget.h"

#include <math.h>
#include <string.h>

#define PRICES 320 /* 10^-16 to 1, a twentieth of a decade apart: a fiftieth of a dB of budget */
#define MOST_SCALE2                                                                                \
    4.0 /* a clip is taken to move half as much as is usual at least, twice at most */
#define PERFECT 99.0 /* dB of no error */

struct budget_state {
    int steps; /* 1 + the last step; 0: none yet */
    double raw, measured, expected;
    long renewed, carried;
    float numbers[]; /* parts, [n_units] each; then bytes */
};

#define FLOATS 5

struct way { /* of each unit since it was renewed */
    float *path; /* to the table's power; in ways that are foreseen -1: nothing is held */
    float *loss; /* amplitude of what the window lost */
};
struct parts { /* of a state */
    struct way now, ahead; /* ahead: scratch, in steps that are foreseen */
    float *before; /* path when this step began; -1: nothing was held */
    uint8_t *held, *renews;
};

size_t budget_state_bytes(int n_units)
{
    size_t n = (size_t)n_units;
    return (sizeof(struct budget_state) + n * (FLOATS * sizeof(float) + 2) + 63) / 64 * 64;
}

static struct parts parts_of(const struct budget_state *s, int n_units)
{
    size_t n = (size_t)n_units;
    float *at = (float *)(uintptr_t)s->numbers;
    uint8_t *bytes = (uint8_t *)(at + FLOATS * n);
    return (struct parts){{at, at + n}, {at + 2 * n, at + 3 * n}, at + 4 * n, bytes, bytes + n};
}

/* --- of one unit ------------------------------------------------------------------------------- */

struct budget_state *budget_one(struct budget_one *s)
{
    return (struct budget_state *)(void *)s->at;
}

/* What a file says may be no whole number. */
static long whole(double v) { return v >= 0 && v < 1e9 ? (long)v : 0; }

void budget_take(struct budget_one *to, const double n[BUDGET_NUMBERS])
{
    struct budget_state *s = budget_one(to);
    memset(to, 0, sizeof *to);
    struct parts p = parts_of(s, 1);
    s->steps = (int)whole(n[0]);
    s->raw = n[1], s->measured = n[2], s->expected = n[3];
    s->renewed = whole(n[4]), s->carried = whole(n[5]);
    p.now.path[0] = (float)n[6];
    p.before[0] = (float)n[7];
    p.held[0] = n[8] > 0;
    p.renews[0] = n[9] > 0;
    p.now.loss[0] = (float)n[10];
}

void budget_give(double n[BUDGET_NUMBERS], const struct budget_one *from)
{
    const struct budget_state *s = (const struct budget_state *)(const void *)from->at;
    struct parts p = parts_of(s, 1);
    const double all[BUDGET_NUMBERS] = {s->steps,
                                        s->raw,
                                        s->measured,
                                        s->expected,
                                        (double)s->renewed,
                                        (double)s->carried,
                                        (double)p.now.path[0],
                                        (double)p.before[0],
                                        p.held[0],
                                        p.renews[0],
                                        (double)p.now.loss[0]};
    memcpy(n, all, sizeof all);
}

int budget_last_step(const struct budget_state *s) { return s->steps - 1; }

const uint8_t *budget_renews(const struct budget_state *s, const struct budget_run *r)
{
    return parts_of(s, r->n_units).renews;
}

/* sizes: budget_one */
_Static_assert(sizeof(struct budget_state) + FLOATS * sizeof(float) + 2 <=
                   sizeof(struct budget_one),
               "a state of one unit has room");

static double price_at(int i) { return i < 0 ? 0 : pow(10, -16 + i / 20.0); }

double budget_db(const struct budget_table *t, double error)
{
    double db = error > 0 ? t->at - t->slope * 10 * log10(error) : PERFECT;
    return db < PERFECT ? db : PERFECT;
}

double budget_error(const struct budget_table *t, double db)
{
    return pow(10, (t->at - db) / (10 * t->slope));
}

/* moved² of a way. */
static double squared(const struct budget_table *t, float path)
{
    return t->power == 1 ? (double)path * (double)path : pow((double)path, 2 / t->power);
}

/* What a clip usually moves in a step, all units: so much is believed before anything was seen. */
static double prior_of(const struct budget_table *t)
{
    double sum = 0;
    size_t n = (size_t)t->n_steps * (size_t)t->n_units;
    for (size_t i = 0; i < n; i++)
        sum += squared(t, t->drift[i]);
    return sum / t->n_steps;
}

double budget_scale2(const struct budget_table *t, double measured, double expected)
{
    double prior = prior_of(t) + 1e-12; /* nothing ever moved */
    double scale2 = (measured / t->usual + prior) / (expected + prior);
    if (!(scale2 > 1 / MOST_SCALE2)) return 1 / MOST_SCALE2;
    return scale2 < MOST_SCALE2 ? scale2 : MOST_SCALE2;
}

static double scale2_of(const struct budget_state *s, const struct budget_table *t)
{
    return t && t->usual > 0 ? budget_scale2(t, s->measured, s->expected) : 1;
}

/* Amplitude that carrying a unit through the step adds to its window. */
static double amplitude(const struct budget_table *t, const struct way *w, int step, int u)
{
    return sqrt((double)t->gain[step] * (double)t->weight[u] * squared(t, w->path[u]));
}

/* Of carrying units u .. u + group - 1 through the step: what the squares of their windows grow by. */
static double cost(const struct budget_table *t, const struct way *w, int step, int u, int group)
{
    double sum = 0;
    for (int i = u; i < u + group; i++) {
        double a = amplitude(t, w, step, i);
        sum += a * (a + 2 * (double)w->loss[i]);
    }
    return sum;
}

static void carry(const struct budget_table *t, const struct way *w, int step, int u)
{
    w->loss[u] += (float)amplitude(t, w, step, u);
}

static bool any_new(const struct parts *p, int u, int group)
{
    for (int i = u; i < u + group; i++)
        if (p->held[i] != 1) return true;
    return false;
}

/* Error of the steps from `step` to the end under a price; p->ahead begins as things are now, -1 where
 * nothing is held. Stops above `most`. share[steps], if wanted: of units that are renewed. */
static double foresee(const struct parts *p, const struct budget_run *r, int step, double price,
                      double most, float *share)
{
    const struct budget_table *t = r->of->table;
    double sum = 0;
    for (int k = step; k < r->end && sum <= most; k++) {
        const float *drift = t->drift + (size_t)k * (size_t)r->n_units;
        int renewed = 0;
        for (int u = 0; u < r->n_units; u += r->group) {
            bool none = p->ahead.path[u] < 0;
            for (int i = u; k > step && !none && i < u + r->group; i++)
                p->ahead.path[i] += drift[i];
            double one = none ? 0 : cost(t, &p->ahead, k, u, r->group);
            bool carried = !none && one <= price * r->group;
            renewed += carried ? 0 : r->group;
            sum += carried ? one : 0;
            for (int i = u; i < u + r->group; i++) {
                if (carried)
                    carry(t, &p->ahead, k, i);
                else
                    p->ahead.path[i] = p->ahead.loss[i] = 0;
            }
        }
        if (share) share[k] = (float)renewed / (float)r->n_units;
    }
    return sum;
}

static void begin_ahead(const struct parts *p, const struct budget_run *r)
{
    for (int u = 0; u < r->n_units; u += r->group) {
        bool none = any_new(p, u, r->group);
        for (int i = u; i < u + r->group; i++) {
            p->ahead.path[i] = none ? -1 : p->now.path[i];
            p->ahead.loss[i] = p->now.loss[i];
        }
    }
}

/* The highest price under which the rest of the run takes at most `left`; 0: none does. Bisection over
 * a table of prices: with more left it goes the same way or to a higher one. */
static double price_for(const struct parts *p, const struct budget_run *r, int step, double left)
{
    int lo = -1, hi = PRICES + 1;
    while (left > 0 && hi - lo > 1) {
        int mid = (lo + hi) / 2;
        begin_ahead(p, r);
        if (foresee(p, r, step, price_at(mid), left, NULL) <= left)
            lo = mid;
        else
            hi = mid;
    }
    return price_at(lo);
}

static double price_now(const struct budget_state *s, const struct parts *p,
                        const struct budget_run *r, int step)
{
    const struct budget *b = r->of;
    if (b->mode == BUDGET_PRICE) return b->price;
    double limit = budget_error(b->table, b->db + b->table->margin) / scale2_of(s, b->table);
    return price_for(p, r, step, limit - s->raw);
}

static bool renew(const struct parts *p, const struct budget_run *r, int step, int u, double price)
{
    const struct budget *b = r->of;
    if (any_new(p, u, r->group) || b->mode == BUDGET_RENEW) return true;
    if (b->mode == BUDGET_PROBE) return step != b->step || u < b->from || u >= b->to;
    /* NaN renews */
    return !(cost(b->table, &p->now, step, u, r->group) <= price * r->group);
}

void budget_step(struct budget_state *s, const struct budget_run *r, int step)
{
    const struct budget_table *t = r->of->table;
    struct parts p = parts_of(s, r->n_units);
    int from = s->steps < 0 || s->steps > step ? step : s->steps;
    for (int k = from; t && k <= step; k++)
        for (int u = 0; u < r->n_units; u++)
            p.now.path[u] += t->drift[(size_t)k * (size_t)r->n_units + (size_t)u];
    double price = t ? price_now(s, &p, r, step) : 0;
    for (int u = 0; u < r->n_units; u += r->group) {
        bool again = renew(&p, r, step, u, price);
        if (!again && t) s->raw += cost(t, &p.now, step, u, r->group);
        for (int i = u; i < u + r->group; i++) {
            p.before[i] = p.held[i] == 1 ? p.now.path[i] : -1;
            s->renewed += again && p.held[i] == 1;
            s->carried += !again;
            p.renews[i] = again;
            if (!again && t) carry(t, &p.now, step, i);
            if (!again) continue;
            p.held[i] = 1;
            p.now.path[i] = p.now.loss[i] = 0;
        }
    }
    s->steps = step + 1;
}

void budget_moved(struct budget_state *s, const struct budget_run *r, int unit, double moved, int n)
{
    float before = parts_of(s, r->n_units).before[unit];
    if (r->of->moved) r->of->moved(r->of->ctx, s->steps - 1, unit, moved / n);
    if (!r->of->table || !(before >= 0) || !isfinite(moved)) return;
    s->measured += moved / n;
    s->expected += squared(r->of->table, before) / n;
}

void budget_spent(struct budget_spent *to, const struct budget_state *s, const struct budget_run *r)
{
    const struct budget_table *t = r->of->table;
    double scale2 = scale2_of(s, t), error = s->raw * scale2;
    *to = (struct budget_spent){.db = t ? budget_db(t, error) : 0,
                                .error = error,
                                .scale = sqrt(scale2),
                                .raw = s->raw,
                                .measured = s->measured,
                                .expected = s->expected,
                                .renewed = s->renewed,
                                .carried = s->carried};
}

/* --- before a run --- */

static void clear(struct budget_state *state, const struct budget_run *r)
{
    memset(state, 0, budget_state_bytes(r->n_units));
}

static double all_from(struct budget_state *state, const struct budget_run *r, int first,
                       double price, float *share)
{
    struct parts p = parts_of(state, r->n_units);
    begin_ahead(&p, r);
    return foresee(&p, r, first, price, HUGE_VAL, share);
}

void budget_foresee(float *share, struct budget_state *state, const struct budget_run *r, int first,
                    double scale)
{
    const struct budget *b = r->of;
    double price = b->price;
    clear(state, r);
    struct parts p = parts_of(state, r->n_units);
    if (b->mode == BUDGET_HOLD)
        price = price_for(&p, r, first,
                          budget_error(b->table, b->db + b->table->margin) / (scale * scale));
    memset(share, 0, (size_t)b->table->n_steps * sizeof *share);
    all_from(state, r, first, price, share);
}

double budget_price_of(const struct budget_run *r, struct budget_state *state, int first,
                       double share)
{
    float of[1024];
    int lo = -1, hi = PRICES + 1, n = r->end - first - 1; /* in the first all are made */
    clear(state, r);
    while (hi - lo > 1 && r->end <= 1024) {
        int mid = (lo + hi) / 2;
        double sum = 0;
        all_from(state, r, first, price_at(mid), of);
        for (int k = first + 1; k < r->end; k++)
            sum += (double)of[k];
        if (sum >= share * n)
            lo = mid;
        else
            hi = mid;
    }
    return price_at(lo);
}
