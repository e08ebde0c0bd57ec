/* MagCache: the size of what the blocks add, from step to step, is nearly the same for all prompts.
 * Ratios measured once are multiplied up over the steps left out; how far the product is from 1 is
 * the error of each of them. arXiv 2506.09045; attention-kernels.md 5.3.
 *
 * A table a branch; the step is left out when every branch would leave it out. Nothing is looked at
 * but the step's number, so the whole run is known before. */
#include "model/dit/cache.h"

#include <math.h>

enum { ROW, EACH }; /* numbers: steps left out in a row; then a product and an error a branch */

/* Nearest step of the table. */
static double ratio(const struct dit_calibration *c, int step, int n_steps, int branch)
{
    int at = n_steps > 1 ? (int)lround((double)step * (c->n_steps - 1) / (n_steps - 1)) : 0;
    return (double)c->ratio[at * c->n_branches + (branch < c->n_branches ? branch : 0)];
}

static bool decide(struct dit_cache_now *now)
{
    bool skip = !now->must && now->numbers[ROW] + 1 <= now->knobs->most;
    for (int b = 0; b < now->n_branches; b++) {
        double *product = &now->numbers[EACH + 2 * b], *error = product + 1;
        if (now->numbers[ROW] == 0) *product = 1, *error = 0;
        *product *= ratio(now->calibration, now->step, now->n_steps, b);
        *error += fabs(1 - *product);
        if (*error > now->knobs->threshold) skip = false;
    }
    now->numbers[ROW] = skip ? now->numbers[ROW] + 1 : 0;
    return skip;
}

const struct dit_cache cache_magcache = {
    .name = "magcache",
    .summary = "steps left out by a table of how what the blocks add grows from step to step",
    .paper = "2506.09045",
    .options = OPTIONS(
        OPT_DOUBLE(struct dit_cache_knobs, threshold, "threshold", 0.12, 0, 1e9,
                   "summed error up to which steps are left out"),
        OPT_INT(struct dit_cache_knobs, most, "most", 3, 1, 1000,
                "steps in a row that may be left out"),
        OPT_DOUBLE(struct dit_cache_knobs, first, "first", 0.2, 0, 1000,
                   "computed steps at the start: a share below 1, a count from 1 on"),
        OPT_DOUBLE(struct dit_cache_knobs, last, "last", 0, 0, 1000, "computed steps at the end")),
    .keeps = KEEPS_BLOCKS,
    .needs_ratio = true,
    .decide = decide,
    .scheduled = true,
};
