/* One generation under way: what generation.c and generation_state.c share, nobody else. */
#ifndef DITGEN_APP_LIB_JOB_H
#define DITGEN_APP_LIB_JOB_H

#include "app/lib/preview.h"
#include "app/lib/run.h"
#include "app/lib/step_meter.h"

struct job { /* what the callbacks of the rooms below need */
    const struct ditgen_callbacks *calls;
    struct ditgen *d;
    struct model *model;
    struct run run;
    struct ditgen_progress progress;
    double begin; /* of the phase */
    int layers_done, n_layers;
    int frame; /* next index */
    const uint8_t *rgb; /* [H, W, 3] of the frame that is being taken */
    uint8_t least[3], most[3]; /* of each channel over the clip so far */
    float *latents; /* [n] of the host; on a device as of the last job_bring_back() */
    void *scratch; /* likewise */
    struct model_vram vram; /* of the run's device; all zero on the host */
    struct device *device; /* that denoises; NULL: the host */
    float *latents_there;
    void *scratch_there;
    float *before_there[2]; /* in it: what the last two steps began with */
    double gave; /* when the state was given last */
    void *attention; /* what attention remembers, where a device has it: as of the last state */
    struct err failed; /* in a callback that can only say no */
    size_t n;
    const struct model_info *info;
    int shape[4]; /* of the latents */
    int first_step; /* what an earlier run did */
    struct preview preview;
    struct step_meter meter;
};

/* --- generation_state.c --- */

/* The latents, and with `history` the solver's memory, as they are on the device. Waits for it. -1 with
 * j->failed. */
int job_bring_back(struct job *j, bool history);
/* Hands the state after a step to who wants it. Nonzero: the caller wants to stop. */
int job_give_state(struct job *j, int step, int steps);
/* Latents and the solver's history of an earlier run; refuses what does not fit. */
int job_take_state(struct job *j, const struct ditgen_state *s, struct err *e);
/* What its step cache remembered, when the transformer is there to take it. */
int job_take_kept(struct job *j, const struct ditgen_state *s, struct err *e);

#endif
