/* The controller of error budgets on drifts that are made up: what it plans it spends, more budget never
 * renews more, clips that move more are made up for, and intervals follow what costs. */
#include "model/base/budget.h"
#include "tests/check.h"

enum { STEPS = 30, UNITS = 12, FIRST = 2 };

static float gain[STEPS], weight[UNITS], drift[STEPS][UNITS];
static const struct budget_table table = {.n_steps = STEPS,
                                          .n_units = UNITS,
                                          .gain = gain,
                                          .weight = weight,
                                          .drift = drift[0],
                                          .power = 1.6,
                                          .at = 20,
                                          .slope = .9,
                                          .margin = 1,
                                          .usual = .8,
                                          .least = 25,
                                          .most = 60};

/* Early steps count more; layers of their own weights and drifts. */
static void make_table(void)
{
    for (int s = 0; s < STEPS; s++)
        gain[s] = (float)(.02 * exp(-s / 6.0));
    for (int u = 0; u < UNITS; u++)
        weight[u] = (float)(1 + u % 3);
    for (int s = FIRST + 1; s < STEPS; s++)
        for (int u = 0; u < UNITS; u++)
            drift[s][u] = .1f + .02f * (float)((s * 7 + u * 5) % 9);
}

struct came { /* of a run */
    struct budget_spent spent;
    double error; /* of the definition, without scale */
    double share; /* renewed */
    int renewals[STEPS];
};

/* A clip that moves `lively` times as much as the table says. */
static struct came run(const struct budget *b, int group, int end, double lively)
{
    struct budget_run r = {.of = b, .n_units = UNITS, .group = group, .end = end};
    struct budget_state *s = calloc(1, budget_state_bytes(UNITS));
    struct came c = {0};
    int last[UNITS];
    double loss[UNITS] = {0};
    for (int k = FIRST; s && k < end; k++) {
        budget_step(s, &r, k);
        const uint8_t *renews = budget_renews(s, &r);
        for (int u = 0; u < UNITS; u++) {
            double path = 0;
            for (int i = k == FIRST ? k + 1 : last[u] + 1; i <= k; i++)
                path += (double)drift[i][u]; /* to the power */
            path = pow(path, 1 / table.power);
            if (k == FIRST) CHECK(renews[u]);
            if (renews[u]) {
                if (k > FIRST)
                    for (int branch = 0; branch < 2; branch++)
                        budget_moved(s, &r, u, table.usual * lively * lively * path * path, 2);
                last[u] = k;
                loss[u] = 0;
                c.renewals[k]++;
            } else {
                double add = sqrt((double)gain[k] * (double)weight[u]) * path, was = loss[u];
                loss[u] += add;
                c.error += loss[u] * loss[u] - was * was;
            }
        }
        if (k > FIRST) c.share += c.renewals[k] / (double)UNITS / (end - FIRST - 1);
    }
    if (s) budget_spent(&c.spent, s, &r);
    free(s);
    return c;
}

static void holds(void)
{
    double before = -1, share = 2;
    for (int group = 1; group <= 4; group *= 4)
        for (double db = 60; db >= 25; db -= 2.5) {
            struct budget b = {.table = &table, .mode = BUDGET_HOLD, .db = db};
            struct came c = run(&b, group, STEPS, 1);
            if (db == 60) before = -1, share = 2;
            CHECK_MSG(fabs(c.error / c.spent.raw - 1) < 1e-4 || c.error < 1e-12, "%g, said %g",
                      c.error, c.spent.raw);
            CHECK_MSG(fabs(c.spent.scale - 1) < 1e-6, "scale %g", c.spent.scale);
            CHECK_MSG(c.spent.db >= db + table.margin - 1e-9, "%g dB of %g", c.spent.db, db);
            /* and what may be spent is spent: one unit's worst step is all that is left over */
            CHECK_MSG(c.spent.db < db + table.margin + 3.5 || c.share < .1 || c.share > .9,
                      "%g dB of %g, share %g", c.spent.db, db, c.share);
            CHECK_MSG(c.error >= before && c.share <= share + .02, "%g dB: %g renewed, %g before",
                      db, c.share, share);
            CHECK(c.spent.renewed + c.spent.carried == UNITS * (STEPS - FIRST - 1));
            before = c.error, share = c.share;
        }
}

/* What moves more is renewed more often, and the estimate still holds. */
static void follows(void)
{
    struct budget b = {.table = &table, .mode = BUDGET_HOLD, .db = 38};
    struct came usual = run(&b, 1, STEPS, 1), lively = run(&b, 1, STEPS, 1.6),
                still = run(&b, 1, STEPS, .6);
    CHECK_MSG(lively.share > usual.share + .03 && still.share < usual.share - .03,
              "still %g, usual %g, lively %g", still.share, usual.share, lively.share);
    CHECK_MSG(lively.spent.scale > 1.4 && lively.spent.scale < 1.6, "%g", lively.spent.scale);
    CHECK_MSG(still.spent.scale < .75 && still.spent.scale > .6, "%g", still.spent.scale);
    CHECK_MSG(lively.spent.db >= 39 - .3, "%g dB", lively.spent.db);
    /* one that cannot be made up for renews everything, and says what it came to */
    b.db = 60;
    struct came wild = run(&b, 1, STEPS, 100);
    CHECK(wild.spent.scale == 2 && wild.spent.db < 99.5);
}

