/* From clips to the calibration of an error budget: what was seen of clips goes in, the table comes out.
 *
 * Four things are seen, of each calibration prompt:
 *   moved    clips that renew everything in every step: how far each head's residual moves in a step
 *   probe    clips that carry everything in one step alone: what the latents lose to it (gain), and how
 *            far residuals have moved in two steps, when they are renewed in the next (power)
 *   group    clips that carry some layers in one step alone: what these lose of it (weight)
 *   clip     whole clips at a price: what frames lose beside what the formula says (at, slope, margin)
 * Losses of probes are averaged over prompts as logarithms, so that one lively clip does not speak for
 * all; between probed steps the logarithm of gain goes straight on. Threads: one. Owner:
 * budget_fit_open → budget_fit_close. */
#ifndef DITGEN_APP_LIB_BUDGET_FIT_H
#define DITGEN_APP_LIB_BUDGET_FIT_H

#include "app/lib/error_budget.h"

struct budget_fit;
/* Steps first .. end - 1 carry; groups: that layers are cut into, at most as many as layers. */
struct budget_fit_shape {
    int steps, layers, heads, first, end, groups;
};
int budget_fit_open(struct budget_fit **f, const struct budget_fit_shape *s, struct err *e);
void budget_fit_close(struct budget_fit *f); /* takes NULL */

/* The i-th of the steps that are probed, -1: there are not so many; that of the groups. */
int budget_fit_probe_at(const struct budget_fit *f, int i);
int budget_fit_group_at(const struct budget_fit *f);
/* Units [from, to) of a group of layers. */
void budget_fit_group(const struct budget_fit *f, int group, int *from, int *to);

void budget_fit_moved(struct budget_fit *f, int step, int unit, double moved); /* of one clip */
void budget_fit_probe(struct budget_fit *f, int i, double mse);
void budget_fit_twice(struct budget_fit *f, int i, int unit, double moved);
void budget_fit_layers(struct budget_fit *f, int group, double mse);
/* Gains, weights and drifts into b (error_budget_alloc'd), and its table. */
void budget_fit_costs(struct error_budget *b, const struct budget_fit *f);
int budget_fit_clip(struct budget_fit *f, int prompt, double db, const struct budget_spent *s,
                    struct err *e);
/* at, slope, margin, usual, least and most into b. ERR_USAGE when clips lost nothing. Margin: what nine in ten
 * further prompts should stay within, by holding each against the line of the others; of one prompt, its worst clip. */
int budget_fit_line(struct error_budget *b, const struct budget_fit *f, struct err *e);

#endif
