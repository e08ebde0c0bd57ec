/* Devices of the host: names, memory counted and limited, copies, what cannot be. */
#include "model/base/arena.h"
#include "model/base/device_table.h"
#include "tests/check.h"

static void names(void)
{
    static const char *const good[] = {"auto", "cpu",    "cpu:ref", "cpu:amx",
                                       "cuda", "cuda:0", "cuda:17"};
    static const char *const bad[] = {
        "", "gpu", "cpu:", "cpu:sse", "cuda:", "cuda:x", "cuda:1x", "cuda:-1", "cuda:1234", "CPU"};
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        CHECK(device_name_is_known(good[i]));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct device *d;
        struct err e = {0};
        CHECK(!device_name_is_known(bad[i]));
        CHECK(device_open(&d, bad[i], &e) == -1 && e.code == ERR_USAGE && !d);
    }
    struct device_info info;
    CHECK(device_at(0, &info) && info.kind == DEVICE_CPU && info.what[0] && !info.why_not[0]);
    CHECK(!device_at(-1, &info) && !device_at(999, &info));
    char why[200];
    device_no_gpu(why, sizeof why);
    bool gpu = device_at(1, &info) && !info.why_not[0];
    CHECK(gpu == !why[0]);
    if (gpu) return;
    struct device *d; /* one line that names the way on */
    struct err e = {0};
    CHECK(device_open(&d, "cuda", &e) == -1 && e.code == ERR_DEVICE &&
          strstr(e.msg, "--device cpu"));
}

static void memory(void)
{
    struct device *d;
    struct err e = {0};
    void *a, *b;
    CHECK_OK(device_open(&d, "cpu", &e));
    CHECK(device_kind(d) == DEVICE_CPU && device_place(d) == PLACE_HOST && !device_lost(d));
    CHECK(strcmp(device_name(d), "cpu") == 0 && strcmp(device_name(NULL), "cpu") == 0);
    CHECK_OK(device_alloc(d, &a, 1000, &e));
    CHECK_OK(device_alloc(d, &b, 500, &e));
    CHECK((uintptr_t)a % 64 == 0 && device_held(d) == 1500 && device_peak(d) == 1500);
    device_free(d, a);
    CHECK(device_held(d) == 500 && device_peak(d) == 1500);
    device_peak_reset(d);
    CHECK(device_peak(d) == 500);
    device_limit(d, 600);
    CHECK(device_alloc(d, &a, 101, &e) == -1 && e.code == ERR_RESOURCE && !a &&
          strstr(e.msg, "limit"));
    CHECK_OK(device_alloc(d, &a, 100, &e));
    device_limit(d, 0);
    e = (struct err){0};
    d->fail_alloc = 2;
    void *c;
    CHECK_OK(device_alloc(d, &c, 1, &e));
    CHECK(device_alloc(d, &c, 1, &e) == -1 && e.code == ERR_RESOURCE && !c);
    CHECK_OK(device_alloc_pinned(d, &c, 64, &e));
    struct device_mark *beside;
    CHECK_OK(device_mark_open(d, &beside, &e));
    memset(c, 3, 64);
    CHECK(device_pass(d, beside, &e) == 0 && device_fetch(d, b, c, 64, beside, beside, &e) == 0 &&
          device_join(d, beside, &e) == 0 && *(char *)b == 3);
    device_mark_close(d, beside);
    CHECK(device_beside(d) == 0 && device_taken(d) == 0 && device_taken_peak(d) == 0);
    memset(b, 7, 100);
    CHECK_OK(device_zero(d, c, 64, &e));
    CHECK_OK(device_download_pinned(d, c, b, 32, &e));
    CHECK_OK(device_upload(d, a, c, 64, &e));
    CHECK_OK(device_copy(d, b, (char *)a + 32, 32, &e));
    CHECK_OK(device_wait(d, &e));
    CHECK(((char *)a)[31] == 7 && ((char *)a)[32] == 0 && ((char *)b)[0] == 0 &&
          ((char *)b)[32] == 7);
    device_free_pinned(d, c);
    struct device_mark *m;
    CHECK_OK(device_mark_open(d, &m, &e));
    CHECK_OK(device_mark_set(d, m, &e));
    CHECK_OK(device_mark_wait(d, m, &e));
    device_mark_close(d, m);
    struct device_steps *s;
    CHECK(!device_can_record(d) && device_record(d, &e) == -1 && e.code == ERR_BUG);
    CHECK(device_recorded(d, &s, &e) == -1 && !s);
    device_close(d); /* with what is left of it */
    device_close(NULL);
}

static void arenas(void)
{
    struct device *d;
    struct err e = {0};
    struct arena a;
    CHECK_OK(device_open(&d, "cpu", &e));
    CHECK_OK(arena_open_on(&a, d, 100, &e)); /* the host's arenas are what they were */
    CHECK(!a.device && arena_take(&a, 100) && device_held(d) == 0);
    arena_close(&a);
    CHECK_OK(arena_open_on(&a, NULL, 100, &e));
    arena_close(&a);
    device_close(d);
}

static void counts(void)
{
    struct device *d;
    struct err e = {0};
    long n[DEVICE_OPS];
    CHECK_OK(device_open(&d, "cpu", &e));
    device_did(d, 3);
    device_did(d, 3);
    device_did(NULL, 3);
    device_counts(d, n);
    CHECK(n[3] == 2 && n[2] == 0);
    device_counts_reset(d);
    device_counts(d, n);
    CHECK(n[3] == 0);
    device_note(d, 5);
    device_note(d, 6);
    CHECK(device_noted(d) == 5 && device_noted(d) == 0);
    device_close(d);
}

int main(void)
{
    names();
    memory();
    arenas();
    counts();
    return TEST_RESULT();
}
