/* ditfast: treatments of a pattern and of a plan file, what a search writes against plain loops over
 * what it saw, and plan files that are not for this run, cut, or no plans at all. */
#include "transcribed.h"

#include <unistd.h>

enum { LAYERS = 3, BRANCHES = 2, STEPS = 15, WIDE = HEADS * DIM, ROWS = 16 };

static struct attn_shape deep_shape(void)
{
    struct attn_shape s = shape;
    s.n_layers = LAYERS, s.n_branches = BRANCHES, s.n_steps = STEPS;
    return s;
}

static float noise[LAYERS][3][3 * L * WIDE], base[LAYERS][3 * L * WIDE];

static void make_noise(void)
{
    struct test_rng r = {11};
    for (int layer = 0; layer < LAYERS; layer++) {
        fill(70 + (uint64_t)layer);
        for (int i = 0; i < 3 * L * WIDE; i++) {
            base[layer][i] = qkv[i / (L * WIDE)][i % (L * WIDE)];
            for (int k = 0; k < 3; k++)
                noise[layer][k][i] = rng_normal(&r);
        }
    }
}

/* Turns less and less from step to step, in layer 2 more than in 0; branches differ a little. */
static void fill_call(int step, int layer, int branch)
{
    double turn = 3 - 3. / (1 + .5 * step), wide = .3 * (layer + 1);
    float a = (float)(wide * cos(turn)), b = (float)(wide * sin(turn));
    float c = branch ? .3f / (float)(1 + 4 * layer) : 0;
    for (int i = 0; i < 3 * L * WIDE; i++)
        qkv[i / (L * WIDE)][i % (L * WIDE)] = base[layer][i] + a * noise[layer][0][i] +
                                              b * noise[layer][1][i] + c * noise[layer][2][i];
}

static enum attn_ask one(struct planned *p, int step, int layer, int branch)
{
    struct err e = {0};
    enum attn_ask answer;
    struct attn_call c = {.q = qkv[0],
                          .k = qkv[1],
                          .v = qkv[2],
                          .o = p->o,
                          .at = {.step = step, .layer = layer, .branch = branch}};
    CHECK_OK(attn_ask(p->a, &c.at, p->o, &answer, &e));
    if (answer != ATTN_ASK_COMPUTE) return answer;
    CHECK_OK(attn_run(p->a, &c, &e));
    CHECK_OK(attn_keep(p->a, &c.at, p->o, &e));
    return answer;
}

static void open_deep(struct planned *p, const char *stack)
{
    struct attn_shape deep = deep_shape();
    struct err e = {0};
    CHECK_OK(planned_open(p, stack, &deep, &e));
}

/* What each call did: a letter as a plan has it, seen from outside. */
static char did(const struct planned *p, enum attn_ask answer)
{
    if (answer == ATTN_ASK_COPY_STEP) return 'A';
    if (answer == ATTN_ASK_COPY_BRANCH) return 'c';
    return p->a->launches[0].plan.rule == ATTN_ADD_RESIDUAL ? 'W' : 'F';
}

