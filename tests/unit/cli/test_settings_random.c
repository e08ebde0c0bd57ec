/* Round trips over random settings: what --dump-config writes, --config reads, with a byte order
 * mark, CRLF, in UTF-16, through a pipe; what a clip carries gives the same settings again. Values
 * are long (lines far over 1,000 bytes), have quotes, escapes, comment signs, control bytes, any
 * language. */
#include "app/cli/cli.h"
#include "app/cli/profile.h"
#include "app/clips/writer.h"
#include "tests/check.h"

#include <fcntl.h>
#include <unistd.h>

static struct ditgen *model;

static const char *const pieces[] = {"a",
                                     " ",
                                     "  ",
                                     "\"",
                                     "'",
                                     "\\",
                                     "\\n",
                                     "\n",
                                     "\t",
                                     "=",
                                     ";",
                                     "#",
                                     " ; ",
                                     " # ",
                                     "[",
                                     "]",
                                     "\r",
                                     "\x01",
                                     "\x7f",
                                     "%",
                                     "%41",
                                     "+",
                                     "\\x22",
                                     "\xc3\xa9",
                                     "\xe7\x81\xab",
                                     "\xf0\x9f\x9a\x80",
                                     "key = value",
                                     "[ditgen]",
                                     "\xef\xbb\xbf"};

/* Up to `most` bytes of pieces; heap. */
static char *random_text(struct test_rng *r, size_t most)
{
    size_t want = most ? (size_t)rng_int(r, 0, (int)most - 1) : 0, n = 0;
    char *text = malloc(want + 16);
    if (!text) exit(1);
    while (n < want) {
        const char *p = pieces[rng_int(r, 0, (int)ARRAY_LEN(pieces) - 1)];
        memcpy(text + n, p, strlen(p));
        n += strlen(p);
        if (n + 16 > want + 16) break;
    }
    text[n] = 0;
    return text;
}

