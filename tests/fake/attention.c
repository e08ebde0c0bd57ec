/* Attention of the fake: the host's kernels behind its addresses. A prepared plan is a copy of the plan
 * and its arrays in the device's memory. */
#include "tests/fake/fake.h"

#include "model/base/cpu.h"

#include <stdlib.h>
#include <string.h>

static struct heads real(const struct heads *h)
{
    struct heads r = *h;
    r.at = fake_real(h->at);
    r.where = PLACE_HOST;
    return r;
}

static const struct attn_kernel *host_kernel(const struct attn_size *s, struct err *e)
{
    struct cpu c;
    cpu_detect(&c);
    return attn_kernel_pick(s, &c, NULL, e);
}

static size_t scratch(const struct attn_size *s)
{
    struct err e;
    const struct attn_kernel *k = host_kernel(s, &e);
    return k ? k->scratch(s) : 0;
}

/* --- a plan there: the struct, then its arrays --- */

#define PLANES 4

struct counts { /* elements of 4 bytes */
    size_t plane, q_order, k_order, q_at, k_at, ptr, columns;
};

static size_t bytes_of(const struct counts *n, int planes)
{
    size_t words = (size_t)planes * n->plane + n->q_order + n->k_order + n->q_at + n->k_at +
                   n->ptr + n->columns;
    return sizeof(struct attn_plan) + 256 /* heads */ + words * sizeof(uint32_t);
}

static size_t plan_bytes(const struct attn_size *s, int heads, int plans)
{
    size_t n = (size_t)plans, rows = n * (size_t)s->rows;
    struct counts c = {.plane = rows * (size_t)attn_words(s->cols),
                       .q_order = n * (size_t)s->len_q,
                       .k_order = n * (size_t)s->len_k,
                       .q_at = rows + n,
                       .k_at = n * ((size_t)s->cols + 1),
                       .ptr = rows + 1,
                       .columns = rows * (size_t)s->columns};
    (void)heads;
    return bytes_of(&c, PLANES);
}

static struct counts counts_of(const struct attn_plan *p)
{
    size_t n = (size_t)attn_plans(p), rows = n * (size_t)p->q.n;
    struct counts c = {.plane = attn_plane_size(p)};
    if (p->q_order.token) c.q_order = (p->q_order.stride ? n : 1) * (size_t)p->q.len;
    if (p->k_order.token) c.k_order = (p->k_order.stride ? n : 1) * (size_t)p->k.len;
    if (!p->q.size) c.q_at = (p->q.stride ? n : 1) * ((size_t)p->q.n + 1);
    if (!p->k.size) c.k_at = (p->k.stride ? n : 1) * ((size_t)p->k.n + 1);
    if (p->column_ptr) c.ptr = rows + 1, c.columns = p->column_ptr[rows];
    return c;
}

/* n elements of 4 bytes → *at, which moves on. */
static void *take(char **at, const void *from, size_t n)
{
    char *to = *at;
    if (!from) return NULL;
    *at += n * sizeof(uint32_t);
    return memcpy(to, from, n * sizeof(uint32_t));
}

/* Tables of the plans one after another, whatever lay between them. */
static const int32_t *take_tables(char **at, const int32_t *from, int64_t *stride, size_t n,
                                  size_t all)
{
    char *to = *at;
    if (!from) return NULL;
    for (size_t i = 0; i * n < all; i++)
        take(at, from + (int64_t)i * *stride, n);
    if (*stride) *stride = (int64_t)n;
    return (const int32_t *)(void *)to;
}

struct putting {
    char *at;
    const struct attn_plan *plan;
};

static int do_put(struct device *d, void *args, struct err *e)
{
    struct putting *p = args;
    const struct attn_plan *from = p->plan;
    struct attn_plan *to = (struct attn_plan *)(void *)p->at;
    struct counts n = counts_of(from);
    char *at = p->at + sizeof *to;
    (void)d, (void)e;
    *to = *from;
    if (from->heads) to->heads = memcpy(at, from->heads, (size_t)from->n_heads);
    at += 256;
    to->kept = take(&at, from->kept, n.plane);
    to->forced = take(&at, from->forced, n.plane);
    to->dead = take(&at, from->dead, n.plane);
    to->mean = take(&at, from->mean, n.plane);
    to->q_order.token =
        take_tables(&at, from->q_order.token, &to->q_order.stride, (size_t)from->q.len, n.q_order);
    to->k_order.token =
        take_tables(&at, from->k_order.token, &to->k_order.stride, (size_t)from->k.len, n.k_order);
    if (!from->q.size)
        to->q.at = take_tables(&at, from->q.at, &to->q.stride, (size_t)from->q.n + 1, n.q_at);
    if (!from->k.size)
        to->k.at = take_tables(&at, from->k.at, &to->k.stride, (size_t)from->k.n + 1, n.k_at);
    to->column_ptr = take(&at, from->column_ptr, n.ptr);
    to->columns = take(&at, from->columns, n.columns);
    return 0;
}