static void patterns(void)
{
    /* 15 steps: 3 exact, then 10, then 2 */
    static const struct {
        const char *stack, *rows[LAYERS][BRANCHES];
    } cases[] = {
        {"ditfast:first=3,last=2",
         {{"FFFFWAWFWAWFWFF", "FFFFWAWFWAWFWFF"},
          {"FFFFWAWFWAWFWFF", "FFFFWAWFWAWFWFF"},
          {"FFFFWAWFWAWFWFF", "FFFFWAWFWAWFWFF"}}},
        {"ditfast:first=3,last=2,steps=FA/Cc/FWW",
         {{"FFFFAFAFAFAFAFF", "FFFFAFAFAFAFAFF"},
          {"FFFFWFWFWFWFWFF", "FFFccccccccccFF"},
          {"FFFFWWFWWFWWFFF", "FFFFWWFWWFWWFFF"}}},
        {"ditfast:first=3,last=2,steps=F",
         {{"FFFFFFFFFFFFFFF", "FFFFFFFFFFFFFFF"},
          {"FFFFFFFFFFFFFFF", "FFFFFFFFFFFFFFF"},
          {"FFFFFFFFFFFFFFF", "FFFFFFFFFFFFFFF"}}},
        /* nothing is there for the first W: it becomes an F */
        {"ditfast:first=0,last=0,steps=WWF",
         {{"FWFWWFWWFWWFWWF", "FWFWWFWWFWWFWWF"},
          {"FWFWWFWWFWWFWWF", "FWFWWFWWFWWFWWF"},
          {"FWFWWFWWFWWFWWF", "FWFWWFWWFWWFWWF"}}},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct planned p;
        struct attn_params params = {.method = cases[i].stack, .threads = 1};
        struct attn_shape deep = deep_shape();
        struct attn_forecast f;
        struct attn_stats st;
        struct err e = {0};
        cpu_detect(&params.cpu);
        open_deep(&p, cases[i].stack);
        for (int step = 0; step < STEPS; step++)
            for (int layer = 0; layer < LAYERS; layer++)
                for (int branch = 0; branch < BRANCHES; branch++) {
                    fill_call(step, layer, branch);
                    char seen = did(&p, one(&p, step, layer, branch));
                    char wanted = cases[i].rows[layer][branch][step];
                    CHECK_MSG(seen == wanted, "%s: step %d, layer %d, branch %d: %c, wanted %c",
                              cases[i].stack, step, layer, branch, seen, wanted);
                }
        attn_stats(p.a, &st);
        CHECK_OK(attn_forecast(&f, &params, &deep, &e));
        CHECK(fabs(f.copied - (double)st.copies / (double)st.calls) < 1e-9);
        CHECK_MSG(fabs(f.density[0] - st.density) < 1e-6 && fabs(f.density[1] - st.density) < 1e-6,
                  "%s: %.4f, said %.4f to %.4f", cases[i].stack, st.density, f.density[0],
                  f.density[1]);
        CHECK((f.cache_bytes > 0) == (i != 2));
        planned_close(&p);
    }
}

/* --- the search --- */

static double out[STEPS][LAYERS][BRANCHES][ROWS][WIDE], rest[STEPS][LAYERS][BRANCHES][ROWS][WIDE];

static double apart(double (*a)[WIDE], double (*b)[WIDE], double (*of)[WIDE])
{
    double d = 0, all = 0;
    for (int i = 0; i < ROWS * WIDE; i++) {
        d += fabs(a[i / WIDE][i % WIDE] - b[i / WIDE][i % WIDE]);
        all += fabs(of[i / WIDE][i % WIDE]);
    }
    return d / all;
}

static void remember(int step, int layer, int branch, int tiles)
{
    for (int r = 0; r < ROWS; r++)
        for (int head = 0; head < HEADS; head++) {
            int i = (2 * r + 1) * L / (2 * ROWS), own = 0;
            double all[DIM] = {0}, near[DIM] = {0}, sum = 0, part = 0;
            for (int at = 0; at < L; at++)
                if (token_at[at] == i) own = at / block;
            for (int at = 0; at < L; at++) {
                double w = exp(dot(i, token_at[at], head));
                sum += w;
                if (abs(at / block - own) <= tiles) part += w;
                for (int c = 0; c < DIM; c++) {
                    double v = (double)qkv[2][(token_at[at] * HEADS + head) * DIM + c];
                    all[c] += w * v;
                    if (abs(at / block - own) <= tiles) near[c] += w * v;
                }
            }
            for (int c = 0; c < DIM; c++) {
                out[step][layer][branch][r][head * DIM + c] = all[c] / sum;
                rest[step][layer][branch][r][head * DIM + c] = all[c] / sum - near[c] / part;
            }
        }
}

/* The greedy rule of ditfast.c in its own words; *close: some choice hung by a hair. */
static void plan_by_hand(char *row, int layer, double error, bool *close)
{
    int copies = 0, full = -1000;
    for (int step = 0; step < STEPS; step++) {
        double bound = error * (layer + 1) / LAYERS, worst[3] = {0, 0, 0};
        bool can[3] = {copies < 2, step - full <= 5, step >= STEPS / 5};
        row[step] = 'F';
        if (step < 3 || step >= 13) continue;
        for (int b = 0; b < BRANCHES; b++) {
            double e[3] = {1e9, 1e9, 0};
            if (can[0] && step - copies - 1 >= 0)
                e[0] = apart(out[step][layer][b], out[step - copies - 1][layer][b],
                             out[step][layer][b]);
            if (can[1])
                e[1] = apart(rest[step][layer][b], rest[full][layer][b], out[step][layer][b]);
            if (b) e[2] = apart(out[step][layer][b], out[step][layer][0], out[step][layer][b]);
            for (int i = 0; i < 3; i++)
                worst[i] = fmax(worst[i], e[i]);
        }
        for (int i = 0; i < 3; i++) {
            *close = *close || fabs(worst[i] - bound) < 1e-3 * bound;
            can[i] = can[i] && worst[i] <= bound;
        }
        row[step] = can[0] ? 'A' : can[1] && can[2] ? 'c' : can[1] ? 'W' : can[2] ? 'C' : 'F';
        copies = row[step] == 'A' ? copies + 1 : 0;
        if (row[step] == 'F') full = step;
    }
    row[STEPS] = 0;
}

