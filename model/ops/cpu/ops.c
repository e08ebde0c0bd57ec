/* The table of the host: every operation by this room's own code, in fp32, done when it returns. */
#include "model/ops/ops.h"

#include "model/base/device_table.h"
#include "model/ops/cpu/distance.h"
#include "model/ops/cpu/patch.h"
#include "model/ops/frames.h"
#include "model/ops/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The numbers of a view that must lie together, as fp32. NULL with e: it is another view. */
static float *whole(const struct rows *r, const char *op, struct err *e)
{
    if (r->at && r->type == DTYPE_F32 && r->where == PLACE_HOST && r->stride == r->cols &&
        r->n <= INT32_MAX && r->cols <= INT32_MAX)
        return r->at;
    err_set(e, ERR_BUG, "%s: rows that are not whole fp32 rows of the host", op);
    return NULL;
}

static bool same(const struct rows *a, const struct rows *b)
{
    return a->n == b->n && a->cols == b->cols;
}

static int misfit(const char *op, const struct rows *y, const struct rows *x, struct err *e)
{
    return err_set(e, ERR_BUG, "%s: [%lld, %lld] from [%lld, %lld]", op, (long long)y->n,
                   (long long)y->cols, (long long)x->n, (long long)x->cols);
}

static int type(struct device *d, enum precision precision, enum dtype *t, struct err *e)
{
    (void)d;
    *t = DTYPE_F32;
    if (precision == PRECISION_FP8)
        return err_set(e, ERR_DEVICE,
                       "fp8 linear layers are a GPU's, and this is cpu; use --device cuda, or "
                       "--precision bf16");
    if (precision == PRECISION_BF16 && !ops_has_bf16())
        return err_set(e, ERR_DEVICE,
                       "this processor or build has no bf16 products; use --precision fp32");
    return 0;
}

/* --- linear layers --- */

struct cpu_linear { /* what struct op_linear is here */
    struct linear *l;
    struct device *device;
    int in, out;
};

static struct cpu_linear *own(const struct op_linear *l)
{
    return (struct cpu_linear *)(uintptr_t)l;
}

static void close_linear(struct op_linear *l)
{
    if (l) linear_close(own(l)->l);
    free(l);
}

static int open_linear(struct op_linear **out, struct device *d, const struct linear_params *p,
                       const struct tensor *weight, const struct tensor *bias,
                       struct linear_stage *stage, struct err *e)
{
    enum dtype ignored;
    *out = NULL;
    if (p->precision == PRECISION_FP8) return type(d, p->precision, &ignored, e);
    struct cpu_linear *l = calloc(1, sizeof *l);
    if (!l) return err_set(e, ERR_RESOURCE, "no memory for a linear layer");
    *l = (struct cpu_linear){.device = d, .in = p->in, .out = p->out};
    int rc = stage ? linear_open_staged(&l->l, p, weight, bias, stage, e)
                   : linear_open(&l->l, p, weight, bias, e);
    if (rc < 0) {
        free(l);
        return -1;
    }
    *out = (struct op_linear *)(void *)l;
    return 0;
}

static int rebind(struct op_linear *l, const struct tensor *weight, const struct tensor *bias,
                  struct err *e)
{
    return linear_rebind(own(l)->l, weight, bias, e);
}

static int prepare(struct op_linear *l, int rows, size_t *scratch, struct err *e)
{
    return linear_prepare(own(l)->l, rows, scratch, e);
}

static int linear(struct op_linear *l, const struct rows *y, const struct rows *x, void *scratch,
                  struct err *e)
{
    struct cpu_linear *c = own(l);
    float *to = whole(y, "linear", e), *from = whole(x, "linear", e);
    if (!to || !from) return -1;
    if (y->n != x->n || x->cols != c->in || y->cols != c->out) return misfit("linear", y, x, e);
    device_did(c->device, OP_LINEAR);
    return linear_run(c->l, to, from, (int)x->n, scratch, e);
}

#define SEVERAL 4

static int linear_several(struct op_linear *const *l, const struct rows *y, int n,
                          const struct rows *x, void *scratch, struct err *e)
{
    struct linear *layers[SEVERAL];
    float *to[SEVERAL], *from = whole(x, "linear_several", e);
    if (!from) return -1;
    if (n < 1 || n > SEVERAL) return err_set(e, ERR_BUG, "linear_several: %d layers", n);
    for (int i = 0; i < n; i++) {
        layers[i] = own(l[i])->l;
        to[i] = whole(&y[i], "linear_several", e);
        if (!to[i]) return -1;
        if (y[i].n != x->n || x->cols != own(l[i])->in || y[i].cols != own(l[i])->out)
            return misfit("linear_several", &y[i], x, e);
        device_did(own(l[i])->device, OP_LINEAR);
    }
    return linear_run_several(layers, to, n, from, (int)x->n, scratch, e);
}

