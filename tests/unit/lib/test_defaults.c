/* What a model says of itself: ditgen.ini, the nearest published row; quoting; the handle. */
#include "app/lib/assets.h"
#include "app/lib/defaults.h"
#include "app/lib/ditgen.h"
#include "app/lib/ini.h"
#include "tests/check.h"

#include <unistd.h>

static void ini_files(void)
{
    static const struct {
        const char *text, *words; /* NULL: accepted */
    } rows[] = {
        {"[defaults]\nwidth = 256\nheight = 256\nfps = 16\nnegative_prompt =\n[turbo]\nsteps = 4\n",
         NULL},
        {"steps = 12 ; tail\r\n", NULL},
        {"\xef\xbb\xbfsteps = 12", NULL},
        {"", NULL},
        {"[defaults]\nwidht = 2\n", "f:2: unknown key 'widht', did you mean 'width'"},
        {"[default]\n steps = 2\n", "f:1: unknown section [default]"},
        {"[turbo]\nwidth = 64\n", "f:2: unknown key 'width'"},
        {"steps = 0\n", "f:1: steps is '0'"},
        {"steps 3\n", "f:1: wanted [section] or key = value"},
        {"= 3\n", "f:1: a key"},
        {"[a b]\n", "f:1: a section"},
        {"[defaults\n", "f:1: wanted [section]"},
        {"negative_prompt = \"x\n", "f:1: negative_prompt: the quote"},
        {"negative_prompt = \"x\" y\n", "after the closing quote"},
        {"negative_prompt = \\x00\n", "escape"},
        {"solver = heun\n", "f:1: solver is 'heun'"},
        {"flow_shift = 3, 5@5184, 7.5@20000\n[turbo]\nflow-shift=1,2@9\n", NULL},
        {"flow_shift = 3, 5@5184, 7@5184\n", "f:1: flow-shift is '3, 5@5184, 7@5184'"},
        {"flow_shift = 3@10, 5@20\n", "by size"},
        {"flow_shift = 3, 5\n", "f:1: flow-shift is"},
        {"flow_shift = 3, 5000@20\n", "by size"},
        {"flow_shift = 3, 5@\n", "by size"},
        {"steps = 30, 40.5@100\n", "by size"},
        {"width = 64, 128@100\n", "f:1: width is"},
        {"threads = 2\n", "f:1: unknown key 'threads'"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct defaults d = {0};
        struct err e = {0};
        int rc = defaults_parse(&d, rows[i].text, strlen(rows[i].text), "f", &e);
        CHECK_MSG(rows[i].words ? rc < 0 && e.code == ERR_INPUT && strstr(e.msg, rows[i].words)
                                : rc == 0,
                  "'%s' gave %d '%s'", rows[i].text, rc, e.msg);
        defaults_fini(&d);
    }
    struct defaults d = {0};
    struct err e = {0};
    CHECK(defaults_parse(&d, "a\0b", 3, "f", &e) < 0 && strstr(e.msg, "NUL"));
    defaults_fini(&d);
}

static struct model_info shaped(int heads, int head_dim, int layers)
{
    struct model_info m = {.dir = "/nonexistent"};
    m.dit = (struct dit_config){.n_heads = heads,
                                .head_dim = head_dim,
                                .n_layers = layers,
                                .in_channels = 16,
                                .out_channels = 16,
                                .patch_t = 1,
                                .patch_h = 2,
                                .patch_w = 2,
                                .rope_max_seq_len = 1024};
    m.vae.scale_spatial = 8, m.vae.scale_temporal = 4;
    return m;
}

static void nearest_rows(void)
{
    static const struct {
        int heads, head_dim, layers;
        const char *from;
    } rows[] = {
        {12, 128, 30, "Wan2.1 T2V-1.3B"},
        {40, 128, 40, "Wan2.1 T2V-14B"},
        {5, 64, 8, "Wan2.1 T2V-1.3B (nearest in shape)"},
        {36, 128, 40, "Wan2.1 T2V-14B (nearest in shape)"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct model_info m = shaped(rows[i].heads, rows[i].head_dim, rows[i].layers);
        const struct sched_config scheduler = {.solver = "unipc", .flow_shift = 3.25};
        struct defaults d;
        struct err e = {0};
        CHECK_OK(defaults_read(&d, &m, &scheduler, &e));
        CHECK_STR(d.from, rows[i].from);
        const struct ditgen_settings *s = d.always;
        CHECK(settings_int(s, SET_WIDTH) == 832 && settings_int(s, SET_HEIGHT) == 480);
        CHECK(settings_int(s, SET_FRAMES) == 81 && settings_real(s, SET_FPS) == 16);
        CHECK(settings_int(s, SET_STEPS) == 50 && settings_real(s, SET_GUIDANCE_SCALE) == 5);
        CHECK(settings_real(s, SET_FLOW_SHIFT) == 3.25);
        CHECK_STR(settings_text(s, SET_SOLVER), "unipc");
        CHECK_STR(settings_text(s, SET_NEGATIVE), "");
        CHECK(!d.has_turbo);
        defaults_fini(&d);
    }
}

static void last_of_path(void)
{
    char name[256];
    path_last(name, sizeof name, "a/b/c//");
    CHECK_STR(name, "c");
    path_last(name, sizeof name, "emoji");
    CHECK_STR(name, "emoji");
}

/* Quoting and reading back, at every buffer length. */
static int take(void *ctx, const char *section, const char *key, const char *value, struct err *e)
{
    (void)section, (void)e;
    if (key) strcpy(ctx, value);
    return 0;
}

static void quoting(void)
{
    const char *value = "a\\b\"c\"\n\t\x01 d ;#=";
    char quoted[128], line[160], back[128];
    struct err e = {0};
    int n = ini_quote(quoted, sizeof quoted, value);
    CHECK(n == (int)strlen(quoted));
    snprintf(line, sizeof line, "k = %s", quoted);
    CHECK_OK(ini_parse(line, strlen(line), "f", take, back, &e));
    CHECK_STR(back, value);
    for (size_t room = 0; room < (size_t)n + 2; room++) {
        char small[128];
        memset(small, 'z', sizeof small);
        CHECK(ini_quote(small, room, value) == n);
        CHECK(small[room] == 'z' && (room == 0 || strlen(small) < room));
    }
}

/* The handle of the public API on the embedded model. */
static void handle(void)
{
    struct ditgen *d = NULL;
    struct ditgen_error e = {0};
    int below, above;
    CHECK(ditgen_open(&d, "/nonexistent", &e) < 0 && e.code == DITGEN_INPUT && !d);
    CHECK(ditgen_open(&d, TEST_SOURCE_DIR "/assets/emoji", &e) == 0);
    if (!d) return;
    CHECK_STR(ditgen_defaults_from(d), "ditgen.ini");
    ditgen_width_near(d, 65, &below, &above);
    CHECK(below == 64 && above == 80);
    ditgen_height_near(d, 65, &below, &above);
    CHECK(below == 64 && above == 80);
    ditgen_frames_near(d, 6, &below, &above);
    CHECK(below == 5 && above == 9);
    ditgen_close(d);
}

int main(void)
{
    ini_files();
    nearest_rows();
    last_of_path();
    quoting();
    handle();
    return TEST_RESULT();
}
