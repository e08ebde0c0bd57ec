/* One generation under way: what generation.c, generation_state.c and generation_log.c share, nobody else. */
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

/* --- generation_log.c --- */

/* What a device computed since the last time, one line a phase: operations of each kind, and the peak. */
void job_log_device(struct job *j, enum ditgen_phase phase);
/* What attention did; errors are sampled, and say so. */
void job_log_attention(const struct job *j, const struct attn_stats *s);
/* The closing figures, to the log and to the caller's `ran`. */
int job_tell_ran(struct job *j, struct err *e);
/* The least and the most of each channel, with the n bytes of the frame that is being taken. */
void job_note_range(struct job *j, size_t n);
/* No prompt asks for one colour: weights of another model, or settings far from what it was trained on. */
void job_warn_if_flat(const struct job *j);

#endif
