/* The step that both Euler schedules take. */
#ifndef DITGEN_SCHED_SOLVERS_EULER_H
#define DITGEN_SCHED_SOLVERS_EULER_H

#include "sched/sched.h"

/* Latents stay fp32; the reference casts them to the velocity's type, bf16 in a bf16 run. */
static inline void euler_step(void *state, float *const *history, const struct schedule *s,
                              int step, float *latents, const float *velocity, size_t n)
{
    (void)state, (void)history;
    float d = s->sigma[step + 1] - s->sigma[step];
    for (size_t i = 0; i < n; i++)
        latents[i] += d * velocity[i];
}

#endif
