/* The whole table of a GPU against the host's, call by call over one set of numbers: fp32, and bf16
 * against the host's emulation, which rounds in the same places. Then the same calls recorded and
 * replayed, to the same bytes; every allocation failing in turn; what is refused. */
#include "tests/bench/ops/check_ops.h"

#include "model/base/device_table.h"
#include "model/ops/ops.h"

enum { FRAMES = 3, GH = 4, GW = 5, L = FRAMES * GH * GW, BRANCHES = 2, ROWS = BRANCHES * L };
enum { HEADS = 2, DIM = 16, D = HEADS * DIM, F = 56, CH = 8, HALF = 32, MODS = 6 };

struct side { /* one table at work */
    struct device *d;
    const struct ops *o;
    enum precision precision;
    enum dtype type;
    struct op_linear *layer[7]; /* q k v up down time head */
    void *piece, *scratch; /* scratch lies within piece */
    float *latents, *velocity, *freqs, *times, *cos_t, *sin_t, *vectors, *table, *mods;
    void *x, *n, *q[3], *cols, *sinus, *time_h, *temb, *out;
};
enum { Q, K, V, UP, DOWN, TIME, HEAD };
static const int shapes[7][2] = {{D, D},     {D, D}, {D, D}, {D, F}, {F, D}, {2 * HALF, MODS *D},
                                 {D, 4 * CH}};

struct source { /* the same numbers for both sides */
    float weight[7][64 * MODS * D], bias[7][MODS * D];
    float latents[4 * CH * L], freqs[HALF], times[FRAMES], cos_t[L * DIM / 2], sin_t[L * DIM / 2];
    float vectors[2 * D], table[MODS * D];
};

static struct rows view(const struct side *s, void *at, enum dtype type, int n, int cols)
{
    return rows_of(s->d, at, type, n, cols);
}

static int take(struct side *s, void *slot, size_t bytes, struct err *e)
{
    void *at;
    if (device_alloc(s->d, &at, bytes, e) < 0) return -1;
    memcpy(slot, &at, sizeof at);
    return 0;
}
static int put(struct side *s, float **slot, const float *from, size_t n, struct err *e)
{
    if (take(s, slot, n * 4, e) < 0) return -1;
    return from ? device_upload(s->d, *slot, from, n * 4, e) : 0;
}

static int open_layers(struct side *s, const struct source *from, struct err *e)
{
    size_t most = 0, bytes;
    for (int i = 0; i < 7; i++) {
        struct linear_params p = {.in = shapes[i][0],
                                  .out = shapes[i][1],
                                  .precision = i == TIME ? PRECISION_FP32 : s->precision,
                                  .act = i == UP     ? ACT_GELU_TANH
                                         : i == TIME ? ACT_SILU
                                                     : ACT_NONE,
                                  .round_out = true};
        struct tensor w = {
            .data = from->weight[i], .dtype = DTYPE_F32, .n_dims = 2, .shape = {p.out, p.in}};
        struct tensor b = {
            .data = from->bias[i], .dtype = DTYPE_F32, .n_dims = 1, .shape = {p.out}};
        if (s->o->linear_open(&s->layer[i], s->d, &p, &w, &b, NULL, e) < 0 ||
            s->o->linear_prepare(s->layer[i], i == TIME ? FRAMES : ROWS, &bytes, e) < 0)
            return -1;
        if (bytes > most) most = bytes;
    }
    if (s->o->ffn_prepare(s->layer[UP], s->layer[DOWN], ROWS, &bytes, e) < 0) return -1;
    if (take(s, &s->piece, (bytes > most ? bytes : most) + 64, e) < 0) return -1;
    s->scratch = (char *)s->piece + 64; /* as an arena may place it */
    return 0;
}

