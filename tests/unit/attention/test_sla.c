/* sla against attention-kernels.md 3.2 in plain loops: with a checkpoint's projection, without, and
 * with one of another size. */
#include "transcribed.h"

static float weight[DIM * DIM], bias[DIM];
static struct tensor tensors[2];
static bool other_name, lost[2];

static const struct tensor *tensor_of(void *ctx, int layer, const char *name)
{
    (void)ctx, (void)layer;
    const char *front = other_name ? "attn_op.local_attn.proj_l." : "proj_l.";
    if (strncmp(name, front, strlen(front)) != 0) return NULL;
    int i = strcmp(name + strlen(front), "bias") == 0;
    return lost[i] ? NULL : &tensors[i];
}

static int open_with(struct planned *p, const char *stack, enum precision precision, struct err *e)
{
    struct attn_params params = {
        .method = stack, .threads = 2, .tensor = tensor_of, .precision = precision};
    struct arena count = {0};
    cpu_detect(&params.cpu);
    *p = (struct planned){.shape = shape, .tokens = L};
    if (attn_open(&p->a, &params, &shape, &count, e) < 0) return -1;
    CHECK(arena_open(&p->arena, count.used, e) == 0);
    p->o = malloc(sizeof(float) * L * HEADS * DIM);
    return attn_open(&p->a, &params, &shape, &p->arena, e);
}

static void phi(double *f, const float *x, int map)
{
    double sum = 0;
    for (int c = 0; c < DIM; c++) {
        double y = (double)x[c];
        f[c] = map == 0 ? exp(y) : map == 1 ? (y > 0 ? y + 1 : exp(y)) : fmax(y, 0);
        sum += f[c];
    }
    for (int c = 0; map == 0 && c < DIM; c++)
        f[c] /= sum;
}

/* What the linear part adds to o of a token. */
static void linear(double *o, int i, int head, int map, bool with_bias)
{
    double q[DIM], k[DIM], sum[DIM] = {0}, norm = 1e-5;
    phi(q, qkv[0] + (i * HEADS + head) * DIM, map);
    for (int j = 0; j < L; j++) {
        double w = 0;
        phi(k, qkv[1] + (j * HEADS + head) * DIM, map);
        for (int c = 0; c < DIM; c++)
            w += q[c] * k[c];
        norm += w;
        for (int c = 0; c < DIM; c++)
            sum[c] += w * (double)qkv[2][(j * HEADS + head) * DIM + c];
    }
    for (int x = 0; x < DIM; x++) {
        o[x] = with_bias ? (double)bias[x] : 0;
        for (int y = 0; y < DIM; y++)
            o[x] += (double)weight[x * DIM + y] * sum[y] / norm;
    }
}

int main(void)
{
    static float sparse[L * HEADS * DIM];
    struct test_rng r = {9};
    struct planned p;
    struct err e = {0};
    threads_set(2);
    fill(3);
    for (int i = 0; i < DIM * DIM; i++)
        weight[i] = .3f * rng_normal(&r);
    for (int i = 0; i < DIM; i++)
        bias[i] = rng_normal(&r);
    tensors[0] =
        (struct tensor){.dtype = DTYPE_F32, .n_dims = 2, .shape = {DIM, DIM}, .data = weight};
    tensors[1] = (struct tensor){.dtype = DTYPE_F32, .n_dims = 1, .shape = {DIM}, .data = bias};

    /* the sparse part: 32 queries by 16 keys, the best of a row by means */
    lost[0] = lost[1] = true;
    CHECK_OK(open_with(&p, "sla:block_q=32,block=16,density=.2", PRECISION_FP32, &e));
    const struct attn_plan *plan = call(&p, 9);
    CHECK(plan->q.n == 15 && plan->k.n == 30 && plan->q.size == 32);
    const struct attn_method *m = attn_method_find("sla");
    CHECK(m->note(&p.a->stack.part[0]) && strstr(m->note(&p.a->stack.part[0]), "proj_l"));
    order_by(raster_key);
    for (int head = 0; head < HEADS; head++)
        for (int a = 0; a < 15; a++) {
            double s[30], q[DIM], k[DIM];
            int kept = 0;
            mean_of(q, a * 32, 32, head, false);
            for (int b = 0; b < 30; b++) {
                mean_of(k, b * 16, 16, head, true);
                s[b] = 0;
                for (int c = 0; c < DIM; c++)
                    s[b] += q[c] * k[c];
            }
            for (int b = 0; b < 30; b++) {
                int before = 0;
                double close = 1;
                for (int c = 0; c < 30; c++) {
                    before += s[c] > s[b];
                    if (c != b) close = fmin(close, fabs(s[c] - s[b]));
                }
                bool got = attn_bit(plan->kept, (size_t)(head * 15 + a), attn_words(30), b);
                CHECK(close < 1e-5 || got == (before < 6));
                kept += got;
            }
            CHECK(kept == 6);
        }
    memcpy(sparse, p.o, sizeof sparse);
    planned_close(&p);

    static const char *const stacks[] = {"sla:block_q=32,block=16,density=.2",
                                         "sla:block_q=32,block=16,density=.2,map=elu",
                                         "sla:block_q=32,block=16,density=.2,map=relu"};
    for (int map = 0; map < 3; map++) {
        double worst = 0, most = 0;
        lost[0] = false, lost[1] = map == 1, other_name = map == 2;
        CHECK_OK(open_with(&p, stacks[map], PRECISION_FP32, &e));
        CHECK(!m->note(&p.a->stack.part[0]));
        call(&p, 9);
        for (int i = 0; i < L; i += 11)
            for (int head = 0; head < HEADS; head++) {
                double o[DIM];
                linear(o, i, head, map, map != 1);
                for (int c = 0; c < DIM; c++) {
                    int at = (i * HEADS + head) * DIM + c;
                    worst = fmax(worst, fabs((double)p.o[at] - (double)sparse[at] - o[c]));
                    most = fmax(most, fabs(o[c]));
                }
            }
        CHECK_MSG(worst < 1e-5 * (1 + most) && most > .1, "%s: %g of %g", stacks[map], worst, most);
        call(&p, 0); /* exact steps stay so */
        struct planned plain;
        CHECK_OK(open_with(&plain, "dense", PRECISION_FP32, &e));
        call(&plain, 0);
        CHECK(memcmp(p.o, plain.o, sizeof sparse) == 0);
        planned_close(&plain);
        planned_close(&p);
    }
    CHECK_OK(open_with(&p, stacks[0], PRECISION_BF16_EMULATED, &e)); /* o holds bf16 values */
    call(&p, 9);
    int wide = 0;
    for (int i = 0; i < L * HEADS * DIM; i++)
        wide += p.o[i] != bf16_to_f32(f32_to_bf16(p.o[i]));
    CHECK(wide == 0);
    planned_close(&p);

    tensors[0].shape[1] = DIM + 1;
    CHECK_OK(open_with(&p, stacks[2], PRECISION_FP32, &e));
    struct attn_call c = {.q = qkv[0], .k = qkv[1], .v = qkv[2], .o = p.o, .at = {.step = 9}};
    CHECK(attn_run(p.a, &c, &e) < 0 && e.code == ERR_INPUT && strstr(e.msg, "[16, 17]") &&
          strstr(e.msg, "[16, 16]"));
    planned_close(&p);
    return TEST_RESULT();
}
