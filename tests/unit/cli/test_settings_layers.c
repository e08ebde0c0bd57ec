/* Settings: layers in any order, contradictions, the stored text and back. */
#include "app/lib/settings.h"
#include "app/cli/profile.h"
#include "tests/check.h"

static void layers(void)
{
    struct settings s;
    struct err e = {0};
    CHECK_OK(settings_init(&s, &e));
    CHECK_OK(settings_set(&s, LAYER_FLAG, "steps", "7", &e));
    CHECK_OK(settings_set(&s, LAYER_PROFILE, "steps", "9",
                          &e)); /* lower: does not win, whenever it comes */
    CHECK(s.steps == 7);
    CHECK_OK(settings_set(&s, LAYER_PROFILE, "guidance_scale", "2", &e)); /* '_' is '-' */
    CHECK_OK(settings_set(&s, LAYER_CONFIG, "guidance-scale", "3", &e));
    CHECK(s.guidance_scale == 3);
    CHECK(settings_from(&s, "guidance-scale") == LAYER_CONFIG);
    CHECK(settings_from(&s, "solver") == LAYER_NONE);
    CHECK(settings_set(&s, LAYER_PROFILE, "steps", "0", &e) < 0); /* refused though a flag wins */

    /* one half of a size by hand, the other from a lower layer's size */
    CHECK_OK(settings_set(&s, LAYER_CONFIG, "size", "832x480", &e));
    CHECK_OK(settings_set(&s, LAYER_FLAG, "width", "64", &e));
    CHECK(s.width == 64 && s.height == 480);
    CHECK(settings_set(&s, LAYER_FLAG, "size", "1x1", &e) < 0);

    CHECK_OK(settings_set(&s, LAYER_PROFILE, "frames", "81", &e));
    CHECK_OK(
        settings_set(&s, LAYER_FLAG, "seconds", "2", &e)); /* a higher layer may say it otherwise */
    CHECK(settings_set(&s, LAYER_PROFILE, "seconds", "2", &e) < 0);

    CHECK(settings_set(&s, LAYER_CONFIG, "stepz", "1", &e) < 0 && strstr(e.msg, "'steps'"));
    CHECK(settings_set(&s, LAYER_CONFIG, "output", "x.mp4", &e) < 0); /* no setting, but a flag */
    settings_fini(&s);
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
        struct settings a, b;
        struct err e = {0};
        CHECK_OK(settings_init(&a, &e));
        CHECK_OK(settings_init(&b, &e));
        CHECK_OK(settings_set(&a, LAYER_FLAG, "prompt", prompts[i], &e));
        CHECK_OK(settings_set(&a, LAYER_FLAG, "seed", "18446744073709551615", &e));
        CHECK_OK(settings_set(&a, LAYER_FLAG, "guidance-scale", "4.1", &e));
        CHECK_OK(settings_set(&a, LAYER_FLAG, "width", "64", &e));
        CHECK_OK(settings_set(&a, LAYER_FLAG, "height", "64", &e));
        CHECK_OK(settings_set(&a, LAYER_FLAG, "frames", "5", &e));
        CHECK_OK(settings_set(&a, LAYER_FLAG, "fps", "23.976", &e));
        CHECK_OK(settings_set(&a, LAYER_FLAG, "steps", "2", &e));
        CHECK_OK(settings_set(&a, LAYER_FLAG, "flow-shift", "3", &e));
        CHECK_OK(settings_set(&a, LAYER_FLAG, "model", "/some/where/emoji/", &e));
        CHECK_OK(settings_set(&a, LAYER_FLAG, "threads", "2", &e));
        CHECK_OK(settings_set(&a, LAYER_FLAG, "no-ftfy", "true", &e));
        char *text = settings_text(&a, true), *all = settings_text(&a, false);
        CHECK(text && all);
        CHECK(!strstr(text, "/some") && strstr(text, "model = \"emoji\""));
        CHECK(!strstr(text, "threads") && strstr(all, "threads = 2") && strstr(all, "/some/where"));
        CHECK_OK(profile_from_clip(&b, LAYER_CONFIG, text, "clip", &e));
        CHECK_STR(b.prompt, prompts[i]);
        CHECK(b.seed == UINT64_MAX && b.guidance_scale == 4.1 && b.fps == 23.976 && b.no_ftfy);
        char *again = settings_text(&b, true);
        CHECK_STR(again, text);
        free(text), free(all), free(again);
        settings_fini(&a), settings_fini(&b);
    }
}

/* A method's options of a lower layer go when a higher layer takes another method. */
static void methods(void)
{
    for (int i = 0; i < attn_method_count(); i++) {
        const struct attn_method *m = attn_method_at(i);
        const struct option *o = m->options;
        if (!o || !o->name || o->type != OPTION_INT) continue;
        struct settings s;
        struct err e = {0};
        char value[32], text[128];
        snprintf(value, sizeof value, "%d", (int)o->lo);
        CHECK_OK(settings_init(&s, &e));
        CHECK_OK(settings_set(&s, LAYER_PROFILE, "attention", m->name, &e));
        CHECK_OK(settings_set(&s, LAYER_PROFILE, o->name, value, &e));
        CHECK_OK(settings_method_text(&s, text, sizeof text, &e));
        CHECK(strstr(text, o->name));
        CHECK_OK(settings_set(&s, LAYER_FLAG, "attention", "dense", &e));
        CHECK_OK(settings_method_text(&s, text, sizeof text, &e));
        CHECK_STR(text, "");
        settings_fini(&s);
    }
}

int main(void)
{
    layers();
    stored_text();
    methods();
    return TEST_RESULT();
}
