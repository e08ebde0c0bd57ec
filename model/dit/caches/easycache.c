/* EasyCache: how strongly the velocity answers a change of the latents, measured at computed steps,
 * tells from the latents alone how far it will have moved. arXiv 2507.02860; attention-kernels.md
 * 5.4. Needs neither calibration nor anything inside the model. Branch 0 decides for all. */
#include "model/dit/cache.h"

enum { STEPS, COMPUTED, SUM, GAIN }; /* numbers; GAIN below 0: not known yet */

enum {
    LAST,
    LATENTS,
    VELOCITY
}; /* own: latents of the step before, of the computed step before, velocity of that */

static bool decide(struct dit_cache_now *now)
{
    struct rows last = cache_own(now, LAST, &now->latents);
    struct rows velocity = cache_own(now, VELOCITY, &now->latents);
    double *k = now->numbers;
    bool skip = false;
    if (!now->must && k[STEPS] > 0 && k[COMPUTED] > 1) {
        double size = cache_mean(now, &velocity, NULL);
        k[SUM] += size > 0 ? k[GAIN] * cache_mean(now, &now->latents, &last) / size : 0;
        skip = k[SUM] < now->knobs->threshold;
    }
    if (!skip) k[SUM] = 0;
    cache_note(now, &last, &now->latents);
    k[STEPS]++;
    return skip;
}

static void computed(struct dit_cache_now *now)
{
    struct rows latents = cache_own(now, LATENTS, &now->latents);
    struct rows velocity = cache_own(now, VELOCITY, &now->latents);
    double *k = now->numbers;
    if (k[COMPUTED] > 0) {
        double moved = cache_mean(now, &now->latents, &latents);
        k[GAIN] = moved > 0 ? cache_mean(now, &now->velocity, &velocity) / moved : 0;
    }
    cache_note(now, &latents, &now->latents);
    cache_note(now, &velocity, &now->velocity);
    k[COMPUTED]++;
}

const struct dit_cache cache_easycache = {
    .name = "easycache",
    .summary = "steps left out while the latents, by the velocity's answer so far, move it little",
    .paper = "2507.02860",
    .options = OPTIONS(
        OPT_DOUBLE(struct dit_cache_knobs, threshold, "threshold", 0.05, 0, 1e9,
                   "summed relative change of the velocity up to which steps are left out"),
        OPT_DOUBLE(struct dit_cache_knobs, first, "first", 0.2, 0, 1000,
                   "computed steps at the start: a share below 1, a count from 1 on"),
        OPT_DOUBLE(struct dit_cache_knobs, last, "last", 1, 0, 1000, "computed steps at the end")),
    .keeps = KEEPS_VELOCITY,
    .own.latents = 3,
    .decide = decide,
    .computed = computed,
};
