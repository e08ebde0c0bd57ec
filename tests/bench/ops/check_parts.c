/* A feed-forward of more rows than its middle holds at a time: its results are those of fewer rows, wherever a part
 * ends, and lie in the scratch that was asked for. */
#include "tests/bench/ops/check_ops.h"

#include "model/base/device_table.h"
#include "model/ops/ops.h"

/* 16,384 numbers of bf16 a row: 625 MiB of a middle */
enum { D = 64, F = 16384, ROWS = 20000, FEWER = ROWS / 4, EDGE = 256 };

static int open_layer(struct op_linear **l, struct device *d, struct test_rng *r, int in, int out,
                      enum precision precision, enum activation act, struct err *e)
{
    size_t n = (size_t)in * (size_t)out;
    float *w = host_new(n * 4), *b = host_new((size_t)out * 4);
    for (size_t i = 0; i < n; i++)
        w[i] = (float)((double)rng_normal(r) / sqrt((double)in));
    for (int i = 0; i < out; i++)
        b[i] = rng_normal(r) / 4;
    struct linear_params p = {
        .in = in, .out = out, .precision = precision, .act = act, .round_out = true};
    struct tensor weight = {.data = w, .dtype = DTYPE_F32, .n_dims = 2, .shape = {out, in}};
    struct tensor bias = {.data = b, .dtype = DTYPE_F32, .n_dims = 1, .shape = {out}};
    int rc = ops_of(d)->linear_open(l, d, &p, &weight, &bias, NULL, e);
    if (rc == 0) rc = device_wait(d, e);
    free(w), free(b);
    return rc;
}

static void compare(const struct numbers *whole, const struct numbers *parts)
{
    float *x = numbers_down(whole), *y = numbers_down(parts);
    /* sums of a product may come in another order where another kernel takes other rows: a unit of bf16 here and
     * there, of the middle or of the result */
    double off = rel_l2(x, y, whole->n);
    verdict_note(off / (2 * U_BF16), off);
    verdict_that(off <= 2 * U_BF16, "rows of several parts are what they are alone");
    free(x), free(y);
}

static void one(struct device *d, struct test_rng *r, enum precision precision)
{
    const struct ops *o = ops_of(d);
    struct op_linear *up = NULL, *down = NULL;
    struct err e = {0};
    size_t bytes = 0, fewer = 0;
    unsigned char edge[EDGE];
    void *room = NULL;
    struct numbers x = numbers_new(DTYPE_BF16, (size_t)ROWS * D),
                   whole = numbers_new(DTYPE_BF16, x.n), parts = numbers_new(DTYPE_BF16, x.n);
    numbers_normal(&x, r, 0, 1);
    numbers_dirty(&whole), numbers_dirty(&parts);
    struct rows from = rows_of(d, x.device, DTYPE_BF16, ROWS, D),
                all = rows_of(d, whole.device, DTYPE_BF16, ROWS, D),
                some = rows_of(d, parts.device, DTYPE_BF16, ROWS, D);
    verdict_case("%d rows, %d -> %d, %s", ROWS, D, F, precision_name(precision));
    memset(edge, 0xab, sizeof edge);
    int rc = open_layer(&up, d, r, D, F, precision, ACT_GELU_TANH, &e);
    if (rc == 0) rc = open_layer(&down, d, r, F, D, precision, ACT_NONE, &e);
    if (rc == 0) rc = o->ffn_prepare(up, down, ROWS, &bytes, &e);
    if (rc == 0) rc = o->ffn_prepare(up, down, FEWER, &fewer, &e);
    verdict_that(rc < 0 || fewer <= bytes, "fewer rows want no more scratch");
    if (rc == 0) rc = device_alloc(d, &room, bytes + EDGE, &e);
    if (rc == 0) rc = device_upload(d, (char *)room + bytes, edge, EDGE, &e);
    if (rc == 0) rc = o->ffn(up, down, &all, &from, room, &e);
    for (int64_t at = 0; rc == 0 && at < ROWS; at += FEWER) {
        struct rows a = rows_part(&from, at, FEWER), b = rows_part(&some, at, FEWER);
        rc = o->ffn(up, down, &b, &a, room, &e);
    }
    if (rc == 0) rc = device_download(d, edge, (char *)room + bytes, EDGE, &e);
    verdict_that(rc == 0, rc ? e.msg : "");
    if (rc == 0) compare(&whole, &parts);
    int touched = 0;
    for (int i = 0; i < EDGE; i++)
        touched += edge[i] != 0xab;
    verdict_that(!touched, "nothing behind the scratch is written");
    o->linear_close(up), o->linear_close(down);
    device_free(d, room);
    numbers_free(&x), numbers_free(&whole), numbers_free(&parts);
}

void check_parts(struct test_rng *r, bool small)
{
    struct device *d;
    struct err e = {0};
    enum dtype type;
    if (small) return; /* large or nothing */
    verdict_begin("feed-forward in parts");
    verdict_case("opening");
    if (device_open(&d, "cuda", &e) < 0) {
        verdict_that(false, e.msg);
        return;
    }
    one(d, r, PRECISION_BF16);
    if (ops_of(d)->type(d, PRECISION_FP8, &type, &e) == 0) one(d, r, PRECISION_FP8);
    device_close(d);
}
