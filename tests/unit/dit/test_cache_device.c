/* Step caches on a device that nobody else can compute for, by walking the list: the host's decisions
 * and bytes, steps left out without a block, steps recorded and replayed, gone on with from any step of
 * either, what calibration is shown, memory that runs out at every allocation.
 * DITGEN_TEST_DEVICE=cuda asks the same of a GPU: decisions, bytes that repeat, near the host's. */
#include "tests/fake/fake.h"
#include "tests/unit/dit/fixture.h"

#define STEPS 12
#define BRANCHES 2

static const struct clip clip = {3, 6, 10, 5, 0, 0, NULL, false, 0};
static float ratio[STEPS * BRANCHES];
static const struct dit_calibration calibration = {
    .has_poly = true,
    .poly = {{3, -2, 0.5, 1.5, 0.01}, {-2, 1, 0.25, 2, -0.005}},
    .n_steps = STEPS,
    .n_branches = BRANCHES,
    .ratio = ratio,
};

struct shown { /* what a watch was told: sizes of it, a branch of a step */
    double sum[STEPS][BRANCHES][4];
    int calls;
};

struct run { /* a transformer on dev (NULL: the host) and its latents, which drift */
    struct dit *d;
    struct device *dev;
    const char *words;
    const struct dit_watch *watch;
    void *there[1 + BRANCHES];
    float *latents;
    size_t n;
};

struct result {
    float *velocity; /* [STEPS][BRANCHES][n] */
    bool skipped[STEPS];
};

static int prepare(struct run *r, struct err *e)
{
    struct attn_params attn = cpu_attention(r->d->precision);
    attn.device = r->dev;
    struct dit_run_params p = run_params(&clip, &attn);
    p.n_steps = STEPS;
    p.cache = (struct dit_cache_params){
        .words = r->words, .calibration = &calibration, .watch = r->watch};
    if (dit_prepare(r->d, &p, e) < 0) return -1;
    float *text = drawn("dit.text", (size_t)clip.rows * (size_t)dit_config_of(r->d)->text_dim);
    int rc = 0;
    for (int b = 0; b < BRANCHES && rc == 0; b++)
        rc = dit_set_context(r->d, b, text, clip.rows - 2 * b, NULL, e);
    free(text);
    return rc;
}

static void run_close(struct run *r)
{
    for (int i = 0; i < 1 + BRANCHES; i++)
        if (r->there[i]) device_free(r->dev, r->there[i]);
    free(r->latents);
    dit_close(r->d);
    *r = (struct run){0};
}

static int run_open(struct run *r, struct device *dev, enum precision precision, const char *words,
                    const struct dit_watch *watch, struct err *e)
{
    char dir[256];
    *r = (struct run){.dev = dev, .words = words, .watch = watch};
    tiny_temp(dir);
    write_tiny(dir, "t2v");
    int rc = dit_open_on(&r->d, dev, NULL, dir, NULL, 1, precision, NULL, e);
    tiny_remove(dir);
    if (rc == 0) r->n = velocity_len(r->d, &clip), r->latents = malloc(r->n * sizeof(float));
    if (rc == 0) rc = prepare(r, e);
    for (int i = 0; i < 1 + BRANCHES && dev && rc == 0; i++)
        rc = device_alloc(dev, &r->there[i], r->n * sizeof(float), e);
    if (rc < 0) run_close(r);
    return rc;
}

