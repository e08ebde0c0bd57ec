/* Looking for settings that save most at a wanted fidelity, or keep most in a wanted time: what the
 * files of `ditgen tune` share. Rows and their clips are bench_rows.h and trial.h. */
#ifndef DITGEN_APP_CLI_TUNE_H
#define DITGEN_APP_CLI_TUNE_H

#include "app/cli/bench_table.h"
#include "app/cli/prompts.h"

#define TUNE_SEED_SEARCH 7001
#define TUNE_SEED_VERIFY 9001

struct tune_target { /* of the mean over prompts, against exact */
    double db, ssim; /* at least; 0: not asked */
    double share; /* of exact's seconds, at most; 0: not asked */
};

#define TUNE_SIZES 8
struct tune_size { /* of several: what a profile by size is made of */
    int width, height, frames, tokens, steps;
    char row[256]; /* chosen; "": nothing met the target, exact */
    double share, psnr;
    bool verified;
    char *comment; /* figures and prompts, heap */
};

/* --- tune_flags.c --- */

struct tune { /* the command under way */
    bool quick, resume, json, cpu, help;
    const char *log, *svg, *check;
    int n_search, n_verify;
    struct tune_size sizes[TUNE_SIZES];
    int n_sizes; /* 0: the one that is set */
    double minutes;
    struct tune_target target;
    struct progress progress;
    struct trials t;
    struct prompts search, verify;
    struct bench_rows rows, last; /* all that was looked at; those that are verified */
    double begin;
};
extern const char tune_usage[];
/* Takes its own flags out of argv; the rest is generate's. */
int tune_flags(struct tune *t, int *argc, char **argv, struct err *e);

/* --- tune_space.c: which rows are looked at --- */

/* What stands alone: fewer steps, other solvers, step caches, methods, schedules of carried attention,
 * error budgets where they are calibrated. by_size: only what a profile may say by tokens. */
int tune_first(struct bench_rows *r, struct trials *t, const char *prompt, bool quick, bool by_size,
               struct err *e);
/* Neighbours of a row that did well (its numbers a notch on) and, of two kinds of rows, both at once:
 * those that are not in r yet, at most `most`. front: rows that did well, best first. */
int tune_next(struct bench_rows *r, struct trials *t, const char *prompt,
              const struct bench_rows *front, int most, struct err *e);

/* --- tune_front.c: which are worth it --- */

/* Marks lines that no other line beats in both share and dB, among those with n >= clips. */
void tune_front(bool *on, const struct bench_table *b, int clips);
/* The line that meets the target best: fastest of the faithful ones, or most faithful of the fast ones;
 * -1: none does. Lines of exact settings (another kernel) are never taken. */
int tune_choose(const struct bench_table *b, const struct tune_target *target, int clips);
/* How much a line is worth looking further at, to be compared: what meets the target by what it saves
 * or keeps, the rest by how near it comes. */
double tune_worth(const struct bench_line *l, const struct tune_target *target, bool on_front);
bool tune_meets(const struct bench_line *l, const struct tune_target *target);

/* --- tune_print.c --- */

struct tune_found { /* what a profile says of itself */
    const struct bench_table *search, *verify; /* verify NULL: broken off before */
    const struct bench_line *line; /* chosen, of verify (or of search) */
    const struct tune_target *target;
    const struct prompts *lists[2]; /* searched and verified with */
    int n_lists[2]; /* prompts of them */
    const char *model, *command;
};
/* An .ini profile: comments with figures, prompts, seeds, and the settings of the row. */
int tune_profile(FILE *to, const struct tune_found *f, const struct ditgen_settings *base);
/* The comments of that: figures, prompts and seeds. */
void tune_figures(FILE *to, const struct tune_found *f, const struct ditgen_settings *base);
void tune_table(FILE *to, const struct bench_table *b, const bool *front);
void tune_json(FILE *to, const struct tune_found *f, const bool *front);
/* Seconds against dB, the frontier drawn through, fewer steps as a line of their own. */
void tune_svg(FILE *to, const struct bench_table *b, const bool *front, const char *title);

/* --- tune_check.c --- */

struct tune_clip { /* one that verifies */
    const char *prompt;
    uint64_t seed;
    double share, psnr, ssim;
    double estimate; /* dB that its error budget came to; 0: it had none */
    double
        rival; /* dB of this clip by the fewest exact steps that take as long; TRIAL_EQUAL: all */
};
/* A profile as the first row, fewer steps behind it. */
int tune_check_rows(struct bench_rows *rows, struct tune *t, const struct ditgen_settings *given,
                    struct err *e);
int tune_check_clips(struct tune_clip *clip, const struct tune *t, const struct bench_rows *rows);
/* budget: dB, or 0. */
void tune_check_print(FILE *to, const struct tune_clip *clip, int n, double budget);
void tune_check_json(FILE *to, const struct tune_clip *clip, int n, double budget);

/* --- tune_sizes.c --- */

int tune_sizes_parse(struct tune *t, const char *text, struct err *e);
/* all, at that size: owner settings_close. */
int tune_sizes_base(struct ditgen_settings **out, const struct tune_size *size,
                    const struct ditgen_settings *all, const struct ditgen *d, struct err *e);
void tune_sizes_free(struct tune *t);
/* Sorts t->sizes. A size without a row stays exact. */
void tune_sizes_profile(FILE *to, struct tune *t);

#endif
