/* What every attention method promises. Walks the list and names none: a new method is tested by
 * being there. */
#include "attention/method.h"
#include "model/base/threads.h"
#include "tests/check.h"

#define N_HEADS 2
#define HEAD_DIM 16
#define STEPS 3
#define LAYERS 2
#define BRANCHES 2

static struct attn_shape shape_of(int t, int h, int w)
{
    return (struct attn_shape){.n_heads = N_HEADS,
                               .head_dim = HEAD_DIM,
                               .grid_t = t,
                               .grid_h = h,
                               .grid_w = w,
                               .n_layers = LAYERS,
                               .n_branches = BRANCHES,
                               .n_steps = STEPS};
}

static struct attn_params params_of(const char *stack)
{
    struct attn_params p = {.method = stack, .threads = 2};
    cpu_detect(&p.cpu);
    return p;
}

struct session {
    struct attn *a;
    struct arena arena;
};

static int session_open(struct session *s, const struct attn_params *p,
                        const struct attn_shape *shape, struct err *e)
{
    struct arena count = {0};
    struct attn *none = (void *)s; /* must come back NULL */
    *s = (struct session){0};
    if (attn_open(&none, p, shape, &count, e) < 0) {
        CHECK(!none);
        return -1;
    }
    CHECK(!none);
    CHECK(arena_open(&s->arena, count.used, e) == 0);
    memset(s->arena.base, 0xff,
           s->arena.size); /* what is not set is NaN, and state must be zeroed */
    int rc = attn_open(&s->a, p, shape, &s->arena, e);
    CHECK(rc < 0 || s->arena.used == count.used);
    return rc;
}

static void session_close(struct session *s)
{
    attn_close(s->a);
    arena_close(&s->arena);
}

static size_t floats_of(const struct attn_shape *s)
{
    return (size_t)s->grid_t * (size_t)s->grid_h * (size_t)s->grid_w * N_HEADS * HEAD_DIM;
}

/* A prompt: every step, layer and branch, with numbers that drift from step to step as latents do.
 * out: all outputs. */
static void prompt(struct session *s, const struct attn_params *p, const struct attn_shape *shape,
                   uint64_t seed, int first, int end, float *out)
{
    struct err e = {0};
    size_t n = floats_of(shape), calls = (size_t)first * LAYERS * BRANCHES, from = calls;
    float *qkv = malloc(3 * n * sizeof *qkv);
    for (int step = first; s->a && step < end; step++) {
        for (int layer = 0; layer < LAYERS; layer++) {
            for (int branch = 0; branch < BRANCHES; branch++) {
                struct test_rng base = {(uint64_t)(layer * BRANCHES + branch + 1) + seed},
                                drift = {(uint64_t)step + 99 + seed};
                for (size_t i = 0; i < 3 * n; i++)
                    qkv[i] = (float)(4 * rng_unit(&base) + .4 * rng_unit(&drift) - 2.2);
                float *o = out + calls++ * n;
                for (size_t i = 0; i < n; i++)
                    o[i] = NAN;
                struct attn_call c = {.q = qkv,
                                      .k = qkv + n,
                                      .v = qkv + 2 * n,
                                      .o = o,
                                      .at = {.step = step, .layer = layer, .branch = branch}};
                enum attn_ask answer;
                CHECK_OK(attn_ask(s->a, &c.at, o, &answer, &e));
                if (answer != ATTN_ASK_COMPUTE) continue;
                CHECK_OK(attn_run(s->a, &c, &e));
                CHECK_OK(attn_keep(s->a, &c.at, o, &e)); /* an output layer that changes nothing */
            }
        }
    }
    size_t bad = 0;
    for (size_t i = from * n; i < calls * n; i++)
        bad += !isfinite(out[i]); /* an empty row would be 0, a lost one NaN */
    CHECK_MSG(bad == 0, "%s: %zu outputs are not finite", p->method, bad);
    free(qkv);
}

/* A run of one prompt, maybe behind another. Returns all outputs of the last. */
static float *whole_run(const struct attn_params *p, const struct attn_shape *shape, bool behind,
                        struct attn_stats *st)
{
    struct session s;
    struct err e = {0};
    size_t calls = STEPS * LAYERS * BRANCHES;
    float *out = malloc(calls * floats_of(shape) * sizeof *out);
    CHECK_OK(session_open(&s, p, shape, &e));
    if (behind) prompt(&s, p, shape, 1000, 0, STEPS, out);
    prompt(&s, p, shape, 0, 0, STEPS, out);
    attn_stats(s.a, st);
    CHECK(st->calls == (long)calls * (behind ? 2 : 1) && st->density >= 0 && st->density <= 1 &&
          st->kernel);
    CHECK(st->low >= 0 && st->low <= 1);
    session_close(&s);
    return out;
}

