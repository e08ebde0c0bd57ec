/* The room's attention on a GPU; see device_cuda.h. */
#include "attention/kernels/cuda/device_cuda.h"

#include "attention/kernels/cuda/attn_cuda.h"
#include "attention/kernels/cuda/every_cuda.h"
#include "attention/kernels/cuda/sage_cuda.h"
#include "attention/kernels/cuda/simt_cuda.h"
#include "model/base/cuda/launch.h"
#include "model/base/device_table.h"

#include <cuda_runtime_api.h>
#include <stdlib.h>
#include <string.h>

/* --- a plan there --- */

struct parts { /* words of a prepared plan, and where they begin */
    size_t row_ptr, order, steps, at_order, at_steps, words;
};

static size_t align(size_t words) { return (words + 63) / 64 * 64; } /* 256 bytes */

static struct parts parts_of(size_t plans, size_t heads, size_t rows, size_t cols)
{
    struct parts p = {
        .row_ptr = plans * rows + 1, .order = heads * rows, .steps = plans * rows * cols};
    p.at_order = align(p.row_ptr);
    p.at_steps = p.at_order + align(p.order);
    p.words = p.at_steps + align(p.steps);
    return p;
}

static size_t plan_bytes(const struct attn_size *s, int heads, int plans)
{
    return parts_of((size_t)plans, (size_t)heads, (size_t)s->rows, (size_t)s->cols).words *
           sizeof(uint32_t);
}

static struct parts parts_of_plan(const struct attn_plan *p)
{
    return parts_of((size_t)attn_plans(p), (size_t)p->n_heads, (size_t)p->q.n, (size_t)p->k.n);
}

static int put(struct device *d, void *at, const struct attn_plan *plan, const struct attn_size *s,
               struct err *e)
{
    struct attn_lists_size size;
    struct attn_lists lists;
    struct parts p = parts_of_plan(plan);
    size_t most = plan_bytes(s, plan->n_heads, attn_plans(plan));
    uint32_t *words = NULL;
    int rc = -1;
    if (attn_lists_size(&size, plan, e) < 0) return -1;
    if (size.mean)
        return err_set(e, ERR_DEVICE, "plan.mean is for other kernels; use --device cpu");
    if (p.words * sizeof *words > most || size.row_ptr != p.row_ptr || size.order != p.order ||
        size.steps > p.steps)
        return err_set(e, ERR_BUG, "a plan of %zu words in room for %zu bytes", p.words, most);
    words = calloc(p.words, sizeof *words);
    if (!words) return err_set(e, ERR_RESOURCE, "no memory for a plan (%zu words)", p.words);
    if (attn_lists_fill(&lists, words, words + p.at_steps, words + p.at_order, NULL, plan, e) == 0)
        rc = device_upload(d, at, words, (p.at_steps + size.steps) * sizeof *words, e);
    free(words);
    return rc;
}

/* What a launch reads of what put() made of this plan. */
static struct attn_lists lists_at(const uint32_t *at, const struct attn_plan *plan)
{
    struct parts p = parts_of_plan(plan);
    return (struct attn_lists){.rows = plan->q.n,
                               .cols = plan->k.n,
                               .block_q = plan->q.size,
                               .block_k = plan->k.size,
                               .n_plans = attn_plans(plan),
                               .row_ptr = at,
                               .steps = at + p.at_steps,
                               .order = at + p.at_order,
                               .words = attn_words(plan->k.n)};
}

/* --- the rows --- */

static size_t scratch(const struct attn_size *s)
{
    (void)s;
    return attn_cuda_scratch();
}

static struct attn_tensor tensor(const struct heads *h)
{
    return (struct attn_tensor){h->at, h->token, h->head};
}