static int put(struct device *d, void *at, const struct attn_plan *plan, const struct attn_size *s,
               struct err *e)
{
    struct putting p = {fake_real(at), plan};
    struct counts n = counts_of(plan);
    int planes =
        (plan->kept != NULL) + (plan->forced != NULL) + (plan->dead != NULL) + (plan->mean != NULL);
    if (device_is_recording(d)) return err_set(e, ERR_BUG, "a plan is put while recording");
    if (bytes_of(&n, planes) > plan_bytes(s, plan->n_heads, attn_plans(plan)))
        return err_set(e, ERR_BUG, "a plan of %zu bytes in room for %zu", bytes_of(&n, planes),
                       plan_bytes(s, plan->n_heads, attn_plans(plan)));
    return fake_do(d, do_put, &p, sizeof p, e);
}

/* --- a launch --- */

struct running {
    struct attn_job job;
    struct attn_plan plan;
    struct attn_size size;
    uint8_t heads[256];
    const struct attn_plan *prepared;
};

/* ZERO and COPY, which convert here. */
static void fill(const struct attn_job *j, const struct attn_plan *p)
{
    for (int i = 0; i < p->n_heads; i++)
        for (int token = 0; token < p->q.len; token++) {
            void *to = heads_at(&j->o, token, attn_head(p, i));
            const void *from =
                p->rule == ATTN_COPY ? heads_at(&j->residual, token, attn_head(p, i)) : NULL;
            for (int c = 0; c < j->o.dim; c++) {
                float x = !from ? 0
                          : j->residual.type == DTYPE_BF16
                              ? bf16_to_f32(((const uint16_t *)from)[c])
                              : ((const float *)from)[c];
                if (j->o.type == DTYPE_BF16)
                    ((uint16_t *)to)[c] = f32_to_bf16(x);
                else
                    ((float *)to)[c] = x;
            }
        }
}

static int do_run(struct device *d, void *args, struct err *e)
{
    struct running *r = args;
    const struct attn_kernel *k = host_kernel(&r->size, e);
    struct attn_plan plan = r->prepared ? *r->prepared : r->plan;
    (void)d;
    if (!k) return -1;
    plan.where = PLACE_HOST;
    plan.key_bias = r->plan.key_bias;
    plan.rule = r->plan.rule;
    plan.walk = r->plan.walk;
    plan.qk = r->plan.qk, plan.pv = r->plan.pv, plan.codes = r->plan.codes;
    if (plan.heads) plan.heads = r->heads;
    r->job.plan = &plan;
    r->job.size = &r->size;
    if (plan.rule == ATTN_ZERO || plan.rule == ATTN_COPY) {
        fill(&r->job, &plan);
        return 0;
    }
    return attn_kernel_run(k, &r->job, e);
}

static int run(struct device *d, const struct attn_job *j, const void *at, struct err *e)
{
    struct running r = {.job = *j, .plan = *j->plan, .size = *j->size, .prepared = fake_real(at)};
    struct heads *tensors[] = {&r.job.q,        &r.job.k,      &r.job.v,      &r.job.o,
                               &r.job.residual, &r.job.k_mean, &r.job.v_mean, &r.job.v_sum};
    for (size_t i = 0; i < ARRAY_LEN(tensors); i++)
        *tensors[i] = real(tensors[i]);
    r.job.lse = fake_real(j->lse);
    r.job.mass = fake_real(j->mass);
    r.job.alive = fake_real(j->alive);
    r.job.scratch = fake_real(j->scratch);
    r.plan.key_bias = fake_real(j->plan->key_bias);
    if (j->plan->heads) memcpy(r.heads, j->plan->heads, (size_t)j->plan->n_heads);
    if (!at) r.plan.all = true; /* its arrays are not the device's */
    if (!at) r.plan.q_order.token = r.plan.k_order.token = NULL;
    return fake_do(d, do_run, &r, sizeof r, e);
}

/* As the host's, so that both are granted the same. */
static unsigned pays(const struct attn_size *s)
{
    struct err e;
    const struct attn_kernel *k = host_kernel(s, &e);
    return k && k->pays ? k->pays(s) : 0;
}

static const struct attn_device_kernel kernel = {
    .name = "fake",
    .summary = "the host's, in tests",
    .can = ~0u,
    .scratch = scratch,
    .plan_bytes = plan_bytes,
    .put = put,
    .run = run,
    .pays = pays,
    .planner = &fake_planner,
};

static const struct attn_device_kernel *pick(struct device *d, const struct attn_size *s,
                                             const char *only, struct err *e)
{
    (void)d;
    if (only && strcmp(only, kernel.name) != 0) {
        err_set(e, ERR_USAGE, "no attention kernel is named %s; there is fake", only);
        return NULL;
    }
    return host_kernel(s, e) ? &kernel : NULL;
}

const struct attn_device fake_attention = {.pick = pick};