/* Broken off before `step`, with what was remembered brought into another session: the bytes of an
 * unbroken run. Also shows that a stack which says that it remembers nothing does not. */
static void check_goes_on(const struct attn_params *p, const struct attn_shape *shape, int step,
                          const float *wanted)
{
    struct session first, second;
    struct err e = {0};
    struct attn_kept from, to;
    size_t bytes = STEPS * LAYERS * BRANCHES * floats_of(shape) * sizeof(float);
    float *out = malloc(bytes);
    CHECK_OK(session_open(&first, p, shape, &e));
    prompt(&first, p, shape, 0, 0, step, out);
    attn_kept(first.a, &from);
    CHECK_OK(session_open(&second, p, shape, &e));
    attn_kept(second.a, &to);
    CHECK(from.bytes == to.bytes && (from.bytes > 0) == (to.at != NULL));
    if (to.bytes) memcpy(to.at, from.at, to.bytes);
    session_close(&first);
    CHECK_OK(attn_kept_check(second.a, &e));
    prompt(&second, p, shape, 0, step, STEPS, out);
    CHECK_MSG(memcmp(out, wanted, bytes) == 0, "%s: goes on otherwise before step %d", p->method,
              step);
    if (to.bytes) { /* nothing that is read back may be believed */
        memset(to.at, 0x5a, to.bytes);
        CHECK_MSG(attn_kept_check(second.a, &e) < 0 && e.code == ERR_INPUT, "%s", p->method);
    }
    session_close(&second);
    free(out);
}

/* One thread gives the bytes of two, and a prompt behind another those of a prompt alone. */
static void check_alone(struct attn_params p, const struct attn_shape *shape, const float *wanted)
{
    struct attn_stats st;
    size_t bytes = STEPS * LAYERS * BRANCHES * floats_of(shape) * sizeof(float);
    float *behind = whole_run(&p, shape, true, &st);
    CHECK_MSG(memcmp(behind, wanted, bytes) == 0, "%s: the second prompt knows the first",
              p.method);
    threads_set(1);
    p.threads = 1;
    float *one = whole_run(&p, shape, false, &st);
    CHECK_MSG(memcmp(one, wanted, bytes) == 0, "%s: one thread gives other bytes", p.method);
    threads_set(2);
    free(behind);
    free(one);
}

static const struct attn_shape shapes[4] = {
    {.n_heads = N_HEADS,
     .head_dim = HEAD_DIM,
     .grid_t = 1,
     .grid_h = 1,
     .grid_w = 1,
     .n_layers = LAYERS,
     .n_branches = BRANCHES,
     .n_steps = STEPS},
    {.n_heads = N_HEADS,
     .head_dim = HEAD_DIM,
     .grid_t = 3,
     .grid_h = 7,
     .grid_w = 5,
     .n_layers = LAYERS,
     .n_branches = BRANCHES,
     .n_steps = STEPS},
    {.n_heads = N_HEADS,
     .head_dim = HEAD_DIM,
     .grid_t = 4,
     .grid_h = 8,
     .grid_w = 8,
     .n_layers = LAYERS,
     .n_branches = BRANCHES,
     .n_steps = STEPS},
    {.n_heads = N_HEADS,
     .head_dim = HEAD_DIM,
     .grid_t = 9,
     .grid_h = 6,
     .grid_w = 8,
     .n_layers = LAYERS,
     .n_branches = BRANCHES,
     .n_steps = STEPS},
};

#define LARGEST 3 /* of the shapes: several tiles of any size a method is likely to have */

/* One setting of a method's options on shapes [first, end); returns a bit for each on which all tiles
 * were kept, and o was therefore held against dense attention. */