static int open_side(struct side *s, struct device *d, enum precision precision,
                     const struct source *f, struct err *e)
{
    *s = (struct side){.d = d, .o = ops_of(d), .precision = precision};
    if (!s->o) return err_set(e, ERR_BUG, "no table");
    if (s->o->type(d, precision, &s->type, e) < 0 || open_layers(s, f, e) < 0) return -1;
    size_t row = 4 * (size_t)ROWS;
    void *slots[] = {&s->x, &s->n, &s->q[0], &s->q[1], &s->q[2], &s->out};
    for (int i = 0; i < 6; i++)
        if (take(s, slots[i], row * D, e) < 0) return -1;
    if (take(s, &s->cols, row * 4 * CH, e) < 0 ||
        take(s, &s->sinus, FRAMES * 2 * HALF * 4, e) < 0 ||
        take(s, &s->time_h, FRAMES * MODS * D * 4, e) < 0 ||
        take(s, &s->temb, FRAMES * MODS * D * 4, e) < 0)
        return -1;
    return put(s, &s->latents, f->latents, 4 * CH * L, e) < 0 ||
                   put(s, &s->velocity, NULL, 4 * CH * L, e) < 0 ||
                   put(s, &s->freqs, f->freqs, HALF, e) < 0 ||
                   put(s, &s->times, f->times, FRAMES, e) < 0 ||
                   put(s, &s->cos_t, f->cos_t, L * DIM / 2, e) < 0 ||
                   put(s, &s->sin_t, f->sin_t, L * DIM / 2, e) < 0 ||
                   put(s, &s->vectors, f->vectors, 2 * D, e) < 0 ||
                   put(s, &s->table, f->table, MODS * D, e) < 0 ||
                   put(s, &s->mods, NULL, FRAMES * MODS * D, e) < 0
               ? -1
               : 0;
}

static void close_side(struct side *s)
{
    void *all[] = {s->piece,   s->latents, s->velocity, s->freqs,  s->times, s->cos_t, s->sin_t,
                   s->vectors, s->table,   s->mods,     s->x,      s->n,     s->q[0],  s->q[1],
                   s->q[2],    s->cols,    s->sinus,    s->time_h, s->temb,  s->out};
    for (int i = 0; s->o && i < 7; i++)
        s->o->linear_close(s->layer[i]);
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        device_free(s->d, all[i]);
}

