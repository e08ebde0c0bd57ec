/* The judge: plain C, every encoding, sums in double, one query at a time. Slow on purpose. */
#include "attention/kernels/kernels.h"
#include "model/base/threads.h"

#include <math.h>

static bool ref_fits(const struct attn_size *s)
{
    (void)s;
    return true;
}

static size_t row_bytes(const struct attn_size *s) /* scores of one query, whole cache lines */
{
    return ((size_t)s->len_k * sizeof(double) + 63) / 64 * 64;
}

static size_t ref_scratch(const struct attn_size *s) { return row_bytes(s) * (size_t)s->threads; }

/* Scores of one query over its kept keys; returns their maximum, -inf when there is none. */
static double ref_scores(double *score, const struct attn_work *w, int head, int i)
{
    const struct block_mask *m = w->mask;
    int d = w->size->head_dim;
    size_t row = (size_t)w->size->n_heads * (size_t)d, at = (size_t)head * (size_t)d;
    const float *q = w->q + (size_t)i * row + at;
    double most = -HUGE_VAL, scale = 1 / sqrt((double)d);
    for (struct block_run r = block_run_begin(m, m->n_plans > 1 ? head : 0, i / m->block_q);
         block_run_next(&r);) {
        for (int j = r.k0; j < r.k1; j++) {
            const float *k = w->k + (size_t)j * row + at;
            double s = 0;
            for (int c = 0; c < d; c++)
                s += (double)q[c] * (double)k[c];
            score[j] = s * scale + (m->key_bias ? (double)m->key_bias[j] : 0);
            if (score[j] > most) most = score[j];
        }
    }
    return most;
}

static void ref_query(void *ctx, int task, int worker)
{
    const struct attn_work *w = ctx;
    const struct block_mask *m = w->mask;
    int head = task / m->len_q, i = task % m->len_q, d = w->size->head_dim;
    size_t row = (size_t)w->size->n_heads * (size_t)d, at = (size_t)head * (size_t)d;
    double *score = (void *)((char *)w->scratch + row_bytes(w->size) * (size_t)worker);
    double sum = 0, acc[ATTN_MAX_HEAD_DIM] = {0};
    double most = ref_scores(score, w, head, i);
    if (most == -HUGE_VAL) most = 0; /* every key has bias -inf: all weights are 0, not NaN */
    for (struct block_run r = block_run_begin(m, m->n_plans > 1 ? head : 0, i / m->block_q);
         block_run_next(&r);) {
        for (int j = r.k0; j < r.k1; j++) {
            const float *v = w->v + (size_t)j * row + at;
            double p = exp(score[j] - most);
            sum += p;
            for (int c = 0; c < d; c++)
                acc[c] += p * (double)v[c];
        }
    }
    bool round = w->size->precision != PRECISION_FP32;
    float *o = w->o + (size_t)i * row + at;
    for (int c = 0; c < d; c++) {
        float x = (float)(sum == 0 ? 0 : acc[c] / sum);
        if (round) x = bf16_round(x);
        if (w->accumulate) x = round ? bf16_round(o[c] + x) : o[c] + x;
        o[c] = x;
    }
}

static void ref_run(const struct attn_work *w)
{
    threads_run(w->mask->len_q * w->size->n_heads, ref_query, (void *)w);
}

const struct attn_kernel attn_ref = {
    .name = "ref",
    .summary = "plain C, sums in double: any machine, any size; slow",
    .needs = CPU_REF,
    .fits = ref_fits,
    .scratch = ref_scratch,
    .run = ref_run,
};