static char dir[64];

static char *slurp(const char *path)
{
    static char text[4096];
    FILE *f = fopen(path, "r");
    CHECK(f != NULL);
    text[f ? fread(text, 1, sizeof text - 1, f) : 0] = 0;
    if (f) fclose(f);
    return text;
}

static void searched(double error, char rows[LAYERS][STEPS + 1])
{
    char stack[200], path[100], line[64];
    struct planned p, plain;
    bool close = false, seen[256] = {false};
    snprintf(path, sizeof path, "%s/plan%g.json", dir, error);
    snprintf(stack, sizeof stack, "ditfast:search=%s,error=%g,first=3,last=2,block=16,density=.3",
             path, error);
    fresh(16);
    tile[0] = tile[1] = tile[2] = 4;
    order_by(tile_key);
    open_deep(&p, stack);
    open_deep(&plain, "dense");
    for (int step = 0; step < STEPS; step++)
        for (int layer = 0; layer < LAYERS; layer++)
            for (int branch = 0; branch < BRANCHES; branch++) {
                fill_call(step, layer, branch);
                one(&p, step, layer, branch);
                one(&plain, step, layer, branch);
                CHECK(memcmp(p.o, plain.o, sizeof(float) * L * WIDE) == 0);
                remember(step, layer, branch, 4); /* 9 of 30 blocks */
            }
    planned_close(&p);
    planned_close(&plain);
    const char *text = slurp(path);
    for (int layer = 0; layer < LAYERS; layer++) {
        plan_by_hand(rows[layer], layer, error, &close);
        snprintf(line, sizeof line, "  \"%s\"%s\n", rows[layer], layer < LAYERS - 1 ? "," : "");
        CHECK_MSG(strstr(text, line), "layer %d: wanted %sof\n%s", layer, line, text);
        for (int i = 0; i < STEPS; i++)
            seen[(int)rows[layer][i]] = true;
    }
    CHECK_MSG(!close, "a choice hangs by a hair: take another error than %g", error);
    printf("error %g: %s %s %s\n", error, rows[0], rows[1], rows[2]);
    CHECK(seen['F'] && seen['A'] && (seen['W'] || seen['c'] || seen['C']));
    snprintf(stack, sizeof stack, "%s.part", path);
    CHECK(access(stack, F_OK) != 0);
}

