/* How attention's seconds grow with tokens, by what was replayed: at a row's own settings, and at a
 * recall that is the same for all sizes. */
#ifndef DITGEN_APP_CLI_BENCH_GROWTH_H
#define DITGEN_APP_CLI_BENCH_GROWTH_H

#include "app/cli/bench_replay.h"

#include <stdio.h>

#define BENCH_SIZES 3
#define BENCH_RECALL 0.9 /* of the rows that are compared by recall */

struct bench_growth {
    const struct trials *t;
    const struct bench_rows *rows;
    const struct trial_what *size; /* [n_sizes] rising */
    int n_sizes, steps;
};
/* Seconds of a call at a recall, between two settings of a group: linear in recall, of the logarithms
 * of seconds. NAN: its settings do not lie on both sides. recall, seconds [n]. */
double bench_at_recall(const double *recall, const double *seconds, int n, double wanted);
/* Power of tokens by which seconds grow: least squares of the logarithms; NAN for fewer than 2. */
double bench_power(const int *tokens, const double *seconds, int n);
void bench_growth_print(FILE *to, const struct bench_growth *g);
void bench_growth_json(FILE *to, const struct bench_growth *g); /* , "replays": [...] */

#endif
