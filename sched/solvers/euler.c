/* Flow-match Euler with the grid of the reference's FlowMatchEulerDiscreteScheduler: wan.md 5.4. */
#include "sched/schedule.h"
#include "sched/solvers/euler.h"

/* The shift is applied twice: the reference takes the ends of its ramp from a table that is shifted
 * already (in fp32), and shifts the ramp again. Timesteps are not whole numbers here. */
static int euler_schedule(struct schedule *s, int num_steps, double flow_shift,
                          enum sched_compat compat, struct err *e)
{
    (void)compat;
    if (schedule_limits(num_steps, flow_shift, e) < 0) return -1;
    float f = (float)flow_shift, less = (float)(flow_shift - 1);
    float low = 1.0f / 1000;
    double first = 1000 * (double)(f / (1 + less));
    double last = 1000 * (double)(f * low / (1 + less * low));
    double pitch = num_steps > 1 ? (last - first) / (num_steps - 1) : 0;
    s->num_steps = num_steps;
    for (int i = 0; i < num_steps; i++) {
        double t = i > 0 && i == num_steps - 1 ? last : i * pitch + first;
        s->sigma[i] = (float)shift_sigma(flow_shift, t / 1000);
        s->timestep[i] = s->sigma[i] * 1000;
    }
    s->sigma[num_steps] = 0;
    return schedule_falls(s, flow_shift, e);
}

const struct solver solver_euler = {
    .name = "euler",
    .summary = "first order, on the reference's twice shifted grid",
    .paper = "2403.03206",
    .schedule = euler_schedule,
    .step = euler_step,
};
