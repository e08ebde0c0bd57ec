/* Seconds of steps and what they would have bought, on times and sums made up here. */
#include "app/lib/step_meter.h"
#include "tests/check.h"

/* n steps: exact ones of `slow` seconds where exact[i], others of `fast`, with so much computed. */
static double bought(const bool *exact, int n, double slow, double fast, double density, double low)
{
    const struct model_work work = {.linear = 40, .attn = 60, .self = 50, .copied = 10};
    struct step_meter m;
    struct attn_stats now = {0};
    struct err e;
    CHECK_OK(step_meter_open(&m, n, 8, &work, NULL, &e));
    CHECK(step_meter_bought(&m) == 0);
    double clock = 1000;
    step_meter_begin(&m, clock);
    for (int i = 0; i < n; i++) {
        clock += exact[i] ? slow + .001 * i : fast; /* the median is the second exact one */
        now.sums.calls += 8;
        now.sums.exact += exact[i] ? 8 : 0;
        now.sums.low += 8 * (exact[i] ? 0 : low);
        now.sums.density += 8 * (exact[i] ? 1 : density);
        step_meter_step(&m, i, n, &now, 0, clock);
    }
    double got = step_meter_bought(&m);
    step_meter_close(&m);
    return got;
}

int main(void)
{
    const bool some[] = {true, true, true, false, false, false, false, false},
               none[] = {false, false, false, false};
    double got = bought(some, 8, 4, 1, 0.1, 0);
    CHECK_MSG(fabs(got - (3 * 4 + .003 + 5) / 4.001) < 1e-9, "%g exact steps", got);
    /* no exact step: by operations, whatever the clock says: 4 * (100 - .9 * 50) / 100 */
    got = bought(none, 4, 0, 0, 0.1, 0);
    CHECK_MSG(fabs(got - 2.2) < 1e-12, "%g exact steps", got);
    /* half of the products over codes: 4 * (100 - 50 + .8 * .75 * 50) / 100 */
    got = bought(none, 4, 0, 0, 0.8, 0.5);
    CHECK_MSG(fabs(got - 3.2) < 1e-12, "%g exact steps", got);
    return TEST_RESULT();
}
