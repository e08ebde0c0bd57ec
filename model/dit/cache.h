/* For who writes a step cache: what it is asked, what it may look at, what it may keep.
 *
 * A step cache leaves a whole step out: what the blocks added to their input in the last computed
 * step (or what stands behind the first block, or the velocity beside the latents) is added again.
 * The room keeps and adds it, a branch each, decides once a step for all branches, and always
 * computes the first and last steps that the knobs name, and a step whose branch holds nothing yet.
 * A cache says whether, and notes what it needs for that. attention-kernels.md 5.
 *
 * What is looked at lies where the transformer computes, so a hook touches none of it itself: it asks
 * for a distance, which brings one number down (and waits for the device), or has one copied. A device
 * that fails is noted in `now` and told by the room.
 *
 * Owner: all memory is the run's, zeroed before a prompt. Threads: hooks are called from the main
 * thread. No hook allocates: what cannot be is refused before the run. */
#ifndef DITGEN_DIT_CACHE_H
#define DITGEN_DIT_CACHE_H

#include "model/base/budget.h"
#include "model/base/option.h"
#include "model/dit/dit.h"
#include "model/ops/ops.h"

enum dit_cache_keeps { /* of each branch, fp32 */
                       KEEPS_BLOCKS, /* stream behind the last block - in front of the first [L, D] */
                       KEEPS_TAIL, /* ... - behind the first, which is always computed [L, D] */
                       KEEPS_VELOCITY, /* velocity - latents; of as many channels */
};

struct dit_cache_knobs { /* what rows of options fill; without a row: 0 */
    double threshold;
    double first,
        last; /* computed steps at the start and end: a share below 1, a count from 1 on */
    int most; /* steps in a row that may be left out */
    char *poly; /* "auto", or coefficients of falling power: a4/a3/a2/a1/a0 */
    int of; /* which embedding of time is compared: enum of teacache */
};

#define DIT_CACHE_NUMBERS 16 /* doubles that a cache may keep */
struct dit_cache_sizes { /* floats that it keeps beside what the room keeps */
    size_t stream, latents, time; /* of [L, D], of the velocity, of all rows of temb and time6 */
};

struct dit_cache_now {
    const struct dit_cache_knobs *knobs;
    const struct dit_calibration *calibration; /* or NULL */
    const double *poly; /* [5], of caches with needs_poly */
    const struct budget *budget; /* of caches that are budgeted */
    int step, n_steps, n_branches;
    int first, last; /* steps below first and from last on are computed whatever is said */
    struct rows temb, time6; /* embeddings of this step's time */
    struct rows latents, velocity; /* of branch 0; velocity: in computed() alone */
    struct rows head; /* what the first block added to branch 0, of caches with KEEPS_TAIL */
    bool must; /* the step is computed, whatever decide() says */
    float *own; /* what .own asks for, zeroed at the start of a prompt: cache_own() */
    double *numbers; /* [DIT_CACHE_NUMBERS], likewise */

    struct device *device; /* the room's, as is what follows */
    double *room;
    struct err *e;
    bool failed;
};

struct dit_cache {
    const char *name, *summary, *paper;
    const struct option *options;
    enum dit_cache_keeps keeps;
    bool needs_poly, needs_ratio; /* of the model: a calibration */
    bool budgeted; /* refused without an error budget; steps as budget.h's one unit */
    struct dit_cache_sizes own;
    /* Called in every step, also where now->must: true leaves the step out. */
    bool (*decide)(struct dit_cache_now *now);
    /* After a computed step. NULL: nothing. */
    void (*computed)(struct dit_cache_now *now);
    /* Steps that will be computed, known before the run: decide() then looks at steps alone. */
    bool scheduled;
};
#define CACHE(c) extern const struct dit_cache cache_##c;
#include "model/dit/caches.def"
#undef CACHE

/* mean|a - b| / mean|b|; 0 where b is all zeros and a too, huge where only b is. The sum is one and
 * the same for any number of threads. Waits for the device; 0 after a failure. */
double cache_change(struct dit_cache_now *now, const struct rows *a, const struct rows *b);
/* Their numerator: mean|a - b|; b NULL: mean|a|. */
double cache_mean(struct dit_cache_now *now, const struct rows *a, const struct rows *b);
/* The i-th of several of `like`'s shape, fp32, in what the cache has of its own. */
struct rows cache_own(const struct dit_cache_now *now, int i, const struct rows *like);
/* to = from, as fp32. */
void cache_note(struct dit_cache_now *now, const struct rows *to, const struct rows *from);

#endif
