/* Clips made to be measured: for bench attention and tune.
 *
 * A row is what differs from exact attention with the settings at hand: "attention=resid:every=4",
 * "steps=20", "step-cache=easycache;attention=window", "" (exact itself). Each clip is held against
 * the exact one of the same prompt and seed. What was measured stands in a log of JSON lines, one a
 * clip, appended when it is whole, so that work that was broken off goes on where it was.
 * Owner: trials_open → trials_close, also after failure. Threads: one. Errors: ERR_INPUT (a log),
 * ERR_CANCELLED (Ctrl-C, nothing half is kept), those of a run. */
#ifndef DITGEN_APP_CLI_TRIAL_H
#define DITGEN_APP_CLI_TRIAL_H

#include "app/cli/progress.h"
#include "app/lib/run.h"

struct trial { /* of one clip */
    double wall, cpu; /* seconds of denoising; cpu: of all threads, whoever else is busy */
    double share, cpu_share; /* of the exact clip's of this prompt and size */
    double computed, copied, reused; /* of attention's pairs; of its calls; of the steps */
    double error, recall; /* of sampled rows; -1: none were */
    double planning; /* share of attention's seconds */
    double estimate; /* dB that an error budget came to; 0: there was none */
    double psnr, ssim; /* against the exact clip; equal frames: psnr is TRIAL_EQUAL */
};
#define TRIAL_EQUAL 99.0

struct trial_known {
    char *key;
    struct trial t;
};

struct trials {
    struct ditgen *d;
    const struct ditgen_settings *base; /* resolved, without prompt and seed */
    struct progress *progress;
    const char *path; /* of the log; NULL: none is kept */
    struct trial_known *known;
    int n_known, room;
    uint64_t mark; /* of the weights */
    /* the exact clip that rows are held against */
    char *exact_key;
    uint8_t *exact;
    struct trial exact_trial;
    size_t exact_len;
    /* what is told meanwhile */
    int done, total; /* clips made by this command, and those that it will make */
    double left; /* predicted seconds of what is not done, as work; scaled by what was seen */
    double spent, spent_work; /* seconds of clips done, and what was predicted of them */
};

struct trial_what { /* one clip */
    int width, height, frames; /* 0: base's */
    const char *prompt, *row;
    uint64_t seed;
};

/* log NULL: none. resume: goes on with it; else it must not be there, or `replace` takes its place. */
int trials_open(struct trials *t, struct ditgen *d, const struct ditgen_settings *base,
                const char *log, bool resume, bool replace, struct err *e);
void trials_close(struct trials *t);
/* What is known of the clip already; false: nothing. */
bool trials_known(const struct trials *t, const struct trial_what *w, struct trial *out);
/* Known, or made now; the exact clip too when it has to be. */
int trials_get(struct trials *t, const struct trial_what *w, struct trial *out, struct err *e);
/* Predicted seconds of a clip; 0 where it is known. Refuses a row that cannot be. */
int trials_predict(struct trials *t, const struct trial_what *w, double *seconds, struct err *e);
/* Before clips are made: what is to be made, and how long that takes about. */
void trials_plan(struct trials *t, int clips, double seconds);

/* base with what w says: owner settings_close. */
int trial_settings(struct ditgen_settings **out, const struct trials *t, const struct trial_what *w,
                   struct err *e);

#endif
