/* The clips of `ditgen calibrate --error-budget`: what each is for is in budget_fit.h. Of each prompt one
 * exact clip, one that renews everything, single steps and groups of layers carried alone (none of them
 * decoded but the first), and whole clips at four prices. */
#ifndef DITGEN_APP_CLI_CALIBRATE_BUDGET_H
#define DITGEN_APP_CLI_CALIBRATE_BUDGET_H

#include "app/cli/cli.h"
#include "app/cli/progress.h"
#include "app/lib/error_budget.h"

struct calibrate_budget {
    struct ditgen *d;
    const struct ditgen_settings
        *settings; /* resolved, with an error budget, without prompt and seed */
    struct progress *progress;
    char *const *prompt;
    int prompts, seed; /* seed + i */
};
/* to: zeroed; mark and all else filled in. Ctrl-C: ERR_CANCELLED. */
int calibrate_budget(struct error_budget *to, const struct calibrate_budget *c, struct err *e);

#endif