static int ffn_prepare(struct op_linear *up, struct op_linear *down, int rows, size_t *scratch,
                       struct err *e)
{
    return linear_prepare_chain(own(up)->l, own(down)->l, rows, scratch, e);
}

static int ffn(struct op_linear *up, struct op_linear *down, const struct rows *y,
               const struct rows *x, void *scratch, struct err *e)
{
    float *to = whole(y, "ffn", e), *from = whole(x, "ffn", e);
    if (!to || !from) return -1;
    if (y->n != x->n || x->cols != own(up)->in || y->cols != own(down)->out)
        return misfit("ffn", y, x, e);
    device_did(own(up)->device, OP_FFN);
    return linear_run_chain(own(up)->l, own(down)->l, to, from, (int)x->n, scratch, e);
}

/* --- rows --- */

static int norm(struct device *d, const struct rows *y, const struct rows *x,
                const struct norm_params *p, struct err *e)
{
    float *to = whole(y, "norm", e), *from = whole(x, "norm", e);
    if (!to || !from) return -1;
    if (!same(y, x)) return misfit("norm", y, x, e);
    device_did(d, OP_NORM);
    layer_norm(to, from, (int)x->n, (int)x->cols, p);
    return 0;
}

static int rms_rope(struct device *d, const struct rows *x, const struct rms_rope_params *p, int n,
                    struct err *e)
{
    for (int i = 0; i < n; i++) {
        float *at = whole(&x[i], "rms_rope", e);
        if (!at) return -1;
        rms_norm_rope(at, (int)x[i].n, (int)x[i].cols, &p[i]);
    }
    device_did(d, OP_RMS_ROPE);
    return 0;
}

static int gate(struct device *d, const struct rows *x, const struct rows *y,
                const struct gate_params *p, struct err *e)
{
    float *to = whole(x, "gate", e), *from = whole(y, "gate", e);
    if (!to || !from) return -1;
    if (!same(x, y)) return misfit("gate", x, y, e);
    device_did(d, OP_GATE);
    residual_gate(to, from, (int)x->n, (int)x->cols, p);
    return 0;
}

static int gate_norm(struct device *d, const struct rows *x, const struct rows *y,
                     const struct gate_params *gp, const struct rows *n,
                     const struct norm_params *np, struct err *e)
{
    if (gate(d, x, y, gp, e) < 0) return -1;
    return norm(d, n, x, np, e);
}

static int act(struct device *d, const struct rows *y, const struct rows *x, enum activation a,
               bool round, struct err *e)
{
    float *to = whole(y, "act", e), *from = whole(x, "act", e);
    if (!to || !from) return -1;
    if (!same(y, x)) return misfit("act", y, x, e);
    device_did(d, OP_ACT);
    for (int64_t i = 0; i < x->n * x->cols; i++) {
        float v = act_apply(a, round ? bf16_round(from[i]) : from[i]);
        to[i] = round ? bf16_round(v) : v;
    }
    return 0;
}

/* One row of a cast: any of the three types to any. */
static void cast_row(void *to, enum dtype to_type, const void *from, enum dtype from_type, size_t n,
                     bool round)
{
    for (size_t i = 0; i < n; i++) {
        float v;
        dtype_to_f32(&v, (const char *)from + i * dtype_size(from_type), from_type, 1);
        if (to_type == DTYPE_BF16)
            ((uint16_t *)to)[i] = f32_to_bf16(v);
        else
            ((float *)to)[i] = round ? bf16_round(v) : v;
    }
}

static int cast(struct device *d, const struct rows *y, const struct rows *x, bool round,
                struct err *e)
{
    bool float_in = x->type == DTYPE_F32 || x->type == DTYPE_BF16 || x->type == DTYPE_F16;
    bool plain = x->type == y->type && !(round && y->type == DTYPE_F32);
    if (!same(y, x)) return misfit("cast", y, x, e);
    if (!float_in || (!plain && y->type != DTYPE_F32 && y->type != DTYPE_BF16))
        return err_set(e, ERR_BUG, "cast: %s from %s", dtype_name(y->type), dtype_name(x->type));
    device_did(d, OP_CAST);
    size_t ys = dtype_size(y->type), xs = dtype_size(x->type), n = (size_t)x->cols;
    for (int64_t r = 0; r < x->n; r++) {
        char *to = (char *)y->at + (size_t)(r * y->stride) * ys;
        const char *from = (const char *)x->at + (size_t)(r * x->stride) * xs;
        if (plain || x->type == y->type) memmove(to, from, n * xs);
        if (!plain && x->type == y->type)
            round_rows((float *)(void *)to, n);
        else if (!plain)
            cast_row(to, y->type, from, x->type, n, round);
    }
    return 0;
}

