/* A transformer of which some blocks, or all, do not stay on the device: the velocities of the one that
 * stays, whatever the number, step by step, recorded and not; memory to the byte; pinned memory that
 * runs out; a step that ends in the middle; allocations that fail in turn. */
#include "tests/fake/fake.h"
#include "tests/unit/dit/fixture.h"

#define STEPS 5
#define LAYERS 7

struct setting {
    const char *config;
    struct clip clip;
    enum precision precision;
    bool together;
    const char *cache; /* whose first block is a pass of its own */
    bool send; /* weights, beside other work */
};

/* A tiny model of more blocks: those of the list again, under further numbers. */
static void write_tall(const char *dir, const char *config)
{
    char path[1024], line[512], *text, *at;
    size_t len;
    struct err e;
    data_path(path, sizeof path, config, ".json");
    if (file_read(&text, &len, path, 1 << 20, &e) < 0) tiny_die(e.msg, path);
    at = strstr(text, "\"num_layers\": 2");
    if (!at) tiny_die("no count of layers", path);
    at[strlen("\"num_layers\": ")] = '0' + LAYERS;
    snprintf(path, sizeof path, "%s/config.json", dir);
    tiny_write_text(path, text);
    free(text);
    data_path(path, sizeof path, config, ".txt");
    FILE *from = fopen(path, "r");
    snprintf(path, sizeof path, "%s/list.txt", dir);
    FILE *to = fopen(path, "w");
    if (!from || !to) tiny_die("cannot copy", path);
    while (fgets(line, sizeof line, from)) {
        const char *rest = strncmp(line, "blocks.1.", 9) == 0 ? line + 9 : NULL;
        fputs(line, to);
        for (int i = 2; rest && i < LAYERS; i++)
            fprintf(to, "blocks.%d.%s", i, rest);
    }
    fclose(from), fclose(to);
    char weights[1024];
    snprintf(weights, sizeof weights, "%s/diffusion_pytorch_model.safetensors", dir);
    tiny_write_list(weights, path);
}

static int stop_in_block_4(void *ctx, int done, int total)
{
    (void)ctx, (void)total;
    return done >= 4;
}

struct said { /* by the log */
    int lines;
    char last[512];
};

static void hear(void *ctx, int level, const char *line)
{
    struct said *s = ctx;
    if (level > 0) return;
    s->lines++;
    snprintf(s->last, sizeof s->last, "%s", line);
}

static void hear_all(void *ctx, int level, const char *line)
{
    struct said *s = ctx;
    (void)level;
    snprintf(s->last, sizeof s->last, "%s", line);
}

static int open_tall(struct dit **d, const struct setting *s, struct device *dev, int streamed,
                     struct said *said, struct err *e)
{
    char dir[256];
    struct log log = {.level = 1, .write = hear, .ctx = said};
    struct dit_params p = {.device = dev,
                           .dir = dir,
                           .precision = s->precision,
                           .streamed = streamed,
                           .log = said ? &log : NULL};
    tiny_temp(dir);
    write_tall(dir, s->config);
    *d = NULL;
    int rc = dit_open_begin(d, &p, s->send, e);
    if (rc == 0 && (rc = dit_open_end(*d, e)) < 0) {
        dit_close(*d);
        *d = NULL;
    }
    tiny_remove(dir);
    return rc;
}

