/* The ground: numbers, options, JSON reads, arenas, errors. */
#include "model/base/arena.h"
#include "model/base/cpu.h"
#include "model/base/dtype.h"
#include "model/base/file_map.h"
#include "model/base/json.h"
#include "model/base/lincomb.h"
#include "model/base/option.h"
#include "model/base/threads.h"
#include "tests/check.h"

#include <stdbool.h>

static void dtypes(void)
{
    CHECK(f32_to_bf16(1.0f) == 0x3f80 && f32_to_bf16(1.00390625f) == 0x3f80); /* ties to even */
    CHECK(f32_to_bf16(1.01171875f) == 0x3f82);
    CHECK(isnan(bf16_to_f32(f32_to_bf16(NAN))) && isinf(bf16_round(3.4e38f)));
    uint16_t h[] = {0x3c00, 0xc000, 0x0001, 0x8000, 0x7c00, 0x7e00, 0x03ff};
    float f[7];
    CHECK(dtype_to_f32(f, h, DTYPE_F16, 7) == 0);
    CHECK(f[0] == 1 && f[1] == -2 && f[2] == 0x1p-24f && f[3] == 0 && signbit(f[3]) &&
          isinf(f[4]) && isnan(f[5]) && f[6] == 1023 * 0x1p-24f);
    CHECK(dtype_to_f32(f, h, DTYPE_I8, 1) < 0);
    for (int i = 0; i < DTYPE_COUNT; i++)
        CHECK(dtype_from_name(dtype_name((enum dtype)i)) == i);
    CHECK(dtype_from_name("F6") < 0);
}

struct settings {
    int steps, mode;
    double scale;
    bool fast;
    char *name;
    uint64_t seed;
};
static const struct option table[] = {
    OPT_INT(struct settings, steps, "steps", 30, 1, 1000, "steps"),
    OPT_ENUM(struct settings, mode, "mode", 1, "slow|auto|fast", "mode"),
    OPT_DOUBLE(struct settings, scale, "guidance-scale", 4.5, 0, 100, "scale"),
    OPT_BOOL(struct settings, fast, "fast", 0, "fast"),
    OPT_STRING(struct settings, name, "name", "x", "name"),
    OPT_U64(struct settings, seed, "seed", "seed"),
    {NULL, 0, 0, 0, 0, 0, NULL, NULL},
};

