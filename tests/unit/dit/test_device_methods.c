/* Every attention method, and stacks of them, on a device that nobody else can compute for: the host's
 * bytes, its density, and nothing computed on the host but plans and what they look at. Walks the list of
 * methods and names none of them alone. */
#include "tests/unit/dit/device_run.h"

#include <math.h>
#include <stdio.h>

static const struct clip clip = {3, 12, 16, 5, 500, 0, NULL, false, 0}; /* 144 tokens */

static bool has(const struct attn_method_info *m, const char *option)
{
    for (const struct option *o = m->options; o && o->name; o++)
        if (strcmp(o->name, option) == 0) return true;
    return false;
}

/* The method with options that make it keep some of so few tokens, from its second step on. */
static void small(char *to, size_t n, const struct attn_method_info *m)
{
    static const char *const options[][2] = {
        {"block", "16"},   {"block_q", "32"},  {"first", "1"}, {"last", "0"}, {"every", "3"},
        {"tile", "1x2x4"}, {"reach", "1x3x4"}, {"qk", "int8"}, {"pv", "int8"}};
    const char *mark = ":";
    int at = snprintf(to, n, "%s", m->name);
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        if (!has(m, options[i][0])) continue;
        at += snprintf(to + at, n - (size_t)at, "%s%s=%s", mark, options[i][0], options[i][1]);
        mark = ",";
    }
}

static int breaks;

static void same(const char *attention, bool together, enum precision precision)
{
    struct attn_stats host, there;
    struct setting s = {"t2v", attention, clip, false, together, precision, &host, 0};
    struct device *dev;
    struct err e = {0};
    size_t n = out_len(&s);
    float *want = calloc(n, sizeof *want), *got = calloc(n, sizeof *got);
    CHECK_MSG(run(&s, NULL, want, &e) == 0, "%s: %s", attention, e.msg);
    CHECK_OK(fake_open(&dev, together, &e));
    fake_guard(true);
    s.stats = &there;
    int rc = run(&s, dev, got, &e);
    fake_guard(false);
    CHECK_MSG(rc == 0, "%s: %s", attention, e.msg);
    CHECK_MSG(memcmp(got, want, n * sizeof *got) == 0, "%s: rel L2 %g", attention,
              rel_l2(got, want, n));
    CHECK_MSG(!there.sampled || there.recall < 1 || host.recall > 0.999,
              "%s: recall %g where q and k may not have been seen, %g on the host", attention,
              there.recall, host.recall);
    CHECK_MSG(fabs(host.density - there.density) < 1e-9 && host.calls == there.calls &&
                  host.copies == there.copies && host.sums.exact == there.sums.exact,
              "%s: density %g, %g; calls %ld, %ld; copies %ld, %ld", attention, host.density,
              there.density, host.calls, there.calls, host.copies, there.copies);
    CHECK(device_held(dev) == 0);
    /* not the same rows: all heads of a query there, one here */
    CHECK_MSG((host.sampled > 0) >= (there.sampled > 0), "%s: %ld rows sampled, %ld on a device",
              attention, host.sampled, there.sampled);
    CHECK_MSG(!there.sampled || fabs(host.error - there.error) < 0.05 + 0.5 * host.error,
              "%s: error %g, on a device %g", attention, host.error, there.error);
    CHECK_MSG(there.planning >= 0 && there.planning <= 1, "%s: planning %g", attention,
              there.planning);
    s.stats = NULL;
    s.broken = 1 + breaks++ % (STEPS - 1);
    memset(got, 0, n * sizeof *got);
    fake_guard(true);
    CHECK_MSG(rc < 0 || run(&s, dev, got, &e) == 0, "%s: %s", attention, e.msg);
    fake_guard(false);
    CHECK_MSG(memcmp(got, want, n * sizeof *got) == 0, "%s: otherwise behind step %d", attention,
              s.broken);
    device_close(dev);
    free(want), free(got);
}

/* The whole way of what no defaults show: copies, residuals that find no place, heads that are left out,
 * keys of a head's own, blocks of any length, means, tables that are chosen in the run. */
