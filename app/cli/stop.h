/* Ctrl-C, SIGTERM, a lost terminal and a spent time limit as a question that the run answers between blocks.
 *
 * A thread of its own waits for them: no handler ever runs on a computing thread. Generated matrix
 * code (oneDNN's) borrows the stack register, and a handler's frame then lands in the heap: with a
 * plain handler 5 of 12 interrupted runs died of "corrupted size vs. prev_size". A signal that the
 * caller had ignored (nohup, a shell's background) stays ignored. */
#ifndef DITGEN_APP_STOP_H
#define DITGEN_APP_STOP_H

#include "model/base/err.h"

#include <stdbool.h>

/* Before the first parallel work of the process, so that no thread takes the signals. Once. */
int stop_watch(struct err *e);
/* While armed the first signal is only remembered, and the second ends the process; otherwise each
 * ends it at once. */
void stop_arm(bool armed);
bool stop_asked(void);

#endif
