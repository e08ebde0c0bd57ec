/* From which lead on a tile is worth its weight: the threshold of LiteAttention (arXiv 2511.11062;
 * attention-sparse.md 2) that keeps the error of some rows of o under a bound. One block of queries a
 * head is looked at, twice: once for the lead of each tile over what came before it, once for what o
 * would be without those below each threshold. */
#include "attention/axes/axes.h"

#include <math.h>

enum { CHOICES = 20 }; /* thresholds -20 to -1 */

struct trial { /* of one head: sums over rows */
    double error[CHOICES], norm;
};

struct tile_walk {
    const struct attn_plan *plan; /* as it stands */
    struct trial *trial; /* [N] */
};

/* Largest lead of each kept tile over what came before it, over the queries of a row. */
static void leads(float *lead, const struct axis_head *h, const struct tile_walk *w, int row,
                  const float *s)
{
    int cols = h->k.n;
    size_t at = (size_t)(w->plan->per_head ? h->plan_no : 0) * (size_t)h->q.n + (size_t)row;
    float most = -INFINITY;
    for (int i = 0; i < cols; i++) {
        int c = w->plan->walk == ATTN_WALK_DOWN ? cols - 1 - i : i;
        float top = -INFINITY;
        if (!attn_bit(w->plan->kept, at, attn_words(cols), c)) continue;
        for (int k = blocks_begin(&h->k, c); k < blocks_begin(&h->k, c + 1); k++)
            top = fmaxf(top, s[h->k.order ? h->k.order[k] : k]);
        float by = most > -INFINITY ? (top - most) * 1.44269504f : INFINITY;
        if (!(by <= lead[c])) lead[c] = by;
        most = fmaxf(most, top);
    }
    lead[(int)((int64_t)row * cols / h->q.n)] = INFINITY;
}

/* Adds a query's errors under every threshold. */
static void try_row(struct trial *to, const struct axis_head *h, const float *lead, const float *s)
{
    double sum[CHOICES + 1] = {0}, o[CHOICES + 1][256] = {{0}}, all = 0, exact[256] = {0};
    float top = -INFINITY;
    int dim = h->q.dim;
    for (int j = 0; j < h->k.len; j++)
        top = fmaxf(top, s[j]);
    for (int c = 0; c < h->k.n; c++) {
        int level = 0; /* thresholds under which the tile lives */
        if (!(lead[c] > -INFINITY)) continue; /* not kept */
        while (level < CHOICES && lead[c] > (float)(level - CHOICES))
            level++;
        for (int k = blocks_begin(&h->k, c); k < blocks_begin(&h->k, c + 1); k++) {
            int token = h->k.order ? h->k.order[k] : k;
            double weight = (double)expf(s[token] - top);
            const float *v = heads_at(&h->t->v, token, h->head);
            sum[level] += weight;
            for (int x = 0; x < dim; x++)
                o[level][x] += weight * (double)v[x];
        }
    }
    for (int level = 0; level <= CHOICES; level++) {
        all += sum[level];
        for (int x = 0; x < dim; x++)
            exact[x] += o[level][x];
    }
    for (int x = 0; x < dim; x++)
        to->norm += fabs(exact[x] / all);
    double left = 0, part[256] = {0};
    for (int i = CHOICES - 1; i >= 0; i--) { /* threshold i - CHOICES leaves levels above i */
        left += sum[i + 1];
        for (int x = 0; x < dim; x++) {
            part[x] += o[i + 1][x];
            to->error[i] += fabs((left > 0 ? part[x] / left : 0) - exact[x] / all);
        }
    }
}

static void try_head(const struct axis_head *h)
{
    const struct tile_walk *w = h->ctx;
    float *s = h->scratch, *lead = s + h->k.len;
    int row = (int)((2 * (int64_t)h->head + 1) * h->q.n / (2 * h->p->shape->n_heads));
    int from = blocks_begin(&h->q, row), to = blocks_begin(&h->q, row + 1);
    struct trial *trial = &w->trial[h->head];
    *trial = (struct trial){.norm = 0};
    for (int c = 0; c < h->k.n; c++)
        lead[c] = -INFINITY;
    for (int pass = 0; pass < 2; pass++)
        for (int at = from; at < to; at++) {
            h->dots(s, h->k.len, blocks_row(&h->q, at), h->q.stride, h->k.x, h->k.stride, 1,
                    h->k.len, h->q.dim, h->scale);
            if (pass == 0)
                leads(lead, h, w, row, s);
            else
                try_row(trial, h, lead, s);
        }
}

float dead_threshold(const struct attn_part *p, const struct attn_turn *t,
                     const struct attn_plan *plan, double bound)
{
    struct trial trial[256], all = {.norm = 0};
    struct attn_plan each = *plan;
    struct tile_walk w = {plan, trial};
    each.per_head = true;
    axis_heads(&(struct axis_job){.p = p, .t = t, .plan = &each, .ctx = &w, .fn = try_head});
    for (int h = 0; h < p->shape->n_heads; h++) {
        all.norm += trial[h].norm;
        for (int i = 0; i < CHOICES; i++)
            all.error[i] += trial[h].error[i];
    }
    for (int i = CHOICES - 1; i >= 0; i--)
        if (all.error[i] <= bound * all.norm) return (float)(i - CHOICES);
    return 1;
}

size_t dead_scratch(const struct attn_part *p)
{
    return axis_scratch(p, ((size_t)p->tokens + (size_t)attn_limits(p).blocks) * sizeof(float));
}
