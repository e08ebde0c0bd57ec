/* TeaCache: how much the embedding of time moved, as a polynomial says it moves the output, is
 * summed up until it is too much. arXiv 2411.19108; attention-kernels.md 5.1.
 *
 * Of Wan's transformers the embedding depends on the time alone, so one sum stands for all branches.
 * Deviation: a negative value of the polynomial counts as 0 and never buys steps back. */
#include "model/dit/cache.h"

#include <math.h>

enum { OF_MODULATION, OF_TIME }; /* of rows of the option "of" */
enum { SUM, KNOWN }; /* numbers */

static bool decide(struct dit_cache_now *now)
{
    const struct rows *u = now->knobs->of == OF_TIME ? &now->temb : &now->time6;
    struct rows last = cache_own(now, 0, u);
    if (now->numbers[KNOWN] > 0) {
        double x = cache_change(now, u, &last), y = 0;
        for (int i = 0; i < DIT_POLY; i++)
            y = y * x + now->poly[i];
        now->numbers[SUM] += fmax(y, 0);
    }
    cache_note(now, &last, u); /* of every step, computed or not */
    now->numbers[KNOWN] = 1;
    bool skip = !now->must && now->numbers[SUM] < now->knobs->threshold;
    if (!skip) now->numbers[SUM] = 0;
    return skip;
}

const struct dit_cache cache_teacache = {
    .name = "teacache",
    .summary = "steps left out while the embedding of time, through a polynomial, moves little",
    .paper = "2411.19108",
    .options = OPTIONS(
        OPT_DOUBLE(struct dit_cache_knobs, threshold, "threshold", 0.08, 0, 1e9,
                   "summed change up to which steps are left out"),
        OPT_DOUBLE(struct dit_cache_knobs, first, "first", 0.1, 0, 1000,
                   "computed steps at the start: a share below 1, a count from 1 on"),
        OPT_DOUBLE(struct dit_cache_knobs, last, "last", 1, 0, 1000, "computed steps at the end"),
        OPT_STRING(
            struct dit_cache_knobs, poly, "poly", "auto",
            "a4/a3/a2/a1/a0; auto: the model's calibration, or the published ones of Wan2.1"),
        OPT_ENUM(struct dit_cache_knobs, of, "of", 0, "modulation|time",
                 "which embedding is compared: of the blocks' modulation, or of time itself")),
    .keeps = KEEPS_BLOCKS,
    .needs_poly = true,
    .own.time = 1,
    .decide = decide,
};
