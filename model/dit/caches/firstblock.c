/* First-block cache: the first block is computed in every step; when it adds nearly what it added in
 * the last computed step, the other blocks are taken to add the same as well. ParaAttention;
 * attention-kernels.md 5.2. Branch 0 decides for all. */
#include "model/dit/cache.h"

enum { KNOWN };

static bool decide(struct dit_cache_now *now)
{
    struct rows last = cache_own(now, 0, &now->head);
    bool skip = !now->must && now->numbers[KNOWN] > 0 &&
                cache_change(now, &now->head, &last) <= now->knobs->threshold;
    if (!skip) cache_note(now, &last, &now->head);
    now->numbers[KNOWN] = 1;
    return skip;
}

const struct dit_cache cache_firstblock = {
    .name = "firstblock",
    .summary = "steps left out behind the first block while what that one adds changes little",
    .options = OPTIONS(
        OPT_DOUBLE(struct dit_cache_knobs, threshold, "threshold", 0.05, 0, 1e9,
                   "relative L1 change of what the first block adds"),
        OPT_DOUBLE(struct dit_cache_knobs, first, "first", 0.1, 0, 1000,
                   "computed steps at the start: a share below 1, a count from 1 on"),
        OPT_DOUBLE(struct dit_cache_knobs, last, "last", 1, 0, 1000, "computed steps at the end")),
    .keeps = KEEPS_TAIL,
    .own.stream = 1,
    .decide = decide,
};
