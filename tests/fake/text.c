/* UMT5's operations of the fake: the host's behind its addresses. */
#include "model/ops/text.h"

#include "tests/fake/fake.h"

static struct rows real(const struct rows *r)
{
    struct rows h = *r;
    h.at = fake_real(r->at);
    h.where = PLACE_HOST;
    return h;
}

struct args {
    struct rows y, x;
    struct text_attention a;
    const float *weight;
    float *bias;
    const int *bucket;
    double eps;
    int n_heads, span;
    bool round;
    void *scratch;
};

static int do_norm(struct device *d, void *args, struct err *e)
{
    struct args *a = args;
    return text_ops_cpu.norm(d, &a->y, &a->x, a->weight, a->eps, a->round, e);
}

static int norm(struct device *d, const struct rows *y, const struct rows *x, const float *weight,
                double eps, bool round, struct err *e)
{
    struct args a = {
        .y = real(y), .x = real(x), .weight = fake_real(weight), .eps = eps, .round = round};
    return fake_do(d, do_norm, &a, sizeof a, e);
}

static int do_multiply(struct device *d, void *args, struct err *e)
{
    struct args *a = args;
    return text_ops_cpu.multiply(d, &a->y, &a->x, a->round, e);
}

static int multiply(struct device *d, const struct rows *y, const struct rows *x, bool round,
                    struct err *e)
{
    struct args a = {.y = real(y), .x = real(x), .round = round};
    return fake_do(d, do_multiply, &a, sizeof a, e);
}

static int do_spread(struct device *d, void *args, struct err *e)
{
    struct args *a = args;
    return text_ops_cpu.spread_bias(d, a->bias, a->weight, a->bucket, a->n_heads, a->span, e);
}

static int spread_bias(struct device *d, float *bias, const float *table, const int *bucket,
                       int n_heads, int span, struct err *e)
{
    struct args a = {.bias = fake_real(bias),
                     .weight = fake_real(table),
                     .bucket = fake_real(bucket),
                     .n_heads = n_heads,
                     .span = span};
    return fake_do(d, do_spread, &a, sizeof a, e);
}

static size_t attend_scratch(int n, int n_heads, int dim)
{
    return text_ops_cpu.attend_scratch(n, n_heads, dim);
}

static int do_attend(struct device *d, void *args, struct err *e)
{
    struct args *a = args;
    return text_ops_cpu.attend(d, &a->a, a->scratch, e);
}

static int attend(struct device *d, const struct text_attention *t, void *scratch, struct err *e)
{
    struct args a = {.a = *t, .scratch = fake_real(scratch)};
    a.a.o = real(&t->o), a.a.q = real(&t->q), a.a.k = real(&t->k), a.a.v = real(&t->v);
    a.a.bias = fake_real(t->bias);
    return fake_do(d, do_attend, &a, sizeof a, e);
}

const struct text_ops fake_text = {
    .norm = norm,
    .multiply = multiply,
    .spread_bias = spread_bias,
    .attend_scratch = attend_scratch,
    .attend = attend,
};
