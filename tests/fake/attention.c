/* Attention of the fake: the host's kernels behind its addresses. A prepared plan is a copy of the plan
 * and its planes in the device's memory. */
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

struct prepared { /* followed by the kept planes, then both orders */
    struct attn_plan plan;
};

static size_t plan_bytes(const struct attn_size *s)
{
    size_t words = (size_t)s->n_heads * (size_t)s->rows * (size_t)attn_words(s->cols);
    return sizeof(struct prepared) + 4 * (words + 2 * (size_t)s->n_heads * (size_t)s->len_q);
}

struct putting {
    char *at;
    const struct attn_plan *plan;
};

static int do_put(struct device *d, void *args, struct err *e)
{
    struct putting *p = args;
    struct prepared *to = (struct prepared *)(void *)p->at;
    char *at = p->at + sizeof *to;
    (void)d, (void)e;
    to->plan = *p->plan;
    if (p->plan->kept) {
        size_t bytes = attn_plane_size(p->plan) * sizeof(uint32_t);
        to->plan.kept = memcpy(at, p->plan->kept, bytes);
        at += bytes;
    }
    struct attn_order *orders[] = {&to->plan.q_order, &to->plan.k_order};
    for (int i = 0; i < 2; i++) {
        if (!orders[i]->token) continue;
        size_t n = (size_t)(orders[i]->stride ? p->plan->n_heads : 1) * (size_t)p->plan->q.len;
        orders[i]->token = memcpy(at, orders[i]->token, n * sizeof(int32_t));
        at += n * sizeof(int32_t);
    }
    return 0;
}

static int put(struct device *d, void *at, const struct attn_plan *plan, const struct attn_size *s,
               struct err *e)
{
    struct putting p = {fake_real(at), plan};
    (void)s;
    if (device_is_recording(d)) return err_set(e, ERR_BUG, "a plan is put while recording");
    if (plan->q.at || plan->k.at || plan->mean || plan->forced || plan->dead)
        return err_set(e, ERR_DEVICE, "the fake device takes equal tiles that are kept or not");
    return fake_do(d, do_put, &p, sizeof p, e);
}

struct running {
    struct attn_job job;
    struct attn_plan plan;
    struct attn_size size;
    const struct prepared *prepared;
};

static int do_run(struct device *d, void *args, struct err *e)
{
    struct running *r = args;
    const struct attn_kernel *k = host_kernel(&r->size, e);
    (void)d;
    if (!k) return -1;
    r->job.plan = r->prepared ? &r->prepared->plan : &r->plan;
    r->job.size = &r->size;
    return attn_kernel_run(k, &r->job, e);
}

static int run(struct device *d, const struct attn_job *j, const void *at, struct err *e)
{
    struct running r = {.job = *j, .plan = *j->plan, .size = *j->size, .prepared = fake_real(at)};
    r.job.q = real(&j->q), r.job.k = real(&j->k), r.job.v = real(&j->v), r.job.o = real(&j->o);
    r.job.scratch = fake_real(j->scratch);
    r.plan.key_bias = fake_real(j->plan->key_bias);
    r.plan.where = PLACE_HOST;
    return fake_do(d, do_run, &r, sizeof r, e);
}

static const struct attn_device_kernel kernel = {
    .name = "fake",
    .summary = "the host's, in tests",
    .can = ~0u,
    .scratch = scratch,
    .plan_bytes = plan_bytes,
    .put = put,
    .run = run,
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
