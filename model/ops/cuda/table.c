/* The GPU's table: views become the launchers' shapes, what they cannot do is refused with its name. */
#include "model/ops/cuda/frames/frames_cuda.h"
#include "model/ops/cuda/layers.h"
#include "model/ops/cuda/rows_cuda.h"
#include "model/ops/cuda/shape_cuda.h"
#include "model/ops/cuda/text_cuda.h"

#include <stdlib.h>
#include <string.h>

/* --- what is kept with the device --- */

#define KEPT_BYTES 512 /* the label, and the sums behind it */

struct cuda_plan {
    struct cuda_plan *next;
    struct cuda_product p;
    struct cuda_matmul *m;
};

static void let_go(struct device *d, void *kept)
{
    struct cuda_table *t = kept;
    for (struct cuda_plan *p; (p = t->plans) != NULL; free(p)) {
        t->plans = p->next;
        cuda_matmul_close(p->m);
    }
    cuda_blas_close(t->blas);
    device_free(d, t->found);
    device_free_pinned(d, t->brought);
    free(t);
}

int cuda_table_of(struct cuda_table **out, struct device *d, struct err *e)
{
    void *found, *brought;
    *out = d->kept;
    if (*out) return 0;
    struct cuda_table *t = calloc(1, sizeof *t);
    if (!t) return err_set(e, ERR_RESOURCE, "no memory for the operations of %s", device_name(d));
    if (device_alloc(d, &found, KEPT_BYTES, e) < 0) goto fail;
    t->found = found;
    t->sums = (double *)(void *)((char *)found + 256);
    if (device_alloc_pinned(d, &brought, sizeof *t->brought, e) < 0) goto fail;
    t->brought = brought;
    *t->brought = 0;
    if (device_zero(d, found, KEPT_BYTES, e) < 0 || cuda_blas_open(&t->blas, e) < 0) goto fail;
    d->kept = *out = t;
    d->let_go = let_go;
    return 0;
fail:
    let_go(d, t);
    return -1;
}

static bool same_product(const struct cuda_product *a, const struct cuda_product *b)
{
    return a->rows == b->rows && a->in == b->in && a->out == b->out && a->type == b->type &&
           a->y_type == b->y_type && a->x_row == b->x_row && a->y_row == b->y_row &&
           a->act == b->act && a->bias == b->bias && a->add == b->add && a->tf32 == b->tf32 &&
           a->scales == b->scales && a->fast == b->fast && a->batch == b->batch &&
           a->w_batch == b->w_batch && a->bias_batch == b->bias_batch && a->y_batch == b->y_batch;
}

int cuda_table_plan(struct cuda_matmul **m, struct cuda_table *t, const struct cuda_product *p,
                    struct err *e)
{
    for (struct cuda_plan *i = t->plans; i; i = i->next)
        if (same_product(&i->p, p)) {
            *m = i->m;
            return 0;
        }
    struct cuda_plan *new = calloc(1, sizeof *new);
    if (!new) return err_set(e, ERR_RESOURCE, "no memory for a product's plan");
    if (cuda_matmul_open(&new->m, t->blas, p, e) < 0) {
        free(new);
        return -1;
    }
    new->p = *p;
    new->next = t->plans;
    t->plans = new;
    *m = new->m;
    return 0;
}

static int type(struct device *d, enum precision precision, enum dtype *t, struct err *e)
{
    *t = precision == PRECISION_FP32 ? DTYPE_F32 : DTYPE_BF16;
    if (precision == PRECISION_BF16_EMULATED)
        return err_set(e, ERR_DEVICE, "%s does not emulate bf16; use --precision bf16 or fp32",
                       device_name(d));
    if (precision == PRECISION_FP8) {
        struct device_info info;
        device_about(d, &info);
        return cuda_fp8_runs(device_name(d), info.arch, e);
    }
    return 0;
}

/* --- views --- */

static int view(const char *op, const struct rows *r, struct err *e)
{
    if (r->at && r->where == PLACE_DEVICE && r->n >= 1 && r->n <= INT32_MAX / 4 && r->cols >= 1 &&
        r->cols <= INT32_MAX / 4)
        return 0;
    return err_set(e, ERR_BUG, "%s: [%lld, %lld] %s is no view of the device", op, (long long)r->n,
                   (long long)r->cols, dtype_name(r->type));
}

static int pair(const char *op, const struct rows *y, const struct rows *x, struct err *e)
{
    if (view(op, y, e) < 0 || view(op, x, e) < 0) return -1;
    if (y->n == x->n && y->cols == x->cols) return 0;
    return err_set(e, ERR_BUG, "%s: [%lld, %lld] from [%lld, %lld]", op, (long long)y->n,
                   (long long)y->cols, (long long)x->n, (long long)x->cols);
}

