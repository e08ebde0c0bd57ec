/* UniPC, order 2, B(h) = expm1 ("bh2"), on the prediction of x0: the Wan family's own.
 * wan.md 5.2, 5.3.
 *
 * Each call corrects the sample the last call predicted, now that the model has seen it, then
 * predicts the next. The x0 that goes into the memory is the one of the uncorrected sample, as in
 * the reference. Order: 1 at the first and the last step, 2 between, so it follows from the step
 * alone. */
#include "sched/schedule.h"

#include <math.h>

static int unipc_schedule(struct schedule *s, int num_steps, double flow_shift,
                          enum sched_compat compat, struct err *e)
{
    return schedule_flow(s, num_steps, flow_shift, compat != COMPAT_DIFFUSERS_036, e);
}

static int order_at(const struct schedule *s, int step)
{
    return step == 0 || step == s->num_steps - 1 ? 1 : 2;
}

struct line { /* x = last * sample + m0 * m0 + m1 * m1 + now * m_now */
    float last, m0, m1, now;
};

/* The corrector of the step that led here: sample and m0 of step - 1, m1 of step - 2. */
static struct line corrector(const struct schedule *s, int step)
{
    double before = schedule_lambda(s, step - 1), h = schedule_lambda(s, step) - before;
    double em1 = expm1(-h), a = (1 - (double)s->sigma[step]) * em1;
    double rho0 = 0, rho1 = 0.5, r = -1;
    if (order_at(s, step - 1) == 2) {
        r = (schedule_lambda(s, step - 2) - before) / h;
        double q1 = em1 / -h - 1, q2 = q1 / -h - 0.5;
        double b1 = q1 / em1, b2 = 2 * q2 / em1;
        rho0 = (b1 - b2) / (1 - r);
        rho1 = b1 - rho0;
    }
    return (struct line){
        .last = (float)((double)s->sigma[step] / (double)s->sigma[step - 1]),
        .m0 = (float)(-a * (1 - rho0 / r - rho1)),
        .m1 = (float)(-a * rho0 / r),
        .now = (float)(-a * rho1),
    };
}

/* The predictor from here: sample and m0 of this step, m1 of step - 1. Not for sigma' = 0. */
static struct line predictor(const struct schedule *s, int step)
{
    double here = schedule_lambda(s, step), h = schedule_lambda(s, step + 1) - here;
    double a = (1 - (double)s->sigma[step + 1]) * expm1(-h), slope = 0;
    if (order_at(s, step) == 2) slope = 0.5 / ((schedule_lambda(s, step - 1) - here) / h);
    return (struct line){
        .last = (float)((double)s->sigma[step + 1] / (double)s->sigma[step]),
        .m0 = (float)(-a * (1 - slope)),
        .m1 = (float)(-a * slope),
    };
}

static int unipc_step(struct lincomb *sums, const struct schedule *s, int step)
{
    const int x = BUFFER_LATENTS;
    int last = BUFFER_HISTORY; /* the sample before the last prediction, corrected */
    int m_now = BUFFER_HISTORY + 1 + step % 2; /* x0 of this step, over that of step - 2 */
    int m_before = BUFFER_HISTORY + 1 + (step + 1) % 2;
    float sigma = s->sigma[step];
    int n = 0;

    if (step == 0) {
        sums[n++] = (struct lincomb){last, 1, {x}, {1}};
        sums[n++] = (struct lincomb){x, 2, {x, BUFFER_VELOCITY}, {1, -sigma}};
    } else {
        struct line c = corrector(s, step);
        bool second = order_at(s, step - 1) == 2;
        sums[n++] = (struct lincomb){x, 2, {x, BUFFER_VELOCITY}, {1, -sigma}}; /* x0 */
        sums[n++] = (struct lincomb){last,
                                     second ? 4 : 3,
                                     {last, m_before, x, m_now}, /* m_now: that of step - 2 yet */
                                     {c.last, c.m0, c.now, c.m1}};
    }
    sums[n++] = (struct lincomb){m_now, 1, {x}, {1}};
    if (s->sigma[step + 1] <= 0) return n; /* x0 is the answer */
    struct line p = predictor(s, step);
    sums[n++] = (struct lincomb){
        x, order_at(s, step) == 2 ? 3 : 2, {last, m_now, m_before}, {p.last, p.m0, p.m1}};
    return n;
}

const struct solver solver_unipc = {
    .name = "unipc",
    .summary = "UniPC of order 2, predictor and corrector: the best clip for few steps",
    .paper = "2302.04867",
    .schedule = unipc_schedule,
    .history = 3,
    .step = unipc_step,
};
