/* Lists of prompts, one a line, for commands that make many clips: calibrate, bench attention, tune.
 *
 * Two lists a model, so that what is searched on one is verified on the other: prompts/NAME-search.txt
 * and NAME-verify.txt among the assets, of the model's folder name, or else of "wan". Owner:
 * prompts_read → prompts_fini. Errors: ERR_INPUT, ERR_RESOURCE. */
#ifndef DITGEN_APP_CLI_PROMPTS_H
#define DITGEN_APP_CLI_PROMPTS_H

#include "model/base/err.h"

struct prompts {
    char *text; /* of the file, cut at its lines */
    char *line[256];
    int n;
    char path[4352];
};
/* which: "search" or "verify". file: the user's own instead, or NULL. */
int prompts_read(struct prompts *p, const char *model_dir, const char *which, const char *file,
                 struct err *e);
void prompts_fini(struct prompts *p); /* takes zeroes */

#endif
