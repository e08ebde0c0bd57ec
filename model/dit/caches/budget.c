/* Steps are left out as an error budget says: base/budget.h has the rule; a step, all branches, is its one
 * unit. How far a step has moved when it is computed is the relative change of branch 0's velocity since
 * the last one that was: what the blocks add is not kept twice for it. Calibration ties that to clips.
 *
 * Refused without a budget (step_cache_poly). In steps that are computed anyway nothing is decided, but
 * the last of those before `first`, from which the first may be carried. */
#include "model/base/budget.h"
#include "model/dit/cache.h"

#include <math.h>

static struct budget_run run_of(const struct dit_cache_now *now)
{
    return (struct budget_run){.of = now->budget, .n_units = 1, .group = 1, .end = now->last};
}

static bool counts(const struct dit_cache_now *now)
{
    return now->step >= now->first - 1 && now->step < now->last;
}

static bool decide(struct dit_cache_now *now)
{
    struct budget_run r = run_of(now);
    struct budget_one s;
    if (!counts(now)) return false;
    budget_take(&s, now->numbers);
    budget_step(budget_one(&s), &r, now->step);
    bool skip = !budget_renews(budget_one(&s), &r)[0];
    budget_give(now->numbers, &s);
    return skip;
}

static void computed(struct dit_cache_now *now)
{
    struct rows last = cache_own(now, 0, &now->velocity);
    struct budget_run r = run_of(now);
    struct budget_one s;
    if (counts(now) && now->step > now->first - 1) {
        double by = cache_change(now, &now->velocity, &last);
        budget_take(&s, now->numbers);
        budget_moved(budget_one(&s), &r, 0, by * by, 1);
        budget_give(now->numbers, &s);
    }
    cache_note(now, &last, &now->velocity);
}

const struct dit_cache cache_budget = {
    .name = "budget",
    .summary = "steps left out as --error-budget allows, by what that cost calibrated clips",
    .options = OPTIONS(
        OPT_DOUBLE(struct dit_cache_knobs, first, "first", 2, 0, 1000,
                   "computed steps at the start: a share below 1, a count from 1 on"),
        OPT_DOUBLE(struct dit_cache_knobs, last, "last", 0, 0, 1000, "computed steps at the end")),
    .keeps = KEEPS_BLOCKS,
    .own.latents = 1,
    .budgeted = true,
    .decide = decide,
    .computed = computed,
};