/* Rows whose text must mean something. */
static const char *meaningful(struct test_rng *r, int id)
{
    static const struct {
        int id;
        const char *words[4];
    } rows[] = {{SET_SOLVER, {"unipc", "euler", "dpmpp", "unipc"}},
                {SET_SIZE, {"64x48", "16x16", "832X480", "32*32"}},
                {SET_DEVICE, {"auto", "cpu", "cpu", "auto"}},
                {SET_COMPAT, {"", "truncate", "diffusers-0.36", "truncate, diffusers-0.37"}},
                {SET_STEP_CACHE,
                 {"none", "easycache", "teacache:poly=1/2/3/4/5", "magcache:most=2,last=.5"}},
                {SET_ERROR_BUDGET, {"40dB", "33", "good", "none"}},
                {SET_MAX_VRAM, {"16G", "900M", "1.5g", "524288K"}},
                {SET_ATTENTION, {"dense", "window", "window:tiles=3", "window:tiles=999"}}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (rows[i].id == id) return rows[i].words[rng_int(r, 0, 3)];
    return NULL;
}

/* A value that the row takes; heap. */
static char *random_value(struct test_rng *r, int id)
{
    const struct setting *s = setting_at(id);
    char text[80];
    double u = rng_unit(r);
    switch (s->option.type) {
    case OPTION_STRING:
        if (meaningful(r, id)) return strdup(meaningful(r, id));
        return random_text(r, rng_int(r, 0, 7) ? 60 : 100000);
    case OPTION_INT:
        snprintf(text, sizeof text, "%.0f",
                 floor(s->option.lo + u * (s->option.hi - s->option.lo)));
        break;
    case OPTION_DOUBLE:
        snprintf(text, sizeof text, "%.17g", s->option.lo + u * (s->option.hi - s->option.lo));
        break;
    case OPTION_U64:
        snprintf(text, sizeof text, "%llu", (unsigned long long)rng_u64(r));
        break;
    case OPTION_BOOL:
        snprintf(text, sizeof text, "%s", rng_int(r, 0, 1) ? "true" : "off");
        break;
    case OPTION_ENUM:
        snprintf(text, sizeof text, "%.*s", (int)strcspn(s->option.choices, "|"),
                 s->option.choices);
        break;
    }
    if (s->use & BY_SIZE && rng_int(r, 0, 3) == 0)
        snprintf(text, sizeof text, "%.0f, %.0f@9,%.0f@%d", s->option.hi, s->option.hi,
                 s->option.lo + 1, 10 + rng_int(r, 0, 999));
    return strdup(text);
}

/* Settings of random rows, filled in; NULL: the draw contradicts itself. */
static struct ditgen_settings *random_settings(struct test_rng *r)
{
    struct ditgen_settings *s = NULL, *all = NULL;
    struct err e = {0};
    CHECK_OK(settings_open(&s, &e));
    for (int id = 0; id < setting_count(); id++) {
        if (rng_int(r, 0, 1)) continue;
        char *value = random_value(r, id);
        int rc = settings_set(s, LAYER_FLAG, setting_at(id)->option.name, value, &e);
        CHECK_MSG(rc == 0 || strstr(e.msg, "contradict"), "%s = %.200s: %s",
                  setting_at(id)->option.name, value, e.msg);
        free(value);
    }
    if (rng_int(r, 0, 1)) CHECK_OK(settings_set(s, LAYER_PROFILE, "window-tiles", "17", &e));
    int rc = settings_resolve(&all, s, model, NULL, &e);
    CHECK_MSG(rc == 0 || strstr(e.msg, "belongs to"), "%s", e.msg);
    settings_close(s);
    return all;
}

static bool is_ascii(const char *text)
{
    while (*text && (unsigned char)*text < 128)
        text++;
    return !*text;
}

/* The same text as some editor saves it: with a mark, other line ends, in UTF-16. Heap. */
static char *as_saved(struct test_rng *r, const char *text, size_t *len)
{
    size_t n = strlen(text);
    char *out = malloc(2 * n + 16), *o = out;
    if (!out) exit(1);
    int how = rng_int(r, 0, 3);
    if (how == 3 && is_ascii(text)) { /* UTF-16 */
        *o++ = '\xfe', *o++ = '\xff';
        for (size_t i = 0; i < n; i++)
            *o++ = 0, *o++ = text[i];
    }
    if (o > out) return *len = (size_t)(o - out), out;
    if (how == 1) memcpy(o, "\xef\xbb\xbf", 3), o += 3;
    for (size_t i = 0; i < n; i++) {
        if (how == 2 && text[i] == '\n') *o++ = '\r';
        *o++ = text[i];
    }
    *len = (size_t)(o - out);
    return out;
}

static char *read_back(const char *path)
{
    char config[] = "--config", name[] = "ditgen", file[300];
    char *argv[] = {name, config, file, NULL};
    struct cli c;
    struct err e = {0};
    char note[256], *text = NULL;
    snprintf(file, sizeof file, "%s", path);
    int rc = cli_parse(&c, 3, argv, CLI_PROMPT, &e);
    if (rc == 0) rc = settings_from(c.settings, SET_SEED) ? cli_resolve(&c, model, note, &e) : -1;
    CHECK_MSG(rc == 0, "%s", e.msg);
    if (rc == 0) text = settings_dump(c.settings, false);
    cli_fini(&c);
    return text;
}

static void same_text(const char *what, const char *a, const char *b)
{
    size_t n = 0;
    while (a && b && a[n] && a[n] == b[n])
        n++;
    CHECK_MSG(a && b && a[n] == b[n], "%s: they part at byte %zu: '%.60s' and '%.60s'", what, n,
              a ? a + n : "NULL", b ? b + n : "NULL");
}

static void through_config(struct test_rng *r, struct ditgen_settings *s, const char *path,
                           bool pipe_it)
{
    struct err e = {0};
    if (!settings_from(s, SET_MODEL)) CHECK_OK(settings_set(s, LAYER_FLAG, "model", "emoji", &e));
    if (!settings_from(s, SET_SEED)) CHECK_OK(settings_set(s, LAYER_FLAG, "seed", "5", &e));
    char *text = settings_dump(s, false), *back;
    size_t len;
    char *saved = as_saved(r, text, &len), name[64];
    int ends[2] = {-1, -1};
    if (pipe_it && len < 60000 && pipe(ends) == 0) {
        CHECK(write(ends[1], saved, len) == (ssize_t)len);
        close(ends[1]);
        snprintf(name, sizeof name, "/dev/fd/%d", ends[0]);
        path = name;
    } else {
        FILE *f = fopen(path, "wb");
        CHECK(f && fwrite(saved, 1, len, f) == len);
        if (f) fclose(f);
    }
    back = read_back(path);
    if (ends[0] >= 0) close(ends[0]);
    same_text("--config", text, back);
    free(text), free(back), free(saved);
}

static void through_clip(const struct ditgen_settings *s, const char *path)
{
    struct err e = {0};
    struct writer *w = NULL;
    struct clip clip = {0};
    struct ditgen_settings *t = NULL, *all = NULL;
    static const uint8_t rgb[32 * 32 * 3];
    char *text = settings_dump(s, true), *back = NULL;
    struct writer_params p = {.path = path,
                              .width = 32,
                              .height = 32,
                              .frames = 1,
                              .fps_num = 16,
                              .fps_den = 1,
                              .crf = -1,
                              .settings = text,
                              .overwrite = true};
    CHECK_OK(writer_open(&w, &p, &e));
    if (w) CHECK_OK(writer_frame(w, rgb, &e));
    if (w) CHECK_OK(writer_close(w, &e));
    CHECK_OK(clip_read(&clip, path, false, &e));
    same_text(path, text, clip.settings);
    CHECK_OK(settings_open(&t, &e));
    if (clip.settings) CHECK_OK(profile_from_clip(t, LAYER_CONFIG, clip.settings, path, &e));
    CHECK_OK(settings_resolve(&all, t, model, NULL, &e));
    if (all) back = settings_dump(all, true);
    same_text(path, text, back);
    clip_fini(&clip);
    settings_close(t), settings_close(all);
    free(text), free(back);
}

int main(int argc, char **argv)
{
    struct test_rng r = test_seed(argc, argv);
    struct ditgen_error e;
    char dir[] = "/tmp/ditgen-test-XXXXXX", here[4096];
    CHECK(ditgen_open(&model, TEST_SOURCE_DIR "/assets/emoji", &e) == 0);
    if (!mkdtemp(dir) || !getcwd(here, sizeof here) || chdir(dir) != 0) return 1;
    static const char *const clips[] = {"c.y4m", "frames/", "c.mp4", "c.webm", "c.mov"};
    struct err ignored;
    for (int n = 0; n < 200; n++) {
        struct ditgen_settings *s = random_settings(&r);
        if (!s) continue;
        const char *clip = clips[(size_t)n % ARRAY_LEN(clips)];
        if (writer_kind_for(clip, &ignored)) through_clip(s, clip);
        through_config(&r, s, "c.ini", n % 3 == 0);
        settings_close(s);
    }
    CHECK(chdir(here) == 0);
    char remove[300];
    snprintf(remove, sizeof remove, "rm -r %s", dir);
    CHECK(system(remove) == 0);
    ditgen_close(model);
    return TEST_RESULT();
}
