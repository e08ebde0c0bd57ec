/* --max-vram over a device of tests: whatever it is, the peak is within it and as predicted, and frames
 * are those of the transformer that stays; what cannot be is refused before a weight is read, with the
 * size that would do; what stays for the next clip; memory that others take, or that runs out midway. */
#include "app/lib/run.h"
#include "model/base/file_map.h"
#include "model/dit/dit_internal.h"
#include "tests/check.h"
#include "tests/fake/fake.h"
#include "tests/golden/tiny.h"

#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define LAYERS "20" /* so that the transformer is larger than what decodes */
#define BESIDE (24 * MIB) /* of the fake: context and code */

struct seen {
    uint64_t hash;
    int frames;
    size_t peak[3], predicted[3]; /* of a phase, from the log; MiB in tenths */
    int streamed, blocks;
    struct device *others_on; /* somebody takes memory of it after the text */
    size_t others;
    char log[8192];
};

static int on_frame(void *ctx, int index, const uint8_t *rgb, int width, int height)
{
    struct seen *s = ctx;
    (void)index;
    s->frames++;
    for (int i = 0; i < width * height * 3; i++)
        s->hash = (s->hash ^ rgb[i]) * 1099511628211u;
    return 0;
}

static void on_log(void *ctx, int level, const char *line)
{
    static const char *const phases[] = {"text", "denoise", "decode"};
    struct seen *s = ctx;
    double peak, predicted;
    size_t n = strlen(s->log);
    (void)level;
    snprintf(s->log + n, sizeof s->log - n, "%s\n", line);
    for (int i = 0; i < 3; i++) {
        const char *at = strstr(line, ": peak on fake:0 ");
        if (!at || strncmp(line, phases[i], strlen(phases[i])) != 0) continue;
        if (sscanf(at, ": peak on fake:0 %lf MiB, %lf predicted", &peak, &predicted) == 2) {
            s->peak[i] = (size_t)(peak * (double)MIB);
            s->predicted[i] = (size_t)(predicted * (double)MIB);
        }
    }
    int stay;
    if (sscanf(line, "transformer: %d of %d blocks stay", &stay, &s->blocks) == 2)
        s->streamed = s->blocks - stay;
}

static int on_progress(void *ctx, const struct ditgen_progress *p)
{
    struct seen *s = ctx;
    if (p->phase == DITGEN_TEXT && s->others_on) fake_others(s->others_on, s->others);
    return 0;
}

static struct ditgen_settings *settings(struct ditgen *d, size_t vram)
{
    struct ditgen_settings *s;
    struct ditgen_error e;
    char text[32];
    const char *const all[][2] = {
        {"prompt", "a rocket"}, {"size", "32x32"},      {"frames", "5"},        {"steps", "3"},
        {"threads", "1"},       {"seed", "3"},          {"device", "cuda"},     {"solver", "unipc"},
        {"precision", "fp32"},  {"attention", "dense"}, {"guidance-scale", "4"}};
    CHECK(ditgen_settings_open(&s, d, &e) == 0);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        CHECK_MSG(ditgen_set(s, all[i][0], all[i][1], &e) == 0, "%s", e.message);
    snprintf(text, sizeof text, "%zuK", vram / 1024);
    if (vram) CHECK_MSG(ditgen_set(s, "max-vram", text, &e) == 0, "%s", e.message);
    return s;
}

static int clip(struct ditgen *d, size_t vram, struct seen *s, struct ditgen_error *e)
{
    struct ditgen_settings *set = settings(d, vram);
    struct ditgen_callbacks c = {
        .ctx = s, .frame = on_frame, .progress = on_progress, .log = on_log, .log_level = 1};
    s->hash = 14695981039346656037u;
    int rc = ditgen_generate(d, set, &c, e);
    ditgen_settings_close(set);
    return rc;
}

static struct device *give_fake(struct ditgen *d, size_t memory, size_t pinned)
{
    struct err e = {0};
    run_device_close(d);
    CHECK_OK(fake_open(&d->device, true, &e));
    fake_has(d->device, memory, BESIDE, pinned);
    strcpy(d->device_name, "cuda");
    return d->device;
}