static void options(void)
{
    struct settings s;
    struct err e = {0};
    char buf[64];
    CHECK_OK(option_defaults(table, &s, &e));
    CHECK(s.steps == 30 && s.mode == 1 && s.scale == 4.5 && !s.fast && s.seed == 0);
    CHECK_STR(s.name, "x");
    static const struct {
        const char *key, *value;
        bool ok;
    } cases[] = {
        {"steps", "7", true},
        {"steps", "0", false},
        {"steps", "7x", false},
        {"steps", "", false},
        {"steps", " 7", false},
        {"steps", "99999999999999", false},
        {"mode", "fast", true},
        {"mode", "fas", false},
        {"guidance_scale", "1e1", true},
        {"guidance-scale", "nan", false},
        {"guidance-scale", "inf", false},
        {"guidance-scale", "0x1", false},
        {"fast", "yes", true},
        {"fast", "maybe", false},
        {"seed", "18446744073709551615", true},
        {"seed", "18446744073709551616", false},
        {"seed", "-1", false},
        {"name", "", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct option *o = option_find(table, cases[i].key);
        CHECK(o != NULL);
        e.code = ERR_NONE;
        int r = o ? option_parse(o, &s, cases[i].value, &e) : -1;
        CHECK_MSG((r == 0) == cases[i].ok, "%s = %s", cases[i].key, cases[i].value);
        if (r < 0) CHECK(e.code == ERR_USAGE && e.msg[0]);
    }
    CHECK(s.steps == 7 && s.mode == 2 && s.scale == 10 && s.fast && s.seed == UINT64_MAX);
    s.scale = 0.1;
    CHECK(option_print(option_find(table, "guidance-scale"), &s, buf, sizeof buf) == 3);
    CHECK_STR(buf, "0.1");
    static const struct {
        double v;
        const char *text;
    } texts[] = {{-10, "-10"},    {1e6, "1000000"},   {1.5e20, "1.5e20"},
                 {1e-7, "1e-07"}, {-1e300, "-1e300"}, {123456789, "123456789"}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) { /* no plus, which parts methods */
        s.scale = texts[i].v;
        option_print(option_find(table, "guidance-scale"), &s, buf, sizeof buf);
        CHECK_STR(buf, texts[i].text);
    }
    option_print(option_find(table, "mode"), &s, buf, sizeof buf);
    CHECK_STR(buf, "fast");
    CHECK_STR(option_nearest(table, "guidance-scael"), "guidance-scale");
    CHECK_STR(option_nearest(table, "step"), "steps");
    CHECK(option_nearest(table, "zzzzzzzz") == NULL && option_find(table, "zz") == NULL);
    option_free(table, &s);
    CHECK(s.name == NULL);
}

static void jsons(void)
{
    struct err e = {0};
    struct json *j;
    static const char text[] =
        "{\"a\": 3, \"b\": [1, 2.5], \"c\": \"x\", \"d\": true, \"n\": null, \"big\": 1e400}";
    CHECK_OK(json_parse(&j, text, sizeof text - 1, "t", &e));
    int v, n, vs[4];
    double d, ds[4];
    bool b;
    const char *s;
    CHECK(json_read_int(j, "t", "a", 0, 5, 9, &v, &e) == 0 && v == 3);
    CHECK(json_read_int(j, "t", "n", 0, 5, 9, &v, &e) == 0 && v == 9);
    CHECK(json_read_int(j, "t", "a", 4, 5, 9, &v, &e) < 0 && strstr(e.msg, "t: a is 3, wanted"));
    CHECK(json_read_int(j, "t", "c", 4, 5, 9, &v, &e) < 0 && strstr(e.msg, "\"x\""));
    CHECK(json_read_ints(j, "t", "b", 0, 5, 4, vs, &n, &e) < 0);
    CHECK(json_read_doubles(j, "t", "b", 4, ds, &n, &e) == 0 && n == 2 && ds[1] == 2.5);
    CHECK(json_read_doubles(j, "t", "b", 1, ds, &n, &e) < 0 &&
          json_read_doubles(j, "t", "a", 1, ds, &n, &e) < 0);
    CHECK(json_read_double(j, "t", "big", 0, 1e300, 0, &d, &e) < 0);
    CHECK(json_read_bool(j, "t", "d", false, &b, &e) == 0 && b &&
          json_read_bool(j, "t", "a", false, &b, &e) < 0);
    CHECK(json_read_string(j, "t", "c", "", &s, &e) == 0 && strcmp(s, "x") == 0);
    CHECK(json_get(json_get(j, "a"), "x") == NULL && json_at(j, 0) == NULL &&
          json_count(NULL) == 0);
    json_close(j);
    char deep[1000];
    memset(deep, '[', sizeof deep);
    CHECK(json_parse(&j, deep, sizeof deep, "t", &e) < 0 && e.code == ERR_INPUT);
    CHECK(json_parse(&j, "", 0, "t", &e) < 0 && json_parse(&j, "{} x", 4, "t", &e) < 0);
    CHECK(json_open(&j, "/nowhere", &e) < 0 && e.code == ERR_INPUT && !j);
}

static void count_task(void *ctx, int task, int worker)
{
    int *hits = ctx;
    if (worker >= 0 && worker < threads_count()) hits[task]++;
}

static void rest(void)
{
    struct arena measure = {0}, a;
    struct err e = {0};
    CHECK(!arena_take(&measure, 10) && !arena_take(&measure, 0) && measure.used == 256);
    CHECK_OK(arena_open(&a, measure.used, &e));
    char *p = arena_take(&a, 10);
    CHECK(p && (uintptr_t)p % 256 == 0 && a.used == 256);
    arena_close(&a);
    arena_take(&measure, SIZE_MAX - 3);
    CHECK(arena_open(&a, measure.used, &e) < 0 && e.code == ERR_RESOURCE);
    int hits[100] = {0}, all = 1;
    threads_run(100, count_task, hits);
    for (int i = 0; i < 100; i++)
        all &= hits[i] == 1;
    CHECK(all);
    struct cpu c;
    cpu_detect(&c);
    CHECK(c.threads >= 1 && c.cores >= 1 && c.cores <= c.threads);
    err_set(&e, ERR_INPUT, "bad %d", 3);
    CHECK(err_wrap(&e, "file %s", "x") == -1 && e.code == ERR_INPUT);
    CHECK_STR(e.msg, "file x: bad 3");
    char *text;
    size_t len;
    CHECK(file_read(&text, &len, "/proc/self/cmdline", 2, &e) < 0 && e.code == ERR_INPUT);
    CHECK(file_read(&text, &len, "/nowhere", 9, &e) < 0);
}

/* Sums from the left, each step rounded to fp32, or to bf16; `to` among the terms; 1 and -1 exact.
 */
static void sums(void)
{
    enum { N = 21 };
    struct test_rng r = {5};
    struct err e = {0};
    float data[5][N], *x[5], want[N];
    for (int n = 1; n <= LINCOMB_TERMS; n++)
        for (int bf16 = 0; bf16 < 2; bf16++) {
            for (int k = 0; k < 5; k++) {
                x[k] = data[k];
                for (int i = 0; i < N; i++)
                    data[k][i] = bf16 ? bf16_round(rng_normal(&r)) : rng_normal(&r);
            }
            struct lincomb l = {2, n, {3, 2, 0, 2}, {0.3f, -1, 1.7f, 1}};
            for (int i = 0; i < N; i++) {
                float t = l.c[0] * x[3][i];
                want[i] = bf16 ? bf16_round(t) : t;
                for (int k = 1; k < n; k++) {
                    t = l.c[k] * x[l.from[k]][i];
                    want[i] += bf16 ? bf16_round(t) : t;
                    if (bf16) want[i] = bf16_round(want[i]);
                }
            }
            CHECK_OK(lincomb_host.run(NULL, x, &l, N, bf16, &e));
            CHECK(memcmp(x[2], want, sizeof want) == 0);
        }
    int first = 1;
    CHECK(lincomb_host.finite(NULL, x[2], N, 3, &first, &e) == 0 && first == 0);
    x[2][N - 1] = (float)INFINITY;
    CHECK(lincomb_host.finite(NULL, x[2], N, 3, &first, &e) == 0 && first == 3);
}

int main(void)
{
    dtypes();
    options();
    jsons();
    rest();
    sums();
    return TEST_RESULT();
}