/* Sets of modulation: the launcher counts them, the table says after how many rows they begin again. */
static int sets(struct cuda_norm *c, const char *op, int64_t rows, int rows_per_mod, int period,
                int mod_stride, struct err *e)
{
    c->mods = 1;
    if (!rows_per_mod) return 0;
    if (period && period % rows_per_mod)
        return err_set(e, ERR_BUG, "%s: sets of %d rows begin again after %d", op, rows_per_mod,
                       period);
    c->mods = (int)(((period ? period : rows) + rows_per_mod - 1) / rows_per_mod);
    c->rows_per_mod = rows_per_mod;
    c->mod_stride = mod_stride;
    return 0;
}

/* --- rows --- */

static int launch_norm(struct device *d, const struct rows *y, const struct rows *x,
                       const struct rows *add, const struct gate_params *gp,
                       const struct norm_params *p, struct err *e)
{
    struct cuda_norm c = {.rows = (int)x->n,
                          .features = (int)x->cols,
                          .type = x->type,
                          .x = x->at,
                          .x_row = x->stride,
                          .mods = 1};
    if (add) {
        c.add = add->at, c.add_type = add->type, c.add_row = add->stride, c.gate = gp->gate,
        c.round = gp->round;
        if (gp->gate && sets(&c, "gate", x->n, gp->rows_per_mod, gp->period, gp->mod_stride, e) < 0)
            return -1;
    }
    if (y) {
        c.y = y->at, c.y_scale = y->scale, c.y_type = y->type, c.y_row = y->stride,
        c.round = p->round;
        c.eps = p->eps, c.weight = p->weight, c.bias = p->bias, c.scale = p->scale,
        c.shift = p->shift;
        if (p->scale && sets(&c, "norm", x->n, p->rows_per_mod, p->period, p->mod_stride, e) < 0)
            return -1;
    }
    return cuda_norm(&c, device_stream(d), e);
}

static int norm(struct device *d, const struct rows *y, const struct rows *x,
                const struct norm_params *p, struct err *e)
{
    if (pair("norm", y, x, e) < 0) return -1;
    device_did(d, OP_NORM);
    return launch_norm(d, y, x, NULL, NULL, p, e);
}

static int gate(struct device *d, const struct rows *x, const struct rows *y,
                const struct gate_params *p, struct err *e)
{
    if (pair("gate", x, y, e) < 0) return -1;
    device_did(d, OP_GATE);
    return launch_norm(d, NULL, x, y, p, NULL, e);
}

static int gate_norm(struct device *d, const struct rows *x, const struct rows *y,
                     const struct gate_params *gp, const struct rows *n,
                     const struct norm_params *np, struct err *e)
{
    bool agree = !gp->gate || !np->scale ||
                 (gp->rows_per_mod == np->rows_per_mod && gp->period == np->period &&
                  gp->mod_stride == np->mod_stride);
    if (pair("gate", x, y, e) < 0 || pair("norm", n, x, e) < 0) return -1;
    device_did(d, OP_GATE), device_did(d, OP_NORM);
    if (agree && gp->round == np->round) return launch_norm(d, n, x, y, gp, np, e);
    if (launch_norm(d, NULL, x, y, gp, NULL, e) < 0) return -1;
    return launch_norm(d, n, x, NULL, NULL, np, e);
}

/* Two views that one launch can do. */
static bool together(const struct rows *a, const struct rms_rope_params *p, const struct rows *b,
                     const struct rms_rope_params *q)
{
    return a->n == b->n && a->cols == b->cols && a->type == b->type && p->eps == q->eps &&
           p->cos_t == q->cos_t && p->sin_t == q->sin_t && p->head_dim == q->head_dim &&
           p->period == q->period && p->round == q->round;
}

static int rms_rope(struct device *d, const struct rows *x, const struct rms_rope_params *p, int n,
                    struct err *e)
{
    if (n < 1 || n > 4) return err_set(e, ERR_BUG, "rms_rope: %d views", n);
    for (int i = 0; i < n; i++)
        if (view("rms_rope", &x[i], e) < 0) return -1;
    device_did(d, OP_RMS_ROPE);
    for (int i = 0, k; i < n; i += k) {
        int dim = p[i].cos_t ? p[i].head_dim : (int)x[i].cols; /* without positions: one head */
        struct cuda_rope c = {.rows = (int)x[i].n,
                              .features = (int)x[i].cols,
                              .type = x[i].type,
                              .round = p[i].round,
                              .eps = p[i].eps,
                              .cos_t = p[i].cos_t,
                              .sin_t = p[i].sin_t,
                              .tokens = p[i].period ? p[i].period : (int)x[i].n,
                              .turns = 1,
                              .head_dim = dim};
        for (k = 0;
             i + k < n && k < CUDA_ROPE_PARTS && together(&x[i], &p[i], &x[i + k], &p[i + k]);
             k++) {
            c.part[k].x = c.part[k].y = x[i + k].at;
            c.part[k].weight = p[i + k].weight;
            c.part[k].x_row = c.part[k].y_row = x[i + k].stride;
            c.part[k].y_head = dim;
            c.part[k].turn = p[i].cos_t != NULL;
        }
        c.n_parts = k;
        if (cuda_rope(&c, device_stream(d), e) < 0) return -1;
    }
    return 0;
}

