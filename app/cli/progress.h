/* What a run says while it works, on standard error: a bar on a terminal, lines elsewhere, one JSON
 * object a line for programs, or nothing.
 *
 * Threads: from the main thread. Errors: none; a closed standard error is not worth stopping for.
 */
#ifndef DITGEN_APP_PROGRESS_H
#define DITGEN_APP_PROGRESS_H

#include "app/lib/ditgen.h"
#include "model/base/err.h"

#include <stdbool.h>
#include <stdio.h>

enum progress_form { PROGRESS_BAR, PROGRESS_LINES, PROGRESS_JSON, PROGRESS_QUIET };

struct progress {
    enum progress_form form;
    FILE *to;
    bool drawn; /* a bar stands on the current line */
    double last; /* seconds of the phase when it was drawn */
    enum ditgen_phase phase;
    bool begun;
    int done; /* last step told in lines */
    double step_begin; /* seconds of the phase when the step under way began */
    double phase_seconds[DITGEN_PHASES];
};

/* json and quiet as asked; else a bar when `to` is a terminal. */
void progress_init(struct progress *p, FILE *to, bool json, bool quiet);
void progress_update(struct progress *p, const struct ditgen_progress *now);
/* Ends the bar's line, so that what follows stands alone. */
void progress_pause(struct progress *p);
/* A line for people; in JSON {"event":"log", ...}. Not when quiet. */
void progress_say(struct progress *p, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* text as a JSON string with its quotes. */
void json_put_string(FILE *f, const char *text);
/* "4.2 s", "3 min 20 s", "2 h 5 min". buf[n]. */
void seconds_text(char *buf, size_t n, double seconds);
/* "512 MiB", "1.4 GiB". */
void bytes_text(char *buf, size_t n, double bytes);

#endif
