/* The judge of the GPU kernels: plain C over the same struct, sums in double, one query at a time.
 *
 * ref.c judges what runs on the processor; this one knows what only plans for GPUs have: bf16
 * strided tensors, mean tiles, the logarithm of the sum, tiles that stay alive, mass by tile. Slow
 * on purpose. */
#include "attention/kernels/cuda/attn_cuda.h"
#include "model/base/dtype.h"
#include "model/base/threads.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double dot(const struct attn_tensor *a, int i, const struct attn_tensor *b, int j, int head,
                  int dim)
{
    const uint16_t *x = (const uint16_t *)a->at + i * a->token + head * a->head;
    const uint16_t *y = (const uint16_t *)b->at + j * b->token + head * b->head;
    double s = 0;
    for (int c = 0; c < dim; c++)
        s += (double)bf16_to_f32(x[c]) * (double)bf16_to_f32(y[c]);
    return s;
}

struct query { /* one query's softmax: scores by visit, tiles or mean keys */
    const struct attn_cuda *w;
    const struct attn_judge *out;
    int head, i;
    double *score; /* [len_k + cols] */
    double most;
};

static double scale_of(const struct attn_cuda *w) { return 1 / sqrt((double)w->head_dim); }

/* Visits one tile: scores of its keys, the largest so far, whether the tile was worth it. */
static void visit_tile(struct query *q, int tile, int block_k, size_t head_row, int cols)
{
    const struct attn_cuda *w = q->w;
    int k0 = tile * block_k, k1 = k0 + block_k < w->len_k ? k0 + block_k : w->len_k;
    double most = -HUGE_VAL;
    for (int j = k0; j < k1; j++) {
        q->score[j] = dot(&w->q, q->i, &w->k, j, q->head, w->head_dim) * scale_of(w) +
                      (w->key_bias ? (double)w->key_bias[j] : 0);
        if (q->score[j] > most) most = q->score[j];
    }
    double rise = q->most == -HUGE_VAL ? HUGE_VAL : (most - q->most) * 1.4426950408889634;
    if (w->lists && w->alive && rise > (double)w->alive_log2)
        w->alive[head_row * (size_t)w->lists->words + (size_t)(tile / 32)] |= (uint32_t)1
                                                                              << (tile % 32);
    if (q->out->margin) {
        float *m = &q->out->margin[head_row * (size_t)cols + (size_t)tile];
        if ((float)rise > *m) *m = (float)rise;
    }
    if (most > q->most) q->most = most;
}

static bool mean_tile(const struct attn_lists *l, size_t plan_row, int tile)
{
    return l->mean[plan_row * (size_t)l->words + (size_t)(tile / 32)] >> (tile % 32) & 1;
}

static void visit_means(struct query *q, int group, size_t plan_row)
{
    const struct attn_cuda *w = q->w;
    const struct attn_lists *l = w->lists;
    for (int t = group * l->block_k; t < (group + 1) * l->block_k && t < l->cols; t++) {
        if (!mean_tile(l, plan_row, t)) continue;
        int keys = w->len_k - t * l->block_k < l->block_k ? w->len_k - t * l->block_k : l->block_k;
        double s =
            dot(&w->q, q->i, &w->k_mean, t, q->head, w->head_dim) * scale_of(w) + log((double)keys);
        q->score[w->len_k + t] = s;
        if (s > q->most) q->most = s;
    }
}

static double add(double *acc, const struct query *q, const struct attn_tensor *v, int j, double s)
{
    const struct attn_cuda *w = q->w;
    double p = q->most == -HUGE_VAL ? 0 : exp(s - q->most);
    const uint16_t *x = (const uint16_t *)v->at + j * v->token + q->head * v->head;
    if (p > 0) /* 0 * NaN of a hidden key is not a weight */
        for (int c = 0; c < w->head_dim; c++)
            acc[c] += p * (double)bf16_to_f32(x[c]);
    return p;
}