/* STEPS steps of both branches into out; cancelled: the second is broken off first. */
static int run(const struct setting *s, struct device *dev, int streamed, bool cancelled,
               struct said *said, float *out, struct err *e)
{
    struct dit *d = NULL;
    void *there[3] = {0};
    if (open_tall(&d, s, dev, streamed, said, e) < 0) return -1;
    CHECK(dit_streamed(d) == streamed);
    const struct dit_config *c = dit_config_of(d);
    struct attn_params attn = cpu_attention(s->precision);
    attn.device = dev;
    struct dit_run_params p = run_params(&s->clip, &attn);
    p.n_steps = STEPS;
    p.cache.words = s->cache;
    size_t n = velocity_len(d, &s->clip),
           in = (size_t)c->in_channels * (n / (size_t)c->out_channels);
    float *latents = drawn("dit.latents", in);
    float *text = drawn("dit.text", (size_t)s->clip.rows * (size_t)c->text_dim);
    float *image = s->clip.image_rows
                       ? drawn("dit.image", (size_t)s->clip.image_rows * (size_t)c->image_dim)
                       : NULL;
    int rc = dit_prepare(d, &p, e);
    for (int b = 0; b < 2 && rc == 0; b++)
        rc = dit_set_context(d, b, text, s->clip.rows - b, image, e);
    for (int i = 0; i < 3 && rc == 0; i++)
        rc = device_alloc(dev, &there[i], (i ? n : in) * sizeof(float), e);
    for (int step = 0; step < STEPS && rc == 0; step++) {
        float *v[2] = {there[1], there[2]}, *to = out + 2 * (size_t)step * n;
        struct dit_call call = {.step = step, .n_branches = 2, .timestep = 900 - 100 * (float)step};
        rc = device_upload(dev, there[0], latents, in * sizeof(float), e);
        if (rc == 0 && cancelled && step == 0) {
            struct err stop = {0};
            call.progress = stop_in_block_4;
            CHECK(dit_velocity(d, v, there[0], &call, &stop) == -1 && stop.code == ERR_CANCELLED);
            CHECK(!fake_under_way(dev));
            call.progress = NULL;
        }
        if (rc == 0) rc = dit_velocity(d, v, there[0], &call, e);
        for (int b = 0; b < 2 && rc == 0; b++)
            rc = device_download(dev, to + (size_t)b * n, v[b], n * sizeof(float), e);
        for (size_t i = 0; i < in && rc == 0; i++)
            latents[i] = latents[i] * 0.9f + to[i % n] * 0.1f;
    }
    if (rc == 0) { /* all that is finite is said to be, with every block in its turn */
        struct err trace = {0};
        struct dit_call call = {.step = 0, .n_branches = 2, .timestep = 900};
        float *v[2] = {there[1], there[2]};
        CHECK(dit_trace(d, v, there[0], &call, &trace) == -1 && strstr(trace.msg, "finite"));
    }
    for (int i = 0; i < 3; i++)
        device_free(dev, there[i]);
    free(latents), free(text), free(image);
    dit_close(d);
    return rc;
}

static size_t out_len(const struct setting *s)
{
    return (size_t)2 * STEPS * 16 * (size_t)(s->clip.frames * s->clip.height * s->clip.width);
}

static void any_number(const struct setting *s)
{
    size_t n = out_len(s);
    float *want = calloc(n, sizeof *want), *got = calloc(n, sizeof *got);
    for (int streamed = 0; streamed <= LAYERS; streamed++) {
        struct device *dev;
        struct err e = {0};
        CHECK_OK(fake_open(&dev, s->together, &e));
        fake_guard(true);
        CHECK_OK(run(s, dev, streamed, false, NULL, streamed ? got : want, &e));
        fake_guard(false);
        CHECK_MSG(!streamed || memcmp(got, want, n * sizeof *got) == 0, "%s, %d of %d streamed",
                  s->config, streamed, LAYERS);
        /* each step once, replays too; the text's pass once a branch; what is traced */
        if (!s->cache)
            CHECK_MSG(fake_fetches(dev) == (long)streamed * (STEPS + 3), "%ld fetches of %d",
                      fake_fetches(dev), streamed);
        CHECK(s->cache || fake_replays(dev) == STEPS - 1);
        CHECK(device_held(dev) == 0 && fake_pinned(dev) == 0);
        device_close(dev);
    }
    free(want), free(got);
}