/* --- ends --- */

static int to_tokens(struct device *d, const struct rows *cols, const float *latents,
                     const struct patch_grid *g, struct err *e)
{
    float *to = whole(cols, "patchify", e);
    if (!to) return -1;
    device_did(d, OP_PATCH);
    latents_to_patches(to, latents, g);
    return 0;
}

static int to_latents(struct device *d, float *latents, const struct rows *cols,
                      const struct patch_grid *g, struct err *e)
{
    float *from = whole(cols, "unpatchify", e);
    if (!from) return -1;
    device_did(d, OP_PATCH);
    patches_to_latents(latents, from, g);
    return 0;
}

static int sinusoid(struct device *d, const struct rows *y, const float *timesteps,
                    const float *freqs, struct err *e)
{
    float *to = whole(y, "sinusoid", e);
    if (!to) return -1;
    device_did(d, OP_SINUSOID);
    int64_t half = y->cols / 2;
    for (int64_t t = 0; t < y->n; t++, to += y->cols)
        for (int64_t i = 0; i < half; i++) {
            float angle = timesteps[t] * freqs[i];
            to[i] = (float)cos((double)angle);
            to[half + i] = (float)sin((double)angle);
        }
    return 0;
}

static int add_table(struct device *d, const struct rows *y, const struct rows *x,
                     const float *table, struct err *e)
{
    if (!same(y, x)) return misfit("add_table", y, x, e);
    if (x->type != DTYPE_F32 || y->type != DTYPE_F32)
        return err_set(e, ERR_BUG, "add_table: rows that are not fp32");
    device_did(d, OP_TABLE);
    for (int64_t r = 0; r < x->n; r++) {
        float *to = (float *)y->at + r * y->stride;
        const float *from = (const float *)x->at + r * x->stride;
        for (int64_t i = 0; i < x->cols; i++)
            to[i] = table[i] + from[i];
    }
    return 0;
}

/* --- latents --- */

static int sum(struct device *d, float *const *x, const struct lincomb *l, size_t n, bool bf16,
               struct err *e)
{
    device_did(d, OP_LINCOMB);
    return lincomb_host.run(NULL, x, l, n, bf16, e);
}

/* The host looks at once, so that nothing has to be kept: the note is the device's own. */
static int check_finite(struct device *d, const struct rows *x, int label, struct err *e)
{
    int noted;
    float *at = whole(x, "finite", e);
    if (!at) return -1;
    if (!d) return err_set(e, ERR_BUG, "finite: nobody to note it");
    device_did(d, OP_FINITE);
    if (lincomb_host.finite(NULL, at, (size_t)(x->n * x->cols), label, &noted, e) < 0) return -1;
    if (noted) device_note(d, noted);
    return 0;
}

static int seen(struct device *d, int *label, struct err *e)
{
    (void)e;
    *label = device_noted(d);
    return 0;
}

static int distance(struct device *d, double *room, const struct rows *a, const struct rows *b,
                    struct err *e)
{
    float *x = whole(a, "distance", e), *y = b ? whole(b, "distance", e) : NULL;
    if (!x || (b && !y)) return -1;
    if (b && !same(a, b)) return misfit("distance", a, b, e);
    device_did(d, OP_DISTANCE);
    sum_distance(room, x, y, (size_t)(a->n * a->cols));
    return 0;
}

static int bring(struct device *d, struct err *e) { return (void)d, (void)e, 0; }
static int brought(struct device *d) { return d->note; }

const struct ops ops_cpu = {
    .kind = DEVICE_CPU,
    .type = type,
    .linear_open = open_linear,
    .linear_close = close_linear,
    .linear_rebind = rebind,
    .linear_bytes = linear_bytes,
    .linear_prepare = prepare,
    .linear_scratch = linear_scratch,
    .linear = linear,
    .linear_several = linear_several,
    .ffn_prepare = ffn_prepare,
    .ffn_scratch = linear_chain_scratch,
    .ffn = ffn,
    .norm = norm,
    .rms_rope = rms_rope,
    .gate = gate,
    .gate_norm = gate_norm,
    .act = act,
    .cast = cast,
    .patchify = to_tokens,
    .unpatchify = to_latents,
    .sinusoid = sinusoid,
    .add_table = add_table,
    .lincomb = sum,
    .finite_bring = bring,
    .finite_brought = brought,
    .finite = check_finite,
    .finite_seen = seen,
    .distance = distance,
    .text = &text_ops_cpu,
    .frames = &frame_ops_cpu,
};
