/* The host's table of operations: the bytes of this room's functions, refusals, counts; and rows that
 * begin again with each branch. */
#include "model/ops/ops.h"
#include "tests/check.h"

enum { N = 12, D = 16 };

static float x[N * D], y[N * D], z[N * D], w[D * D], gate[N * D];

static void fill(float *to, int n, int seed)
{
    for (int i = 0; i < n; i++)
        to[i] = (float)((i * 37 + seed * 101) % 199) / 100 - 1;
}

static struct rows view(float *at) { return rows_of(NULL, at, DTYPE_F32, N, D); }

static void layers(struct device *d)
{
    const struct ops *o = ops_of(d);
    struct err e = {0};
    struct op_linear *l;
    struct linear *direct;
    struct tensor t = {.data = w, .dtype = DTYPE_F32, .n_dims = 2, .shape = {D, D}};
    struct linear_params p = {.in = D, .out = D, .act = ACT_GELU_TANH};
    size_t scratch;
    CHECK_OK(o->linear_open(&l, d, &p, &t, NULL, NULL, &e));
    CHECK_OK(o->linear_prepare(l, N, &scratch, &e));
    CHECK(scratch <= o->linear_scratch(&p, N) && o->linear_bytes(&p) == linear_bytes(&p));
    CHECK_OK(linear_open(&direct, &p, &t, NULL, &e));
    struct rows from = view(x), to = view(y), both[2] = {view(y), view(z)};
    CHECK_OK(o->linear(l, &to, &from, NULL, &e));
    CHECK_OK(linear_run(direct, z, x, N, NULL, &e));
    CHECK(memcmp(y, z, sizeof y) == 0);
    void *room = aligned_alloc(64, (scratch + 127) / 64 * 64);
    struct op_linear *twice[2] = {l, l};
    CHECK_OK(o->linear_several(twice, both, 2, &from, room, &e));
    CHECK(memcmp(y, z, sizeof y) == 0);
    free(room);
    struct rows narrow = rows_cols(&to, 0, D - 1);
    CHECK(o->linear(l, &narrow, &from, NULL, &e) == -1 && e.code == ERR_BUG);
    linear_close(direct);
    o->linear_close(l);
    o->linear_close(NULL);
}

static void rows_begin_again(struct device *d)
{
    const struct ops *o = ops_of(d);
    struct err e = {0};
    struct rows all = view(y), from = view(x);
    enum { L = N / 2 };
    fill(gate, N * D, 5);
    struct norm_params np = {.eps = 1e-6f,
                             .scale = gate,
                             .shift = gate + D,
                             .mod_stride = 2 * D,
                             .rows_per_mod = 3,
                             .period = L};
    CHECK_OK(o->norm(d, &all, &from, &np, &e));
    for (int half = 0; half < 2; half++) {
        struct norm_params one = np;
        one.period = 0;
        layer_norm(z + half * L * D, x + half * L * D, L, D, &one);
    }
    CHECK(memcmp(y, z, sizeof y) == 0);
    struct rms_rope_params rp = {
        .eps = 1e-6f, .weight = w, .cos_t = gate, .sin_t = gate + 50, .head_dim = 8, .period = L};
    memcpy(y, x, sizeof y), memcpy(z, x, sizeof z);
    CHECK_OK(o->rms_rope(d, &all, &rp, 1, &e));
    rp.period = 0;
    rms_norm_rope(z, L, D, &rp);
    rms_norm_rope(z + L * D, L, D, &rp);
    CHECK(memcmp(y, z, sizeof y) == 0);
    struct gate_params gp = {.gate = gate, .mod_stride = D, .rows_per_mod = 2, .period = L};
    memcpy(y, x, sizeof y), memcpy(z, x, sizeof z);
    CHECK_OK(o->gate(d, &all, &from, &gp, &e));
    gp.period = 0;
    residual_gate(z, x, L, D, &gp);
    residual_gate(z + L * D, x + L * D, L, D, &gp);
    CHECK(memcmp(y, z, sizeof y) == 0);
}

