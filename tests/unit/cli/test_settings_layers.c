/* Settings: layers in any order, contradictions, the stored text and back. */
#include "app/lib/settings.h"
#include "app/cli/profile.h"
#include "tests/check.h"

static struct ditgen *model;

/* What will be used holds these lines. */
static void check_resolved(const struct ditgen_settings *s, const char *lines)
{
    struct ditgen_settings *all = NULL;
    struct err e = {0};
    CHECK_OK(settings_resolve(&all, s, model, NULL, &e));
    char *text = all ? settings_dump(all, false) : NULL;
    CHECK_MSG(text && strstr(text, lines), "wanted %s in %s", lines, text ? text : e.msg);
    free(text);
    settings_close(all);
}

static void layers(void)
{
    struct ditgen_settings *s = NULL;
    struct err e = {0};
    CHECK_OK(settings_open(&s, &e));
    CHECK_OK(settings_set(s, LAYER_FLAG, "steps", "7", &e));
    CHECK_OK(settings_set(s, LAYER_PROFILE, "steps", "9",
                          &e)); /* lower: does not win, whenever it comes */
    CHECK(settings_int(s, SET_STEPS) == 7);
    CHECK_OK(settings_set(s, LAYER_PROFILE, "guidance_scale", "2", &e)); /* '_' is '-' */
    CHECK_OK(settings_set(s, LAYER_CONFIG, "guidance-scale", "3", &e));
    CHECK(settings_real(s, SET_GUIDANCE_SCALE) == 3);
    CHECK(settings_from(s, SET_GUIDANCE_SCALE) == LAYER_CONFIG);
    CHECK(settings_from(s, SET_SOLVER) == LAYER_NONE);
    CHECK(settings_set(s, LAYER_PROFILE, "steps", "0", &e) < 0); /* refused though a flag wins */

    /* one half of a size by hand, the other from a lower layer's size */
    CHECK_OK(settings_set(s, LAYER_CONFIG, "size", "832x480", &e));
    CHECK_OK(settings_set(s, LAYER_FLAG, "width", "64", &e));
    check_resolved(s, "width = 64\nheight = 480\n");
    CHECK(settings_set(s, LAYER_FLAG, "size", "1x1", &e) < 0);

    CHECK_OK(settings_set(s, LAYER_PROFILE, "frames", "81", &e));
    CHECK_OK(
        settings_set(s, LAYER_FLAG, "seconds", "2", &e)); /* a higher layer may say it otherwise */
    CHECK(settings_set(s, LAYER_PROFILE, "seconds", "2", &e) < 0);

    CHECK(settings_set(s, LAYER_CONFIG, "stepz", "1", &e) < 0 && strstr(e.msg, "'steps'"));
    CHECK(settings_set(s, LAYER_CONFIG, "output", "x.mp4", &e) < 0); /* no setting, but a flag */
    settings_close(s);
}

/* What a clip carries reads back to the same text, whatever the prompt holds. */
static void stored_text(void)
{
    static const char *const prompts[] = {
        "a rocket",
        "",
        "  blanks at both ends  ",
        "quotes \" and ' here",
        "a = b ; c # d [e]",
        "back\\slash \\n",
        "two\nlines\twith a tab",
        "\xf0\x9f\x9a\x80 \xe7\x81\xab\xe7\xae\xad",
        "\x01\x1f\x7f",
    };
    for (size_t i = 0; i < ARRAY_LEN(prompts); i++) {
        struct ditgen_settings *a, *b;
        struct err e = {0};
        CHECK_OK(settings_open(&a, &e));
        CHECK_OK(settings_open(&b, &e));
        CHECK_OK(settings_set(a, LAYER_FLAG, "prompt", prompts[i], &e));
        CHECK_OK(settings_set(a, LAYER_FLAG, "seed", "18446744073709551615", &e));
        CHECK_OK(settings_set(a, LAYER_FLAG, "guidance-scale", "4.1", &e));
        CHECK_OK(settings_set(a, LAYER_FLAG, "width", "64", &e));
        CHECK_OK(settings_set(a, LAYER_FLAG, "height", "64", &e));
        CHECK_OK(settings_set(a, LAYER_FLAG, "frames", "5", &e));
        CHECK_OK(settings_set(a, LAYER_FLAG, "fps", "23.976", &e));
        CHECK_OK(settings_set(a, LAYER_FLAG, "steps", "2", &e));
        CHECK_OK(settings_set(a, LAYER_FLAG, "flow-shift", "3", &e));
        CHECK_OK(settings_set(a, LAYER_FLAG, "model", "/some/where/emoji/", &e));
        CHECK_OK(settings_set(a, LAYER_FLAG, "threads", "2", &e));
        CHECK_OK(settings_set(a, LAYER_FLAG, "no-ftfy", "true", &e));
        char *text = settings_dump(a, true), *all = settings_dump(a, false);
        CHECK(text && all);
        CHECK(!strstr(text, "/some") && strstr(text, "model = \"emoji\""));
        CHECK(!strstr(text, "threads") && strstr(all, "threads = 2") && strstr(all, "/some/where"));
        CHECK_OK(profile_from_clip(b, LAYER_CONFIG, text, "clip", &e));
        CHECK_STR(settings_text(b, SET_PROMPT), prompts[i]);
        CHECK(settings_seed(b) == UINT64_MAX && settings_real(b, SET_GUIDANCE_SCALE) == 4.1);
        CHECK(settings_real(b, SET_FPS) == 23.976 && settings_switch(b, SET_NO_FTFY));
        char *again = settings_dump(b, true);
        CHECK_STR(again, text);
        free(text), free(all), free(again);
        settings_close(a), settings_close(b);
    }
}

