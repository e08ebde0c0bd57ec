/* The fake's operations: addresses turned into the host's, then the host's table. Parameters are copied
 * into the arguments of a call, so that it can be written down. */
#include "tests/fake/fp8.h"
#include "tests/fake/linear.h"

#include <stdlib.h>

#define COUNT 4 /* views of one call */

static struct rows real(const struct rows *r)
{
    struct rows h = *r;
    h.scale = fake_real(r->scale);
    h.at = fake_real(r->at);
    h.where = PLACE_HOST;
    return h;
}

struct args { /* of any operation; each takes what it wants */
    struct rows y, x, n, many[COUNT];
    struct norm_params norm;
    struct rms_rope_params rope[COUNT];
    struct gate_params gate;
    struct patch_grid grid;
    struct lincomb sum;
    float *at[COUNT * 4];
    const float *p, *p2;
    size_t len;
    int count;
    enum activation act;
    bool flag;
    double *room;
};

#define RUN(name) static int do_##name(struct device *d, void *args, struct err *e)
#define GO(name, a) fake_do(d, do_##name, &(a), sizeof(a), e)

static int type(struct device *d, enum precision precision, enum dtype *t, struct err *e)
{
    *t = DTYPE_F32;
    return precision == PRECISION_FP8 ? 0 : ops_cpu.type(d, fake_emulated(precision), t, e);
}

/* --- rows --- */

static struct norm_params real_norm(const struct norm_params *p)
{
    struct norm_params h = *p;
    h.weight = fake_real(p->weight), h.bias = fake_real(p->bias);
    h.scale = fake_real(p->scale), h.shift = fake_real(p->shift);
    return h;
}

static struct gate_params real_gate(const struct gate_params *p)
{
    struct gate_params h = *p;
    h.gate = fake_real(p->gate);
    return h;
}

/* y of codes: room of fp32 for what they are of. */
static int wide_of(struct rows *y, struct err *e)
{
    if (y->type != DTYPE_F8_E4M3) return 0;
    y->type = DTYPE_F32;
    y->at = malloc((size_t)(y->n * y->cols) * sizeof(float));
    return y->at ? 0 : err_set(e, ERR_RESOURCE, "no memory for codes");
}

static int narrow_to(const struct rows *y, const struct rows *wide, int rc)
{
    if (y->type != DTYPE_F8_E4M3) return rc;
    if (rc == 0) fake_fp8_codes(y, wide->at);
    free(wide->at);
    return rc;
}

RUN(norm)
{
    struct args *a = args;
    struct rows y = a->y;
    if (wide_of(&y, e) < 0) return -1;
    return narrow_to(&a->y, &y, ops_cpu.norm(d, &y, &a->x, &a->norm, e));
}

static int norm(struct device *d, const struct rows *y, const struct rows *x,
                const struct norm_params *p, struct err *e)
{
    struct args a = {.y = real(y), .x = real(x), .norm = real_norm(p)};
    return GO(norm, a);
}

RUN(rms_rope)
{
    struct args *a = args;
    return ops_cpu.rms_rope(d, a->many, a->rope, a->count, e);
}

static int rms_rope(struct device *d, const struct rows *x, const struct rms_rope_params *p, int n,
                    struct err *e)
{
    struct args a = {.count = n};
    if (n > COUNT) return err_set(e, ERR_BUG, "rms_rope: %d views", n);
    for (int i = 0; i < n; i++) {
        a.many[i] = real(&x[i]);
        a.rope[i] = p[i];
        a.rope[i].weight = fake_real(p[i].weight);
        a.rope[i].cos_t = fake_real(p[i].cos_t);
        a.rope[i].sin_t = fake_real(p[i].sin_t);
    }
    return GO(rms_rope, a);
}

RUN(gate)
{
    struct args *a = args;
    return ops_cpu.gate(d, &a->x, &a->y, &a->gate, e);
}

static int gate(struct device *d, const struct rows *x, const struct rows *y,
                const struct gate_params *p, struct err *e)
{
    struct args a = {.x = real(x), .y = real(y), .gate = real_gate(p)};
    return GO(gate, a);
}

RUN(gate_norm)
{
    struct args *a = args;
    struct rows n = a->n;
    if (wide_of(&n, e) < 0) return -1;
    return narrow_to(&a->n, &n, ops_cpu.gate_norm(d, &a->x, &a->y, &a->gate, &n, &a->norm, e));
}

static int gate_norm(struct device *d, const struct rows *x, const struct rows *y,
                     const struct gate_params *gp, const struct rows *n,
                     const struct norm_params *np, struct err *e)
{
    struct args a = {
        .x = real(x), .y = real(y), .gate = real_gate(gp), .n = real(n), .norm = real_norm(np)};
    return GO(gate_norm, a);
}

RUN(act)
{
    struct args *a = args;
    return ops_cpu.act(d, &a->y, &a->x, a->act, a->flag, e);
}

static int act(struct device *d, const struct rows *y, const struct rows *x, enum activation kind,
               bool round, struct err *e)
{
    struct args a = {.y = real(y), .x = real(x), .act = kind, .flag = round};
    return GO(act, a);
}

RUN(cast)
{
    struct args *a = args;
    return ops_cpu.cast(d, &a->y, &a->x, a->flag, e);
}

static int cast(struct device *d, const struct rows *y, const struct rows *x, bool round,
                struct err *e)
{
    struct args a = {.y = real(y), .x = real(x), .flag = round};
    return GO(cast, a);
}

