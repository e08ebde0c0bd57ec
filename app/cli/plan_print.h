/* What a run will take, in words: all of it for --plan, three lines before a run. */
#ifndef DITGEN_APP_PLAN_PRINT_H
#define DITGEN_APP_PLAN_PRINT_H

#include "app/cli/progress.h"
#include "app/cli/cli.h"

/* Settings are resolved ones. */
void plan_print(FILE *to, bool json, const struct ditgen_plan *plan,
                const struct ditgen_settings *s, const struct ditgen *d);
void plan_print_short(struct progress *p, const struct ditgen_plan *plan, const struct cli *c,
                      const struct ditgen *d, const char *path);
/* Of a run with an approximate method: what was computed and lost, and what exact steps would have
 * taken as long. Of an exact one: nothing. */
void plan_print_ran(struct progress *p, const struct ditgen_ran *r);
/* The last line of a run. */
void plan_print_done(struct progress *p, const char *path, const struct ditgen_settings *s);

#endif