/* A plan file does what it says, and is for its own run alone. */
static void from_file(double error, char rows[LAYERS][STEPS + 1])
{
    char stack[200], path[100], bad[100];
    struct planned p;
    struct err e = {0};
    struct attn_shape deep = deep_shape();
    snprintf(path, sizeof path, "%s/plan%g.json", dir, error);
    snprintf(stack, sizeof stack, "ditfast:file=%s,first=3,last=2,block=16,density=.3", path);
    open_deep(&p, stack);
    for (int step = 0; step < STEPS; step++)
        for (int layer = 0; layer < LAYERS; layer++)
            for (int branch = 0; branch < BRANCHES; branch++) {
                char wanted = rows[layer][step];
                fill_call(step, layer, branch);
                char seen = did(&p, one(&p, step, layer, branch));
                if (wanted == 'C') wanted = branch ? 'c' : 'F';
                if (wanted == 'c') wanted = branch ? 'c' : 'W';
                CHECK_MSG(seen == wanted, "step %d, layer %d, branch %d: %c, wanted %c", step,
                          layer, branch, seen, wanted);
            }
    planned_close(&p);

    struct attn_shape others[] = {deep, deep, deep, deep};
    others[0].n_steps++, others[1].n_layers--, others[2].grid_t--, others[3].head_dim = 8;
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        CHECK_MSG(planned_open(&p, stack, &others[i], &e) < 0 && e.code == ERR_INPUT &&
                      strstr(e.msg, path) && strstr(e.msg, "another run"),
                  "%zu: %s", i, e.msg);
        planned_close(&p);
    }
    static const char *const changed[] = {"block=32,density=.3", "block=16,density=.2",
                                          "block=16,density=.3,tile=2x4x4"};
    for (size_t i = 0; i < ARRAY_LEN(changed); i++) {
        snprintf(stack, sizeof stack, "ditfast:file=%s,first=3,last=2,%s", path, changed[i]);
        CHECK(planned_open(&p, stack, &deep, &e) < 0 && strstr(e.msg, "another run"));
        planned_close(&p);
    }
    char text[4096], canonical[300];
    CHECK_OK(attn_stack_check(stack, canonical, sizeof canonical, &e));
    snprintf(stack, sizeof stack, "ditfast:file=%s", path);
    CHECK_OK(attn_stack_check(stack, canonical, sizeof canonical, &e));
    CHECK(strstr(canonical, ",hash=") !=
          NULL); /* what a clip keeps; a plan that changed is refused */
    CHECK_OK(attn_stack_check(canonical, NULL, 0, &e));
    *strstr(canonical, ",hash=") = 0;
    strcat(canonical, ",hash=0123456789abcdef");
    CHECK(attn_stack_check(canonical, NULL, 0, &e) < 0 && e.code == ERR_INPUT &&
          strstr(e.msg, "has changed"));
    CHECK(attn_stack_check("ditfast:hash=0123456789abcdef", NULL, 0, &e) < 0);
    snprintf(text, sizeof text, "%s", slurp(path));
    snprintf(bad, sizeof bad, "%s/bad.json", dir);
    snprintf(stack, sizeof stack, "ditfast:file=%s,first=3,last=2,block=16,density=.3", bad);
    for (size_t at = 0; at < strlen(text) + 3; at++) {
        char copy[4096];
        size_t len = strlen(text), first = (size_t)(strchr(strstr(text, "blocks"), 'F') - text);
        memcpy(copy, text, len + 1);
        if (at < len - 2)
            len = at; /* cut anywhere before the last brace */
        else if (at == len)
            copy[first] = 'X';
        else if (at == len + 1)
            copy[first] = '\n';
        else if (at == len + 2)
            memmove(copy + first, copy + first + 1, len - first), len--;
        else
            continue;
        FILE *f = fopen(bad, "w");
        fwrite(copy, 1, len, f);
        fclose(f);
        CHECK_MSG(planned_open(&p, stack, &deep, &e) < 0 && e.code == ERR_INPUT &&
                      strstr(e.msg, bad),
                  "took a plan spoilt by %zu", at);
        planned_close(&p);
    }
    remove(bad);
    snprintf(stack, sizeof stack, "ditfast:search=%s", path); /* would write over it */
    CHECK(planned_open(&p, stack, &deep, &e) < 0 && e.code == ERR_USAGE && strstr(e.msg, path));
    planned_close(&p);
    remove(path);
}

static void refused(void)
{
    struct planned p;
    struct err e = {0};
    struct attn_shape deep = deep_shape();
    static const char *const never[] = {"ditfast:steps=",      "ditfast:steps=FX",
                                        "ditfast:steps=F/",    "ditfast:steps=/F",
                                        "ditfast:steps=FA//F", "ditfast:file=a,search=b"};
    for (size_t i = 0; i < ARRAY_LEN(never); i++) {
        CHECK_MSG(planned_open(&p, never[i], &deep, &e) < 0 && e.code == ERR_USAGE, "took %s",
                  never[i]);
        planned_close(&p);
    }
    CHECK(planned_open(&p, "ditfast:file=/nowhere/plan.json", &deep, &e) < 0 &&
          e.code == ERR_INPUT && strstr(e.msg, "/nowhere/plan.json"));
    planned_close(&p);
    /* a search that could not write says so at its first call, not at its last */
    CHECK_OK(planned_open(&p, "ditfast:search=/nowhere/plan.json", &deep, &e));
    struct attn_call c = {.q = qkv[0], .k = qkv[1], .v = qkv[2], .o = p.o};
    CHECK(attn_run(p.a, &c, &e) < 0 && e.code == ERR_RESOURCE && strstr(e.msg, "/nowhere"));
    planned_close(&p);
}

int main(void)
{
    char rows[LAYERS][STEPS + 1];
    threads_set(1);
    make_noise();
    snprintf(dir, sizeof dir, "/tmp/ditfastXXXXXX");
    CHECK(mkdtemp(dir) != NULL);
    patterns();
    searched(.12, rows);
    from_file(.12, rows);
    searched(.3, rows);
    from_file(.3, rows);
    refused();
    CHECK(rmdir(dir) == 0);
    return TEST_RESULT();
}
