/* Residuals are renewed as an error budget says: budget.h has the rule. A unit is a head of a layer where
 * the room can cut calls by heads (attn_limits.by_head), else a layer's heads together. Both branches
 * do the same. All is decided once a step, before its first layer. */
#include "attention/axes/axes.h"
#include "model/base/budget.h"

static struct budget_run run_of(const struct attn_part *p)
{
    int heads = p->shape->n_heads;
    return (struct budget_run){.of = attn_budget(p),
                               .n_units = p->shape->n_layers * heads,
                               .group = attn_limits(p).by_head ? 1 : heads,
                               .end = p->last};
}

static const uint8_t *heads(const struct attn_part *p, const struct attn_turn *t)
{
    struct budget_state *s = attn_shared(p);
    struct budget_run r = run_of(p);
    if (budget_last_step(s) != t->at.step) budget_step(s, &r, t->at.step);
    return budget_renews(s, &r) + (size_t)t->at.layer * (size_t)p->shape->n_heads;
}

static bool anew(const struct attn_part *p, const struct attn_turn *t)
{
    const uint8_t *renews = heads(p, t);
    for (int h = 0; h < p->shape->n_heads; h++)
        if (renews[h]) return true;
    return false;
}

static void moved(const struct attn_part *p, const struct attn_turn *t, int head, double by)
{
    struct budget_run r = run_of(p);
    budget_moved(attn_shared(p), &r, t->at.layer * p->shape->n_heads + head, by, t->at.n_branches);
}

static void spent(const struct attn_part *p, struct budget_spent *to)
{
    struct budget_run r = run_of(p);
    budget_spent(to, attn_shared(p), &r);
}

static void foresee(const struct attn_part *p, float *share, double scale)
{
    struct budget_run r = run_of(p);
    budget_foresee(share, attn_scratch(p), &r, p->first, scale);
}

static void sizes(const struct attn_part *p, struct attn_sizes *s)
{
    s->shared = s->scratch = budget_state_bytes(p->shape->n_layers * p->shape->n_heads);
}

const struct axis_reuse anew_by_budget = {
    .name = "budget",
    .summary = "what is carried is renewed where it would cost the clip more than elsewhere",
    .anew = anew,
    .heads = heads,
    .moved = moved,
    .spent = spent,
    .foresee = foresee,
    .sizes = sizes,
};