/* What is predicted is what is taken, of both memories. */
static void predicted(const struct setting *s)
{
    for (int streamed = 0; streamed <= LAYERS; streamed++) {
        struct device *dev;
        struct dit *d;
        struct err e = {0};
        size_t packs, weights, run_bytes, host, resident, none;
        CHECK_OK(fake_open(&dev, true, &e));
        CHECK_OK(open_tall(&d, s, dev, streamed, NULL, &e));
        struct attn_params attn = cpu_attention(s->precision);
        attn.device = dev;
        if (streamed % 2) attn.method = "subblock"; /* looks at q and k, which come down for it */
        struct dit_run_params p = run_params(&s->clip, &attn);
        weights = dit_kept_bytes(dit_config_of(d), dev, s->precision, streamed, &packs);
        resident = dit_kept_bytes(dit_config_of(d), dev, s->precision, 0, &none);
        CHECK_OK(dit_run_bytes(&run_bytes, &host, dit_config_of(d), s->precision, &p, &e));
        CHECK_MSG(device_held(dev) == weights && fake_pinned(dev) == packs && none == 0,
                  "%zu and %zu of %zu and %zu", device_held(dev), fake_pinned(dev), weights, packs);
        CHECK(streamed < 3 || weights < resident);
        CHECK_OK(dit_prepare(d, &p, &e));
        CHECK_MSG(device_held(dev) == weights + run_bytes, "%zu of %zu + %zu", device_held(dev),
                  weights, run_bytes);
        CHECK_MSG(host > 0 && d->run.host.size == host, "%zu of the host's, predicted %zu",
                  d->run.host.size, host);
        dit_close(d);
        device_close(dev);
    }
}

/* Pinned memory for three packs of five: the rest lies elsewhere, which is said once. */
static void not_pinned(const struct setting *s)
{
    struct device *dev;
    struct said said = {0};
    struct err e = {0};
    size_t n = out_len(s), packs = 0;
    float *want = calloc(n, sizeof *want), *got = calloc(n, sizeof *got);
    CHECK_OK(fake_open(&dev, true, &e));
    CHECK_OK(run(s, dev, 0, false, NULL, want, &e));
    device_close(dev);
    for (int room = 0; room <= 3; room += 3) {
        struct dit *d;
        CHECK_OK(fake_open(&dev, true, &e));
        CHECK_OK(open_tall(&d, s, dev, 1, NULL, &e));
        dit_kept_bytes(dit_config_of(d), dev, s->precision, 1, &packs);
        dit_close(d);
        fake_has(dev, 0, 0, room ? (size_t)room * packs + packs / 2 : 1);
        said = (struct said){0};
        long before = fake_fetches(dev);
        CHECK_OK(run(s, dev, 5, false, &said, got, &e));
        CHECK_MSG(memcmp(got, want, n * sizeof *got) == 0, "%d packs pinned", room);
        CHECK_MSG(said.lines == 1 && strstr(said.last, "pinned") && strstr(said.last, "slower"),
                  "%d lines: %s", said.lines, said.last);
        CHECK(strstr(said.last, room ? "of 2 blocks" : "of 5 blocks"));
        CHECK(fake_replays(dev) == 0 && fake_fetches(dev) - before == 5 * (STEPS + 3));
        device_close(dev);
    }
    free(want), free(got);
}

/* A step that is broken off leaves nothing under way: the next are right. */
static void broken_off(const struct setting *s)
{
    size_t n = out_len(s);
    float *want = calloc(n, sizeof *want), *got = calloc(n, sizeof *got);
    for (int streamed = 0; streamed <= 5; streamed += 5) {
        struct device *dev;
        struct err e = {0};
        CHECK_OK(fake_open(&dev, false, &e));
        CHECK_OK(run(s, dev, streamed, streamed > 0, NULL, streamed ? got : want, &e));
        CHECK(memcmp(got, want, n * sizeof *got) == 0 || !streamed);
        CHECK(fake_replays(dev) == STEPS - 1);
        device_close(dev);
    }
    free(want), free(got);
}

