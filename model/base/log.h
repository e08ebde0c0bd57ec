/* Talk for people: lines by how often they may appear. The program decides where they go.
 *
 * Level 1 a run, 2 a step, 3 a layer, 4 a call. A NULL log, or one without write, is silent.
 * Owner: caller. Threads: the sink is called from the thread that logs, main in practice. */
#ifndef DITGEN_BASE_LOG_H
#define DITGEN_BASE_LOG_H

#include "model/base/err.h"

struct log {
    int level; /* lines above it are dropped */
    void (*write)(void *ctx, int level, const char *line);
    void *ctx;
};

/* line without a newline, at most 511 bytes. */
void log_line(const struct log *l, int level, const char *fmt, ...) PRINTF_LIKE(3, 4);

#endif
