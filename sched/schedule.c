#include "sched/schedule.h"

#include <math.h>

int schedule_limits(int num_steps, double flow_shift, struct err *e)
{
    if (num_steps < 1 || num_steps > MAX_STEPS)
        return err_set(e, ERR_USAGE, "--steps is %d, wanted 1 to %d", num_steps, MAX_STEPS);
    if (!(flow_shift > 0 && flow_shift <= 1000))
        return err_set(e, ERR_USAGE, "--flow-shift is %g, wanted more than 0, at most 1000",
                       flow_shift);
    return 0;
}

int schedule_falls(const struct schedule *s, double flow_shift, struct err *e)
{
    for (int i = 0; i < s->num_steps; i++) {
        if (s->sigma[i] > s->sigma[i + 1]) continue;
        return err_set(e, ERR_USAGE,
                       "--flow-shift %g with --steps %d leaves no noise between steps %d and %d; "
                       "try fewer steps or a shift nearer to 1",
                       flow_shift, s->num_steps, i, i + 1);
    }
    return 0;
}

/* Point i of numpy.linspace(1, 1/1000, n + 1), with its rounding. */
static double ramp(int i, int n)
{
    double end = 1.0 / 1000;
    return i == n ? end : i * ((end - 1) / n) + 1;
}

int schedule_flow(struct schedule *s, int num_steps, double flow_shift, bool new_grid,
                  struct err *e)
{
    if (schedule_limits(num_steps, flow_shift, e) < 0) return -1;
    s->num_steps = num_steps;
    for (int i = 0; i < num_steps; i++) {
        double unshifted = new_grid ? ramp(i, num_steps) : 1 - ramp(num_steps - i, num_steps);
        double sigma = shift_sigma(flow_shift, unshifted);
        /* sigma = 1 has no lambda */
        if (new_grid && i == 0 && fabs(sigma - 1) < 1e-6) sigma -= 1e-6;
        s->sigma[i] = (float)sigma;
        s->timestep[i] = (float)trunc(sigma * 1000);
    }
    s->sigma[num_steps] = 0;
    return schedule_falls(s, flow_shift, e);
}

double schedule_lambda(const struct schedule *s, int step)
{
    double sigma = (double)s->sigma[step];
    return log(1 - sigma) - log(sigma);
}