/* Each allocation fails once; of pinned memory it is said and done without. */
static void no_memory(const struct setting *s)
{
    float *out = calloc(out_len(s), sizeof *out);
    int failed = 0, went_on = 0;
    for (int at = 1; at < 100; at++) {
        struct device *dev;
        struct said said = {0};
        struct err e = {0};
        CHECK_OK(fake_open(&dev, true, &e));
        dev->fail_alloc = at;
        int rc = run(s, dev, 4, false, &said, out, &e);
        bool reached = dev->fail_alloc == 0;
        CHECK_MSG(rc == 0 ? !reached || said.lines == 1 : e.code == ERR_RESOURCE && e.msg[0],
                  "%d: %s", at, e.msg);
        CHECK(device_held(dev) == 0 && fake_pinned(dev) == 0);
        device_close(dev);
        if (!reached) break;
        failed += rc < 0, went_on += rc == 0;
    }
    CHECK_MSG(failed >= 4 && went_on == 4, "%d failed, %d went on", failed, went_on);
    free(out);
}

/* In two, weights going up in between: the same; or given up at any time. */
static void sent(const struct setting *s)
{
    char dir[256];
    struct device *dev;
    struct dit *d;
    struct said said = {0};
    struct log log = {.level = 1, .write = hear_all, .ctx = &said};
    struct err e = {0};
    tiny_temp(dir);
    write_tall(dir, s->config);
    struct dit_params p = {.dir = dir, .precision = s->precision, .log = &log};
    CHECK_OK(fake_open(&dev, true, &e));
    p.device = dev;
    for (int i = 0; i < 3; i++) { /* ended; given up; streamed, where nothing is sent */
        p.streamed = i == 2 ? 3 : 0;
        said = (struct said){0};
        CHECK_OK(dit_open_begin(&d, &p, true, &e));
        CHECK(device_held(dev) ==
              dit_kept_bytes(dit_config_of(d), dev, s->precision, p.streamed, &(size_t){0}));
        if (i != 1) CHECK_OK(dit_open_end(d, &e));
        if (i == 0) CHECK_MSG(strstr(said.last, "weights went to fake:0"), "%s", said.last);
        if (i == 2) CHECK_MSG(!strstr(said.last, "weights went"), "%s", said.last);
        if (i != 1) CHECK(dit_open_end(d, &(struct err){0}) == -1);
        dit_close(d);
        CHECK(device_held(dev) == 0);
    }
    device_close(dev);
    p.device = NULL; /* the host packs its own */
    p.streamed = 0;
    CHECK_OK(dit_open_begin(&d, &p, true, &e));
    CHECK_OK(dit_open_end(d, &e));
    dit_close(d);
    tiny_remove(dir);
}

static void refused(const struct setting *s)
{
    struct device *dev;
    struct dit *d;
    struct err e = {0};
    CHECK(open_tall(&d, s, NULL, 1, NULL, &e) == -1 && e.code == ERR_BUG && !d);
    CHECK_OK(fake_open(&dev, true, &e));
    CHECK(open_tall(&d, s, dev, LAYERS + 1, NULL, &e) == -1 && e.code == ERR_BUG && !d);
    CHECK(device_held(dev) == 0);
    device_close(dev);
}

int main(void)
{
    const struct clip clip = {1, 4, 4, 3, 500, 0, NULL, false, 0};
    const struct setting settings[] = {
        {"t2v", clip, PRECISION_FP32, true, NULL, true},
        {"t2v", clip, PRECISION_BF16_EMULATED, false, NULL, false},
        {"t2v", clip, PRECISION_FP32, true, "firstblock:threshold=0,first=1,last=1", true},
        {"i2v", {2, 4, 4, 7, 850, 17, NULL, false, 0}, PRECISION_FP32, true, NULL, false},
    };
    threads_set(2);
    for (size_t i = 0; i < ARRAY_LEN(settings); i++) {
        any_number(&settings[i]);
        predicted(&settings[i]);
    }
    not_pinned(&settings[0]);
    broken_off(&settings[0]);
    sent(&settings[0]);
    no_memory(&settings[0]);
    refused(&settings[0]);
    return TEST_RESULT();
}
