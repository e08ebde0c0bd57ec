/* Euler on the grid that step-distilled checkpoints were trained for: wan.md 5.6. In fp32, as the
 * reference computes it when it is handed the list 1 - i/n. */
#include "sched/schedule.h"
#include "sched/solvers/euler.h"

static int euler_simple_schedule(struct schedule *s, int num_steps, double flow_shift,
                                 enum sched_compat compat, struct err *e)
{
    (void)compat;
    if (schedule_limits(num_steps, flow_shift, e) < 0) return -1;
    s->num_steps = num_steps;
    float f = (float)flow_shift, less = (float)(flow_shift - 1);
    for (int i = 0; i < num_steps; i++) {
        float even = (float)(1 - (double)i / num_steps);
        s->sigma[i] = f * even / (1 + less * even);
        s->timestep[i] = s->sigma[i] * 1000;
    }
    s->sigma[num_steps] = 0;
    return schedule_falls(s, flow_shift, e);
}

const struct solver solver_euler_simple = {
    .name = "euler-simple",
    .summary = "first order, on an evenly spaced grid shifted once: for few-step models",
    .paper = "2403.03206",
    .schedule = euler_simple_schedule,
    .step = euler_step,
};