static unsigned check_setting(const struct attn_method *m, const char *stack, size_t first,
                              size_t end)
{
    unsigned whole = 0;
    char text[1024], again_text[1024];
    struct err e = {0};
    struct attn_params plain = params_of(NULL), p = params_of(stack);
    CHECK_OK(attn_stack_check(stack, text, sizeof text, &e)); /* what a clip keeps means the same */
    if (attn_stack_check(text, again_text, sizeof again_text, &e) < 0)
        CHECK_MSG(0, "%s becomes %s: %s", stack, text, e.msg);
    else
        CHECK_MSG(strcmp(text, again_text) == 0, "%s becomes %s", text, again_text);
    for (size_t s = first; s < end; s++) {
        size_t bytes = STEPS * LAYERS * BRANCHES * floats_of(&shapes[s]) * sizeof(float);
        struct attn_stats st, one;
        struct attn_forecast f;
        float *got = whole_run(&p, &shapes[s], false, &st),
              *again = whole_run(&p, &shapes[s], false, &one);
        double density = st.density;
        CHECK_MSG(memcmp(got, again, bytes) == 0 && density == one.density && st.low == one.low,
                  "%s: two runs differ", stack);
        CHECK_OK(attn_forecast(&f, &p, &shapes[s], &e));
        if (p.cpu.level >= CPU_AVX2) /* a method that only the judge can do is of no use */
            CHECK_MSG(strcmp(f.kernel, "ref") != 0, "%s: no fast kernel can do it", stack);
        if (s == 1 || strcmp(stack, m->name) == 0) check_alone(p, &shapes[s], got);
        for (int step = 1; s == 1 && step < STEPS; step++)
            check_goes_on(&p, &shapes[s], step, got);
        double planning;
        CHECK_OK(attn_time_planning(&planning, &p, &shapes[s], &e));
        CHECK_MSG(f.planned[0] <= f.planned[1] && (planning > 0) == (f.planned[1] > 0),
                  "%s: %.0f to %.0f calls plan, %g s each", p.method, f.planned[0], f.planned[1],
                  planning);
        CHECK_MSG(f.density[0] <= density + 0.02 && density <= f.density[1] + 0.02,
                  "%s: density %.3f, predicted %.3f to %.3f", stack, density, f.density[0],
                  f.density[1]);
        if (m->exact || density == 1) {
            float *dense = whole_run(&plain, &shapes[s], false, &one);
            /* products over codes of 8 bits: 1.5 times attention-kernels.md 9.2's worst */
            check_close(stack, got, dense, bytes / sizeof(float), st.low > 0 ? .06 : 1e-6);
            CHECK_MSG(!(st.low > 0) || shapes[s].grid_t == 1 || memcmp(got, dense, bytes) != 0,
                      "%s says that it went over codes and gave the bytes of dense", stack);
            free(dense);
            if (density == 1) whole |= 1u << s;
        }
        free(got);
        free(again);
    }
    return whole;
}

/* "NAME:option=value" */
static void stack_of(char *buf, size_t n, const struct attn_method *m, const struct option *o,
                     const char *value)
{
    snprintf(buf, n, "%s:%s=%s", m->name, o->name, value);
}

/* Adds check_setting() of both ends to `whole`, of the largest shape until that was whole. */
static unsigned check_bounds(const struct attn_method *m, const struct option *o, unsigned whole)
{
    static const char *const never[] = {"", "x", "1e99", "nan"};
    struct err e = {0};
    char text[64], stack[200];
    if (o->type == OPTION_INT || o->type == OPTION_DOUBLE) {
        double ends[] = {o->lo, o->hi}, beyond[] = {o->lo - 1, o->hi + 1};
        for (int i = 0; i < 2; i++) {
            snprintf(text, sizeof text, "%.17g", beyond[i]);
            stack_of(stack, sizeof stack, m, o, text);
            struct session s;
            struct attn_params p = params_of(stack);
            CHECK_MSG(session_open(&s, &p, &shapes[1], &e) == -1 && e.code == ERR_USAGE,
                      "opened %s", stack);
            CHECK(!s.a && strstr(e.msg, o->name) && strstr(e.msg, m->name));
            session_close(&s);
            snprintf(text, sizeof text, "%.17g", ends[i]);
            stack_of(stack, sizeof stack, m, o, text);
            whole |= check_setting(m, stack, 0, 2); /* one token; a ragged grid */
            if (!(whole >> LARGEST & 1)) whole |= check_setting(m, stack, LARGEST, LARGEST + 1);
        }
    }
    for (const char *word = o->type == OPTION_ENUM ? o->choices : NULL; word;) {
        int n = (int)strcspn(word, "|");
        snprintf(text, sizeof text, "%.*s", n, word);
        stack_of(stack, sizeof stack, m, o, text);
        check_setting(m, stack, 0, 2);
        word = word[n] ? word + n + 1 : NULL;
    }
    if (o->type != OPTION_STRING)
        for (size_t i = 0; i < ARRAY_LEN(never); i++) {
            stack_of(stack, sizeof stack, m, o, never[i]);
            CHECK_MSG(attn_stack_check(stack, NULL, 0, &e) == -1 && e.code == ERR_USAGE,
                      "%s is taken", stack);
        }
    CHECK(o->name[0] && o->help && o->help[0] && !strpbrk(o->name, ":,+= "));
    return whole;
}

