/* A plan that the card makes, for check_making.c and time_making.c: a problem, and its memory there. */
#ifndef DITGEN_TESTS_BENCH_KERNELS_MAKING_H
#define DITGEN_TESTS_BENCH_KERNELS_MAKING_H

#include "attention/device.h"
#include "model/base/device_table.h"
#include "tests/check.h"

static struct device *device;

static void *need(void *x)
{
    if (!x) exit(4);
    return x;
}

static void *there(size_t bytes, const void *from)
{
    struct err e = {0};
    void *at = NULL;
    CHECK_OK(device_alloc(device, &at, bytes, &e));
    if (!at) exit(5);
    if (from) CHECK_OK(device_upload(device, at, from, bytes, &e));
    return at;
}

/* --- a problem --- */

struct one {
    struct attn_size size;
    struct attn_plan plan;
    struct attn_making how;
    float *x[2]; /* q, k: [len, N, D] */
    int32_t *order;
    uint32_t *forced, *kept;
    bool exact;
};

static float *numbers(struct test_rng *r, size_t n, bool exact)
{
    float *x = need(malloc(n * sizeof *x));
    for (size_t i = 0; i < n; i++)
        x[i] = exact ? (float)rng_int(r, -2, 2) : bf16_round(rng_normal(r));
    return x;
}

static void one_free(struct one *o)
{
    free(o->x[0]), free(o->x[1]), free(o->order), free(o->forced), free(o->kept);
}

/* --- the card's --- */

struct card { /* everything of a plan that is made */
    const struct attn_device_kernel *kernel;
    struct attn_made made;
    char *at;
    size_t bytes;
};

static struct heads tensor(const struct one *o, int which)
{
    const struct attn_size *s = &o->size;
    size_t n = (size_t)s->len_q * (size_t)(s->n_heads * s->head_dim);
    uint16_t *narrow = need(malloc(n * sizeof *narrow));
    for (size_t i = 0; i < n; i++)
        narrow[i] = f32_to_bf16(o->x[which][i]);
    struct heads h = {.at = there(n * sizeof *narrow, narrow),
                      .type = DTYPE_BF16,
                      .where = device_place(device),
                      .len = s->len_q,
                      .n = s->n_heads,
                      .dim = s->head_dim,
                      .token = (int64_t)s->n_heads * s->head_dim,
                      .head = s->head_dim};
    free(narrow);
    return h;
}

static bool card_open(struct card *c, const struct one *o)
{
    struct err e = {0};
    size_t plane = (size_t)o->size.rows * (size_t)attn_words(o->size.cols) * sizeof(uint32_t);
    *c = (struct card){.kernel = attn_device_of(device)->pick(device, &o->size, NULL, &e)};
    CHECK_MSG(c->kernel != NULL, "no kernel: %s", e.msg);
    size_t scratch =
        c->kernel && c->kernel->planner ? c->kernel->planner->scratch(&o->size, &o->how) : 0;
    CHECK_MSG(scratch > 0, "%s makes no such plans", c->kernel ? c->kernel->name : "nothing");
    if (!scratch) return false;
    c->bytes = c->kernel->plan_bytes(&o->size, o->plan.n_heads, attn_plans(&o->plan));
    c->at = there(c->bytes, NULL);
    CHECK_OK(c->kernel->put(device, c->at, &o->plan, &o->size, &e));
    c->made = (struct attn_made){.plan = &o->plan,
                                 .how = &o->how,
                                 .q = tensor(o, 0),
                                 .k = tensor(o, 1),
                                 .forced = o->forced ? there(plane, o->forced) : NULL,
                                 .pairs = there(sizeof(uint64_t), NULL),
                                 .scratch = there(scratch, NULL),
                                 .size = &o->size};
    return true;
}

static void card_close(struct card *c)
{
    device_free(device, c->at);
    device_free(device, c->made.q.at);
    device_free(device, c->made.k.at);
    if (c->made.forced) device_free(device, (void *)(uintptr_t)c->made.forced);
    device_free(device, c->made.pairs);
    device_free(device, c->made.scratch);
}

static void make(struct card *c)
{
    struct err e = {0};
    CHECK_MSG(c->kernel->planner->make(device, c->at, &c->made, &e) == 0, "%s", e.msg);
}

static int making_device(void)
{
    struct err e = {0};
    const char *on = getenv("DITGEN_TEST_DEVICE");
    if (device_open(&device, on ? on : "cuda", &e) == 0) return 0;
    fprintf(stderr, "%s\n", e.msg);
    return (int)e.code;
}

#endif