/* Early steps cost most here: intervals grow; a unit of weight 3 is renewed before one of weight 1. */
static void spreads(void)
{
    struct budget b = {.table = &table, .mode = BUDGET_HOLD, .db = 38};
    struct came c = run(&b, 1, STEPS, 1);
    int early = 0, late = 0;
    for (int k = FIRST + 1; k < 12; k++)
        early += c.renewals[k], late += c.renewals[k + 15];
    CHECK_MSG(early > 1.5 * late, "%d early renewals, %d late ones", early, late);
}

static void modes(void)
{
    struct budget b = {.mode = BUDGET_RENEW};
    struct came c = run(&b, 1, STEPS, 1);
    CHECK(c.share > .999 && c.spent.raw == 0 && c.spent.db == 0);
    b = (struct budget){.mode = BUDGET_PROBE, .step = 9, .from = 3, .to = 6};
    c = run(&b, 1, STEPS, 1);
    CHECK(c.renewals[9] == UNITS - 3 && c.renewals[8] == UNITS && c.spent.carried == 3);
    /* a price foreseen for a share gives about that share */
    struct budget_state *s = calloc(1, budget_state_bytes(UNITS));
    struct budget_run r = {.of = &b, .n_units = UNITS, .group = 1, .end = STEPS};
    float share[STEPS];
    b = (struct budget){.table = &table, .mode = BUDGET_PRICE};
    for (int i = 1; s && i < 5; i++) {
        b.price = budget_price_of(&r, s, FIRST, i / 5.0);
        c = run(&b, 1, STEPS, 1);
        CHECK_MSG(c.share >= i / 5.0 && c.share < i / 5.0 + .12, "%g of %g", c.share, i / 5.0);
    }
    /* what is foreseen of a hold is what a usual clip does; a lively one more */
    b = (struct budget){.table = &table, .mode = BUDGET_HOLD, .db = 38};
    double sum[2] = {0};
    for (int i = 0; s && i < 2; i++) {
        budget_foresee(share, s, &r, FIRST, i ? 1.5 : 1);
        CHECK(share[FIRST] == 1 && share[0] == 0);
        for (int k = FIRST + 1; k < STEPS; k++)
            sum[i] += (double)share[k] / (STEPS - FIRST - 1);
    }
    CHECK_MSG(fabs(sum[0] - run(&b, 1, STEPS, 1).share) < .05 && sum[1] > sum[0], "%g %g", sum[0],
              sum[1]);
    free(s);
    double db = budget_db(&table, budget_error(&table, 37));
    CHECK_MSG(fabs(db - 37) < 1e-9, "%g", db);
    CHECK(budget_db(&table, 0) == 99);
}

/* A state from a file may hold anything: nothing is read or written outside, and it goes on. */
/* A state that goes through numbers, as of a file, and goes on. */
static void numbers(void)
{
    struct budget_table one = table;
    static float own[STEPS];
    for (int s = 0; s < STEPS; s++)
        own[s] = drift[s][0];
    one.n_units = 1, one.drift = own;
    struct budget b = {.table = &one, .mode = BUDGET_HOLD, .db = 30};
    struct budget_run r = {.of = &b, .n_units = 1, .group = 1, .end = STEPS};
    struct budget_one a = {{0}}, c = {{0}};
    double at[BUDGET_NUMBERS] = {0};
    int carried = 0;
    CHECK(budget_state_bytes(1) <= sizeof a);
    for (int k = FIRST; k < STEPS; k++) {
        budget_take(&c, at);
        budget_step(budget_one(&a), &r, k);
        budget_step(budget_one(&c), &r, k);
        uint8_t renews = budget_renews(budget_one(&a), &r)[0];
        CHECK(renews == budget_renews(budget_one(&c), &r)[0]);
        if (renews && k > FIRST) {
            budget_moved(budget_one(&a), &r, 0, .05 * k, 1);
            budget_moved(budget_one(&c), &r, 0, .05 * k, 1);
        }
        carried += !renews;
        budget_give(at, &c);
    }
    CHECK(carried > 3 && carried < STEPS - FIRST);
    for (int i = 0; i < BUDGET_NUMBERS; i++)
        at[i] = i % 3 ? (double)NAN : -1e300;
    budget_take(&c, at);
    budget_step(budget_one(&c), &r, 3);
}

static void garbage(void)
{
    struct budget b = {.table = &table, .mode = BUDGET_HOLD, .db = 38};
    struct budget_run r = {.of = &b, .n_units = UNITS, .group = 1, .end = STEPS};
    size_t n = budget_state_bytes(UNITS);
    struct budget_state *s = malloc(n);
    for (int fill = 0; s && fill < 256; fill += 51) {
        memset(s, fill, n);
        for (int k = FIRST; k < STEPS; k++) {
            budget_step(s, &r, k);
            budget_moved(s, &r, k % UNITS, NAN, 1);
            for (int u = 0; u < UNITS; u++)
                CHECK(budget_renews(s, &r)[u] < 2);
        }
    }
    free(s);
}

int main(void)
{
    make_table();
    holds();
    follows();
    spreads();
    modes();
    numbers();
    garbage();
    return TEST_RESULT();
}