static const char *const stacks[] = {
    "tile:tile=1x2x4,reach=1x3x4,block=16+resid:every=2,first=1",
    "window:tiles=1+resid:every=2,first=1,block=16",
    "haste:drift=.02,block=16,first=1+xattn",
    "haste:drift=10,block=16,first=1",
    "svg2:q=6,k=9,mass=.6,first=1",
    "svg2:q=6,k=9,mass=.5,rest=mean,first=1",
    "svg2:q=6,k=9,mass=.5,rest=error,first=1",
    "svg2:q=6,k=9,mass=.5,first=1+resid:every=3",
    "svg1:density=.2,block=16,first=1+resid:every=2",
    "lite:threshold=-1,block=16,first=1",
    "lite:threshold=-1,variant=exact,every=2,block=16,first=1",
    "lite:error=.3,block=16,first=1",
    "tile:tile=1x2x4,reach=1x3x4,block=16,first=1+lite:threshold=-2",
    "resid:density=0,every=2,first=1",
    "resid:density=0,every=3,first=2,last=1", /* the step before the last copies, the last does not */
    "ditfast:steps=FFWACc,tile=1x2x4,block=16,density=.3,first=0",
    "ditfast:steps=FACACA,block=16,first=0",
    "layers:density=.3,block=16,first=1+tile:tile=1x2x4,block=16",
    "layers:density=.3,block=16,first=1+skip:share=.3",
    "skip:share=.5,first=1",
    "skip:share=.5,fill=zero,first=1",
    "tile:tile=1x2x4,reach=1x3x4,block=16,first=1+skip:share=.5",
    "xattn:block=16,first=1+skip:share=.5",
    "sparsevdit:eps=10,lambda=.2,density=.3,block=16,first=1",
    "sparsevdit:eps=10,lambda=2,density=.3,fill=zero,block=16,first=0",
    "tome:alike=-1,keep=.6,first=1",
    "pisa:density=.3,order=0,block=16,first=1",
    "minference:columns=.1,slashes=.2,block=16,first=1+resid:every=2",
    "sage:qk=int8,pv=int8,first=1",
    "tile:tile=1x2x4,reach=1x3x4,block=16,first=1+sage:qk=int8,pv=int8",
    "adaspa:searches=2,block=16,density=.3,first=1+sage:qk=int8,pv=int8",
    "score:by=mass,keep=top-p,block=16,first=1",
};

/* Whose plans are made on the device, and at how many layers and branches of two runs of 6 steps, of which the second
 * is broken off and carried on: each is the host's bytes all the same. */
static const struct {
    const char *attention;
    long plans;
} made[] = {
    {"score:by=mean,block=16,first=1,tile=1x2x4,sink=1", 40},
    {"score:by=max,keep=top-p,mass=.5,least=.2,block=16,first=1", 40},
    {"score:by=runs,runs=2,keep=percentile,density=.3,block=16,first=1,sink=1", 40},
    {"draft:density=.2,tile=1x2x4,block=16,first=2", 32},
    {"rainfusion2:tile=2x2x2,block=16,first=1", 40},
    {"score:by=mean,block=16,first=1+resid:every=2,first=1",
     16}, /* refreshes in two steps of five */
    {"score:by=mean,block=16,first=1+layers:group=2,every=2", 12},
    {"score:by=mean,block=16,first=1+sage:qk=int8,pv=int8", 40},
    {"score:by=runs,runs=8,block=16,first=1", 0}, /* not by this device */
    {"score:by=mean,keep=above,block=16,first=1", 0}, /* not said in words */
    {"score:by=mass,block=16,first=1", 0},
    {"score:by=mean,block=16,first=1+skip:share=.5", 0}, /* cut by heads */
    {"score:by=mean,block=16,first=1+lite:threshold=-2", 0}, /* looks at what is alive */
    {"haste:drift=.02,block=16,first=1", 0}, /* stands by what q and k are */
    {"svg2:q=6,k=9,mass=.6,first=1", 0}, /* blocks of any length */
};

/* --- what fails --- */

static const char *const heavy[] = {
    "svg2:q=6,k=9,mass=.5,rest=error,first=1",
    "ditfast:steps=FFWACc,tile=1x2x4,block=16,density=.3,first=0",
    "tome:alike=-1,keep=.6,first=1",
};

/* Each allocation fails once: a sentence, nothing left over. */
static void no_memory(const char *attention)
{
    struct setting s = {"t2v", attention, clip, false, true, PRECISION_FP32, NULL, 0};
    float *out = calloc(out_len(&s), sizeof *out);
    int failed = 0;
    for (int at = 1; at < 100; at++) {
        struct device *dev;
        struct err e = {0};
        CHECK_OK(fake_open(&dev, true, &e));
        dev->fail_alloc = at;
        int rc = run(&s, dev, out, &e);
        bool reached = dev->fail_alloc == 0;
        CHECK(reached ? rc < 0 && e.code == ERR_RESOURCE && e.msg[0] : rc == 0);
        CHECK(device_held(dev) == 0);
        device_close(dev);
        if (!reached) break;
        failed++;
    }
    CHECK(failed >= 4);
    free(out);
}

