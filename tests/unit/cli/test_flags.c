/* Flags: every spelling, clusters, values, contradictions, nearest names. */
#include "app/cli/cli.h"
#include "tests/check.h"

#define MAX_WORDS 16

/* Splits at blanks ('_' in words stands for itself; "''" is an empty word). */
static int parse(struct cli *c, const char *line, struct err *e)
{
    static char copy[512];
    static char empty[1];
    char *argv[MAX_WORDS] = {copy};
    int argc = 1;
    snprintf(copy, sizeof copy, "ditgen %s", line);
    strtok(copy, " ");
    for (char *w; argc < MAX_WORDS && (w = strtok(NULL, " ")) != NULL;)
        argv[argc++] = strcmp(w, "''") == 0 ? empty : w;
    memset(e, 0, sizeof *e);
    return cli_parse(c, argc, argv, CLI_PROMPT, e);
}

static void accepted(void)
{
    struct cli c;
    struct err e;
    CHECK_OK(parse(
        &c,
        "rocket -W 64 --height=32 -s7 -t2 -yvv -crf 20 -c:v libx264 -pix_fmt yuv444p -preset slow",
        &e));
    CHECK_STR(settings_text(c.settings, SET_PROMPT), "rocket");
    CHECK(settings_int(c.settings, SET_WIDTH) == 64 && settings_int(c.settings, SET_HEIGHT) == 32);
    CHECK(settings_seed(c.settings) == 7 && settings_int(c.settings, SET_THREADS) == 2 &&
          settings_int(c.settings, SET_CRF) == 20);
    CHECK(c.yes && c.verbose == 2);
    CHECK_STR(settings_text(c.settings, SET_CODEC), "libx264");
    CHECK_STR(settings_text(c.settings, SET_PIX_FMT), "yuv444p");
    CHECK_STR(settings_text(c.settings, SET_PRESET), "slow");
    cli_fini(&c);

    CHECK_OK(parse(&c, "-p '' --size 832x480 --guidance_scale 3.5 --num-frames 5 -vv", &e));
    CHECK_STR(settings_text(c.settings, SET_PROMPT), "");
    CHECK(settings_from(c.settings, SET_PROMPT) == LAYER_FLAG);
    CHECK_STR(settings_text(c.settings, SET_SIZE), "832x480");
    CHECK(settings_int(c.settings, SET_FRAMES) == 5);
    CHECK(settings_real(c.settings, SET_GUIDANCE_SCALE) == 3.5 && c.verbose == 2);
    cli_fini(&c);

    /* after "--" a word that begins with a dash is a prompt; "=" in a value stays */
    CHECK_OK(parse(&c, "--negative=a=b -- --steps", &e));
    CHECK_STR(settings_text(c.settings, SET_PROMPT), "--steps");
    CHECK_STR(settings_text(c.settings, SET_NEGATIVE), "a=b");
    cli_fini(&c);

    CHECK_OK(parse(&c, "x -s 18446744073709551615 --turbo=false --no-ftfy --progress json", &e));
    CHECK(settings_seed(c.settings) == UINT64_MAX && !settings_switch(c.settings, SET_TURBO) &&
          settings_switch(c.settings, SET_NO_FTFY) && c.progress == 1);
    cli_fini(&c);

    CHECK_OK(parse(&c, "x --size 32x32 --size 64x48", &e));
    CHECK_STR(settings_text(c.settings, SET_SIZE), "64x48");
    cli_fini(&c);
    CHECK_OK(parse(&c, "x --steps 3 --steps 4 -o a.mp4 -o b.mp4", &e)); /* the last one stands */
    CHECK(settings_int(c.settings, SET_STEPS) == 4);
    CHECK_STR(c.output, "b.mp4");
    cli_fini(&c);
}

