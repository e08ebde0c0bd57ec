/* The transformer on a device that nobody else can compute for: the host's bytes, its counts, steps
 * recorded and replayed, memory that runs out at every allocation, what is refused. */
#include "tests/unit/dit/device_run.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void same_bytes(const struct setting *s)
{
    struct device *dev;
    struct err e = {0};
    long counts[DEVICE_OPS];
    size_t n = out_len(s);
    float *want = calloc(n, sizeof *want), *got = calloc(n, sizeof *got);
    CHECK_OK(run(s, NULL, want, &e));
    CHECK_OK(fake_open(&dev, s->together, &e));
    fake_guard(true);
    CHECK_OK(run(s, dev, got, &e));
    fake_guard(false);
    CHECK_MSG(memcmp(got, want, n * sizeof *got) == 0, "%s %s: rel L2 %g", s->config,
              s->attention ? s->attention : "dense", rel_l2(got, want, n));
    CHECK(device_held(dev) == 0);
    bool kinds = s->attention && !strstr(s->attention, "first=0");
    CHECK_MSG(fake_replays(dev) == STEPS - (kinds ? 2 : 1), "%ld replays", fake_replays(dev));
    device_counts(dev, counts);
    CHECK(counts[OP_LINEAR] > 0 && counts[OP_FFN] == 2 * STEPS * (s->together ? 1 : 2));
    CHECK(counts[OP_PATCH] == 3 * STEPS); /* in once, out once a branch: replays count too */
    device_close(dev);
    free(want), free(got);
}

/* Each allocation fails once: a sentence, nothing left over. */
static void no_memory(void)
{
    struct setting s = {
        "t2v", NULL, {1, 4, 4, 3, 500, 0, NULL, false, 0}, false, false, PRECISION_FP32, NULL, 0};
    size_t n = out_len(&s);
    float *out = calloc(n, sizeof *out);
    int failed = 0;
    for (int at = 1; at < 100; at++) {
        struct device *dev;
        struct err e = {0};
        CHECK_OK(fake_open(&dev, false, &e));
        dev->fail_alloc = at;
        int rc = run(&s, dev, out, &e);
        bool reached = dev->fail_alloc == 0;
        CHECK(reached ? rc < 0 && e.code == ERR_RESOURCE && e.msg[0] : rc == 0);
        CHECK(device_held(dev) == 0);
        device_close(dev);
        if (!reached) break;
        failed++;
    }
    CHECK(failed >= 4); /* vectors, arena, and the test's own buffers */
    free(out);
}

static void refused(void)
{
    struct device *dev;
    struct err e = {0};
    struct clip clip = {3, 6, 10, 5, 500, 0, NULL, false, 0};
    CHECK_OK(fake_open(&dev, false, &e));
    struct setting s = {"t2v", NULL, clip, false, false, PRECISION_FP32, NULL, 0};
    struct dit *d = open_on(&s, dev, &e);
    dit_close(d);
    CHECK(device_held(dev) == 0);
    /* a device that is lost says so again and again, and everything can be closed */
    e = (struct err){0};
    d = open_on(&s, dev, &e);
    struct attn_params attn = cpu_attention(PRECISION_FP32);
    struct dit_run_params p = run_params(&clip, &attn);
    err_set(&dev->lost, ERR_DEVICE, "fake:0: it fell off the bus");
    for (int i = 0; i < 2 && d; i++) {
        e = (struct err){0};
        CHECK(dit_prepare(d, &p, &e) == -1 && e.code == ERR_DEVICE && strstr(e.msg, "fell off"));
    }
    dit_close(d);
    device_close(dev);
}

/* What is predicted without a weight is what is taken: to the byte. */
static void predicted(void)
{
    struct setting s = {
        "wide", NULL, {3, 10, 8, 20, 500, 0, NULL, false, 0}, false, true, PRECISION_FP32, NULL, 0};
    struct device *dev;
    struct err e = {0};
    size_t bytes;
    CHECK_OK(fake_open(&dev, true, &e));
    struct dit *d = open_on(&s, dev, &e);
    struct attn_params attn = cpu_attention(PRECISION_FP32);
    attn.device = dev;
    struct dit_run_params p = run_params(&s.clip, &attn);
    CHECK_OK(dit_bytes(&bytes, dit_config_of(d), PRECISION_FP32, &p, &e));
    CHECK(device_held(dev) == dit_weight_bytes(dit_config_of(d), dev, PRECISION_FP32, 0));
    CHECK_OK(dit_prepare(d, &p, &e));
    CHECK_MSG(bytes == device_held(dev), "%zu predicted, %zu taken", bytes, device_held(dev));
    dit_close(d);
    device_close(dev);
}

/* The fake itself: whoever computes on the host, reads the device there or gives it the host's memory
 * does not get away with it. */
static int ends_by_signal(void (*wrong)(struct device *d, void *at))
{
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        struct device *d;
        struct err e = {0};
        void *at;
        if (!freopen("/dev/null", "w", stderr)) _exit(0);
        if (fake_open(&d, false, &e) < 0 || device_alloc(d, &at, 64, &e) < 0) _exit(0);
        fake_guard(true);
        wrong(d, at);
        _exit(0);
    }
    return child > 0 && waitpid(child, &status, 0) == child &&
           !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void computes(struct device *d, void *at)
{
    float x[8] = {0};
    struct norm_params p = {.eps = 1};
    (void)d, (void)at;
    layer_norm(x, x, 1, 8, &p);
}

static void reads(struct device *d, void *at)
{
    (void)d;
    *(volatile float *)at = 1;
}

