/* One row of the table is all that a new setting needs, one row of a method all that its option
 * needs: both are flag, profile key, library key, help, dump and metadata of a clip.
 *
 * The table is linked with two rows more (new_row.def), and the two methods are ones that both have
 * an option `taste`. */
#include "app/cli/cmd.h"
#include "app/cli/help.h"
#include "app/cli/profile.h"
#include "app/clips/writer.h"
#include "attention/method.h"
#include "tests/check.h"

#include <unistd.h>

struct taste {
    struct attn_knobs knobs; /* every method's options begin with it */
    int taste;
};

const struct attn_method attn_dense = {
    .name = "dense",
    .summary = "every key, of some taste",
    .exact = true,
    .options = OPTIONS(OPT_INT(struct taste, taste, "taste", 1, 0, 5, "sweet to salty")),
    .options_size = sizeof(struct taste),
};
const struct attn_method attn_window = {
    .name = "window",
    .summary = "every key, of some other taste",
    .options = OPTIONS(OPT_INT(struct taste, taste, "taste", 2, 0, 9, "mild to hot")),
    .options_size = sizeof(struct taste),
};

static struct ditgen *model;
static char dir[] = "/tmp/ditgen-test-XXXXXX";

static void check_holds(const char *what, const char *text, const char *words)
{
    CHECK_MSG(text && strstr(text, words), "%s lacks '%s': %s", what, words, text ? text : "NULL");
}

static void in_help(void)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    if (!f) exit(1);
    help_generate(f);
    fclose(f);
    check_holds("help", text, "-N   --brand-new N");
    check_holds("help", text, "a row that only a test has (3)");
    check_holds("help", text, "--new-words NAME");
    check_holds("help", text, "--dense-taste N");
    check_holds("help", text, "--window-taste N");
    check_holds("help", text, "mild to hot");
    free(text);
}

static void in_library(void)
{
    struct ditgen_settings *s = NULL;
    struct ditgen_error e;
    struct ditgen_setting info;
    const char *text;
    int listed = 0;
    CHECK(ditgen_settings_open(&s, model, &e) == 0);
    CHECK(ditgen_get(s, "brand_new", &text, &e) == 0);
    CHECK_STR(text, "3");
    CHECK(ditgen_get(s, "new-words", &text, &e) == 0 && !text);
    CHECK(ditgen_set(s, "very-new", "7", &e) == 0 && ditgen_get(s, "brand-new", &text, &e) == 0);
    CHECK_STR(text, "7");
    CHECK(ditgen_set(s, "brand-new", "10", &e) < 0 && strstr(e.message, "1 to 9"));
    CHECK(ditgen_set(s, "brand-nwe", "1", &e) < 0 && strstr(e.message, "'brand-new'"));

    CHECK(ditgen_get(s, "dense-taste", &text, &e) == 0);
    CHECK_STR(text, "1");
    CHECK(ditgen_set(s, "dense-taste", "6", &e) < 0 && strstr(e.message, "0 to 5"));
    CHECK(ditgen_set(s, "attention", "window", &e) == 0);
    CHECK(ditgen_set(s, "window-taste", "6", &e) == 0);
    CHECK(ditgen_get(s, "attention", &text, &e) == 0);
    CHECK_STR(text, "window:taste=6");
    CHECK(ditgen_set(s, "window-tsate", "6", &e) < 0 && strstr(e.message, "'window-taste'"));
    for (int i = 0; ditgen_setting_at(i, &info) == 0; i++)
        listed += strcmp(info.name, "brand-new") == 0 || strcmp(info.name, "dense-taste") == 0 ||
                  strcmp(info.name, "window-taste") == 0;
    CHECK(listed == 3);
    ditgen_settings_close(s);
}

static int command(int (*verb)(int, char **, struct err *), const char *line, struct err *e)
{
    char copy[512], *argv[32] = {copy};
    int argc = 1;
    snprintf(copy, sizeof copy, "ditgen %s", line);
    strtok(copy, " ");
    for (char *w; argc < 31 && (w = strtok(NULL, " ")) != NULL;)
        argv[argc++] = w;
    memset(e, 0, sizeof *e);
    return verb(argc, argv, e);
}

static char *settings_of(const char *clip)
{
    struct clip c;
    struct err e = {0};
    CHECK_OK(clip_read(&c, clip, false, &e));
    char *text = c.settings ? strdup(c.settings) : NULL;
    clip_fini(&c);
    return text;
}

/* Flags and a profile, into the dump and the clip, and out of both again. */
static void in_files(void)
{
    static const char *const wanted[] = {"brand-new = 5\n", "new-words = \"a;b\"\n",
                                         "attention = \"window:taste=7\"\n"};
    struct err e;
    FILE *f = fopen("some.ini", "w");
    fputs("Very_New = 4\nnew-words = 'a;b'\nwindow-taste = 7\nattention = window\n", f);
    fclose(f);
    CHECK_OK(command(cmd_generate,
                     "x -q --size 32x32 --frames 1 --steps 1 -t 1 -s 1 --config some.ini -N5 "
                     "--dump-config used.ini -o a.y4m",
                     &e));
    CHECK_OK(command(cmd_generate, "x -q --config used.ini -o b.y4m", &e));
    CHECK_OK(command(cmd_rerun, "a.y4m -q -o c.y4m", &e));
    static const char *const clips[] = {"a.y4m", "b.y4m", "c.y4m"};
    for (size_t i = 0; i < ARRAY_LEN(clips); i++) {
        char *text = settings_of(clips[i]);
        for (size_t k = 0; k < ARRAY_LEN(wanted); k++)
            check_holds(clips[i], text, wanted[k]);
        free(text);
        unlink(clips[i]);
    }
    char dump[4096] = "";
    f = fopen("used.ini", "r");
    CHECK(f && fread(dump, 1, sizeof dump - 1, f) > 0);
    if (f) fclose(f);
    for (size_t k = 0; k < ARRAY_LEN(wanted); k++)
        check_holds("the dump", dump, wanted[k]);
    CHECK(command(cmd_generate, "x -q --config some.ini --very-new 0", &e) < 0 &&
          strstr(e.msg, "--brand-new is '0'"));
    CHECK(command(cmd_generate, "x -q --dense-taste 6", &e) < 0 && strstr(e.msg, "--dense-taste"));
    unlink("used.ini"), unlink("some.ini");
}

int main(void)
{
    struct ditgen_error e;
    char here[4096];
    CHECK(ditgen_open(&model, TEST_SOURCE_DIR "/assets/emoji", &e) == 0);
    CHECK(setting_count() == SET_COUNT + 2);
    in_help();
    in_library();
    if (mkdtemp(dir) && getcwd(here, sizeof here) && chdir(dir) == 0) {
        setenv("DITGEN_ASSETS", TEST_SOURCE_DIR "/assets", 1);
        in_files();
        CHECK(chdir(here) == 0 && rmdir(dir) == 0);
    }
    ditgen_close(model);
    return TEST_RESULT();
}