static void refused(void)
{
    static const struct {
        const char *line, *words; /* that the message must hold */
    } rows[] = {
        {"x --stesp 4", "did you mean --steps"},
        {"x --ouptut y", "did you mean --output"},
        {"x --nothinglikethis", "--help"},
        {"x -z", "unknown flag -z"},
        {"x -yz", "unknown flag -yz"},
        {"x -s", "-s wants a value"},
        {"x --steps", "--steps wants a value"},
        {"x --steps 0", "1 to 1000"},
        {"x --steps 4.5", "--steps is '4.5'"},
        {"x --steps 1e3", "--steps is '1e3'"},
        {"x --steps 99999999999999999999", "1 to 1000"},
        {"x --guidance-scale nan", "--guidance-scale is 'nan'"},
        {"x --guidance-scale inf", "--guidance-scale is 'inf'"},
        {"x --flow-shift 0", "--flow-shift is '0'"},
        {"x --fps 0", "--fps is '0'"},
        {"x -s -1", "--seed is '-1'"},
        {"x -s 18446744073709551616", "18446744073709551615"},
        {"x --size 64", "WIDTHxHEIGHT"},
        {"x --size 64x", "WIDTHxHEIGHT"},
        {"x --size 64x64x64", "WIDTHxHEIGHT"},
        {"x --size -64x64", "WIDTHxHEIGHT"},
        {"x --size 64x64 -W 64", "contradict"},
        {"x -H 64 --size 64x64", "contradict"},
        {"x --frames 5 --seconds 1", "contradict"},
        {"x --precision fp16", "auto|fp32|bf16"},
        {"x --solver heun", "unipc"},
        {"x --attention nothing", "dense"},
        {"x --compat diffusers-0.35", "diffusers-0.36"},
        {"x --compat diffusers-0.36,diffusers-0.37", "exclude"},
        {"x --turbo=maybe", "true or false"},
        {"x -q -v", "contradict"},
        {"x y", "two prompts"},
        {"x -p y", "prompt"},
        {"-p x -p y", "given twice"},
        {"x -f file", "contradict"},
        {"x --profile a --profile b", "given twice"},
        {"x -o - --dump-config -", "standard output"},
        {"x --progress xml", "auto|json"},
        {"x -crf 64", "0 to 63"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct cli c;
        struct err e;
        int rc = parse(&c, rows[i].line, &e);
        CHECK_MSG(rc < 0 && e.code == ERR_USAGE && strstr(e.msg, rows[i].words),
                  "'%s' gave %d '%s'", rows[i].line, rc, e.msg);
        cli_fini(&c);
    }
}

/* Every option of every method is a flag, with its bounds, and part of the method's text. */
static void method_options(void)
{
    for (int i = 0; i < attn_methods(); i++) {
        struct attn_method_info m = attn_method_info(i);
        for (const struct option *o = m.options; o && o->name; o++) {
            char line[200];
            struct cli c;
            struct err e;
            if (o->type != OPTION_INT) continue;
            snprintf(line, sizeof line, "x --attention %s --%s-%s %d", m.name, m.name, o->name,
                     (int)o->lo);
            CHECK_OK(parse(&c, line, &e));
            CHECK(c.settings->n_methods == 1 && c.settings->methods[0].of.option == o);
            cli_fini(&c);
            snprintf(line, sizeof line, "x --%s_%s %d", m.name, o->name, (int)o->lo - 1);
            CHECK(parse(&c, line, &e) < 0 && strncmp(e.msg, "--", 2) == 0);
            cli_fini(&c);
            snprintf(line, sizeof line, "x --attention %s:%s=%d", m.name, o->name, (int)o->lo);
            CHECK_OK(parse(&c, line, &e));
            cli_fini(&c);
            snprintf(line, sizeof line, "x --attention %s:%s=%d", m.name, o->name, (int)o->lo - 1);
            CHECK(parse(&c, line, &e) < 0 && strstr(e.msg, o->name));
            cli_fini(&c);
        }
    }
}

int main(void)
{
    accepted();
    refused();
    method_options();
    return TEST_RESULT();
}