/* Steps [from, to) of the run into `to`. */
static int steps(struct run *r, struct result *to, int from, int until, struct err *e)
{
    float *a = drawn("caches.from", r->n), *b = drawn("caches.to", r->n);
    int rc = 0;
    for (int i = from; i < until && rc == 0; i++) {
        float w = (float)i * (float)i / (STEPS * STEPS);
        struct dit_cache_stats before, after;
        struct dit_call c = {.step = i, .n_branches = BRANCHES, .timestep = 1000 * (1 - w)};
        float *v[BRANCHES] = {to->velocity + (size_t)(BRANCHES * i) * r->n,
                              to->velocity + (size_t)(BRANCHES * i + 1) * r->n};
        float *v_there[BRANCHES] = {r->there[1], r->there[2]};
        for (size_t k = 0; k < r->n; k++)
            r->latents[k] = (1 - w) * a[k] + w * b[k];
        dit_cache_stats(r->d, &before);
        if (r->dev) {
            rc = device_upload(r->dev, r->there[0], r->latents, r->n * sizeof(float), e);
            if (rc == 0) rc = dit_velocity(r->d, v_there, r->there[0], &c, e);
            for (int k = 0; k < BRANCHES && rc == 0; k++)
                rc = device_download(r->dev, v[k], v_there[k], r->n * sizeof(float), e);
        } else {
            rc = dit_velocity(r->d, v, r->latents, &c, e);
        }
        dit_cache_stats(r->d, &after);
        to->skipped[i] = after.reused > before.reused;
    }
    free(a), free(b);
    return rc;
}

static struct result result_new(const struct run *r)
{
    return (struct result){.velocity = calloc(STEPS * BRANCHES * r->n, sizeof(float))};
}

static int left_out(const struct result *r)
{
    int n = 0;
    for (int i = 0; i < STEPS; i++)
        n += r->skipped[i];
    return n;
}

/* A GPU adds in other orders than the host. */
static bool near(const struct run *r, const struct result *a, const struct result *b, int from)
{
    size_t at = (size_t)(from * BRANCHES) * r->n, n = (size_t)((STEPS - from) * BRANCHES) * r->n;
    if (!on_gpu()) return memcmp(a->velocity + at, b->velocity + at, n * sizeof(float)) == 0;
    return rel_l2(a->velocity + at, b->velocity + at, n) < 1e-3;
}

static struct device *device_new(bool together)
{
    struct err e = {0};
    struct device *dev = test_device();
    if (!dev) CHECK_OK(fake_open(&dev, together, &e));
    device_counts_reset(dev);
    return dev;
}

static void device_done(struct device *dev)
{
    if (dev == test_device()) return;
    CHECK(device_held(dev) == 0);
    device_close(dev);
}

/* One setting on the host and there; true when some of the steps in between were left out. */
static bool same_as_host(const char *words, bool together, enum precision precision)
{
    struct run host, there;
    struct err e = {0};
    long counts[DEVICE_OPS], replays = 0;
    struct device *dev = device_new(together);
    CHECK_OK(run_open(&host, NULL, precision, words, NULL, &e));
    CHECK_OK(run_open(&there, dev, precision, words, NULL, &e));
    struct result want = result_new(&host), got = result_new(&there);
    CHECK_OK(steps(&host, &want, 0, STEPS, &e));
    if (!on_gpu()) fake_guard(true);
    device_counts_reset(dev);
    CHECK_OK(steps(&there, &got, 0, STEPS, &e));
    fake_guard(false);
    CHECK_MSG(memcmp(want.skipped, got.skipped, sizeof want.skipped) == 0,
              "%s: other steps are left out (%d, on the host %d)", words, left_out(&got),
              left_out(&want));
    CHECK_MSG(near(&there, &got, &want, 0), "%s: other velocities", words);
    device_counts(dev, counts);
    int out = left_out(&got), layers = dit_config_of(there.d)->n_layers;
    bool first = strstr(words, "firstblock") != NULL;
    long blocks = (long)(STEPS - out) * layers + (first ? out : 0);
    if (!ops_of(dev)->together) blocks *= BRANCHES;
    CHECK_MSG(counts[OP_FFN] == blocks, "%s: %ld feed-forwards for %ld", words, counts[OP_FFN],
              blocks);
    if (!on_gpu()) replays = fake_replays(dev); /* all but the first of a kind of part */
    CHECK_MSG(on_gpu() || replays >= 2 * STEPS - 3, "%s: %ld replays", words, replays);
    free(want.velocity), free(got.velocity);
    run_close(&host), run_close(&there);
    device_done(dev);
    return out > 0 && out < STEPS - 3;
}