static void plan(struct ditgen *d, size_t vram, struct ditgen_plan *p)
{
    struct ditgen_error e = {0};
    struct ditgen_settings *set = settings(d, vram);
    CHECK_MSG(ditgen_plan(d, set, p, &e) == 0, "%s", e.message);
    ditgen_settings_close(set);
}

/* The least that is named when almost nothing may be taken. */
static size_t least(struct ditgen *d, bool limited)
{
    struct ditgen_error e = {0};
    struct seen s = {0};
    double mib = 0;
    CHECK(clip(d, limited ? BESIDE + MIB : 0, &s, &e) != 0 && e.code == DITGEN_RESOURCE);
    const char *at = strstr(e.message, "at least ");
    CHECK_MSG(at && sscanf(at, "at least %lf MiB of fake:0", &mib) == 1 &&
                  strstr(e.message, "--device cpu") && !limited == !strstr(e.message, "--max-vram"),
              "%s", e.message);
    CHECK(device_peak(d->device) == 0 && s.frames == 0);
    return (size_t)mib * MIB;
}

static void within(const struct seen *s, size_t vram)
{
    for (int i = 0; i < 3; i++) {
        CHECK_MSG(s->peak[i] <= vram, "phase %d: %zu KiB of %zu", i, s->peak[i] / 1024,
                  vram / 1024);
        double off = fabs((double)s->peak[i] - (double)s->predicted[i]);
        CHECK_MSG(off <= 0.05 * (double)s->peak[i] && s->peak[i] <= s->predicted[i],
                  "phase %d: %zu KiB, predicted %zu", i, s->peak[i] / 1024, s->predicted[i] / 1024);
    }
}

/* From the least on in steps, and without a limit: a fresh handle's device each time. */
static void any_limit(struct ditgen *d)
{
    struct seen whole = {0};
    struct ditgen_error e = {0};
    struct ditgen_plan p;
    int kinds[2] = {0}; /* some blocks streamed, none */
    give_fake(d, 0, 0);
    plan(d, 0, &p);
    CHECK(p.streamed_blocks == 0 && p.pinned_bytes == 0 && p.fits);
    CHECK_MSG(clip(d, 0, &whole, &e) == 0, "%s", e.message);
    within(&whole, (size_t)1 << 30);
    CHECK_MSG(strstr(whole.log, "weights went to fake:0 beside other work"), "%s", whole.log);
    give_fake(d, 0, 0);
    size_t from = least(d, true), most = whole.peak[0];
    for (int i = 1; i < 3; i++)
        if (whole.peak[i] > most) most = whole.peak[i];
    for (int i = 0; i <= 5; i++) {
        struct seen s = {0};
        size_t vram = from + (most + 4 * MIB - from) / 5 * (size_t)i;
        give_fake(d, 0, 0);
        plan(d, vram, &p);
        CHECK_MSG(p.fits && p.device_bytes <= (double)vram && p.blocks == 20, "%g of %zu",
                  p.device_bytes, vram);
        CHECK_MSG(clip(d, vram, &s, &e) == 0, "%s", e.message);
        CHECK_MSG(s.hash == whole.hash && s.frames == 5, "%zu MiB: other frames", vram / MIB);
        CHECK_MSG(s.streamed == (int)p.streamed_blocks, "%d streamed, %g planned", s.streamed,
                  p.streamed_blocks);
        within(&s, vram);
        /* beside the text where both find room */
        CHECK(!s.streamed || !strstr(s.log, "beside other work"));
        kinds[p.streamed_blocks > 0 ? 0 : 1]++;
    }
    CHECK_MSG(kinds[0] > 1 && kinds[1], "%d %d", kinds[0], kinds[1]);
    /* a MiB less than the least is refused, by the same words */
    struct seen none = {0};
    give_fake(d, 0, 0);
    plan(d, from - MIB, &p);
    CHECK(!p.fits);
    CHECK(clip(d, from - MIB, &none, &e) != 0 && e.code == DITGEN_RESOURCE && none.frames == 0);
    /* a card that has no more is the same, without a flag to name */
    give_fake(d, BESIDE + MIB, 0);
    CHECK(least(d, false) == from);
}