/* Every operation of the table once or more, as a transformer has them. */
static int work(struct side *s, struct err *e)
{
    const struct ops *o = s->o;
    struct device *d = s->d;
    bool round = s->precision != PRECISION_FP32;
    struct patch_grid g = {CH, FRAMES, 2 * GH, 2 * GW, 2, 2};
    struct rows sinus = view(s, s->sinus, DTYPE_F32, FRAMES, 2 * HALF),
                h = view(s, s->time_h, DTYPE_F32, FRAMES, MODS * D);
    struct rows temb = view(s, s->temb, DTYPE_F32, FRAMES, MODS * D),
                mods = view(s, s->mods, DTYPE_F32, FRAMES, MODS * D);
    struct rows cols = view(s, s->cols, s->type, L, 4 * CH), x = view(s, s->x, s->type, ROWS, D),
                n = view(s, s->n, s->type, ROWS, D);
    struct rows q[3], first = rows_part(&x, 0, L), second = rows_part(&x, L, L),
                      out = view(s, s->out, s->type, ROWS, D);
    for (int i = 0; i < 3; i++)
        q[i] = view(s, s->q[i], s->type, ROWS, D);
    if (o->sinusoid(d, &sinus, s->times, s->freqs, e) < 0 ||
        o->linear(s->layer[TIME], &h, &sinus, s->scratch, e) < 0 ||
        o->act(d, &temb, &h, ACT_SILU, round, e) < 0 ||
        o->add_table(d, &mods, &temb, s->table, e) < 0)
        return -1;
    struct rows narrow = rows_cols(&cols, 0, D);
    if (o->patchify(d, &cols, s->latents, &g, e) < 0 || o->cast(d, &first, &narrow, false, e) < 0 ||
        o->cast(d, &second, &first, round, e) < 0)
        return -1;
    struct norm_params np = {.eps = 1e-6f,
                             .shift = s->mods,
                             .scale = s->mods + D,
                             .mod_stride = MODS * D,
                             .rows_per_mod = L / FRAMES,
                             .period = L,
                             .round = round};
    struct norm_params affine = {
        .eps = 1e-6f, .weight = s->vectors, .bias = s->vectors + D, .round = round};
    struct gate_params gp = {.gate = s->mods + 2 * D,
                             .mod_stride = MODS * D,
                             .rows_per_mod = L / FRAMES,
                             .period = L,
                             .round = round};
    struct gate_params plain = {.round = round};
    struct rms_rope_params rp[2] = {{.eps = 1e-6f,
                                     .weight = s->vectors,
                                     .cos_t = s->cos_t,
                                     .sin_t = s->sin_t,
                                     .head_dim = DIM,
                                     .period = L,
                                     .round = round}};
    rp[1] = rp[0], rp[1].weight = s->vectors + D;
    if (o->norm(d, &n, &x, &np, e) < 0 ||
        o->linear_several(s->layer, q, 3, &n, s->scratch, e) < 0 ||
        o->rms_rope(d, q, rp, 2, e) < 0 || o->gate(d, &x, &q[0], &gp, e) < 0 ||
        o->gate_norm(d, &x, &q[1], &gp, &n, &np, e) < 0 ||
        o->gate_norm(d, &x, &q[2], &plain, &n, &affine, e) < 0 ||
        o->ffn(s->layer[UP], s->layer[DOWN], &out, &n, s->scratch, e) < 0 ||
        o->gate(d, &x, &out, &gp, e) < 0)
        return -1;
    struct lincomb l = {.to = 0, .n = 3, .from = {0, 1, 1}, .c = {0.75f, -0.5f, 0.125f}};
    float *buffers[2] = {s->velocity, s->latents};
    if (o->linear(s->layer[HEAD], &cols, &first, s->scratch, e) < 0 ||
        o->unpatchify(d, s->velocity, &cols, &g, e) < 0 ||
        o->lincomb(d, buffers, &l, 4 * CH * L, round, e) < 0)
        return -1;
    struct rows v = view(s, s->velocity, DTYPE_F32, CH, 4 * L);
    return o->finite(d, &v, 3, e);
}

static float *down(struct side *s, const void *at, enum dtype type, size_t n)
{
    struct err e = {0};
    void *raw = host_new(n * 4);
    float *out = host_new(n * 4);
    if (device_download(s->d, raw, at, n * dtype_size(type), &e) < 0) verdict_that(false, e.msg);
    dtype_to_f32(out, raw, type, n);
    free(raw);
    return out;
}

static void close_to(struct side *gpu, struct side *cpu, const char *what, const void *a,
                     enum dtype type, const void *b, size_t n, double tolerance)
{
    float *x = down(gpu, a, type, n), *y = down(cpu, b, DTYPE_F32, n);
    double r = rel_l2(x, y, n);
    char text[120];
    snprintf(text, sizeof text, "%s: relative L2 %.3g, wanted %.3g", what, r, tolerance);
    verdict_note(r / tolerance, r);
    verdict_that(r <= tolerance, text);
    free(x), free(y);
}

