/* One run of the command: from parsed flags to a clip on disk. Shared by generate and rerun. */
#ifndef DITGEN_APP_GENERATE_H
#define DITGEN_APP_GENERATE_H

#include "app/cli/cli.h"

struct state;
/* suffix: of a made-up output name, NULL: the build's default. from: what to go on from, with its
 * settings in c (other ones are refused), or NULL: from the beginning, or from a state of the same
 * settings and output that an earlier run left. */
int generate_run(struct cli *c, const char *suffix, const struct state *from, struct err *e);

/* The prompt, when no flag gave it: from -f, or from standard input when that is a pipe or a file.
 */
int prompt_read(struct cli *c, struct err *e);

#endif
