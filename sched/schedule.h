/* Pieces of a schedule that the solvers share: shift, the two flow grids of the reference, lambda.
 *
 * sigma  1 = pure noise, 0 = clean latents; alpha = 1 - sigma; lambda = ln alpha - ln sigma
 * Private to the room. Owner: caller. Errors: ERR_USAGE, with the flag and its range. */
#ifndef DITGEN_SCHED_SCHEDULE_H
#define DITGEN_SCHED_SCHEDULE_H

#include "sched/sched.h"

/* sigma' = f * sigma / (1 + (f - 1) * sigma): SD3, arXiv 2403.03206 eq. 23. */
static inline double shift_sigma(double f, double sigma)
{
    return f * sigma / (1 + (f - 1) * sigma);
}

/* How many steps and which shift a schedule takes. */
int schedule_limits(int num_steps, double flow_shift, struct err *e);
/* Sigmas must fall from step to step, or a solver would divide by nothing. */
int schedule_falls(const struct schedule *s, double flow_shift, struct err *e);
/* wan.md 5.2. new_grid: diffusers 0.37 and later; else the grid of 0.36 and of DPM++. Timesteps are
 * whole numbers: what the model was conditioned on in training, cut off, not rounded. */
int schedule_flow(struct schedule *s, int num_steps, double flow_shift, bool new_grid,
                  struct err *e);

double schedule_lambda(const struct schedule *s, int step);

#endif