static void one_precision(struct device *gpu, struct device *cpu, const struct source *f, bool bf16)
{
    struct side a, b;
    struct err e = {0};
    int label = -1;
    verdict_case("%s", bf16 ? "bf16" : "fp32");
    if (open_side(&a, gpu, bf16 ? PRECISION_BF16 : PRECISION_FP32, f, &e) < 0 ||
        open_side(&b, cpu, bf16 ? PRECISION_BF16_EMULATED : PRECISION_FP32, f, &e) < 0 ||
        work(&a, &e) < 0 || work(&b, &e) < 0 || device_wait(gpu, &e) < 0 ||
        a.o->finite_seen(gpu, &label, &e) < 0) {
        verdict_that(false, e.msg);
        return;
    }
    verdict_that(label == 0, "everything is finite");
    /* a dozen roundings one after another; bf16: some fall to the other side on one of the two */
    double t = bf16 ? 12 * U_BF16 / 2 : 64 * U_F32;
    close_to(&a, &b, "modulation", a.mods, DTYPE_F32, b.mods, FRAMES * MODS * D, bf16 ? t : t);
    close_to(&a, &b, "q", a.q[0], a.type, b.q[0], ROWS * D, t);
    close_to(&a, &b, "k", a.q[1], a.type, b.q[1], ROWS * D, t);
    close_to(&a, &b, "v", a.q[2], a.type, b.q[2], ROWS * D, t);
    close_to(&a, &b, "feed-forward", a.out, a.type, b.out, ROWS * D, t);
    close_to(&a, &b, "residual stream", a.x, a.type, b.x, ROWS * D, t);
    close_to(&a, &b, "velocity", a.velocity, DTYPE_F32, b.velocity, 4 * CH * L, t);
    float *first = down(&a, a.velocity, DTYPE_F32, 4 * CH * L);
    /* recorded and replayed twice: the first run's bytes */
    struct device_steps *steps = NULL;
    int rc = device_record(gpu, &e);
    if (rc == 0) rc = work(&a, &e);
    if (device_recorded(gpu, &steps, &e) < 0) rc = -1;
    for (int i = 0; rc == 0 && i < 2; i++) {
        rc = device_zero(gpu, a.velocity, 4 * CH * L * 4, &e);
        if (rc == 0) rc = device_replay(gpu, steps, &e);
        float *again = down(&a, a.velocity, DTYPE_F32, 4 * CH * L);
        verdict_that(memcmp(first, again, 4 * CH * L * 4) == 0, "a replay gives the same bytes");
        free(again);
    }
    verdict_that(rc == 0, rc ? e.msg : "");
    device_steps_close(gpu, steps);
    free(first);
    close_side(&a), close_side(&b);
}

void check_table(struct test_rng *r, bool small)
{
    static struct source f;
    struct device *gpu = NULL, *cpu = NULL;
    struct err e = {0};
    (void)small;
    verdict_begin("the table, a block's calls; recorded");
    for (int i = 0; i < 7; i++) {
        for (size_t k = 0; k < ARRAY_LEN(f.weight[i]); k++)
            f.weight[i][k] = (float)((double)rng_normal(r) / sqrt((double)shapes[i][0]));
        for (size_t k = 0; k < ARRAY_LEN(f.bias[i]); k++)
            f.bias[i][k] = rng_normal(r) / 4;
    }
    float *normal[] = {f.latents, f.vectors, f.table};
    size_t counts[] = {ARRAY_LEN(f.latents), ARRAY_LEN(f.vectors), ARRAY_LEN(f.table)};
    for (int i = 0; i < 3; i++)
        for (size_t k = 0; k < counts[i]; k++)
            normal[i][k] = rng_normal(r);
    for (int i = 0; i < HALF; i++)
        f.freqs[i] = (float)exp(-9.2 * i / HALF);
    for (int i = 0; i < FRAMES; i++)
        f.times[i] = 999.0f / (float)(i + 1);
    for (int i = 0; i < L * DIM / 2; i++)
        f.cos_t[i] = (float)cos(0.37 * i), f.sin_t[i] = (float)sin(0.37 * i);
    if (device_open(&gpu, "cuda:0", &e) < 0 || device_open(&cpu, "cpu", &e) < 0) {
        verdict_case("opening");
        verdict_that(false, e.msg);
        return;
    }
    one_precision(gpu, cpu, &f, false);
    one_precision(gpu, cpu, &f, true);
    /* each allocation fails in turn: a sentence, and nothing is held that was not */
    verdict_begin("allocations failing in turn");
    size_t held = device_held(gpu);
    for (int n = 1, failed = 1; failed && n < 200; n++) {
        struct side s;
        verdict_case("allocation %d", n);
        e = (struct err){0};
        gpu->fail_alloc = n;
        failed = open_side(&s, gpu, PRECISION_BF16, &f, &e) < 0;
        gpu->fail_alloc = 0;
        verdict_that(!failed || e.code == ERR_RESOURCE, e.msg);
        close_side(&s);
        verdict_that(device_held(gpu) == held, "memory was left behind");
    }
    device_close(gpu), device_close(cpu);
}
