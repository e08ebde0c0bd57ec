/* Seconds and shares of steps; see step_meter.h. */
#include "app/lib/step_meter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int step_meter_open(struct step_meter *m, int most, int calls, const struct model_work *work,
                    const struct log *log, struct err *e)
{
    *m = (struct step_meter){.calls = calls, .work = *work, .log = log};
    m->exact = malloc((size_t)most * sizeof *m->exact);
    return m->exact ? 0 : err_set(e, ERR_RESOURCE, "no memory for the times of %d steps", most);
}

void step_meter_close(struct step_meter *m)
{
    free(m->exact);
    memset(m, 0, sizeof *m);
}

void step_meter_begin(struct step_meter *m, double clock) { m->begin = clock; }

/* Operations of a step beside those of an exact one; a product over codes of 8 bits counts half. */
static double share_of(const struct model_work *w, long calls, const struct attn_stats *s)
{
    double copied = s->calls ? (double)s->copies / (double)s->calls : 0;
    double self = s->density * (1 - s->low / 2) * w->self;
    return (double)s->calls / (double)calls *
           (w->linear + w->attn - w->self + self - copied * w->copied) / (w->linear + w->attn);
}

static void say(const struct step_meter *m, int step, int num_steps, double seconds,
                const struct attn_stats *s)
{
    char error[96] = "", recall[32] = "", copies[48] = "", low[48] = "";
    if (s->recall >= 0) snprintf(recall, sizeof recall, ", recall %.2f", s->recall);
    if (s->sampled)
        snprintf(error, sizeof error, ", relative L1 %.2g of %ld sampled rows%s", s->error,
                 s->sampled, recall);
    if (s->copies)
        snprintf(copies, sizeof copies, ", %ld of %ld calls copies", s->copies, s->calls);
    if (s->low > 0) snprintf(low, sizeof low, ", %.0f %% of products over codes", 100 * s->low);
    log_line(m->log, 2, "step %d of %d: %.2f s; attention computed %.3f of its pairs%s%s%s",
             step + 1, num_steps, seconds, s->density, low, copies, error);
}

void step_meter_step(struct step_meter *m, int step, int num_steps, const struct attn_stats *now,
                     int reused, double clock)
{
    double seconds = clock - m->begin;
    struct attn_stats s;
    attn_stats_between(&s, &m->before, now);
    if (s.calls == m->calls && s.sums.exact == s.calls) m->exact[m->n_exact++] = seconds;
    m->shares += share_of(&m->work, m->calls, &s);
    if (reused > m->reused)
        log_line(m->log, 2, "step %d of %d: %.2f s; left out by the step cache", step + 1,
                 num_steps, seconds);
    else
        say(m, step, num_steps, seconds, &s);
    m->reused = reused;
    m->n++;
    m->seconds += seconds;
    m->before = now->sums;
    m->begin = clock;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double step_meter_bought(struct step_meter *m)
{
    if (!m->n) return 0;
    if (!m->n_exact) return m->shares;
    qsort(m->exact, (size_t)m->n_exact, sizeof *m->exact, by_value);
    return m->seconds / ((m->exact[(m->n_exact - 1) / 2] + m->exact[m->n_exact / 2]) / 2);
}
