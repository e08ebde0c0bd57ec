/* Heads left out, and heads of a kind each: against plain loops in double, alone and beside methods
 * whose plans are a head's own. */
#include "transcribed.h"

enum { LAYERS = 3, WIDE = HEADS * DIM };

static struct attn_shape deep_shape(void)
{
    struct attn_shape s = shape;
    s.n_layers = LAYERS;
    s.n_branches = 2;
    s.n_steps = 10;
    return s;
}

static void run(struct planned *p, int step, int layer, int branch)
{
    struct err e = {0};
    struct attn_call c = {.q = qkv[0],
                          .k = qkv[1],
                          .v = qkv[2],
                          .o = p->o,
                          .at = {.step = step, .layer = layer, .branch = branch}};
    CHECK_OK(attn_run(p->a, &c, &e));
}

/* Values of a layer: those of head 1 of layer 1 hardly differ from token to token, those of head 0 of
 * layer 2 are small. */
static void values_of(int layer)
{
    fill(30 + (uint64_t)layer);
    for (int i = 0; i < L * WIDE; i++) {
        int head = i % WIDE / DIM;
        if (layer == 1 && head == 1) qkv[2][i] = 3 + .01f * qkv[2][i];
        if (layer == 2 && head == 0) qkv[2][i] *= .05f;
    }
}

static void open_deep(struct planned *p, const char *stack)
{
    struct attn_shape deep = deep_shape();
    struct err e = {0};
    CHECK_OK(planned_open(p, stack, &deep, &e));
}

/* A whole step of every layer and branch; o of one of them is kept. */
static void step_of(struct planned *p, int step, int layer, float *o)
{
    for (int l = 0; l < LAYERS; l++)
        for (int branch = 0; branch < 2; branch++) {
            values_of(l);
            run(p, step, l, branch);
            if (l == layer && branch == 1) memcpy(o, p->o, sizeof(float) * L * WIDE);
        }
}

static float dense[L * WIDE], got[L * WIDE], other[L * WIDE];

/* 1 of 6 heads: the one that its mean tells all about; without means, the small one. */
static void left_out(void)
{
    for (int fill_zero = 0; fill_zero < 2; fill_zero++) {
        int layer = fill_zero ? 2 : 1, head = fill_zero ? 0 : 1, wrong = 0, kept = 0;
        struct planned p, plain;
        open_deep(&p, fill_zero ? "skip:share=.17,fill=zero" : "skip:share=.17");
        open_deep(&plain, "dense");
        step_of(&plain, 0, layer, dense);
        step_of(&p, 0, layer, got); /* exact */
        CHECK(memcmp(got, dense, sizeof got) == 0);
        step_of(&p, 5, layer, got);
        for (int c = 0; c < DIM; c++) {
            double mean = 0;
            for (int t = 0; t < L; t++)
                mean += (double)dense[t * WIDE + head * DIM + c] / L;
            for (int t = 0; t < L; t++)
                wrong +=
                    fabs((double)got[t * WIDE + head * DIM + c] - (fill_zero ? 0 : mean)) > 1e-5;
        }
        for (int t = 0; t < L; t++)
            kept += memcmp(got + t * WIDE + (1 - head) * DIM, dense + t * WIDE + (1 - head) * DIM,
                           DIM * sizeof *got) != 0;
        CHECK_MSG(wrong == 0 && kept == 0, "%d values of the head left out, %d tokens of the other",
                  wrong, kept);
        for (int l = 0; l < LAYERS; l++) {
            if (l == layer) continue;
            step_of(&plain, 0, l, dense);
            step_of(&p, 6, l, got);
            CHECK_MSG(memcmp(got, dense, sizeof got) == 0, "layer %d lost a head", l);
        }
        planned_close(&p);
        planned_close(&plain);
    }
}

