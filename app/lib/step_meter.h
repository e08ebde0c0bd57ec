/* What each step took and computed; and how many exact steps the seconds of all would have bought.
 *
 * An exact step's seconds are the median of the run's own exact steps; a run without any has them
 * from the operations of model_work(), so that the answer is an estimate either way. Owner:
 * step_meter_open → step_meter_close. Threads: one. Errors: ERR_RESOURCE. */
#ifndef DITGEN_APP_LIB_STEP_METER_H
#define DITGEN_APP_LIB_STEP_METER_H

#include "model/model.h"

struct step_meter {
    long calls, reused; /* of a whole step; steps left out so far */
    int n; /* steps so far, of this call */
    double begin, seconds; /* clock when the step under way began; of all steps that ended */
    double *exact; /* [most] seconds of the exact ones */
    int n_exact;
    double shares; /* operations of all steps beside an exact one's */
    struct attn_sums before;
    const struct log *log;
    struct model_work work; /* of one branch of one step */
};
/* most: steps; calls: of attention in a step that leaves out nothing. */
int step_meter_open(struct step_meter *m, int most, int calls, const struct model_work *work,
                    const struct log *log, struct err *e);
void step_meter_close(struct step_meter *m); /* takes zeroes */
/* Before the first step; clock in seconds, here and below. */
void step_meter_begin(struct step_meter *m, double clock);
/* After each; now: what attention did so far; reused: steps that the step cache left out so far. */
void step_meter_step(struct step_meter *m, int step, int num_steps, const struct attn_stats *now,
                     int reused, double clock);
/* How many exact steps take as long as the steps so far; 0: there were none. Sorts. */
double step_meter_bought(struct step_meter *m);

#endif
