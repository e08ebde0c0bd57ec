/* One run of the command: from parsed flags to a clip on disk. Shared by generate and rerun. */
#ifndef DITGEN_APP_GENERATE_H
#define DITGEN_APP_GENERATE_H

#include "app/cli/cli.h"

/* suffix: of a made-up output name, NULL: the build's default. */
int generate_run(struct cli *c, const char *suffix, struct err *e);

/* The prompt, when no flag gave it: from -f, or from standard input when that is a pipe or a file.
 */
int prompt_read(struct cli *c, struct err *e);

#endif
