/* Heads that are left out of a call: its one plan cut into plans for the others, and what stands for
 * the rest. */
#include "attention/axes/axes.h"

#include <string.h>

/* Heads from .. from + n - 1 of a launch whose plans are a head's own. */
static struct attn_launch slice(const struct attn_launch *l, const uint8_t *all, int from, int n)
{
    struct attn_launch s = *l;
    struct attn_plan *p = &s.plan;
    size_t plane = (size_t)from * (size_t)p->q.n * (size_t)attn_words(p->k.n);
    p->heads = all + from;
    p->n_heads = n;
    if (p->q_order.token) p->q_order.token += from * p->q_order.stride;
    if (p->k_order.token) p->k_order.token += from * p->k_order.stride;
    if (!p->q.size) p->q.at += from * p->q.stride;
    if (!p->k.size) p->k.at += from * p->k.stride;
    if (p->kept) p->kept += plane;
    if (p->forced) p->forced += plane;
    if (p->dead) p->dead += plane;
    if (p->mean) p->mean += plane;
    return s;
}

size_t skip_lists(const struct attn_part *p) { return 3 * (size_t)p->shape->n_heads; }

int skip_heads(struct attn_calls *c, const struct attn_part *p, const uint8_t *out,
               const float *mean, uint8_t *lists, struct err *e)
{
    const struct attn_launch whole = c->at[0];
    int n = p->shape->n_heads, gone = 0, left = 0;
    uint8_t *all = lists, *out_list = all + n, *kept_list = out_list + n;
    for (int h = 0; h < n; h++) {
        all[h] = (uint8_t)h;
        if (out[h])
            out_list[gone++] = (uint8_t)h;
        else
            kept_list[left++] = (uint8_t)h;
    }
    if (!gone) return 0;
    c->n = 0;
    if (left && !whole.plan.per_head) {
        c->at[c->n] = whole;
        c->at[c->n].plan.heads = kept_list;
        c->at[c->n++].plan.n_heads = left;
    }
    for (int h = 0; left && whole.plan.per_head && h < n; h++) {
        int from = h;
        while (h < n && !out[h])
            h++;
        if (h > from) c->at[c->n++] = slice(&whole, all, from, h - from);
    }
    struct attn_launch *l = &c->at[c->n++];
    *l = (struct attn_launch){0};
    if (attn_plan_dense(&l->plan, p->tokens, p->tokens, gone, e) < 0) return -1;
    l->plan.heads = out_list;
    l->plan.rule = mean ? ATTN_COPY : ATTN_ZERO;
    if (!mean) return 0;
    l->residual = heads_f32(mean, p->tokens, n, p->shape->head_dim);
    l->residual.token = 0; /* one row for all tokens */
    return 0;
}

void skip_mean(float *mean, const struct attn_part *p, const struct attn_turn *t)
{
    for (int h = 0; h < p->shape->n_heads; h++) {
        double sum[256] = {0};
        for (int i = 0; i < p->tokens; i++) {
            const float *o = heads_at(&t->o, i, h);
            for (int c = 0; c < t->o.dim; c++)
                sum[c] += (double)o[c];
        }
        for (int c = 0; c < t->o.dim; c++)
            mean[h * t->o.dim + c] = (float)(sum[c] / p->tokens);
    }
}
