/* When a plan, a residual or an output is made anew: steps that are known before the run.
 *
 * Why intervals that grow: attention-sparse.md 17.3. What is far from the end changes most from step
 * to step, and decides which clip it becomes. */
#include "attention/axes/axes.h"

#include <stdlib.h>
#include <string.h>

static int whole(const char *text) /* the number that text is, or -1 */
{
    int v;
    return parse_int(text, 0, 1000000, &v) == 0 ? v : -1;
}

int schedule_check(const char *every, struct err *e)
{
    int before = -1;
    if (!every || strcmp(every, "early") == 0) return 0;
    if (!strchr(every, '/') && whole(every) > 0) return 0;
    for (const char *at = every; strchr(every, '/') && at;) {
        char word[16];
        const char *slash = strchr(at, '/');
        size_t n = slash ? (size_t)(slash - at) : strlen(at);
        if (n >= sizeof word) break;
        memcpy(word, at, n);
        word[n] = 0;
        int step = whole(word);
        if (step <= before) break;
        before = step;
        if (!slash) return 0;
        at = slash + 1;
    }
    return err_set(
        e, ERR_USAGE,
        "every is '%.60s', wanted a number of steps, 'early', or steps that rise as 6/8/10", every);
}

static bool listed(const char *every, int step)
{
    for (const char *at = every; at; at = strchr(at, '/') ? strchr(at, '/') + 1 : NULL)
        if (strtol(at, NULL, 10) == step) return true;
    return false;
}

bool schedule_at(const char *every, int first, int last, int step)
{
    if (!every) return true;
    if (step < first || step >= last) return false;
    if (strchr(every, '/')) return listed(every, step);
    if (strcmp(every, "early") != 0) return (step - first) % (int)strtol(every, NULL, 10) == 0;
    for (int at = first, gap = 4; at <= step; at += gap++ / 2) /* 2 2 3 3 4 4 ... */
        if (at == step) return true;
    return false;
}

static bool schedule_anew(const struct attn_part *p, const struct attn_turn *t)
{
    return schedule_at(p->knobs->every, p->first, p->last, t->at.step);
}

const struct axis_reuse anew_by_schedule = {
    .name = "schedule",
    .summary = "a plan stands until the next step of a list, or for a number of steps",
    .anew = schedule_anew,
    .scheduled = true,
};

static enum attn_ask copy_ask(const struct attn_part *p, const struct attn_ctx *c)
{
    return schedule_at(p->knobs->every, p->first, p->last, c->step) ? ATTN_ASK_COMPUTE
                                                                    : ATTN_ASK_COPY_STEP;
}

const struct axis_ask ask_copy_step = {
    .name = "copy-step",
    .summary = "a layer's output of the last refresh, between refreshes",
    .ask = copy_ask,
    .over_steps = true,
};

const struct axis_compensate rest_residual = {
    .name = "residual",
    .summary = "what the plan left out when it was made: exact minus kept",
    .residual = true,
};