/* Refusals leave nothing behind, and a session goes on after one. */
static void check_failures(const struct attn_method *m)
{
    struct err e = {0};
    struct session s;
    struct attn_params p = params_of(m->name);
    struct attn_shape bad = shape_of(0, 4, 4);
    CHECK(session_open(&s, &p, &bad, &e) == -1 && e.code == ERR_USAGE);
    session_close(&s);
    bad = shape_of(1 << 20, 1 << 20, 1 << 20);
    CHECK(session_open(&s, &p, &bad, &e) == -1 && e.code == ERR_USAGE);
    session_close(&s);
    bad = shape_of(2, 2, 2);
    bad.head_dim = 4096;
    CHECK(session_open(&s, &p, &bad, &e) == -1 && e.code == ERR_USAGE);
    session_close(&s);
    p.kernel = "no-such-kernel";
    CHECK(session_open(&s, &p, &shapes[1], &e) == -1 && e.code == ERR_USAGE &&
          strstr(e.msg, "ref"));
    session_close(&s);
    p.kernel = attn_kernel_at(0).name;
    p.cpu.level = CPU_REF;
    if (attn_kernel_at(0).needs > CPU_REF)
        CHECK(session_open(&s, &p, &shapes[1], &e) == -1 && e.code == ERR_DEVICE &&
              strstr(e.msg, p.kernel));
    session_close(&s);
    p = params_of(m->name);
    CHECK_OK(session_open(&s, &p, &shapes[1], &e));
    size_t n = floats_of(&shapes[1]);
    float *x = calloc(4 * n, sizeof *x);
    struct attn_call c = {
        .q = x, .k = x + n, .v = x + 2 * n, .o = x + 3 * n, .at = {.layer = LAYERS}};
    CHECK(attn_run(s.a, &c, &e) == -1 && e.code == ERR_BUG);
    c.at.layer = 0, c.at.step = STEPS;
    CHECK(attn_run(s.a, &c, &e) == -1 && e.code == ERR_BUG);
    c.at.step = 0, c.at.branch = -1;
    CHECK(attn_run(s.a, &c, &e) == -1 && e.code == ERR_BUG);
    c.at.branch = 0, c.o = NULL;
    CHECK(attn_run(s.a, &c, &e) == -1 && e.code == ERR_BUG);
    c.o = x + 3 * n;
    threads_set(3); /* scratch is for two */
    CHECK(attn_run(s.a, &c, &e) == -1 && e.code == ERR_BUG);
    threads_set(2);
    CHECK_OK(attn_run(s.a, &c, &e));
    struct attn_stats st;
    attn_stats(s.a, &st);
    CHECK(st.calls == 1);
    free(x);
    session_close(&s);
}

int main(void)
{
    threads_set(2);
    CHECK(attn_method_count() >= 1);
    CHECK(!attn_method_at(-1) && !attn_method_at(attn_method_count()) &&
          !attn_method_find("no-such-method"));
    CHECK(attn_method_at(0)->exact); /* the default */
    for (int i = 0; i < attn_method_count(); i++) {
        const struct attn_method *m = attn_method_at(i);
        unsigned whole = 0;
        CHECK(m->name && m->summary && attn_method_find(m->name) == m);
        CHECK((m->options != NULL) == (m->options_size > 0));
        whole |= check_setting(m, m->name, 0, ARRAY_LEN(shapes));
        threads_set(1); /* thousands of small calls: handing them over takes longer than they do */
        for (const struct option *o = m->options; o && o->name; o++)
            whole = check_bounds(m, o, whole);
        threads_set(2);
        /* else nothing was compared with dense, and what the method computes is anyone's guess */
        CHECK_MSG(whole >> LARGEST & 1,
                  "%s: neither its defaults nor an end of one of its options keeps every tile of "
                  "the largest shape",
                  m->name);
        check_failures(m);
    }
    CHECK(attn_methods() == attn_method_count() && !attn_method_info(-1).name);
    /* the check above can fail: a narrow band reaches density 1 where there is one tile alone */
    const struct attn_method *band = attn_method_find("window");
    unsigned narrow = band ? check_setting(band, "window:tiles=1", 0, ARRAY_LEN(shapes)) : 1;
    CHECK((narrow & 1) && !(narrow >> LARGEST & 1));
    attn_close(NULL);
    return TEST_RESULT();
}
