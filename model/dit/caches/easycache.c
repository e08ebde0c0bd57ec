/* EasyCache: how strongly the velocity answers a change of the latents, measured at computed steps,
 * tells from the latents alone how far it will have moved. arXiv 2507.02860; attention-kernels.md
 * 5.4. Needs neither calibration nor anything inside the model. Branch 0 decides for all. */
#include "model/dit/cache.h"

#include <string.h>

enum { STEPS, COMPUTED, SUM, GAIN }; /* numbers; GAIN below 0: not known yet */

/* own: latents of the step before, of the computed step before, velocity of that. */
static bool decide(const struct dit_cache_now *now)
{
    size_t n = now->n_latents;
    const float *last = now->own, *velocity = now->own + 2 * n;
    double *k = now->numbers;
    bool skip = false;
    if (!now->must && k[STEPS] > 0 && k[COMPUTED] > 1) {
        double size = cache_mean(velocity, NULL, n);
        k[SUM] += size > 0 ? k[GAIN] * cache_mean(now->latents, last, n) / size : 0;
        skip = k[SUM] < now->knobs->threshold;
    }
    if (!skip) k[SUM] = 0;
    memcpy(now->own, now->latents, n * sizeof(float));
    k[STEPS]++;
    return skip;
}

static void computed(const struct dit_cache_now *now)
{
    size_t n = now->n_latents;
    float *latents = now->own + n, *velocity = now->own + 2 * n;
    double *k = now->numbers;
    if (k[COMPUTED] > 0) {
        double moved = cache_mean(now->latents, latents, n);
        k[GAIN] = moved > 0 ? cache_mean(now->velocity, velocity, n) / moved : 0;
    }
    memcpy(latents, now->latents, n * sizeof(float));
    memcpy(velocity, now->velocity, n * sizeof(float));
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
