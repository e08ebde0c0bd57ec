/* Profiles: what is accepted, and that every refusal names file and line or section. */
#include "app/cli/profile.h"
#include "app/cli/ran.h"
#include "tests/check.h"

#include <unistd.h>

static char path[256];

static void put(const char *text)
{
    FILE *f = fopen(path, "wb");
    CHECK(f != NULL);
    if (!f) exit(1);
    fputs(text, f);
    fclose(f);
}

static int load(struct ditgen_settings **s, const char *text, struct err *e)
{
    put(text);
    memset(e, 0, sizeof *e);
    if (settings_open(s, e) < 0) return -1;
    return profile_load_file(*s, LAYER_CONFIG, path, e);
}

static void accepted(void)
{
    struct ditgen_settings *s;
    struct err e;
    CHECK_OK(load(&s,
                  "# comment\n; another\n\n[ditgen]\nsteps = 7\nGuidance_Scale = 2.5 # tail\n"
                  "prompt = \"a \\x22red\\x22 fox; # = [x]\\nruns\"\nnegative = \"\"\nsize = "
                  "64x48\nturbo = no\n",
                  &e));
    CHECK(settings_int(s, SET_STEPS) == 7 && settings_real(s, SET_GUIDANCE_SCALE) == 2.5);
    CHECK_STR(settings_text(s, SET_SIZE), "64x48");
    CHECK(!settings_switch(s, SET_TURBO));
    CHECK_STR(settings_text(s, SET_PROMPT), "a \"red\" fox; # = [x]\nruns");
    CHECK_STR(settings_text(s, SET_NEGATIVE), "");
    settings_close(s);
    CHECK_OK(load(&s, "steps = 5\n", &e)); /* no section is needed */
    CHECK(settings_int(s, SET_STEPS) == 5);
    settings_close(s);
    CHECK_OK(load(&s, "", &e));
    settings_close(s);
}

static void refused(void)
{
    static const struct {
        const char *text, *words;
    } rows[] = {
        {"[ditgen]\nstesp = 7\n", ":2: unknown key 'stesp', did you mean 'steps'"},
        {"\n\nsteps = many\n", ":3: steps is 'many'"},
        {"steps = 0\n", ":1: steps is '0'"},
        {"[other]\nsteps = 7\n", ":1: unknown section [other]"},
        {"[other]\n", "[other]"},
        {"size = 64x64\nwidth = 64\n", "contradict"},
        {"solver = heun\n", "unipc"},
        {"what is this\n", ":1: wanted [section] or key = value"},
        {"prompt = \"\\q\"\n", "escape"},
        {"output = x.mp4\n", "unknown key 'output'"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct ditgen_settings *s;
        struct err e;
        int rc = load(&s, rows[i].text, &e);
        CHECK_MSG(rc < 0 && e.code == ERR_INPUT && strstr(e.msg, rows[i].words) &&
                      strstr(e.msg, path),
                  "'%s' gave %d '%s'", rows[i].text, rc, e.msg);
        settings_close(s);
    }
    struct ditgen_settings *s;
    struct err e = {0};
    CHECK_OK(settings_open(&s, &e));
    CHECK(profile_load_file(s, LAYER_CONFIG, "/nonexistent.ini", &e) < 0 && e.code == ERR_INPUT);
    CHECK(profile_load_file(s, LAYER_CONFIG, "/", &e) < 0 && strstr(e.msg, "folder"));
    CHECK(profile_load(s, "no-such-profile", &e) < 0 && strstr(e.msg, "draft"));
    CHECK(profile_load(s, "../profiles/draft", &e) < 0 && e.code == ERR_USAGE);
    settings_close(s);
}

/* Every profile that ships is good. */
static void shipped(void)
{
    static const char *const names[] = {"balanced", "draft",     "exact", "fast",
                                        "fine",     "reference", "still"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct ditgen_settings *s;
        struct err e = {0};
        CHECK_OK(settings_open(&s, &e));
        CHECK_OK(profile_load(s, names[i], &e));
        settings_close(s);
    }
}

/* What a clip says of its run is kept apart from its settings, and only differences are told. */
static void of_run(void)
{
    struct ditgen_settings *s = NULL;
    struct ran a, clip;
    struct err e = {0};
    char words[400];
    ran_of(&a, &(struct ditgen_ran){.device = "cpu",
                                    .kernel = "avx2",
                                    .density = 0.38461538,
                                    .copied = 0.2,
                                    .sampled = 10,
                                    .error = 0.0412,
                                    .drift = 0.13,
                                    .fp8_error = 0.0355});
    char *text = ran_text("[ditgen]\nprompt = \"x\"\n", &a);
    CHECK_OK(settings_open(&s, &e));
    CHECK_OK(profile_from_clip(s, LAYER_CONFIG, text, "clip", &e));
    CHECK_STR(settings_text(s, SET_PROMPT), "x");
    CHECK_OK(ran_read(&clip, text, "clip", &e));
    CHECK(clip.known && clip.density == 0.3846 && clip.error == 0.0412 &&
          clip.copied_error == 0.13 && clip.fp8_error == 0.0355);
    CHECK(strcmp(ran_section(text), text + 22) == 0 && !*ran_section("[ditgen]\n"));
    ran_compare(words, sizeof words, &clip, &a);
    CHECK_STR(words, "");
    strcpy(a.kernel, "amx");
    a.density = 1;
    ran_compare(words, sizeof words, &clip, &a);
    CHECK(strstr(words, "on cpu by avx2, this one on cpu by amx") && strstr(words, "0.385 of its"));
    a.fp8_error = 0;
    ran_compare(words, sizeof words, &clip, &a);
    CHECK(strstr(words, "fp8 products 0.035 then, 0 now") ||
          strstr(words, "fp8 products 0.036 then, 0 now"));
    ran_compare(words, 20, &clip, &a);
    CHECK(strlen(words) == 19);
    ran_compare(words, sizeof words, &(struct ran){0}, &a); /* an older clip says nothing */
    CHECK_STR(words, "");
    static const char *const bad[] = {
        "[run]\ndensity = 2\n", "[run]\nsampled-error = x\n",
        "[run]\ndevice = \"a name that is longer than any there is\"\n"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        CHECK(ran_read(&clip, bad[i], "clip", &e) < 0 && e.code == ERR_INPUT);
    CHECK_OK(ran_read(&clip, "[run]\nlater = 1\n", "clip", &e));
    CHECK_OK(ran_read(&clip, "[ditgen]\nsteps = 1\n", "clip", &e));
    CHECK(!clip.known);
    free(text);
    settings_close(s);
}

int main(void)
{
    snprintf(path, sizeof path, "/tmp/ditgen-test-%ld.ini", (long)getpid());
    setenv("DITGEN_ASSETS", TEST_SOURCE_DIR "/assets", 1);
    accepted();
    refused();
    shipped();
    of_run();
    unlink(path);
    return TEST_RESULT();
}