static void judge_query(struct query *q, double *acc, int row, int block_k)
{
    const struct attn_cuda *w = q->w;
    const struct attn_lists *l = w->lists;
    int rows = (w->len_q - 1) / (l ? l->block_q : ATTN_JUDGE_DENSE) + 1;
    int cols = (w->len_k - 1) / block_k + 1;
    size_t head_row = (size_t)q->head * (size_t)rows + (size_t)row;
    size_t plan_row = l && l->n_plans > 1 ? head_row : (size_t)row;
    size_t from = l ? l->row_ptr[plan_row] : 0, to = l ? l->row_ptr[plan_row + 1] : (size_t)cols;
    double sum = 0;
    q->most = -HUGE_VAL;
    for (int c = 0; c < w->head_dim; c++)
        acc[c] = 0;
    for (size_t n = from; n < to; n++) {
        uint32_t step = l ? l->steps[n] : (uint32_t)n;
        if (step & ATTN_STEP_MEAN)
            visit_means(q, (int)ATTN_STEP_TILE(step), plan_row);
        else
            visit_tile(q, (int)ATTN_STEP_TILE(step), block_k, head_row, cols);
    }
    for (size_t n = from; n < to; n++) {
        uint32_t step = l ? l->steps[n] : (uint32_t)n;
        int k0 = (int)ATTN_STEP_TILE(step) * block_k, k1 = k0 + block_k;
        if (step & ATTN_STEP_MEAN) {
            for (int t = k0; t < k1 && t < cols; t++)
                if (mean_tile(l, plan_row, t))
                    sum += add(acc, q, &w->v_mean, t, q->score[w->len_k + t]);
            continue;
        }
        for (int j = k0; j < k1 && j < w->len_k; j++)
            sum += add(acc, q, &w->v, j, q->score[j]);
    }
    size_t at = (size_t)q->i * (size_t)w->n_heads + (size_t)q->head;
    if (q->out->o)
        for (int c = 0; c < w->head_dim; c++)
            q->out->o[at * (size_t)w->head_dim + (size_t)c] = (float)(sum > 0 ? acc[c] / sum : 0);
    double lse = sum > 0 ? q->most + log(sum) : -HUGE_VAL;
    if (w->lse) w->lse[(size_t)q->head * (size_t)w->len_q + (size_t)q->i] = (float)lse;
    if (q->out->mass && sum > 0) { /* over all tiles, as the kernel: under the plan's own lse */
        int bq = l ? l->block_q : ATTN_JUDGE_DENSE,
            n = w->len_q - row * bq < bq ? w->len_q - row * bq : bq;
        for (int j = 0; j < w->len_k; j++) {
            double s = dot(&w->q, q->i, &w->k, j, q->head, w->head_dim) * scale_of(w);
            q->out->mass[head_row * (size_t)cols + (size_t)(j / block_k)] +=
                (float)(exp(s - lse) / n);
        }
    }
}

struct job { /* a task is a row of tiles of one head: its outputs are its own */
    const struct attn_cuda *w;
    const struct attn_judge *out;
    int block_q, block_k, rows;
    size_t each; /* doubles a worker */
    double *scratch;
};

static void judge_row(void *ctx, int task, int worker)
{
    const struct job *j = ctx;
    int head = task / j->rows, row = task % j->rows;
    double *acc = j->scratch + j->each * (size_t)worker;
    if (j->out->only_row >= 0 && row != j->out->only_row) return;
    for (int i = row * j->block_q; i < (row + 1) * j->block_q && i < j->w->len_q; i++) {
        struct query q = {j->w, j->out, head, i, acc + j->w->head_dim, 0};
        judge_query(&q, acc, row, j->block_k);
    }
}

int attn_ref_plan(const struct attn_cuda *w, const struct attn_judge *out, struct err *e)
{
    const struct attn_lists *l = w->lists;
    struct job j = {.w = w,
                    .out = out,
                    .block_q = l ? l->block_q : ATTN_JUDGE_DENSE,
                    .block_k = l ? l->block_k : ATTN_JUDGE_DENSE};
    j.rows = (w->len_q - 1) / j.block_q + 1;
    int cols = (w->len_k - 1) / j.block_k + 1;
    size_t tiles = (size_t)w->n_heads * (size_t)j.rows * (size_t)cols;
    j.each = (size_t)w->head_dim + (size_t)w->len_k + (size_t)cols;
    j.scratch = malloc((size_t)threads_count() * j.each * sizeof *j.scratch);
    if (!j.scratch)
        return err_set(e, ERR_RESOURCE, "no memory to judge attention over %d keys", w->len_k);
    if (l && w->alive)
        memset(w->alive, 0,
               (size_t)w->n_heads * (size_t)j.rows * (size_t)l->words * sizeof *w->alive);
    for (size_t i = 0; out->margin && i < tiles; i++)
        out->margin[i] = -INFINITY;
    for (size_t i = 0; out->mass && i < tiles; i++)
        out->mass[i] = 0;
    threads_run(w->n_heads * j.rows, judge_row, &j);
    free(j.scratch);
    return 0;
}
