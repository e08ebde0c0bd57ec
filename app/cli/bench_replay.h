/* Attention alone, on the q, k and v that a run of the model makes: what a longer clip would cost and
 * lose, without making it whole. Each row runs beside dense on the same calls, in the same process.
 *
 * Results are kept in the trials' log, under keys of their own: share and planning of seconds,
 * computed, recall, error of all rows of o. Errors: those of a run. */
#ifndef DITGEN_APP_CLI_BENCH_REPLAY_H
#define DITGEN_APP_CLI_BENCH_REPLAY_H

#include "app/cli/bench_rows.h"

/* Rows of methods, at a size, over a few exact steps (2 and more; the first is not counted).
 * Known ones are not run again. */
int bench_replay(struct trials *t, const struct bench_rows *rows, const struct trial_what *size,
                 int steps, struct err *e);
/* wall: mean seconds of a call; share: of a dense one's. */
bool bench_replay_known(const struct trials *t, const struct bench_row *row, int tokens, int steps,
                        struct trial *out);
/* Tokens of a size. */
int bench_replay_tokens(const struct trials *t, const struct trial_what *size);

#endif
