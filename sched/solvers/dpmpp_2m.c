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

static int dpmpp_step(struct lincomb *sums, const struct schedule *s, int step)
{
    int m0 = BUFFER_HISTORY + (step & 1); /* x0 seen from here */
    int m1 = BUFFER_HISTORY + ((step + 1) & 1); /* and from the step before */
    float sigma = s->sigma[step], next = s->sigma[step + 1];
    if (next <= 0) {
        sums[0] =
            (struct lincomb){BUFFER_LATENTS, 2, {BUFFER_LATENTS, BUFFER_VELOCITY}, {1, -sigma}};
        return 1;
    }
    double here = schedule_lambda(s, step), h = schedule_lambda(s, step + 1) - here;
    double em1 = expm1(-h), alpha = 1 - (double)next;
    float keep = next / sigma, a = (float)(alpha * em1), slope = 0;
    if (step > 0) { /* r0 = (lambda_i - lambda_i-1) / h; the first step has no slope */
        double r0 = (here - schedule_lambda(s, step - 1)) / h;
        slope = (float)(0.5 * alpha * em1 / r0);
    }
    sums[0] = (struct lincomb){m0, 2, {BUFFER_LATENTS, BUFFER_VELOCITY}, {1, -sigma}};
    sums[1] = (struct lincomb){BUFFER_VELOCITY, 2, {m0, m1}, {1, -1}}; /* the slope, times h */
    sums[2] = (struct lincomb){
        BUFFER_LATENTS, 3, {BUFFER_LATENTS, m0, BUFFER_VELOCITY}, {keep, -a, -slope}};
    if (step == 0) { /* m1 holds nothing yet */
        sums[1] = sums[2];
        sums[1].n = 2;
        return 2;
    }
    return 3;
}

const struct solver solver_dpmpp_2m = {
    .name = "dpmpp",
    .summary = "DPM-Solver++ 2M: second order, two steps' memory",
    .paper = "2211.01095",
    .schedule = dpmpp_schedule,
    .history = 2,
    .step = dpmpp_step,
};
