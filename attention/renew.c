/* Residuals of which some heads are renewed and others carried on: calls cut in two, and how far a
 * residual had moved when it was renewed, by a few rows.
 *
 * moved² of a head: Σ |R - R'|² over sampled tokens, beside Σ |o|² of an average head of the layer over
 * the same tokens: what it adds to the layer's own squared relative error. Tokens are drawn evenly
 * (attn_random), with replacement, so both sums are unbiased. */
#include "attention/room.h"

#include <string.h>

static const struct axis_reuse *member(const struct attn *a) { return a->stack.recipe.reuse; }

static int rows_of(const struct attn *a)
{
    int wanted = a->budget->rows > 0 ? a->budget->rows : BUDGET_ROWS;
    return wanted < a->size.len_q ? wanted : a->size.len_q;
}

bool renew_by_head(const struct attn *a)
{
    const struct attn_recipe *r = &a->stack.recipe;
    bool alone = a->plan_fixed && a->plans == 1 && !r->compensate->before && !r->compensate->after;
    for (int i = 0; alone && i < a->stack.n; i++)
        alone = !a->stack.part[i].method->plan && !a->stack.part[i].method->observe;
    return alone;
}

int renew_check(const struct attn *a, struct err *e)
{
    const struct budget *b = a->budget;
    int units = a->shape.n_layers * a->shape.n_heads;
    if (!member(a) || !member(a)->spent) return 0;
    if (!b)
        return err_set(
            e, ERR_USAGE,
            "attention %s:every=budget is steered by an error budget, and there is none; "
            "set one, as --error-budget 40dB",
            attn_stack_by(&a->stack, ATTN_AXIS_REUSE)->method->name);
    if (a->device)
        return err_set(e, ERR_DEVICE,
                       "--error-budget looks at what is carried, which is on %s; use --device cpu",
                       device_name(a->device));
    if (b->table && (b->table->n_units != units || b->table->n_steps != a->shape.n_steps))
        return err_set(
            e, ERR_USAGE,
            "an error budget calibrated for %d steps and %d heads of layers, this run has "
            "%d and %d",
            b->table->n_steps, b->table->n_units, a->shape.n_steps, units);
    return 0;
}

void renew_carve(struct attn *a, struct arena *arena)
{
    size_t heads = (size_t)a->shape.n_heads;
    if (!a->budget || !member(a) || !member(a)->moved) return;
    a->renew_old = arena_take(arena, (size_t)rows_of(a) * heads * (size_t)a->shape.head_dim *
                                         sizeof(uint16_t));
    a->renew_heads = arena_take(arena, 2 * heads);
}

void renew_split(struct attn *a, const struct attn_turn *t, struct attn_calls *c)
{
    const struct attn_part *p = attn_stack_by(&a->stack, ATTN_AXIS_REUSE);
    int n = a->shape.n_heads, made = 0, carried = 0;
    if (!member(a)->heads) return;
    const uint8_t *renews =
        member(a)->heads(p, t); /* also where the first plan is made: it counts steps */
    if (t->first || !t->anew || !a->by_head) return;
    uint8_t *make = a->renew_heads, *carry = make + n;
    for (int h = 0; h < n; h++)
        *(renews[h] ? &make[made++] : &carry[carried++]) = (uint8_t)h;
    if (!carried) return;
    c->at[1] = c->at[0];
    c->at[0].plan.heads = make;
    c->at[0].plan.n_heads = made;
    c->at[1].plan.heads = carry;
    c->at[1].plan.n_heads = carried;
    c->at[1].plan.rule = ATTN_ADD_RESIDUAL;
    c->n = 2;
}

static int token_of(const struct attn *a, const struct attn_turn *t, int row, int rows)
{
    if (rows == a->size.len_q) return row; /* all of them */
    return (int)(attn_random(&t->at, 2, (uint64_t)row) % (uint64_t)a->size.len_q);
}

static const uint16_t *residual_row(const struct heads *h, int token)
{
    return heads_at(h, token, 0);
}

void renew_before(struct attn *a, const struct attn_turn *t, const struct attn_calls *c)
{
    size_t width = (size_t)a->shape.n_heads * (size_t)a->shape.head_dim;
    if (!a->renew_old || t->first || c->at[0].plan.rule != ATTN_MAKE_RESIDUAL) return;
    int rows = rows_of(a);
    for (int i = 0; i < rows; i++)
        memcpy(a->renew_old + (size_t)i * width,
               residual_row(&c->at[0].residual, token_of(a, t, i, rows)), width * sizeof(uint16_t));
}

/* Of one head: Σ |R - R'|² and Σ |o|² over the sampled tokens. */
static double moved_of(const struct attn *a, const struct attn_turn *t, const struct heads *now,
                       int head, double *size)
{
    int dim = a->shape.head_dim, rows = rows_of(a);
    double moved = 0;
    *size = 0;
    for (int i = 0; i < rows; i++) {
        int token = token_of(a, t, i, rows);
        const uint16_t *is = (const uint16_t *)heads_at(now, token, head);
        const uint16_t *was =
            a->renew_old + ((size_t)i * (size_t)a->shape.n_heads + (size_t)head) * (size_t)dim;
        const float *o = heads_at(&t->o, token, head);
        for (int d = 0; d < dim; d++) {
            double by = (double)bf16_to_f32(is[d]) - (double)bf16_to_f32(was[d]);
            moved += by * by;
            *size += (double)o[d] * (double)o[d];
        }
    }
    return moved;
}

void renew_after(struct attn *a, const struct attn_turn *t, const struct attn_calls *c)
{
    const struct attn_part *p = attn_stack_by(&a->stack, ATTN_AXIS_REUSE);
    const struct attn_plan *made = &c->at[0].plan;
    double all = 0, of[256];
    if (!a->renew_old || t->first || made->rule != ATTN_MAKE_RESIDUAL) return;
    for (int h = 0; h < a->shape.n_heads; h++) {
        double size;
        of[h] = moved_of(a, t, &c->at[0].residual, h, &size);
        all += size / a->shape.n_heads;
    }
    for (int i = 0; all > 0 && i < made->n_heads; i++)
        member(a)->moved(p, t, attn_head(made, i), of[attn_head(made, i)] / all);
}