static void words_of(char *words, size_t n, int cache, double threshold)
{
    bool most = option_find(dit_cache_info(cache).options, "most") != NULL;
    snprintf(words, n, "%s:threshold=%g,first=2,last=1%s", dit_cache_info(cache).name, threshold,
             most ? ",most=2" : "");
}

static const double thresholds[] = {0, .05, .2, .5, .8, 1, 2, 5, 1e9};

static void all_caches(void)
{
    for (int i = 0; i < dit_caches(); i++) {
        if (dit_cache_info(i).budgeted) continue; /* test_caches.c */
        int mixed = 0;
        for (size_t k = 0; k < ARRAY_LEN(thresholds); k++) {
            char words[200];
            words_of(words, sizeof words, i, thresholds[k]);
            enum precision p = k % 3 == 2 && !on_gpu() ? PRECISION_BF16_EMULATED : PRECISION_FP32;
            mixed += same_as_host(words, k % 2 == 0, p);
        }
        CHECK_MSG(mixed > 0, "%s: no threshold left out some steps", dit_cache_info(i).name);
    }
}

/* What one of them remembers, after `at` steps of a, becomes b's. */
static void carry(struct run *a, struct run *b, int at)
{
    struct dit_cache_kept from, to;
    struct err e = {0};
    CHECK_OK(dit_cache_fetch(a->d, &e));
    dit_cache_kept(a->d, &from);
    dit_cache_kept(b->d, &to);
    CHECK(from.n_blocks == to.n_blocks && from.n_numbers == to.n_numbers);
    for (int i = 0; i < from.n_blocks; i++) {
        CHECK(from.blocks[i].n == to.blocks[i].n);
        memcpy(to.blocks[i].at, from.blocks[i].at, from.blocks[i].n * sizeof(float));
    }
    memcpy(to.numbers, from.numbers, (size_t)from.n_numbers * sizeof *from.numbers);
    CHECK_OK(dit_cache_resume(b->d, at, &e));
}

/* Broken off after any step and gone on with there, whether there or on the host it began. */
static void resumed(enum precision precision, bool from_host)
{
    for (int i = 0; i < dit_caches(); i++) {
        if (dit_cache_info(i).budgeted) continue; /* test_caches.c */
        char words[200];
        struct run whole, first, second;
        struct err e = {0};
        struct device *dev = device_new(true);
        words_of(words, sizeof words, i, .5);
        CHECK_OK(run_open(&whole, dev, precision, words, NULL, &e));
        struct result want = result_new(&whole), got = result_new(&whole);
        CHECK_OK(steps(&whole, &want, 0, STEPS, &e));
        run_close(&whole);
        for (int at = 1; at < STEPS; at++) {
            CHECK_OK(run_open(&first, from_host ? NULL : dev, precision, words, NULL, &e));
            CHECK_OK(run_open(&second, dev, precision, words, NULL, &e));
            CHECK_OK(steps(&first, &got, 0, at, &e));
            carry(&first, &second, at);
            if (!on_gpu()) fake_guard(true);
            CHECK_OK(steps(&second, &got, at, STEPS, &e));
            fake_guard(false);
            size_t k = (size_t)(at * BRANCHES) * second.n;
            CHECK_MSG(memcmp(got.velocity + k, want.velocity + k,
                             ((size_t)STEPS * BRANCHES * second.n - k) * sizeof(float)) == 0,
                      "%s: broken off after %d steps it differs", words, at);
            run_close(&first), run_close(&second);
        }
        free(want.velocity), free(got.velocity);
        device_done(dev);
    }
}

static double size_of(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += fabs((double)x[i]);
    return sum;
}