/* Named heads, without an exact step: the first step is computed whole. Saved and loaded. */
static void named(void)
{
    struct planned p, plain, loaded;
    struct err e = {0};
    open_deep(&p, "skip:heads=0.1/2.0/2.1,first=0");
    open_deep(&plain, "dense");
    step_of(&plain, 0, 2, dense);
    step_of(&p, 0, 2, got);
    CHECK(memcmp(got, dense, sizeof got) == 0);
    step_of(&p, 1, 2, got);
    int moving = 0;
    for (int i = WIDE; i < L * WIDE; i++)
        moving += got[i] != got[i % WIDE];
    CHECK(moving == 0); /* both heads of the layer are their means */
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    CHECK_OK(attn_save(p.a, f, &e));
    fclose(f);
    CHECK(strstr(text, "0.1/2.0/2.1\n"));
    open_deep(&loaded, "skip");
    CHECK_OK(attn_load(loaded.a, text, size, &e));
    step_of(&loaded, 5, 2, got); /* nothing stands for them yet */
    CHECK(memcmp(got, dense, sizeof got) == 0);
    step_of(&loaded, 6, 2, got);
    step_of(&p, 2, 2, other);
    CHECK(memcmp(got, other, sizeof got) == 0);
    text[strlen("method skip ") - 1] = '-';
    CHECK(attn_load(loaded.a, text, size, &e) < 0 && e.code == ERR_INPUT);
    static const char *const bad[] = {"method skip 4\n9.0\n", "method skip 4\n0.9\n",
                                      "method skip 4\n0-1\n", "method skip 4\n0.1/"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        CHECK_MSG(attn_load(loaded.a, bad[i], strlen(bad[i]), &e) < 0 && e.code == ERR_INPUT,
                  "took %s", bad[i]);
    free(text);
    planned_close(&p);
    planned_close(&plain);
    planned_close(&loaded);
    struct attn_shape deep = deep_shape();
    static const char *const never[] = {"skip:heads=3.0", "skip:heads=0.2", "skip:heads=x",
                                        "skip:heads=0.0/", "skip:heads=0"};
    for (size_t i = 0; i < ARRAY_LEN(never); i++) {
        CHECK_MSG(planned_open(&p, never[i], &deep, &e) < 0 && e.code == ERR_USAGE &&
                      strstr(e.msg, "heads"),
                  "opened %s", never[i]);
        planned_close(&p);
    }
}

/* Beside plans that are a head's own, shared by all, ragged, by columns' orders: what is left is that
 * stack's own, byte for byte. */
static void beside(void)
{
    static const char *const stacks[] = {
        "subblock:block=32", "svg1:block=16",  "svg2:q=5,k=9,mass=.6",    "tile:block=32",
        "draft:block=32",    "window:tiles=1", "resid:every=2,density=.3"};
    for (size_t i = 0; i < ARRAY_LEN(stacks); i++) {
        struct planned p, alone;
        char stack[100];
        snprintf(stack, sizeof stack, "%s+skip:heads=1.0", stacks[i]);
        open_deep(&p, stack);
        open_deep(&alone, stacks[i]);
        for (int step = 0; step < 5; step++) {
            step_of(&p, step, 1, got);
            step_of(&alone, step, 1, other);
        }
        int wrong = 0, moving = 0;
        for (int t = 0; t < L; t++) {
            wrong += memcmp(got + t * WIDE + DIM, other + t * WIDE + DIM, DIM * sizeof *got) != 0;
            moving += memcmp(got + t * WIDE, got, DIM * sizeof *got) != 0;
        }
        CHECK_MSG(wrong == 0 && moving == 0, "%s: %d tokens of the other head, %d of the one",
                  stack, wrong, moving);
        planned_close(&p);
        planned_close(&alone);
    }
    struct planned p;
    struct err e = {0};
    struct attn_shape deep = deep_shape();
    CHECK(planned_open(&p, "lite+skip", &deep, &e) < 0 && strstr(e.msg, "lite") &&
          strstr(e.msg, "skip"));
    planned_close(&p);
}

/* --- kinds --- */

static int place_of(int t) { return t % (H * W) * T + t / (H * W); }
static long long place_key(int t) { return place_of(t); }

static bool in_band(int a, int b, double share)
{
    double half = 1 - sqrt(1 - share);
    return a == b || fabs((double)(a - b)) / n < half;
}

enum { FULL, SKIP, DIAGONAL, MULTI, STRIPE, KINDS };
static bool stripe[NB];

static bool keeps(int kind, int i, int j)
{
    if (kind == STRIPE) return stripe[j / block];
    if (kind == MULTI) i = place_of(i), j = place_of(j);
    return in_band(i / block, j / block, .3);
}

/* Errors of one head in the words of section 6, 16 rows; returns the squares of o. */
static double losses(int head, double loss[KINDS])
{
    static double p[16][L], o[16][DIM];
    double mean[DIM] = {0}, norm = 0, mass[NB] = {0};
    for (int r = 0; r < 16; r++) {
        int i = (2 * r + 1) * L / 32;
        double sum = 0;
        for (int j = 0; j < L; j++)
            sum += p[r][j] = exp(dot(i, j, head));
        for (int c = 0; c < DIM; c++)
            o[r][c] = 0;
        for (int j = 0; j < L; j++) {
            p[r][j] /= sum;
            mass[j / block] += p[r][j];
            for (int c = 0; c < DIM; c++)
                o[r][c] += p[r][j] * (double)qkv[2][(j * HEADS + head) * DIM + c];
        }
        for (int c = 0; c < DIM; c++)
            mean[c] += o[r][c] / 16;
    }
    for (int b = 0; b < n; b++) {
        int before = 0;
        for (int c = 0; c < n; c++)
            before += mass[c] > mass[b];
        stripe[b] = before < (int)ceil(.25 * n);
    }
    for (int kind = 0; kind < KINDS; kind++)
        loss[kind] = 0;
    for (int r = 0; r < 16; r++) {
        int i = (2 * r + 1) * L / 32;
        for (int c = 0; c < DIM; c++) {
            norm += o[r][c] * o[r][c];
            loss[SKIP] += pow(o[r][c] - mean[c], 2) * 16 / 15;
        }
        for (int kind = DIAGONAL; kind < KINDS; kind++) {
            double at[DIM] = {0}, sum = 0;
            for (int j = 0; j < L; j++) {
                if (!keeps(kind, i, j)) continue;
                sum += p[r][j];
                for (int c = 0; c < DIM; c++)
                    at[c] += p[r][j] * (double)qkv[2][(j * HEADS + head) * DIM + c];
            }
            for (int c = 0; c < DIM; c++)
                loss[kind] += pow(at[c] / sum - o[r][c], 2);
        }
    }
    return norm;
}

/* Head 0 looks as `a` says, head 1 as `b`. */
static void plant_kinds(int a, int b)
{
    struct test_rng r = {(uint64_t)(10 * a + b + 3)};
    static float frame[T][DIM], place[H * W][DIM], type[160][DIM];
    for (int i = 0; i < T * DIM; i++)
        frame[i / DIM][i % DIM] = rng_normal(&r);
    for (int i = 0; i < H * W * DIM; i++)
        place[i / DIM][i % DIM] = rng_normal(&r);
    for (int i = 0; i < 160 * DIM; i++)
        type[i / DIM][i % DIM] = rng_normal(&r);
    for (int t = 0; t < L; t++) {
        int some = t * 37 % 160, hot = t / 16 % 5 == 2 ? t / 80 % 2 : -1;
        for (int h = 0; h < HEADS; h++) {
            int kind = h ? b : a;
            for (int c = 0; c < DIM; c++) {
                int at = (t * HEADS + h) * DIM + c;
                float *q = &qkv[0][at], *k = &qkv[1][at], *v = &qkv[2][at];
                float x = kind == DIAGONAL ? frame[t / (H * W)][c]
                          : kind == MULTI  ? place[t % (H * W)][c]
                          : kind == FULL   ? type[some][c]
                                           : 0;
                *q = *k = 2 * x;
                *v = kind == FULL ? 3 * rng_normal(&r) : rng_normal(&r) + 3 * x;
                if (kind == STRIPE) { /* each second query looks at one half of the hot blocks */
                    *q = type[t % 4 / 2][c];
                    *k = hot < 0 ? 0 : 2.5f * type[hot][c];
                    *v += hot < 0 ? 0 : hot ? 3 : -3;
                }
                if (kind == SKIP) *v = .5f + .02f * rng_normal(&r);
                *q += .1f * rng_normal(&r);
                *k += .1f * rng_normal(&r);
            }
        }
    }
}

static void kinds(void)
{
    static const int pairs[][2] = {
        {DIAGONAL, MULTI}, {STRIPE, DIAGONAL}, {MULTI, SKIP}, {FULL, SKIP}};
    bool seen[KINDS] = {false};
    struct err e = {0};
    fresh(16);
    for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
        struct planned p;
        double loss[HEADS][KINDS], norm = 0;
        int kind[HEADS];
        open_deep(&p, "sparsevdit:block=16,lambda=.5,eps=.3");
        plant_kinds(pairs[i][0], pairs[i][1]);
        for (int h = 0; h < HEADS; h++)
            norm += losses(h, loss[h]) / HEADS;
        run(&p, 0, 1, 0); /* exact: looked at */
        run(&p, 5, 1, 0);
        for (int h = 0; h < HEADS; h++) {
            const double share[] = {1, 0, .3, .3, .25};
            double best = .3;
            kind[h] = FULL;
            for (int k = SKIP; k < KINDS; k++)
                if (loss[h][k] / norm + .5 * share[k] < best)
                    best = loss[h][k] / norm + .5 * share[k], kind[h] = k;
            seen[kind[h]] = true;
        }
        char line[32], *text = NULL;
        size_t len = 0;
        FILE *f = open_memstream(&text, &len);
        CHECK_OK(attn_save(p.a, f, &e));
        fclose(f);
        snprintf(line, sizeof line, "\n??\n%c%c\n??\n", "FSDMV"[kind[0]], "FSDMV"[kind[1]]);
        CHECK_MSG(strstr(text, line), "kinds of pair %zu: %s, wanted%s", i, text, line);
        /* plans: one for heads that are computed, one for those that are not */
        int at = 0;
        for (int h = 0; h < HEADS; h++) {
            if (kind[h] == SKIP) continue;
            const struct attn_plan *plan = NULL;
            int no = 0;
            for (at = 0; !plan && at < HEADS + 1; at++)
                for (int k = 0; k < p.a->launches[at].plan.n_heads; k++)
                    if (attn_head(&p.a->launches[at].plan, k) == h)
                        plan = &p.a->launches[at].plan, no = k;
            order_by(kind[h] == MULTI ? place_key : raster_key);
            losses(h, loss[h]); /* stripes of this head */
            int wrong = 0;
            for (int t = 0; t < L; t++)
                wrong += attn_token(&plan->q_order, no, t) != token_at[t];
            for (int a = 0; a < n; a++)
                for (int b = 0; b < n; b++) {
                    bool wanted =
                        kind[h] == FULL || (kind[h] == STRIPE ? stripe[b] : in_band(a, b, .3));
                    double edge = fabs(fabs((double)(a - b)) / n - (1 - sqrt(.7)));
                    if (kind[h] != STRIPE && edge < 1e-9) continue;
                    wrong += wanted != attn_bit(plan->kept, (size_t)(no * n + a), attn_words(n), b);
                }
            CHECK_MSG(wrong == 0, "pair %zu, head %d of kind %d: %d differ", i, h, kind[h], wrong);
        }
        /* a table brings the same kinds back, but stripes, which go with the clip */
        struct planned again;
        open_deep(&again, "sparsevdit:block=16,lambda=.5,eps=.3");
        CHECK_OK(attn_load(again.a, text, len, &e));
        memcpy(got, p.o, sizeof got);
        run(&again, 0, 1, 0);
        run(&again, 5, 1, 0);
        CHECK(memcmp(got, again.o, sizeof got) == 0);
        text[len - 2] = 'x';
        CHECK(attn_load(again.a, text, len, &e) < 0 && e.code == ERR_INPUT);
        free(text);
        planned_close(&again);
        /* nothing was exact: it looks at the first call */
        open_deep(&again, "sparsevdit:block=16,lambda=.5,eps=.3,first=0");
        run(&again, 5, 1, 0);
        struct attn_stats st;
        attn_stats(again.a, &st);
        CHECK_MSG(st.density < .9 || kind[0] == FULL, "density %.2f", st.density);
        planned_close(&again);
        planned_close(&p);
    }
    for (int k = 0; k < KINDS; k++)
        CHECK_MSG(seen[k], "kind %d was never wanted", k);
}

int main(void)
{
    threads_set(2);
    left_out();
    named();
    beside();
    kinds();
    return TEST_RESULT();
}
