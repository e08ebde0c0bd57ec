/* The C library on the embedded model at its smallest: frames in order, repeatable, cancelled
 * anywhere, bad settings refused with a sentence. */
#include "app/lib/ditgen.h"
#include "attention/method.h"
#include "model/base/err.h"
#include "tests/check.h"

#define SIDE 32
#define FRAMES 5

struct seen {
    int frames, calls[DITGEN_PHASES], last_done;
    int stop_phase; /* -1: never */
    int stop_frame; /* -1: never */
    uint64_t hash;
    int latents;
};

static int on_frame(void *ctx, int index, const uint8_t *rgb, int width, int height)
{
    struct seen *s = ctx;
    CHECK(index == s->frames && width == SIDE && height == SIDE);
    if (index == s->stop_frame) return 1;
    s->frames++;
    for (int i = 0; i < SIDE * SIDE * 3; i++)
        s->hash = (s->hash ^ rgb[i]) * 1099511628211u;
    return 0;
}

static int on_progress(void *ctx, const struct ditgen_progress *p)
{
    struct seen *s = ctx;
    s->calls[p->phase]++;
    CHECK(p->done >= 0 && p->done <= p->total && p->block >= 0 && p->block <= p->blocks);
    CHECK(p->seconds >= 0);
    s->last_done = p->done;
    return (int)p->phase == s->stop_phase;
}

static int on_latents(void *ctx, const float *latents, const int shape[4])
{
    struct seen *s = ctx;
    size_t n = (size_t)shape[0] * (size_t)shape[1] * (size_t)shape[2] * (size_t)shape[3];
    s->latents++;
    for (size_t i = 0; i < n; i++)
        CHECK(isfinite(latents[i]));
    return 0;
}

/* Settings as flags: "width=33 solver=heun". */
static int set_words(struct ditgen_settings *s, const char *words, struct ditgen_error *e)
{
    char copy[256];
    int rc = 0;
    snprintf(copy, sizeof copy, "%s", words);
    for (char *w = strtok(copy, " "); w && rc == 0; w = strtok(NULL, " ")) {
        char *equal = strchr(w, '=');
        *equal = 0;
        rc = ditgen_set(s, w, equal + 1, e);
    }
    return rc;
}

static struct ditgen_settings *tiny(struct ditgen *d)
{
    struct ditgen_settings *s = NULL;
    struct ditgen_error e;
    CHECK(ditgen_settings_open(&s, d, &e) == 0 && ditgen_set(s, "prompt", "a rocket", &e) == 0);
    CHECK(set_words(s, "size=32x32 frames=5 steps=2 threads=1", &e) == 0);
    return s;
}

static int generate(struct ditgen *d, const struct ditgen_settings *s, struct seen *seen,
                    struct ditgen_error *e)
{
    struct ditgen_callbacks c = {
        .ctx = seen, .frame = on_frame, .progress = on_progress, .latents = on_latents};
    memset(e, 0, sizeof *e);
    return ditgen_generate(d, s, &c, e);
}

static void whole(struct ditgen *d)
{
    struct seen a = {.stop_phase = -1, .stop_frame = -1}, b = a, c = a;
    struct ditgen_error e;
    struct ditgen_settings *s = tiny(d);
    CHECK_MSG(generate(d, s, &a, &e) == 0, "%s", e.message);
    CHECK(a.frames == FRAMES && a.latents == 1 && a.last_done == FRAMES);
    CHECK(a.calls[DITGEN_TEXT] > 0 && a.calls[DITGEN_DENOISE] > 2 &&
          a.calls[DITGEN_DECODE] >= FRAMES);
    CHECK(generate(d, s, &b, &e) == 0 && b.hash == a.hash); /* the same handle again */
    CHECK(ditgen_set(s, "seed", "1", &e) == 0);
    CHECK(generate(d, s, &c, &e) == 0 && c.hash != a.hash);
    CHECK(ditgen_generate(d, s, NULL, &e) == 0); /* no callbacks at all */
    ditgen_settings_close(s);
}

