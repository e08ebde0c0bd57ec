/* What clips of several prompts come to, row by row, and beside fewer steps. */
#ifndef DITGEN_APP_CLI_BENCH_TABLE_H
#define DITGEN_APP_CLI_BENCH_TABLE_H

#include "app/cli/bench_rows.h"

#include <stdio.h>

struct bench_line { /* means over the clips that are known, unless said */
    const struct bench_row *row;
    int n; /* clips; 0: nothing is known */
    double computed, copied, reused, recall, error, planning; /* recall, error: -1: not sampled */
    double share; /* of exact's seconds, by the clock that is asked for */
    double psnr, worst, ssim; /* dB; of the worst clip */
    double
        rival; /* dB of the fewest exact steps that take at least as long; TRIAL_EQUAL: all of them */
};
struct bench_table {
    struct bench_line *at;
    int n;
    int width, height, frames, steps, tokens, prompts;
    double exact; /* mean seconds of the exact clips' denoising */
    bool cpu; /* the clock: CPU time of all threads, or what a user waits */
};
/* Of what t knows of these rows with the first `prompts` of a list; seeds: seed + i. */
int bench_table_make(struct bench_table *b, const struct trials *t, const struct bench_rows *rows,
                     const struct trial_what *size, char *const *prompt, int prompts, uint64_t seed,
                     bool cpu, struct err *e);
void bench_table_free(struct bench_table *b);
/* dB of the fewest exact steps of the table that are not faster than `share`. */
double bench_rival(const struct bench_table *b, double share);
void bench_table_print(FILE *to, const struct bench_table *b);
void bench_table_json(FILE *to, const struct bench_table *b);

#endif
