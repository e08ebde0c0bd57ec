/* What `ditgen calibrate --error-budget` found of a model at one size: what carrying attention, or with
 * --step-cache budget whole steps, costs a clip (model/base/budget.h has the formula, and why it is one).
 *
 * An .ini file each size, solver and number of steps: in the model's folder
 * (error-budgets/256x256x33-unipc-30.ini, of whole steps ...-30-steps.ini) or, for models that come with ditgen, beside the profiles
 * (profiles/error-budgets/NAME/...). It names what it is of: the weights by a mark of their bytes, and
 * all settings that change what carrying costs. Another run is refused in one line with the command that
 * makes its own. Numbers are few: gain a step, weight a layer, drift a step and layer, and how a
 * layer's drift is shared by its heads.
 * Owner: error_budget_find or _parse → error_budget_fini. Errors: ERR_USAGE (none for this run),
 * ERR_INPUT with file and line, ERR_RESOURCE. */
#ifndef DITGEN_APP_LIB_ERROR_BUDGET_H
#define DITGEN_APP_LIB_ERROR_BUDGET_H

#include "app/lib/calibration.h"
#include "app/lib/settings.h"
#include "model/base/budget.h"

struct budget_key { /* what a calibration is of, beside the weights */
    int width, height, frames, steps;
    double guidance_scale, flow_shift;
    char solver[32];
    char attention[2048]; /* the stack, written out */
    char step_cache[160]; /* likewise; "none": attention is steered */
};
void budget_key_of(struct budget_key *k, const struct ditgen_settings *resolved);

struct error_budget {
    struct budget_key of;
    uint64_t mark;
    int layers, heads;
    float *weight, *gain, *drift, *head; /* [layers], [steps], [steps, layers], [layers, heads] */
    float *units; /* what table points to: weight and drift of every head */
    struct budget_table table;
};
/* The calibration for this run, asked for `db`. */
int error_budget_find(struct error_budget *b, const struct model_info *m,
                      const struct budget_key *key, double db, struct err *e);
void error_budget_fini(struct error_budget *b); /* takes zeroes */

/* Of whole steps one layer of one head, which stands for them. Memory for steps, layers and heads, all numbers 0; then error_budget_spread() makes the table of what
 * was filled in. */
int error_budget_alloc(struct error_budget *b, int steps, int layers, int heads, struct err *e);
void error_budget_spread(struct error_budget *b);

int error_budget_parse(struct error_budget *b, const char *text, size_t len, const char *name,
                       struct err *e);
/* As it is read back; how: a line for people. Heap; NULL: no memory. */
char *error_budget_text(const struct error_budget *b, const char *how);
/* Of the file's bytes, for these resolved settings; 0: they have no error budget, or there is no file. */
uint64_t error_budget_stamp(const struct model_info *m, const struct ditgen_settings *resolved);
/* Where it is looked for, and written by default. */
void error_budget_path(char path[CALIBRATION_PATH], const struct model_info *m,
                       const struct budget_key *key);

#endif
