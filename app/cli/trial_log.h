/* The log of trials on disk: JSON lines, {"key": ..., "wall": ..., ...}. A line that a crash cut off at
 * the end is passed over; anything else that is no such line is refused with its number. */
#ifndef DITGEN_APP_CLI_TRIAL_LOG_H
#define DITGEN_APP_CLI_TRIAL_LOG_H

#include "app/cli/trial.h"

int trial_log_open(struct trials *t, bool resume, bool replace, struct err *e);
/* Lines of a log into t->known. */
int trial_log_parse(struct trials *t, const char *text, size_t len, struct err *e);
/* Keeps it in memory and, when there is a log, on disk. */
int trial_log_add(struct trials *t, const char *key, const struct trial *r, struct err *e);

#endif