static int act(struct device *d, const struct rows *y, const struct rows *x, enum activation a,
               bool round, struct err *e)
{
    if (pair("act", y, x, e) < 0) return -1;
    device_did(d, OP_ACT);
    struct cuda_map m = {.x = x->at,
                         .y = y->at,
                         .from = x->type,
                         .to = y->type,
                         .n = (size_t)(x->n * x->cols),
                         .act = a,
                         .times = 1,
                         .round = round};
    if (x->stride != x->cols || y->stride != y->cols)
        return err_set(e, ERR_BUG, "act: rows with gaps");
    return cuda_map(&m, device_stream(d), e);
}

static int cast(struct device *d, const struct rows *y, const struct rows *x, bool round,
                struct err *e)
{
    if (pair("cast", y, x, e) < 0) return -1;
    device_did(d, OP_CAST);
    bool whole = x->stride == x->cols && y->stride == y->cols;
    bool same = x->type == y->type && !(round && y->type == DTYPE_F32);
    if (same && x->at == y->at && x->stride == y->stride) return 0; /* bf16 is rounded already */
    if (same)
        return cuda_copy_rows(y->at, y->stride, x->at, x->stride, (int)x->n, (int)x->cols,
                              dtype_size(x->type), device_stream(d), e);
    struct cuda_map m = {.x = x->at,
                         .y = y->at,
                         .from = x->type,
                         .to = y->type,
                         .n = (size_t)(x->n * x->cols),
                         .times = 1,
                         .round = round};
    if (whole) return cuda_map(&m, device_stream(d), e);
    m.n = (size_t)x->cols;
    for (int64_t r = 0; r < x->n; r++) { /* no caller has many of these */
        m.x = (const char *)x->at + (size_t)(r * x->stride) * dtype_size(x->type);
        m.y = (char *)y->at + (size_t)(r * y->stride) * dtype_size(y->type);
        if (cuda_map(&m, device_stream(d), e) < 0) return -1;
    }
    return 0;
}

/* --- ends of the transformer --- */

static int grid_of(struct cuda_grid *c, const char *op, const struct rows *cols,
                   const struct patch_grid *g, struct err *e)
{
    *c = (struct cuda_grid){g->channels, g->frames,  g->height,   g->width,
                            g->patch_h,  g->patch_w, cols->stride};
    if (view(op, cols, e) < 0) return -1;
    if (g->patch_h < 1 || g->patch_w < 1 || cols->cols != g->channels * g->patch_h * g->patch_w ||
        cols->n != (int64_t)g->frames * (g->height / g->patch_h) * (g->width / g->patch_w))
        return err_set(e, ERR_BUG, "%s: [%lld, %lld] for %d x %d x %d x %d in patches of %d x %d",
                       op, (long long)cols->n, (long long)cols->cols, g->channels, g->frames,
                       g->height, g->width, g->patch_h, g->patch_w);
    return 0;
}

static int patchify(struct device *d, const struct rows *cols, const float *latents,
                    const struct patch_grid *g, struct err *e)
{
    struct cuda_grid c;
    if (grid_of(&c, "patchify", cols, g, e) < 0) return -1;
    device_did(d, OP_PATCH);
    return cuda_patchify(cols->at, cols->type, latents, &c, device_stream(d), e);
}

static int unpatchify(struct device *d, float *latents, const struct rows *cols,
                      const struct patch_grid *g, struct err *e)
{
    struct cuda_grid c;
    if (grid_of(&c, "unpatchify", cols, g, e) < 0) return -1;
    device_did(d, OP_PATCH);
    return cuda_unpatchify(latents, cols->at, cols->type, &c, device_stream(d), e);
}

