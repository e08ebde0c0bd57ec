/* Folders of the hub's cache given at their upper level; what a pipeline says of its tokenizer. */
#include "model/model.h"
#include "tests/check.h"
#include "tests/golden/tiny.h"

#define MODEL TEST_SOURCE_DIR "/assets/emoji"

static char dir[256];

/* dir/snapshots/NAME → the embedded model, by links as the hub makes them. */
static void snapshot(const char *name)
{
    char path[600], from[1200], to[900];
    static const char *const parts[] = {"model_index.json", "text_encoder", "transformer", "vae",
                                        "scheduler",        "tokenizer"};
    snprintf(path, sizeof path, "%s/snapshots", dir);
    mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/snapshots/%s", dir, name);
    CHECK(mkdir(path, 0777) == 0);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        snprintf(from, sizeof from, "%s/%s", MODEL, parts[i]);
        snprintf(to, sizeof to, "%s/%s", path, parts[i]);
        CHECK(symlink(from, to) == 0);
    }
}

static void taken(const char *name)
{
    static struct model_info m;
    struct err e = {0};
    char want[600];
    snprintf(want, sizeof want, "%s/snapshots/%s", dir, name);
    CHECK_OK(model_info_read(&m, dir, &e));
    CHECK_STR(m.dir, want);
    CHECK(m.weight_bytes[0] && m.weight_bytes[1] && m.weight_bytes[2]);
}

/* Memory that cannot be counted or had is an error, and never a small number. */
static void check_plan(struct model_info *m)
{
    struct err e = {0};
    size_t few[3], many[3];
    struct model_params p = {
        .threads = 1, .collapse_pads = true, .attn = {.method = "dense", .threads = 1}};
    struct model_clip c = {.width = 64, .height = 64, .frames = 5, .num_steps = 2, .guided = true};
    cpu_detect(&p.attn.cpu);
    CHECK_OK(model_plan_bytes(m, &p, &c, 4, few, &e));
    CHECK_OK(model_plan_bytes(m, &p, &c, 512, many, &e));
    CHECK(many[0] > few[0] && many[1] > few[1] && many[2] == few[2]);
    struct model_info big = *m;
    big.dit.n_layers = 4000;
    big.dit.n_heads = 256;
    big.dit.head_dim = 256;
    big.dit.ffn_dim = 1000;
    int rc = model_plan_bytes(&big, &p, &c, 512, many, &e);
    CHECK_MSG(rc < 0 && e.code == ERR_RESOURCE && strstr(e.msg, "denoising"), "%d: %zu bytes, %s",
              rc, many[1], e.msg);
}

int main(void)
{
    static struct model_info m;
    struct err e = {0};
    char path[600], file[600];
    CHECK_OK(model_info_read(&m, MODEL, &e));
    CHECK_STR(m.dir, MODEL);
    CHECK(m.tokenizer_class[0]);
    check_plan(&m);

    tiny_temp(dir);
    CHECK(model_info_read(&m, dir, &e) < 0 && e.code == ERR_INPUT &&
          strstr(e.msg, "model_index.json"));
    snapshot("0a1b2c");
    taken("0a1b2c");
    snprintf(path, sizeof path, "%s/snapshots/.lock", dir);
    CHECK(mkdir(path, 0777) == 0);
    snprintf(path, sizeof path, "%s/snapshots/partial", dir);
    CHECK(mkdir(path, 0777) == 0);
    taken("0a1b2c");
    snapshot("ffee00");
    CHECK(model_info_read(&m, dir, &e) < 0 && e.code == ERR_INPUT && strstr(e.msg, "0a1b2c") &&
          strstr(e.msg, "ffee00"));
    snprintf(path, sizeof path, "%s/refs", dir);
    CHECK(mkdir(path, 0777) == 0);
    snprintf(file, sizeof file, "%s/refs/main", dir);
    tiny_write_text(file, "ffee00\n");
    taken("ffee00");
    tiny_write_text(file, "0a1b2c");
    taken("0a1b2c");
    tiny_write_text(file, "gone");
    CHECK(model_info_read(&m, dir, &e) < 0 && e.code == ERR_INPUT);
    char from[1200];
    snprintf(path, sizeof path, "%s/snapshots/0a1b2c/transformer_turbo", dir);
    snprintf(from, sizeof from, "%s/transformer", MODEL);
    CHECK(symlink(from, path) == 0);
    tiny_write_text(file, "0a1b2c");
    CHECK_OK(model_info_read(&m, dir, &e));
    CHECK(m.has_turbo && m.turbo_whole);
    CHECK(unlink(path) == 0 && mkdir(path, 0777) == 0);
    strcat(path, "/config.json");
    tiny_write_text(path, "{\"_class_name\": \"WanTransformer3DModel\", \"num_layers\": 3}");
    CHECK(model_info_read(&m, dir, &e) < 0 && e.code == ERR_INPUT &&
          strstr(e.msg, "transformer_turbo/config.json"));
    CHECK_OK(model_info_read(&m, MODEL, &e));
    CHECK(m.has_turbo && !m.turbo_whole);
    tiny_remove(dir);
    return TEST_RESULT();
}