static void gives(struct device *d, void *at)
{
    float x[8] = {0};
    struct rows r = rows_of(d, x, DTYPE_F32, 1, 8);
    struct err e;
    (void)at;
    if (ops_of(d)->cast(d, &r, &r, false, &e) < 0) _exit(0);
}

static void takes_for_the_hosts(struct device *d, void *at)
{
    struct err e;
    if (device_upload(d, at, at, 8, &e) < 0) _exit(0);
}

/* A copy beside the work that may begin before what is read there was read. */
static void overwrites(struct device *d, void *at)
{
    struct device_mark *m;
    struct err e = {0};
    void *pinned;
    if (device_mark_open(d, &m, &e) < 0 || device_alloc_pinned(d, &pinned, 64, &e) < 0 ||
        device_pass(d, m, &e) < 0)
        _exit(0);
    fake_used(d, at, 64);
    if (device_fetch(d, at, pinned, 64, m, m, &e) < 0) _exit(0);
}

static void reads_too_early(struct device *d, void *at)
{
    struct device_mark *m;
    struct err e = {0};
    void *pinned;
    if (device_mark_open(d, &m, &e) < 0 || device_alloc_pinned(d, &pinned, 64, &e) < 0 ||
        device_pass(d, m, &e) < 0 || device_fetch(d, at, pinned, 64, m, m, &e) < 0)
        _exit(0);
    fake_used(d, at, 64);
}

static void records_what_may_move(struct device *d, void *at)
{
    struct device_mark *m;
    struct err e = {0};
    char plain[64];
    if (device_mark_open(d, &m, &e) < 0 || device_record(d, &e) < 0 || device_pass(d, m, &e) < 0 ||
        device_fetch(d, at, plain, 64, m, m, &e) < 0)
        _exit(0);
}

/* As late as the join; more than the work before the mark is not waited for. */
static void beside(void)
{
    struct device *d;
    struct device_mark *free_, *there;
    struct err e = {0};
    void *at, *pinned;
    char seen[64];
    CHECK_OK(fake_open(&d, false, &e));
    CHECK_OK(device_alloc(d, &at, 64, &e));
    CHECK_OK(device_alloc_pinned(d, &pinned, 64, &e));
    CHECK_OK(device_mark_open(d, &free_, &e));
    CHECK_OK(device_mark_open(d, &there, &e));
    fake_used(d, at, 64);
    CHECK_OK(device_pass(d, free_, &e));
    memset(pinned, 1, 64);
    CHECK_OK(device_fetch(d, at, pinned, 64, free_, there, &e));
    memset(pinned, 2, 64);
    CHECK_OK(device_download(d, seen, at, 64, &e));
    CHECK(seen[0] != 1 && seen[0] != 2);
    CHECK_OK(device_join(d, there, &e));
    fake_used(d, at, 64);
    CHECK_OK(device_download(d, seen, at, 64, &e));
    CHECK(seen[0] == 2 && seen[63] == 2);
    device_mark_close(d, free_), device_mark_close(d, there);
    device_free_pinned(d, pinned);
    device_free(d, at);
    device_close(d);
}

static void stopped(void)
{
    CHECK(ends_by_signal(overwrites));
    CHECK(ends_by_signal(reads_too_early));
    CHECK(ends_by_signal(records_what_may_move));
    CHECK(ends_by_signal(computes));
    CHECK(ends_by_signal(reads));
    CHECK(ends_by_signal(gives));
    CHECK(ends_by_signal(takes_for_the_hosts));
}

int main(void)
{
    const struct clip clip = {3, 6, 10, 5, 500, 0, NULL, false, 0};
    const struct setting settings[] = {
        {"t2v", NULL, clip, false, false, PRECISION_FP32, NULL, 0},
        {"t2v", NULL, clip, false, true, PRECISION_FP32, NULL, 0},
        {"t2v", NULL, clip, false, true, PRECISION_BF16_EMULATED, NULL, 0},
        {"t2v", "tile:reach=1x2x2,tile=1x2x2,block=16,first=0", clip, false, false, PRECISION_FP32,
         NULL, 0},
        {"t2v", "clear:reach=1x3x3,tile=1x2x2,block=16,first=3", clip, false, true, PRECISION_FP32,
         NULL, 0},
        {"t2v", "tile:reach=1x2x2,tile=raster,block=16,first=2", clip, false, false, PRECISION_FP32,
         NULL, 0},
        {"t2v", "sage:qk=int8,pv=int8,first=2", clip, false, true, PRECISION_FP32, NULL, 0},
        {"t2v", "sage:qk=int8/0-0=run,pv=int8/0-0=run,rotate=true,first=0", clip, false, false,
         PRECISION_FP32, NULL, 0},
        {"t2v", "sage:qk=int4,pv=fp8,first=0+tile:reach=1x2x2,tile=1x2x2,block=16,first=0", clip,
         false, false, PRECISION_FP32, NULL, 0},
        {"ti2v", NULL, {3, 4, 6, 6, 0, 0, NULL, false, 0}, true, true, PRECISION_FP32, NULL, 0},
        {"i2v", NULL, {2, 4, 6, 7, 850, 17, NULL, false, 0}, false, true, PRECISION_FP32, NULL, 0},
        {"flf",
         NULL,
         {3, 4, 4, 9, 900, 34, NULL, false, 0},
         false,
         false,
         PRECISION_BF16_EMULATED,
         NULL,
         0},
        {"odd", NULL, {3, 5, 9, 3, 333, 0, NULL, false, 0}, false, true, PRECISION_FP32, NULL, 0},
    };
    threads_set(2);
    stopped();
    beside();
    for (size_t i = 0; i < ARRAY_LEN(settings); i++)
        same_bytes(&settings[i]);
    no_memory();
    refused();
    predicted();
    return TEST_RESULT();
}