/* Weights go up once, those of the VAE too, as far as the limit lets them stay. */
static void second_clip(struct ditgen *d)
{
    struct seen s[3] = {{0}};
    struct ditgen_error e = {0};
    struct ditgen_plan p;
    struct device *dev = give_fake(d, 0, 0);
    CHECK(clip(d, 0, &s[0], &e) == 0);
    const struct dit *dit = d->store.dit;
    const struct vae *vae = d->store.vae;
    size_t held = device_held(dev);
    CHECK(dit && vae);
    for (int i = 1; i < 3; i++) {
        CHECK(clip(d, 0, &s[i], &e) == 0 && s[i].hash == s[0].hash);
        CHECK(d->store.dit == dit && d->store.vae == vae && device_held(dev) == held);
        CHECK(!strstr(s[i].log, "packed") && !strstr(s[i].log, "leaves"));
        within(&s[i], (size_t)1 << 30);
    }
    /* less than that: what does not find room goes, which is said, and comes again */
    size_t from = s[0].peak[1] - 8 * MIB;
    for (int i = 0; i < 4; i++) {
        struct seen less = {0};
        plan(d, from - (size_t)i * 4 * MIB, &p);
        CHECK_MSG(clip(d, from - (size_t)i * 4 * MIB, &less, &e) == 0, "%s", e.message);
        CHECK(less.hash == s[0].hash);
        within(&less, from - (size_t)i * 4 * MIB);
        if (i == 0) CHECK_MSG(strstr(less.log, "leaves"), "%s", less.log);
    }
}

/* Somebody else takes memory when the text is being read: one line, and the next clip works. */
static void others(struct ditgen *d)
{
    struct ditgen_error e = {0};
    struct device *dev = give_fake(d, 256 * MIB, 0);
    struct seen s = {.others_on = dev, .others = 250 * MIB};
    CHECK(clip(d, 0, &s, &e) != 0 && e.code == DITGEN_RESOURCE && s.frames == 0);
    CHECK_MSG(strstr(e.message, "fake:0") && !strchr(e.message, '\n'), "%s", e.message);
    s = (struct seen){0};
    CHECK_MSG(clip(d, 0, &s, &e) != 0 && strstr(e.message, "--device cpu"), "%s", e.message);
    fake_others(dev, 0);
    s = (struct seen){0};
    CHECK_MSG(clip(d, 0, &s, &e) == 0 && s.frames == 5, "%s", e.message);
}

/* Every allocation of a streamed run fails in turn; what is pinned is done without. */
static void no_memory(struct ditgen *d, size_t vram)
{
    struct ditgen_error e = {0};
    struct seen want = {0};
    int failed = 0, went_on = 0;
    struct device *dev = give_fake(d, 0, 0);
    CHECK(clip(d, vram, &want, &e) == 0 && want.streamed > 0);
    for (int at = 1; at < 60; at++) {
        struct seen s = {0};
        e = (struct ditgen_error){0};
        model_store_close(&d->store);
        dev->fail_alloc = at;
        int rc = clip(d, vram, &s, &e);
        bool reached = dev->fail_alloc == 0;
        dev->fail_alloc = 0;
        if (!reached) break;
        CHECK_MSG(rc == 0 ? s.hash == want.hash && strstr(s.log, "not recorded") != NULL
                          : e.code == DITGEN_RESOURCE && s.frames == 0,
                  "%d: %s", at, e.message);
        failed += rc != 0, went_on += rc == 0;
    }
    CHECK_MSG(failed >= 8 && went_on == want.streamed, "%d failed, %d went on", failed, went_on);
    model_store_close(&d->store);
    CHECK(device_held(dev) == 0 && fake_pinned(dev) == 0);
}

static void spelled(struct ditgen *d)
{
    static const char *const bad[] = {"",    "0",   "-1",   "16T",  "G",     "1GB",        "0x10",
                                      "nan", "1e3", " 16G", "16 G", "1..5G", "9999999999G"};
    static const struct {
        const char *text;
        size_t bytes;
    } good[] = {{"16G", (size_t)16 << 30},
                {"1.5g", (size_t)3 << 29},
                {"900M", 900 * MIB},
                {"524288k", 512 * MIB},
                {"1000", 1000}};
    struct ditgen_settings *s = settings(d, 0);
    struct ditgen_error e;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_MSG(ditgen_set(s, "max-vram", bad[i], &e) != 0 && e.code == DITGEN_USAGE &&
                      strstr(e.message, "16G"),
                  "'%s'", bad[i]);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        size_t bytes = 0;
        struct err why = {0};
        CHECK(setting_parse_bytes(good[i].text, &bytes, &why) == 0 && bytes == good[i].bytes);
    }
    ditgen_settings_close(s);
}