static int sinusoid(struct device *d, const struct rows *y, const float *timesteps,
                    const float *freqs, struct err *e)
{
    if (view("sinusoid", y, e) < 0) return -1;
    if (y->type != DTYPE_F32 || y->stride != y->cols || y->cols % 2)
        return err_set(e, ERR_BUG, "sinusoid: rows of %s, %lld apart", dtype_name(y->type),
                       (long long)y->stride);
    device_did(d, OP_SINUSOID);
    return cuda_sinusoid(y->at, timesteps, freqs, (int)y->n, (int)(y->cols / 2), device_stream(d),
                         e);
}

static int add_table(struct device *d, const struct rows *y, const struct rows *x,
                     const float *table, struct err *e)
{
    if (pair("add_table", y, x, e) < 0) return -1;
    if (y->type != DTYPE_F32)
        return err_set(e, ERR_BUG, "add_table: a result of %s", dtype_name(y->type));
    device_did(d, OP_TABLE);
    return cuda_add_table(y->at, y->stride, x->at, x->type, x->stride, table, (int)x->n,
                          (int)x->cols, device_stream(d), e);
}

/* --- latents --- */

static int sum(struct device *d, float *const *x, const struct lincomb *l, size_t n, bool bf16,
               struct err *e)
{
    struct cuda_sum c = {.to = x[l->to], .n_terms = l->n, .n = n, .bf16 = bf16};
    if (l->n < 1 || l->n > LINCOMB_TERMS) return err_set(e, ERR_BUG, "a sum of %d terms", l->n);
    for (int i = 0; i < l->n; i++)
        c.from[i] = x[l->from[i]], c.c[i] = l->c[i];
    device_did(d, OP_LINCOMB);
    return cuda_sum(&c, device_stream(d), e);
}

static int finite(struct device *d, const struct rows *x, int label, struct err *e)
{
    struct cuda_table *t;
    if (view("finite", x, e) < 0 || cuda_table_of(&t, d, e) < 0) return -1;
    device_did(d, OP_FINITE);
    return cuda_not_finite(t->found, label, x->at, x->type, (int)x->n, (int)x->cols, x->stride,
                           device_stream(d), e);
}

static int finite_seen(struct device *d, int *label, struct err *e)
{
    struct cuda_table *t;
    *label = 0;
    if (cuda_table_of(&t, d, e) < 0 || device_download(d, label, t->found, sizeof *label, e) < 0)
        return -1;
    *t->brought = 0; /* nothing is under way: the download waited */
    return *label ? device_zero(d, t->found, sizeof *label, e) : 0;
}

static int distance(struct device *d, double *room, const struct rows *a, const struct rows *b,
                    struct err *e)
{
    if (view("distance", a, e) < 0 || (b && pair("distance", b, a, e) < 0)) return -1;
    if (a->stride != a->cols || (b && b->stride != b->cols))
        return err_set(e, ERR_BUG, "distance: rows with gaps");
    device_did(d, OP_DISTANCE);
    return cuda_distance(room, a->at, a->type, b ? b->at : NULL, b ? b->type : a->type,
                         (size_t)(a->n * a->cols), device_stream(d), e);
}

static int finite_bring(struct device *d, struct err *e)
{
    struct cuda_table *t;
    if (cuda_table_of(&t, d, e) < 0) return -1;
    return device_download_pinned(d, t->brought, t->found, sizeof *t->found, e);
}

/* The copy may be under way: an int comes whole. */
static int finite_brought(struct device *d)
{
    const struct cuda_table *t = d->kept;
    return t ? *(volatile int *)t->brought : 0;
}

const struct ops ops_cuda = {
    .kind = DEVICE_CUDA,
    .together = true,
    .type = type,
    .linear_open = cuda_linear_open,
    .linear_close = cuda_linear_close,
    .linear_rebind = cuda_linear_rebind,
    .linear_as_is = cuda_linear_as_is,
    .linear_bytes = cuda_linear_bytes,
    .linear_prepare = cuda_linear_prepare,
    .linear_scratch = cuda_linear_scratch,
    .linear = cuda_linear,
    .linear_several = cuda_linear_several,
    .ffn_prepare = cuda_ffn_prepare,
    .ffn_scratch = cuda_ffn_scratch,
    .ffn = cuda_ffn,
    .fp8_watch = cuda_fp8_watch,
    .fp8_watched = cuda_fp8_watched,
    .norm = norm,
    .rms_rope = rms_rope,
    .gate = gate,
    .gate_norm = gate_norm,
    .act = act,
    .cast = cast,
    .patchify = patchify,
    .unpatchify = unpatchify,
    .sinusoid = sinusoid,
    .add_table = add_table,
    .lincomb = sum,
    .finite = finite,
    .finite_seen = finite_seen,
    .distance = distance,
    .finite_bring = finite_bring,
    .finite_brought = finite_brought,
    .text = &text_ops_cuda,
    .frames = &frame_ops_cuda,
};