static void cancelled(struct ditgen *d)
{
    struct ditgen_error e;
    struct ditgen_settings *s = tiny(d);
    for (int phase = 0; phase < DITGEN_PHASES; phase++) {
        struct seen a = {.stop_phase = phase, .stop_frame = -1};
        CHECK(generate(d, s, &a, &e) < 0 && e.code == DITGEN_CANCELLED && e.message[0]);
        CHECK(a.calls[phase] == 1 && a.frames == 0);
    }
    struct seen a = {.stop_phase = -1, .stop_frame = 2};
    CHECK(generate(d, s, &a, &e) < 0 && e.code == DITGEN_CANCELLED && a.frames == 2);
    ditgen_settings_close(s);
}

static void refused(struct ditgen *d)
{
    struct ditgen_plan p;
    struct ditgen_error e;
    struct seen none = {.stop_phase = -1, .stop_frame = -1};
    /* refused where they are set, or, where the model decides, before any work */
    static const char *const at_once[] = {"width=0",
                                          "height=-16",
                                          "height=1073741824",
                                          "frames=0",
                                          "steps=0",
                                          "steps=1001",
                                          "guidance-scale=nan",
                                          "flow-shift=0",
                                          "solver=heun",
                                          "precision=fp16",
                                          "threads=-1",
                                          "attention=none",
                                          "attention=dense:what=1",
                                          "window-tiles=0",
                                          "what=1",
                                          "model=x",
                                          "codec=libx264"};
    static const char *const later[] = {"width=33", "frames=6", "kernel=none",
                                        "attention=dense window-tiles=2"};
    for (size_t i = 0; i < ARRAY_LEN(at_once); i++) {
        struct ditgen_settings *s = tiny(d);
        CHECK_MSG(set_words(s, at_once[i], &e) < 0 && e.code == DITGEN_USAGE && e.message[0], "%s",
                  at_once[i]);
        CHECK_MSG(ditgen_plan(d, s, &p, &e) == 0, "%s stayed: %s", at_once[i], e.message);
        ditgen_settings_close(s);
    }
    for (size_t i = 0; i < ARRAY_LEN(later); i++) {
        struct ditgen_settings *s = tiny(d);
        CHECK_MSG(set_words(s, later[i], &e) == 0, "%s: %s", later[i], e.message);
        CHECK_MSG(ditgen_plan(d, s, &p, &e) < 0 && e.code == DITGEN_USAGE && e.message[0], "%s",
                  later[i]);
        CHECK(generate(d, s, &none, &e) < 0 && e.code == DITGEN_USAGE);
        ditgen_settings_close(s);
    }
    struct ditgen_settings *s = tiny(d);
    CHECK(ditgen_set(s, "prompt", NULL, &e) == 0);
    CHECK(generate(d, s, &none, &e) < 0 && e.code == DITGEN_USAGE);
    CHECK(none.frames == 0);
    ditgen_settings_close(s);
}