static int call_of(struct attn_cuda *w, struct attn_lists *l, struct device *d,
                   const struct attn_job *j, const void *at, struct err *e)
{
    if (j->q.type != j->k.type || j->q.type != j->v.type || j->q.type != j->o.type)
        return err_set(e, ERR_BUG, "attention of %s, %s, %s into %s", dtype_name(j->q.type),
                       dtype_name(j->k.type), dtype_name(j->v.type), dtype_name(j->o.type));
    *w = (struct attn_cuda){.q = tensor(&j->q),
                            .k = tensor(&j->k),
                            .v = tensor(&j->v),
                            .o = tensor(&j->o),
                            .len_q = j->q.len,
                            .len_k = j->k.len,
                            .n_heads = j->q.n,
                            .head_dim = j->q.dim,
                            .key_bias = j->plan->key_bias,
                            .scratch = j->scratch,
                            .stream = device_stream(d)};
    if (!at) return 0;
    *l = lists_at(at, j->plan);
    w->lists = l;
    return 0;
}

static int bf16_alone(const char *name, const struct attn_job *j, struct err *e)
{
    if (j->q.type == DTYPE_BF16) return 0;
    return err_set(e, ERR_BUG, "attention kernel %s over %s, wanted BF16", name,
                   dtype_name(j->q.type));
}

static int run_sm90(struct device *d, const struct attn_job *j, const void *at, struct err *e)
{
    struct attn_cuda w;
    struct attn_lists l;
    if (bf16_alone("sm90", j, e) < 0 || call_of(&w, &l, d, j, at, e) < 0) return -1;
    return attn_sm90(&w, e);
}

/* Calls without codes are sm90's: exact steps, layers that an option leaves out. */
static int run_sage(struct device *d, const struct attn_job *j, const void *at, struct err *e)
{
    struct attn_cuda w;
    struct attn_lists l;
    struct quant_codes c;
    if (j->plan->qk == ATTN_PREC_RUN) return run_sm90(d, j, at, e);
    if (bf16_alone("sage", j, e) < 0 || call_of(&w, &l, d, j, at, e) < 0) return -1;
    if (sage_codes(&c, j, e) < 0) return -1;
    return quant_qkv(&c, &w, e) < 0 ? -1 : sage_sm90(&c, &w, e);
}

static int run_sm80(struct device *d, const struct attn_job *j, const void *at, struct err *e)
{
    struct attn_cuda w;
    struct attn_lists l;
    if (bf16_alone("sm80", j, e) < 0 || call_of(&w, &l, d, j, at, e) < 0) return -1;
    return attn_sm80(&w, e);
}

static int run_simt(struct device *d, const struct attn_job *j, const void *at, struct err *e)
{
    struct attn_cuda w;
    struct attn_lists l;
    if (call_of(&w, &l, d, j, at, e) < 0) return -1;
    return attn_simt(&w, j->q.type, e);
}

/* All but products over codes. */
#define EVERY (((1u << ATTN_NEEDS) - 1) & ~(unsigned)(ATTN_NEED_PREC | ATTN_NEED_LOW))
#define CODES (ATTN_NEED_QK_INT8 | ATTN_NEED_QK_INT4 | ATTN_NEED_PV_INT8 | ATTN_NEED_PV_FP8)
#define COMMON (ATTN_NEED_PLANES | ATTN_NEED_DEVICE | ATTN_NEED_BF16)

static bool tiles_sm90(int q, int k) { return q == k && (q == 64 || q == 128); }
static bool tiles_sage(int q, int k) { return q == 128 && k == 128; }
static bool tiles_sm80(int q, int k) { return q == 128 && (k == 64 || k == 128); }
static bool tiles_simt(int q, int k) { return q >= 64 && k >= 32 && q % 64 == 0 && k % 32 == 0; }

static const struct row {
    struct attn_device_kernel kernel;
    int least, most; /* architectures */
    bool fp32; /* runs */
    int dim; /* heads of 1 to so many channels; 0: 64 or 128 */
    bool (*tiles)(int q, int k); /* of plans of equal blocks; NULL: any plan */
    const char *which; /* tiles, for messages */
} rows[] = {
    {{"sm90", "wgmma kernels of Hopper", COMMON, scratch, plan_bytes, put, run_sm90, NULL},
     90,
     90,
     false,
     0,
     tiles_sm90,
     "128 x 128 or 64 x 64"},
    {{"sage", "codes of 8 or 4 bits on Hopper, what has none as sm90", COMMON | CODES, sage_scratch,
      plan_bytes, put, run_sage, sage_pays},
     90,
     90,
     false,
     0,
     tiles_sage,
     "128 x 128"},
    {{"sm80", "mma.sync kernels of every card since Ampere", COMMON | ATTN_NEED_KEY_BIAS, scratch,
      plan_bytes, put, run_sm80, NULL},
     80,
     1000,
     false,
     0,
     tiles_sm80,
     "128 x 64 or 128 x 128"},
    {{"simt", "fp32 throughout, any card", COMMON | ATTN_NEED_KEY_BIAS, scratch, plan_bytes, put,
      run_simt, NULL},
     80,
     1000,
     true,
     128,
     tiles_simt,
     "multiples of 64 x 32"},
    {{"every", "fp32 throughout, any card, any plan", EVERY, every_scratch, every_plan_bytes,
      every_put, every_run, NULL},
     80,
     1000,
     true,
     EVERY_MOST_DIM,
     NULL,
     NULL},
};