static const struct device_table *whole; /* the fake's */
static long left; /* copies until it is lost */

static int lost_copy(struct device *d, void *to, const void *from, size_t bytes,
                     enum device_way way, struct err *e)
{
    if (left-- <= 0) return err_set(e, ERR_DEVICE, "fake:0: it fell off the bus");
    return whole->copy(d, to, from, bytes, way, e);
}

/* A device that is lost while it is looked at says so, and everything can be closed. */
static void lost(const char *attention)
{
    struct setting s = {"t2v", attention, clip, false, true, PRECISION_FP32, NULL, 0};
    float *out = calloc(out_len(&s), sizeof *out);
    int times = 0;
    for (long n = 0;; n += 53, times++) {
        struct device *dev;
        struct err e = {0};
        CHECK_OK(fake_open(&dev, true, &e));
        struct device_table table = *dev->table;
        whole = dev->table;
        table.copy = lost_copy;
        dev->table = &table;
        left = n;
        int rc = run(&s, dev, out, &e);
        CHECK_MSG(rc == 0 || (e.code == ERR_DEVICE && strstr(e.msg, "fell off")), "%s: %s",
                  attention, e.msg);
        CHECK(device_held(dev) == 0);
        device_close(dev);
        if (rc == 0) break;
    }
    CHECK_MSG(times > 2, "%s: lost %d times", attention, times);
    free(out);
}

static unsigned lacks; /* enum attn_need */

static const struct attn_device_kernel *pick_less(struct device *d, const struct attn_size *s,
                                                  const char *only, struct err *e)
{
    char text[200];
    if (!(s->needs & lacks)) return fake_attention.pick(d, s, only, e);
    err_set(e, ERR_DEVICE, "attention kernel fake cannot do %s",
            attn_needs_text(s->needs & lacks, text, sizeof text));
    return NULL;
}

/* What no kernel of the device does is refused by its field, before the run and in its plan. */
static void refused(const char *attention, unsigned need)
{
    static const struct attn_device less = {.pick = pick_less};
    struct setting s = {"t2v", attention, clip, false, true, PRECISION_FP32, NULL, 0};
    float *out = calloc(out_len(&s), sizeof *out);
    struct device *dev;
    struct err e = {0};
    char field[200];
    CHECK_OK(fake_open(&dev, true, &e));
    dev->attn = &less;
    lacks = need;
    attn_needs_text(need, field, sizeof field);
    CHECK_MSG(run(&s, dev, out, &e) < 0 && e.code == ERR_DEVICE && strstr(e.msg, field) &&
                  strstr(e.msg, "fake:0"),
              "%s: %s", attention, e.msg);
    CHECK(device_held(dev) == 0);
    device_close(dev);
    free(out);
}

static void made_there(void)
{
    for (size_t i = 0; i < ARRAY_LEN(made); i++) {
        long before = fake_plans_made();
        same(made[i].attention, i % 2 == 0, PRECISION_FP32);
        long plans = fake_plans_made() - before;
        CHECK_MSG(plans == made[i].plans, "%s: %ld plans were made on the device, wanted %ld",
                  made[i].attention, plans, made[i].plans);
    }
}

int main(void)
{
    threads_set(2);
    made_there();
    for (size_t i = 0; i < ARRAY_LEN(stacks); i++) {
        same(stacks[i], i % 2 == 0, PRECISION_FP32);
        if (i % 3 == 0) same(stacks[i], true, PRECISION_BF16_EMULATED);
    }
    for (int i = 0; i < attn_methods(); i++) {
        struct attn_method_info m = attn_method_info(i);
        char text[256];
        small(text, sizeof text, &m);
        same(text, i % 2, PRECISION_FP32);
        if (i % 3 == 0) same(text, true, PRECISION_BF16_EMULATED);
    }
    for (size_t i = 0; i < ARRAY_LEN(heavy); i++) {
        no_memory(heavy[i]);
        lost(heavy[i]);
    }
    refused("pisa:block=16", ATTN_NEED_MEAN);
    refused("ditfast:steps=FFWACc,block=16", ATTN_NEED_COPY);
    refused("skip", ATTN_NEED_ZERO);
    refused("lite:block=16", ATTN_NEED_ALIVE);
    return TEST_RESULT();
}
