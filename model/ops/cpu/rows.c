/* rows.h over many rows and threads; the arithmetic of one row is row_ops.h. */
#include "model/ops/cpu/row_ops.h"

#include "model/base/cpu.h"
#include "model/base/threads.h"

const struct row_ops *row_ops_pick(void)
{
#if defined(__x86_64__)
    if (cpu_level() >= CPU_AVX512) return &row_ops_avx512;
    if (cpu_level() >= CPU_AVX2) return &row_ops_avx2;
#endif
    return &row_ops_ref;
}

struct rows_job {
    const struct row_ops *ops;
    float *y;
    const float *x;
    int rows, features, chunk;
    const struct norm_params *norm; /* of the one that runs */
    const struct rms_rope_params *rope;
    const struct gate_params *gate;
};

/* Rows of about 64 KB a task: large against the hand-out, small against the cache. */
static int chunk_rows(int features) { return 1 + 16384 / features; }

static void each(struct rows_job *j, void (*fn)(void *, int, int))
{
    j->ops = row_ops_pick();
    j->chunk = chunk_rows(j->features);
    threads_run((j->rows + j->chunk - 1) / j->chunk, fn, j);
}

static int chunk_end(const struct rows_job *j, int task)
{
    int end = (task + 1) * j->chunk;
    return end < j->rows ? end : j->rows;
}

/* Row r's place among those that have modulation and positions of their own. */
static int place_of(int row, int period) { return period ? row % period : row; }

static const float *modulation(const float *base, int row, int rows_per_mod, int stride)
{
    return base && rows_per_mod ? base + (size_t)(row / rows_per_mod) * (size_t)stride : base;
}

static void norm_task(void *ctx, int task, int worker)
{
    const struct rows_job *j = ctx;
    const struct norm_params *p = j->norm;
    (void)worker;
    for (int r = task * j->chunk; r < chunk_end(j, task); r++) {
        size_t at = (size_t)r * (size_t)j->features;
        int place = place_of(r, p->period);
        j->ops->norm_row(j->y + at, j->x + at, j->features, p->eps, p->weight, p->bias,
                         modulation(p->scale, place, p->rows_per_mod, p->mod_stride),
                         modulation(p->shift, place, p->rows_per_mod, p->mod_stride), p->round);
    }
}

void layer_norm(float *y, const float *x, int rows, int features, const struct norm_params *p)
{
    struct rows_job j = {.y = y, .x = x, .rows = rows, .features = features, .norm = p};
    each(&j, norm_task);
}

static void rope_task(void *ctx, int task, int worker)
{
    const struct rows_job *j = ctx;
    const struct rms_rope_params *p = j->rope;
    (void)worker;
    size_t pairs = (size_t)p->head_dim / 2;
    for (int r = task * j->chunk; r < chunk_end(j, task); r++) {
        size_t at = (size_t)place_of(r, p->period) * pairs;
        j->ops->rms_rope_row(j->y + (size_t)r * (size_t)j->features, j->features, p->weight, p->eps,
                             p->cos_t ? p->cos_t + at : NULL, p->sin_t ? p->sin_t + at : NULL,
                             p->head_dim, p->round);
    }
}

void rms_norm_rope(float *x, int rows, int features, const struct rms_rope_params *p)
{
    struct rows_job j = {.y = x, .rows = rows, .features = features, .rope = p};
    each(&j, rope_task);
}

static void residual_task(void *ctx, int task, int worker)
{
    const struct rows_job *j = ctx;
    const struct gate_params *p = j->gate;
    (void)worker;
    for (int r = task * j->chunk; r < chunk_end(j, task); r++) {
        size_t at = (size_t)r * (size_t)j->features;
        j->ops->residual_row(
            j->y + at, j->x + at,
            modulation(p->gate, place_of(r, p->period), p->rows_per_mod, p->mod_stride),
            j->features, p->round);
    }
}

void residual_gate(float *x, const float *y, int rows, int features, const struct gate_params *p)
{
    struct rows_job j = {.y = x, .x = y, .rows = rows, .features = features, .gate = p};
    each(&j, residual_task);
}

void round_rows(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = bf16_round(x[i]);
}