static void casts(struct device *d)
{
    const struct ops *o = ops_of(d);
    struct err e = {0};
    uint16_t narrow[N * D];
    struct rows from = view(x), to = view(y), small = rows_of(d, narrow, DTYPE_BF16, N, D);
    CHECK_OK(o->cast(d, &small, &from, false, &e));
    CHECK_OK(o->cast(d, &to, &small, false, &e));
    for (int i = 0; i < N * D; i++)
        CHECK(y[i] == bf16_round(x[i]));
    CHECK_OK(o->cast(d, &to, &from, true, &e));
    for (int i = 0; i < N * D; i++)
        CHECK(y[i] == bf16_round(x[i]));
    struct rows part = rows_cols(&from, 4, 8), mid = rows_part(&to, 2, 3);
    struct rows src = rows_part(&part, 1, 3), dst = rows_cols(&mid, 0, 8);
    CHECK_OK(o->cast(d, &dst, &src, false, &e));
    CHECK(memcmp(y + 2 * D, x + D + 4, 8 * sizeof *x) == 0);
    struct rows wrong = rows_of(d, y, DTYPE_I32, N, D);
    CHECK(o->cast(d, &wrong, &from, false, &e) == -1 && e.code == ERR_BUG);
    struct heads h = rows_heads(&from, 4);
    CHECK(h.n == 4 && h.dim == 4 && h.token == D && h.len == N);
}

static void numbers_that_are_none(struct device *d)
{
    const struct ops *o = ops_of(d);
    struct err e = {0};
    struct rows r = view(x);
    int label;
    CHECK_OK(o->finite(d, &r, 3, &e));
    CHECK_OK(o->finite_seen(d, &label, &e));
    CHECK(label == 0);
    x[N * D - 1] = NAN;
    CHECK_OK(o->finite(d, &r, 4, &e));
    x[0] = INFINITY;
    CHECK_OK(o->finite(d, &r, 5, &e));
    CHECK_OK(o->finite_seen(d, &label, &e));
    CHECK(label == 4);
    CHECK_OK(o->finite_seen(d, &label, &e));
    CHECK(label == 0);
    struct lincomb_place place = ops_place(d);
    CHECK_OK(place.finite(place.ctx, x, N * D, 7, &label, &e));
    CHECK(label == 7);
    CHECK_OK(place.note(place.ctx, x, N * D, 8, &e));
    CHECK_OK(place.note(place.ctx, x, N * D, 9, &e));
    CHECK(place.noted(place.ctx) == 8);
    CHECK_OK(place.finite(place.ctx, x, N * D, 10, &label, &e));
    CHECK(label == 8 && place.noted(place.ctx) == 0); /* the first, and it is forgotten */
    CHECK(o->finite(NULL, &r, 1, &e) == -1); /* who would remember it? */
}

int main(void)
{
    struct device *d;
    struct err e = {0};
    long n[DEVICE_OPS];
    CHECK_OK(device_open(&d, "cpu", &e));
    CHECK(ops_of(d) == &ops_cpu && ops_of(NULL) == &ops_cpu);
    fill(x, N * D, 1), fill(w, D * D, 2);
    layers(d);
    rows_begin_again(d);
    casts(d);
    numbers_that_are_none(d);
    device_counts(d, n);
    CHECK(n[OP_LINEAR] == 3 && n[OP_NORM] == 1 && n[OP_RMS_ROPE] == 1 && n[OP_GATE] == 1 &&
          n[OP_CAST] == 4);
    for (int i = 0; i < OP_COUNT; i++)
        CHECK(op_name(i) && op_name(i)[0]);
    CHECK(!op_name(OP_COUNT) && !op_name(-1));
    CHECK_STR(op_name(DEVICE_OP_ATTENTION), "attention");
    device_close(d);
    return TEST_RESULT();
}
