/* What a problem over codes must give: the judge's answer for the chunks of the kernel that is asked,
 * in the struct of attention_by_hand.h. test_low.c holds the judge itself against a transcription. */
#ifndef DITGEN_TESTS_KERNELS_ATTENTION_JUDGED_H
#define DITGEN_TESTS_KERNELS_ATTENTION_JUDGED_H

#include "tests/kernels/attention_by_hand.h"

static void judged_bounds(struct answer *a, const struct problem *x)
{
    const struct attn_plan *p = &x->plan;
    for (int i = 0; i < p->n_heads; i++)
        for (int j = 0; j < x->size.len_k; j++) {
            int head = attn_head(p, i);
            const float *v = heads_at(&x->v, j, head);
            for (int t = 0; t < x->size.len_q; t += 7)
                (void)hand_score(a, x, &x->k, t, j, head);
            for (int c = 0; c < x->size.head_dim; c++)
                if (fabs((double)v[c]) > a->most_v) a->most_v = fabs((double)v[c]);
        }
}

static struct answer by_judge(struct problem *x, const struct attn_kernel *kernel)
{
    const struct attn_size *s = &x->size;
    struct attn_plan plan = x->plan;
    size_t rows = (size_t)s->len_q * (size_t)s->n_heads, n = rows * (size_t)s->head_dim;
    size_t tiles = (size_t)s->n_heads * (size_t)plan.q.n * (size_t)plan.k.n;
    size_t words = (size_t)s->n_heads * (size_t)plan.q.n * (size_t)attn_words(plan.k.n);
    struct answer a = {.o = nans(n),
                       .residual = nans(n),
                       .lse = nans(rows),
                       .mass = nans(tiles),
                       .margin = nans(tiles)};
    float *o = must(malloc(n * sizeof *o)), *residual = must(calloc(n, sizeof *residual)),
          *lse = must(malloc(rows * sizeof *lse)), *mass = must(malloc(tiles * sizeof *mass)),
          *margin = must(malloc(tiles * sizeof *margin));
    uint32_t *alive = must(malloc(words * sizeof *alive));
    struct heads none = heads_f32(residual, s->len_q, s->n_heads, s->head_dim);
    struct attn_judge out = {
        .o = o, .margin = margin, .only_row = -1, .panel = kernel->panel, .chunk = kernel->chunk};
    struct attn_job j = {.q = x->q,
                         .k = x->k,
                         .v = x->v,
                         .o = x->o,
                         .plan = &plan,
                         .residual = none,
                         .lse = lse,
                         .mass = mass,
                         .alive_log2 = -3};
    struct err e = {0};
    for (size_t i = 0; i < n; i++)
        o[i] = NAN;
    if (plan.heads) plan.heads = x->heads;
    if (plan.mean) j.k_mean = x->k_mean, j.v_mean = x->v_mean;
    if (plan.rule == ATTN_ADD_RESIDUAL) plan.rule = ATTN_COMPUTE; /* added by who compares */
    if (x->alive) j.alive = alive; /* chunks end with tiles */
    j.o.at = must(calloc(heads_count(&x->o), sizeof(float)));
    CHECK_OK(attn_judge(&j, &out, &e));
    for (size_t i = 0; i < n; i++)
        a.o[i] = (double)o[i], a.residual[i] = (double)residual[i];
    for (size_t i = 0; i < rows; i++)
        a.lse[i] = (double)lse[i];
    for (size_t i = 0; i < tiles; i++)
        a.mass[i] = (double)mass[i], a.margin[i] = (double)margin[i];
    judged_bounds(&a, x);
    free(j.o.at);
    free(o);
    free(residual);
    free(lse);
    free(mass);
    free(margin);
    free(alive);
    return a;
}

#endif