/* A method's options of a lower layer go when a higher layer takes another method, stay when it takes
 * the same, and stand above those that a lower layer's text says. */
static void methods(void)
{
    static const struct {
        enum layer at;
        const char *attention;
        enum layer option_at;
        const char *words; /* of the dump, or of the message */
        bool refused;
    } rows[] = {
        {LAYER_NONE, NULL, LAYER_FLAG, "belongs to --attention window", true},
        {LAYER_PROFILE, "window", LAYER_PROFILE, "attention = \"window:tiles=3\"\n", false},
        {LAYER_FLAG, "dense", LAYER_PROFILE, "attention = \"dense\"\n", false},
        {LAYER_FLAG, "dense", LAYER_FLAG, "belongs to --attention window", true},
        {LAYER_FLAG, "window", LAYER_PROFILE, "attention = \"window:tiles=3\"\n", false},
        {LAYER_FLAG, "window:tiles=5", LAYER_PROFILE, "attention = \"window:tiles=5\"\n", false},
        {LAYER_PROFILE, "window:tiles=5", LAYER_FLAG, "attention = \"window:tiles=3\"\n", false},
        {LAYER_FLAG, "window:tiles=5", LAYER_FLAG, "contradict", true},
        {LAYER_CALL, "window:tiles=5", LAYER_CALL, "attention = \"window:tiles=3\"\n", false},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct ditgen_settings *s = NULL, *all = NULL;
        struct err e = {0};
        CHECK_OK(settings_open(&s, &e));
        CHECK_OK(settings_set(s, rows[i].option_at, "window-tiles", "3", &e));
        if (rows[i].attention)
            CHECK_OK(settings_set(s, rows[i].at, "attention", rows[i].attention, &e));
        int rc = settings_resolve(&all, s, model, NULL, &e);
        if (rows[i].refused) {
            CHECK_MSG(rc < 0 && e.code == ERR_USAGE && strstr(e.msg, rows[i].words), "row %zu: %s",
                      i, e.msg);
        } else {
            CHECK_OK(rc);
            check_resolved(s, rows[i].words);
        }
        settings_close(s);
        settings_close(all);
    }
}

/* Texts by the size of the clip, as profiles say them; 64x64x9 are 48 tokens, 256x256x33 2304. */
static void texts_by_size(void)
{
    static const struct {
        const char *name, *list, *small, *large; /* small NULL: refused */
    } rows[] = {
        {"attention", "dense | window:tiles=3@2304", "attention = \"dense\"\n",
         "attention = \"window:tiles=3\"\n"},
        {"attention", "window:tiles=2|resid:density=.5,every=1/2@2305|dense@9000",
         "attention = \"window:tiles=2\"\n", "attention = \"window:tiles=2\"\n"},
        {"step-cache", " none | easycache:threshold=.2@50 ", "step-cache = \"none\"\n",
         "step-cache = \"easycache:threshold=0.2,first=0.2,last=1\"\n"},
        {"attention", "dense@1 | window@2", NULL, "by size"},
        {"attention", "dense | window@2 | dense@2", NULL, "by size"},
        {"attention", "dense | window@", NULL, "by size"},
        {"attention", "dense | @5", NULL, "by size"},
        {"attention", "dense |", NULL, "by size"},
        {"attention", "dense | nothing@5", NULL, "no attention method"},
        {"step-cache", "none | easycache:x=1@5", NULL, "no option 'x'"},
        {"solver", "unipc | euler@5", NULL, "solver"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct ditgen_settings *s = NULL, *copy = NULL;
        struct err e = {0};
        CHECK_OK(settings_open(&s, &e));
        int rc = settings_set(s, LAYER_PROFILE, rows[i].name, rows[i].list, &e);
        if (!rows[i].small) {
            CHECK_MSG(rc < 0 && e.code == ERR_USAGE && strstr(e.msg, rows[i].large), "%s: %s",
                      rows[i].list, e.msg);
            settings_close(s);
            continue;
        }
        CHECK_OK(rc);
        CHECK_OK(
            settings_copy(&copy, s, &e)); /* before a size is known it is kept as it was said */
        char *text = settings_print(copy, setting_find(rows[i].name), &e);
        CHECK_MSG(text && strcmp(text, rows[i].list) == 0, "%s became %s", rows[i].list, text);
        free(text);
        check_resolved(copy, rows[i].large);
        CHECK_OK(settings_set(copy, LAYER_FLAG, "size", "64x64", &e));
        CHECK_OK(settings_set(copy, LAYER_FLAG, "frames", "9", &e));
        check_resolved(copy, rows[i].small);
        /* a higher layer's plain text stands above the list */
        CHECK_OK(settings_set(copy, LAYER_FLAG, "attention", "window:tiles=7", &e));
        check_resolved(copy, "attention = \"window:tiles=7\"\n");
        settings_close(copy);
        settings_close(s);
    }
}

int main(void)
{
    struct ditgen_error e;
    CHECK(ditgen_open(&model, TEST_SOURCE_DIR "/assets/emoji", &e) == 0);
    layers();
    stored_text();
    methods();
    texts_by_size();
    ditgen_close(model);
    return TEST_RESULT();
}
