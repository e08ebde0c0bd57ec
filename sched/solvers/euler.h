/* The step that both Euler schedules take. */
#ifndef DITGEN_SCHED_SOLVERS_EULER_H
#define DITGEN_SCHED_SOLVERS_EULER_H

#include "sched/sched.h"

/* Latents stay fp32; the reference casts them to the velocity's type, bf16 in a bf16 run. */
static inline int euler_step(struct lincomb *sums, const struct schedule *s, int step)
{
    float d = s->sigma[step + 1] - s->sigma[step];
    sums[0] = (struct lincomb){BUFFER_LATENTS, 2, {BUFFER_LATENTS, BUFFER_VELOCITY}, {1, d}};
    return 1;
}

#endif