/* --- the embedded model with a taller transformer of random weights --- */

static void add(struct tiny_tensor *t, int *n, int layer, const char *name, const char *end,
                int n_dims, const int64_t *shape)
{
    char full[160];
    const char *number = strstr(name, "%d");
    if (number)
        snprintf(full, sizeof full, "blocks.%d%s%s", layer, number + 2, end);
    else
        snprintf(full, sizeof full, "%s%s", name, end);
    t += (*n)++;
    *t = (struct tiny_tensor){.n_dims = n_dims};
    snprintf(t->name, sizeof t->name, "%s", full);
    memcpy(t->shape, shape, (size_t)n_dims * sizeof *shape);
    tiny_scale(t);
}

static void add_all(struct tiny_tensor *t, int *n, int layer, const struct dit_config *c,
                    const struct layer_row *layers, int n_layers, const struct vector_row *vectors,
                    int n_vectors)
{
    for (int i = 0; i < n_layers; i++) {
        const struct layer_row *r = &layers[i];
        const int64_t patch[] = {r->out, c->in_channels, c->patch_t, c->patch_h, c->patch_w},
                      plain[] = {r->out, r->in};
        add(t, n, layer, r->name, ".weight", r->patch ? 5 : 2, r->patch ? patch : plain);
        add(t, n, layer, r->name, ".bias", 1, plain);
    }
    for (int i = 0; i < n_vectors; i++)
        add(t, n, layer, vectors[i].name, "", vectors[i].n_dims, vectors[i].shape);
}

static void write_transformer(const char *dir)
{
    static struct tiny_tensor t[1024];
    struct layer_row layers[DIT_MAX_ROWS];
    struct vector_row vectors[DIT_MAX_ROWS];
    struct dit_config c;
    struct err e;
    char path[640], *text;
    size_t len;
    int n = 0;
    if (file_read(&text, &len, TEST_SOURCE_DIR "/assets/emoji/transformer/config.json", 1 << 16,
                  &e) < 0)
        tiny_die(e.msg, dir);
    char *at = strstr(text, "\"num_layers\": 8");
    if (!at) tiny_die("no count of layers", dir);
    char *whole = NULL;
    *at = 0;
    if (asprintf(&whole, "%s\"num_layers\": " LAYERS "%s", text, at + strlen("\"num_layers\": 8")) <
        0)
        abort();
    snprintf(path, sizeof path, "%s/config.json", dir);
    tiny_write_text(path, whole);
    free(text), free(whole);
    if (dit_config_read(&c, path, &e) < 0) tiny_die(e.msg, path);
    add_all(t, &n, 0, &c, layers, dit_top_layers(&c, layers), vectors,
            dit_top_vectors(&c, vectors));
    for (int i = 0; i < c.n_layers; i++)
        add_all(t, &n, i, &c, layers, dit_block_layers(&c, layers), vectors,
                dit_block_vectors(&c, vectors));
    snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors", dir);
    tiny_write(path, t, n);
}

static void write_folder(const char *dir)
{
    static const char *const same[] = {"model_index.json", "scheduler", "text_encoder", "tokenizer",
                                       "vae"};
    char from[512], to[512];
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        snprintf(from, sizeof from, "%s/assets/emoji/%s", TEST_SOURCE_DIR, same[i]);
        snprintf(to, sizeof to, "%s/%s", dir, same[i]);
        if (symlink(from, to) != 0) tiny_die("no link", to);
    }
    snprintf(to, sizeof to, "%s/transformer", dir);
    if (mkdir(to, 0700) != 0) tiny_die("no folder", to);
    write_transformer(to);
}

int main(void)
{
    struct ditgen *d;
    struct ditgen_error e = {0};
    char dir[256];
    tiny_temp(dir);
    write_folder(dir);
    CHECK_MSG(ditgen_open(&d, dir, &e) == 0, "%s", e.message);
    spelled(d);
    any_limit(d);
    second_clip(d);
    others(d);
    give_fake(d, 0, 0);
    no_memory(d, least(d, true) + 16 * MIB);
    ditgen_close(d);
    tiny_remove(dir);
    return TEST_RESULT();
}