static void on_seen(void *ctx, const struct dit_seen *s)
{
    struct shown *to = ctx;
    double *sum = to->sum[s->step][s->branch];
    sum[0] = size_of(s->added, (size_t)s->tokens * (size_t)s->width);
    sum[1] = size_of(s->velocity, s->n);
    sum[2] = size_of(s->temb, s->n_time);
    sum[3] = size_of(s->time6, 6 * s->n_time);
    to->calls++;
}

static void calibrated(void)
{
    struct shown host = {0}, there = {0};
    for (int i = 0; i < 2; i++) {
        struct dit_watch watch = {on_seen, i ? &there : &host};
        struct device *dev = i ? device_new(false) : NULL;
        struct run r;
        struct err e = {0};
        CHECK_OK(run_open(&r, dev, PRECISION_FP32, NULL, &watch, &e));
        struct result out = result_new(&r);
        CHECK_OK(steps(&r, &out, 0, STEPS, &e));
        CHECK(left_out(&out) == 0);
        free(out.velocity);
        run_close(&r);
        if (dev) device_done(dev);
    }
    CHECK(host.calls == STEPS * BRANCHES && there.calls == host.calls);
    for (int i = 0; i < STEPS * BRANCHES * 4; i++) {
        double a = (&host.sum[0][0][0])[i], b = (&there.sum[0][0][0])[i];
        CHECK_MSG(fabs(a - b) <= (on_gpu() ? 1e-3 * a : 0), "shown %g, on the host %g", b, a);
    }
}

/* Each allocation fails once: a sentence, nothing left over. */
static void no_memory(void)
{
    for (int i = 0; i < dit_caches(); i++)
        for (int at = 1; !dit_cache_info(i).budgeted; at++) {
            char words[200];
            struct run r;
            struct device *dev = device_new(false);
            struct err e = {0};
            words_of(words, sizeof words, i, .5);
            dev->fail_alloc = at;
            int rc = run_open(&r, dev, PRECISION_FP32, words, NULL, &e);
            bool reached = dev->fail_alloc == 0;
            CHECK(reached ? rc < 0 && e.code == ERR_RESOURCE && e.msg[0] : rc == 0);
            run_close(&r);
            device_done(dev);
            if (!reached) break;
            CHECK(at < 100);
        }
}

/* A device that is lost in the middle is an error of that step, whatever the cache was waiting for. */
static void lost(void)
{
    for (int i = 0; i < dit_caches(); i++) {
        if (dit_cache_info(i).budgeted) continue; /* test_caches.c */
        char words[200];
        struct run r;
        struct device *dev = device_new(false);
        struct err e = {0};
        words_of(words, sizeof words, i, .5);
        CHECK_OK(run_open(&r, dev, PRECISION_FP32, words, NULL, &e));
        struct result out = result_new(&r);
        CHECK_OK(steps(&r, &out, 0, 4, &e));
        err_set(&dev->lost, ERR_DEVICE, "fake:0: it fell off the bus");
        struct dit_call c = {.step = 4, .n_branches = BRANCHES, .timestep = 500};
        float *v[BRANCHES] = {r.there[1], r.there[2]};
        CHECK(dit_velocity(r.d, v, r.there[0], &c, &e) < 0 && e.code == ERR_DEVICE &&
              strstr(e.msg, "fell off"));
        free(out.velocity);
        run_close(&r);
        device_done(dev);
    }
}

int main(void)
{
    threads_set(2);
    for (int t = 0; t < STEPS; t++)
        for (int b = 0; b < BRANCHES; b++)
            ratio[BRANCHES * t + b] = 1 + 0.02F * (float)((t * 7 + b * 3) % 11 + 1);
    all_caches();
    resumed(PRECISION_FP32, false);
    if (on_gpu()) resumed(PRECISION_BF16, false);
    calibrated();
    if (on_gpu()) return TEST_RESULT();
    resumed(PRECISION_BF16_EMULATED, true);
    no_memory();
    lost();
    return TEST_RESULT();
}
