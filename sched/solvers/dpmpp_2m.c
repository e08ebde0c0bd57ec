/* DPM-Solver++ 2M for flow models: multistep midpoint of order 2 on the prediction of x0.
 * wan.md 5.5. */
#include "sched/schedule.h"

#include <math.h>

/* The reference never gave this scheduler the newer grid. */
static int dpmpp_schedule(struct schedule *s, int num_steps, double flow_shift,
                          enum sched_compat compat, struct err *e)
{
    (void)compat;
    return schedule_flow(s, num_steps, flow_shift, false, e);
}

static void dpmpp_step(void *state, float *const *history, const struct schedule *s, int step,
                       float *latents, const float *velocity, size_t n)
{
    (void)state;
    float *m0 = history[step & 1]; /* x0 seen from here */
    const float *m1 = history[(step + 1) & 1]; /* and from the step before */
    float sigma = s->sigma[step], next = s->sigma[step + 1];
    if (next <= 0) {
        for (size_t i = 0; i < n; i++)
            latents[i] -= sigma * velocity[i];
        return;
    }
    double here = schedule_lambda(s, step), h = schedule_lambda(s, step + 1) - here;
    double em1 = expm1(-h), alpha = 1 - (double)next;
    float keep = next / sigma, a = (float)(alpha * em1), slope = 0;
    if (step > 0) { /* r0 = (lambda_i - lambda_i-1) / h; the first step has no slope */
        double r0 = (here - schedule_lambda(s, step - 1)) / h;
        slope = (float)(0.5 * alpha * em1 / r0);
    }
    for (size_t i = 0; i < n; i++) {
        m0[i] = latents[i] - sigma * velocity[i];
        float x = keep * latents[i] - a * m0[i];
        latents[i] = step > 0 ? x - slope * (m0[i] - m1[i]) : x;
    }
}

const struct solver solver_dpmpp_2m = {
    .name = "dpmpp",
    .summary = "DPM-Solver++ 2M: second order, two steps' memory",
    .paper = "2211.01095",
    .schedule = dpmpp_schedule,
    .history = 2,
    .step = dpmpp_step,
};