/* Why not; 0 when it is the one. */
static int row_takes(const struct row *r, int arch, const struct attn_size *s, struct err *e)
{
    const char *name = r->kernel.name;
    char text[200];
    if (r->kernel.can & ATTN_NEED_LOW && s->needs & ATTN_NEED_PREC)
        return err_set(e, ERR_DEVICE,
                       "attention kernel %s multiplies codes of q and k with values of 8 bits "
                       "alone: name pv=fp8 or pv=int8, or qk=run",
                       name);
    if (arch < r->least || arch > r->most)
        return err_set(e, ERR_DEVICE, "attention kernel %s is not for this card (sm_%d)", name,
                       arch);
    if (!r->fp32 && s->precision == PRECISION_FP32)
        return err_set(e, ERR_DEVICE, "attention kernel %s takes bf16 alone; use --precision bf16",
                       name);
    if (!r->dim && s->head_dim != 64 && s->head_dim != 128)
        return err_set(e, ERR_USAGE,
                       "attention kernel %s takes heads of 64 or 128 channels, not %d", name,
                       s->head_dim);
    if (r->dim && (s->head_dim < 1 || s->head_dim > r->dim))
        return err_set(e, ERR_USAGE, "attention kernel %s takes heads of 1 to %d channels, not %d",
                       name, r->dim, s->head_dim);
    if (s->needs & ~r->kernel.can)
        return err_set(e, ERR_DEVICE, "attention kernel %s cannot do %s", name,
                       attn_needs_text(s->needs & ~r->kernel.can, text, sizeof text));
    if (r->tiles && s->needs & ATTN_NEED_PLANES && !r->tiles(s->block_q, s->block_k))
        return err_set(e, ERR_USAGE, "attention kernel %s takes tiles of %s tokens, not %d x %d",
                       name, r->which, s->block_q, s->block_k);
    return 0;
}

const struct attn_device_kernel *attn_cuda_pick(int arch, const struct attn_size *s,
                                                const char *only, struct err *e)
{
    struct err why = {
        0}; /* of the last row, the one that takes most; where codes are wanted, theirs */
    bool codes = s->needs & (ATTN_NEED_LOW | ATTN_NEED_PREC);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct err no;
        if (only && strcmp(only, rows[i].kernel.name) != 0) continue;
        if (row_takes(&rows[i], arch, s, &no) == 0) return &rows[i].kernel;
        if (only || !codes || rows[i].kernel.can & ATTN_NEED_LOW) why = no;
    }
    if (why.code == ERR_NONE)
        err_set(&why, ERR_USAGE,
                "there is no attention kernel %s on a GPU; there are sm90, sage, sm80, simt, every",
                only);
    *e = why;
    return NULL;
}

static const struct attn_device_kernel *pick(struct device *d, const struct attn_size *s,
                                             const char *only, struct err *e)
{
    int device = 0, major = 0, minor = 0;
    (void)d; /* the one that is current */
    if (cuda_said(e, (int)cudaGetDevice(&device), "which GPU") < 0 ||
        cuda_said(e, (int)cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
                  "what the GPU is") < 0 ||
        cuda_said(e, (int)cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device),
                  "what the GPU is") < 0)
        return NULL;
    return attn_cuda_pick(10 * major + minor, s, only, e);
}

const struct attn_device attn_device_cuda = {pick};
