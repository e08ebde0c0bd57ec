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

/* --- tune_flags.c --- */

struct tune { /* the command under way */
    bool quick, resume, json, cpu, help;
    const char *log, *svg, *check;
    int n_search, n_verify;
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

/* What stands alone: fewer steps, other solvers, step caches, methods, schedules of carried attention. */
int tune_first(struct bench_rows *r, struct trials *t, const char *prompt, bool quick,
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
void tune_table(FILE *to, const struct bench_table *b, const bool *front);
void tune_json(FILE *to, const struct tune_found *f, const bool *front);
/* Seconds against dB, the frontier drawn through, fewer steps as a line of their own. */
void tune_svg(FILE *to, const struct bench_table *b, const bool *front, const char *title);

#endif