/* Set and get by name: defaults, other spellings, what stands when two say the same. */
static void settings(struct ditgen *d)
{
    static const struct {
        const char *set, *name, *text;
    } rows[] = {
        {"", "steps", "30"},
        {"", "prompt", NULL},
        {"", "negative_prompt", ""},
        {"", "seed", "0"},
        {"", "attention", "dense"},
        {"", "turbo", "false"},
        {"turbo=1", "steps", "4"},
        {"turbo=1 num-steps=7", "steps", "7"},
        {"guidance_scale=2.5", "guidance-scale", "2.5"},
        {"size=64x48", "width", "64"},
        {"size=64x48 width=80", "size", "80x48"},
        {"width=80 size=64x48", "size", "64x48"},
        {"fps=16 seconds=0.4", "frames", "5"},
        {"frames=9 seconds=0.4", "frames", "5"},
        {"seconds=0.4 frames=9", "frames", "9"},
        {"attention=window", "window-tiles", "8"},
        {"attention=window window_tiles=3", "attention", "window:tiles=3"},
        {"attention=window:tiles=4", "window-tiles", "4"},
        {"attention=window:tiles=4 window-tiles=5", "window-tiles", "5"},
        {"steps=5,9@20000 size=256x256 frames=1", "steps", "5"},
        {"flow-shift=2,3@64,4@128 size=256x256 frames=1", "flow-shift", "4"},
        {"flow-shift=2,3@64,4@128 size=128x128 frames=1", "flow-shift", "3"},
        {"flow-shift=2,3@64,4@128 size=64x64 frames=1", "flow-shift", "2"},
        {"seed=18446744073709551615", "seed", "18446744073709551615"},
    };
    struct ditgen_error e;
    const char *text = "x";
    double v;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct ditgen_settings *s = NULL;
        CHECK(ditgen_settings_open(&s, d, &e) == 0 && set_words(s, rows[i].set, &e) == 0);
        int rc = ditgen_get(s, rows[i].name, &text, &e);
        CHECK_MSG(rc == 0 && (rows[i].text ? text && strcmp(text, rows[i].text) == 0 : !text),
                  "'%s': %s is %s (%s)", rows[i].set, rows[i].name, text ? text : "NULL",
                  rc ? e.message : "");
        ditgen_settings_close(s);
    }
    struct ditgen_settings *s = tiny(d);
    CHECK(ditgen_set_number(s, "guidance-scale", 0.1, &e) == 0);
    CHECK(ditgen_get_number(s, "guidance-scale", &v, &e) == 0 && v == 0.1);
    CHECK(ditgen_set_number(s, "seed", 4294967295.0, &e) == 0);
    CHECK(ditgen_get_number(s, "seed", &v, &e) == 0 && v == 4294967295.0);
    CHECK(ditgen_set_number(s, "steps", 2.5, &e) < 0 && ditgen_set_number(s, "steps", NAN, &e) < 0);
    CHECK(ditgen_get_number(s, "prompt", &v, &e) < 0 && e.code == DITGEN_USAGE);
    CHECK(ditgen_get(s, "stesp", &text, &e) < 0 && strstr(e.message, "'steps'") && !text);
    CHECK(ditgen_set(s, "steps", NULL, &e) == 0);
    CHECK(ditgen_get_number(s, "steps", &v, &e) == 0 && v == 30);

    /* every name of the list is one that can be got, and set to what was got */
    struct ditgen_setting info;
    int n = 0, methods = 0;
    for (; ditgen_setting_at(n, &info) == 0; n++) {
        CHECK_MSG(info.name[0] && info.help && info.type, "row %d", n);
        CHECK_MSG(ditgen_get(s, info.name, &text, &e) == 0, "%s: %s", info.name, e.message);
        methods += strcmp(info.name, "window-tiles") == 0;
    }
    CHECK(n > 15 && methods == 1 && ditgen_setting_at(-1, &info) < 0);
    ditgen_settings_close(s);
}

static void planned(struct ditgen *d)
{
    struct ditgen_plan p, big;
    struct ditgen_error e;
    struct ditgen_settings *s = tiny(d);
    CHECK(ditgen_plan(d, s, &p, &e) == 0);
    CHECK(p.tokens == 2 * 2 * 2 && p.branches == 2 && p.threads == 1 &&
          p.fits); /* 2 latent frames of 4x4 */
    CHECK(p.peak_bytes > 0 && p.seconds > 0 && p.linear[0] && p.attention[0] && p.precision[0]);
    CHECK(set_words(s, "guidance-scale=1 width=64", &e) == 0);
    CHECK(ditgen_plan(d, s, &big, &e) == 0);
    CHECK(big.branches == 1 && big.tokens == 2 * p.tokens);
    CHECK(big.phase_bytes[DITGEN_DECODE] > p.phase_bytes[DITGEN_DECODE]);

    /* every method by its name alone: its own defaults are said and read back */
    CHECK(set_words(s, "size=128x64", &e) == 0);
    for (int i = 0; i < attn_method_count(); i++) {
        const char *name = attn_method_at(i)->name;
        CHECK(ditgen_set(s, "attention", name, &e) == 0);
        CHECK_MSG(ditgen_plan(d, s, &p, &e) == 0, "%s: %s", name, e.message);
    }

    /* a method's text of any length */
    char words[4096] = "attention=window:tiles=1";
    for (int i = 0; i < 300; i++)
        strcat(words, ",tiles=1");
    CHECK(ditgen_set(s, "attention", words + 10, &e) == 0 && ditgen_plan(d, s, &p, &e) == 0);
    CHECK(strstr(p.attention, "window:tiles=1 (") && strstr(p.attention, "approximate"));
    ditgen_settings_close(s);
}

int main(void)
{
    struct ditgen *d = NULL;
    struct ditgen_error e;
    CHECK(ditgen_open(&d, TEST_SOURCE_DIR "/assets/emoji", &e) == 0);
    if (d) {
        whole(d);
        cancelled(d);
        refused(d);
        planned(d);
        settings(d);
    }
    ditgen_close(d);
    return TEST_RESULT();
}