/* --- ends --- */

RUN(patchify)
{
    struct args *a = args;
    return ops_cpu.patchify(d, &a->y, a->p, &a->grid, e);
}

static int patchify(struct device *d, const struct rows *cols, const float *latents,
                    const struct patch_grid *g, struct err *e)
{
    struct args a = {.y = real(cols), .p = fake_real(latents), .grid = *g};
    return GO(patchify, a);
}

RUN(unpatchify)
{
    struct args *a = args;
    return ops_cpu.unpatchify(d, a->at[0], &a->x, &a->grid, e);
}

static int unpatchify(struct device *d, float *latents, const struct rows *cols,
                      const struct patch_grid *g, struct err *e)
{
    struct args a = {.at = {fake_real(latents)}, .x = real(cols), .grid = *g};
    return GO(unpatchify, a);
}

RUN(sinusoid)
{
    struct args *a = args;
    return ops_cpu.sinusoid(d, &a->y, a->p, a->p2, e);
}

static int sinusoid(struct device *d, const struct rows *y, const float *timesteps,
                    const float *freqs, struct err *e)
{
    struct args a = {.y = real(y), .p = fake_real(timesteps), .p2 = fake_real(freqs)};
    return GO(sinusoid, a);
}

RUN(add_table)
{
    struct args *a = args;
    return ops_cpu.add_table(d, &a->y, &a->x, a->p, e);
}

static int add_table(struct device *d, const struct rows *y, const struct rows *x,
                     const float *table, struct err *e)
{
    struct args a = {.y = real(y), .x = real(x), .p = fake_real(table)};
    return GO(add_table, a);
}

/* --- latents --- */

RUN(lincomb)
{
    struct args *a = args;
    return ops_cpu.lincomb(d, a->at, &a->sum, a->len, a->flag, e);
}

static int lincomb(struct device *d, float *const *x, const struct lincomb *l, size_t n, bool bf16,
                   struct err *e)
{
    struct args a = {.sum = *l, .len = n, .flag = bf16};
    for (int i = 0; i <= l->n; i++) { /* the buffers that it names, under names of its own */
        a.at[i] = fake_real(x[i < l->n ? l->from[i] : l->to]);
        if (i < l->n)
            a.sum.from[i] = i;
        else
            a.sum.to = i;
    }
    return GO(lincomb, a);
}

RUN(finite)
{
    struct args *a = args;
    return ops_cpu.finite(d, &a->x, a->count, e);
}

static int check_finite(struct device *d, const struct rows *x, int label, struct err *e)
{
    struct args a = {.x = real(x), .count = label};
    return GO(finite, a);
}

static int finite_seen(struct device *d, int *label, struct err *e)
{
    if (device_is_recording(d)) return err_set(e, ERR_BUG, "finite_seen while recording");
    return ops_cpu.finite_seen(d, label, e);
}

RUN(distance)
{
    struct args *a = args;
    return ops_cpu.distance(d, a->room, &a->x, a->flag ? &a->y : NULL, e);
}

static int distance(struct device *d, double *room, const struct rows *x, const struct rows *y,
                    struct err *e)
{
    struct args a = {.room = fake_real(room), .x = real(x), .flag = y != NULL};
    if (y) a.y = real(y);
    return GO(distance, a);
}

static int fp8_watch(struct device *d, bool on, struct err *e)
{
    if (device_is_recording(d)) return err_set(e, ERR_BUG, "fp8_watch while recording");
    fake_fp8_watch(on);
    return 0;
}

static int fp8_watched(struct device *d, double *error, long *calls, struct err *e)
{
    (void)d, (void)e;
    fake_fp8_watched(error, calls);
    return 0;
}

static int finite_bring(struct device *d, struct err *e)
{
    if (device_is_recording(d)) return err_set(e, ERR_BUG, "finite_bring while recording");
    return ops_cpu.finite_bring(d, e);
}

static int finite_brought(struct device *d) { return ops_cpu.finite_brought(d); }

#define TABLE(as_one)                                                                              \
    {                                                                                              \
        .kind = DEVICE_FAKE, .together = as_one, .type = type, .linear_open = fake_linear_open,    \
        .linear_close = fake_linear_close, .linear_rebind = fake_linear_rebind,                    \
        .linear_as_is = fake_linear_as_is, .linear_bytes = fake_linear_bytes,                      \
        .linear_prepare = fake_linear_prepare, .linear_scratch = fake_linear_scratch,              \
        .linear = fake_linear, .linear_several = fake_linear_several,                              \
        .ffn_prepare = fake_ffn_prepare, .ffn_scratch = fake_ffn_scratch, .ffn = fake_ffn,         \
        .fp8_watch = fp8_watch, .fp8_watched = fp8_watched, .norm = norm, .rms_rope = rms_rope,    \
        .gate = gate, .gate_norm = gate_norm, .act = act, .cast = cast, .patchify = patchify,      \
        .unpatchify = unpatchify, .sinusoid = sinusoid, .add_table = add_table,                    \
        .lincomb = lincomb, .finite = check_finite, .finite_seen = finite_seen,                    \
        .finite_bring = finite_bring, .finite_brought = finite_brought, .distance = distance,      \
        .text = &fake_text, .frames = &fake_frames                                                 \
    }
const struct ops fake_ops = TABLE(false), fake_ops_together = TABLE(true);
