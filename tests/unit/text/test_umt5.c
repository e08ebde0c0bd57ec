/* UMT5 encoder against transformers (tests/golden/make_text.py): a tiny random one drawn by name,
 * and the embedded model's; fp32, bf16 rules, bad folders. */
#include "model/text/text.h"

#include "model/ops/linear.h"
#include "model/text/umt5.h"
#include "model/base/threads.h"
#include "text_test.h"
#include "tests/golden/golden.h"
#include "tests/golden/tiny.h"

#define FP32_TOL 1e-5
/* bf16 is judged by the reference's own distance between its bf16 and its fp32: ours may be as far
 * from either as independent roundings of the same size would be, sqrt(2), and a little. */
#define BF16_SPREAD 1.5

/* rel-L2 of the reference's bf16 output i from its fp32 one */
static double spread(const struct golden *g, int i)
{
    char name[32];
    size_t n;
    snprintf(name, sizeof name, "bf16.%d", i);
    const float *half = golden_f32(g, name, &n);
    snprintf(name, sizeof name, "fp32.%d", i);
    return rel_l2(half, golden_f32(g, name, &n), n);
}

static void compare(struct umt5 *u, const struct golden *g, const char *kind, int i, double tol)
{
    char name[32], what[64];
    size_t n, total;
    struct err e = {0};
    snprintf(name, sizeof name, "ids.%d", i);
    const int32_t *ids = golden_i32(g, name, &n);
    snprintf(name, sizeof name, "%s.%d", kind, i);
    const float *want = golden_f32(g, name, &total);
    CHECK(n > 0 && total % n == 0);
    float *got = malloc(total * sizeof *got);
    if (!got) abort();
    CHECK_OK(umt5_encode(u, got, ids, (int)n, NULL, NULL, &e));
    snprintf(what, sizeof what, "%s, %zu tokens", name, n);
    check_close(what, got, want, total, tol);
    printf("%s: relative L2 %.2g\n", what, rel_l2(got, want, total));
    free(got);
}

static void tiny_folder(char dir[256], char file[400])
{
    char list[1024], from[1024], config[400];
    tiny_temp(dir);
    snprintf(file, 400, "%s/model.safetensors", dir);
    snprintf(list, sizeof list, "%s/tests/golden/data/text_umt5_tiny.txt", TEST_SOURCE_DIR);
    tiny_write_list(file, list);
    snprintf(from, sizeof from, "%s/tests/golden/data/text_umt5_tiny.json", TEST_SOURCE_DIR);
    snprintf(config, sizeof config, "%s/config.json", dir);
    FILE *f = fopen(from, "rb");
    char text[8192];
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (!n) abort();
    fclose(f);
    text[n] = 0;
    tiny_write_text(config, text);
}

static void tiny_model(const char *dir, enum precision p, const char *kind)
{
    struct umt5 *u;
    struct err e = {0};
    struct golden g = golden_open("text_umt5_tiny.safetensors");
    CHECK_OK(umt5_open(&u, NULL, dir, p, NULL, &e));
    for (int i = 0; u && i < 3; i++)
        compare(u, &g, kind, i, p == PRECISION_FP32 ? FP32_TOL : BF16_SPREAD * spread(&g, i));
    umt5_close(u);
    golden_close(&g);
}

static int stop(void *ctx, int layer, int n_layers)
{
    *(int *)ctx += 1;
    return layer + 1 == n_layers;
}

static void calls(const char *dir)
{
    struct umt5 *u;
    struct err e = {0};
    float out[4 * 32], again[4 * 32];
    int seen = 0;
    CHECK_OK(umt5_open(&u, NULL, dir, PRECISION_FP32, NULL, &e));
    CHECK(umt5_encode(u, out, (int[]){1, 600}, 2, NULL, NULL, &e) < 0 && e.code == ERR_INPUT);
    CHECK(umt5_encode(u, out, (int[]){-1}, 1, NULL, NULL, &e) < 0 && e.code == ERR_INPUT);
    CHECK(umt5_encode(u, out, (int[]){1}, 0, NULL, NULL, &e) < 0);
    CHECK(umt5_encode(u, out, (int[]){1, 2}, 2, stop, &seen, &e) < 0 && e.code == ERR_CANCELLED &&
          seen == 2);
    /* the same bytes whatever the number of threads */
    CHECK_OK(umt5_encode(u, out, (int[]){5, 6, 7, 1}, 4, NULL, NULL, &e));
    int threads = threads_count();
    threads_set(3);
    CHECK_OK(umt5_encode(u, again, (int[]){5, 6, 7, 1}, 4, NULL, NULL, &e));
    threads_set(threads);
    CHECK(memcmp(out, again, sizeof out) == 0);
    umt5_close(u);
}

/* wan.md 2.2: the table of buckets of 32 up to 128 */
static void buckets(void)
{
    static const int first[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91, 4000};
    for (int b = 0; b < 16; b++) {
        CHECK(umt5_bucket(-first[b], 32, 128) == b);
        if (b) CHECK(umt5_bucket(-(first[b] - 1), 32, 128) == b - 1);
        if (b) CHECK(umt5_bucket(first[b], 32, 128) == 16 + b);
    }
    CHECK(umt5_bucket(-first[16], 32, 128) == 15);
}

/* A config with one value replaced must be refused, naming the key. */
static void bad_config(const char *dir, const char *key, const char *value, const char *says)
{
    char path[400], text[1024];
    struct umt5_config c;
    struct err e = {0};
    const struct {
        const char *key, *value;
    } rows[] = {
        {"model_type", "\"umt5\""},
        {"architectures", "[\"UMT5EncoderModel\"]"},
        {"d_model", "32"},
        {"d_ff", "64"},
        {"d_kv", "12"},
        {"num_heads", "4"},
        {"num_layers", "2"},
        {"vocab_size", "600"},
        {"feed_forward_proj", "\"gated-gelu\""},
        {"layer_norm_epsilon", "1e-6"},
        {"relative_attention_num_buckets", "32"},
        {"relative_attention_max_distance", "128"},
    };
    size_t at = 0;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s\"%s\": %s", i ? ", " : "{",
                               rows[i].key,
                               key && strcmp(rows[i].key, key) == 0 ? value : rows[i].value);
    snprintf(text + at, sizeof text - at, "}");
    snprintf(path, sizeof path, "%s/changed.json", dir);
    tiny_write_text(path, text);
    int status = umt5_config_read(&c, path, &e);
    if (!key)
        CHECK_MSG(status == 0, "%s", e.msg);
    else
        CHECK_MSG(status < 0 && e.code == ERR_INPUT && strstr(e.msg, says), "%s = %s: \"%s\"", key,
                  value, status < 0 ? e.msg : "accepted");
}

static void bad_configs(const char *dir)
{
    bad_config(dir, NULL, NULL, NULL);
    bad_config(dir, "model_type", "\"t5\"", "umt5");
    bad_config(dir, "architectures", "[\"T5EncoderModel\"]", "UMT5EncoderModel");
    bad_config(dir, "d_model", "0", "d_model");
    bad_config(dir, "d_model", "-5", "d_model");
    bad_config(dir, "d_model", "1e18", "d_model");
    bad_config(dir, "d_model", "\"big\"", "d_model");
    bad_config(dir, "num_layers", "2147483647", "num_layers");
    bad_config(dir, "vocab_size", "99999999999", "vocab_size");
    bad_config(dir, "num_heads", "4096", "wider");
    bad_config(dir, "relative_attention_num_buckets", "3", "buckets");
    bad_config(dir, "relative_attention_max_distance", "8", "distance");
    bad_config(dir, "layer_norm_epsilon", "-1", "layer_norm_epsilon");
    bad_config(dir, "feed_forward_proj", "\"relu\"", "feed_forward_proj");
}

static void bad_folder(const char *dir, const char *file)
{
    struct umt5 *u = NULL;
    struct err e = {0};
    char config[400];
    CHECK(umt5_open(&u, NULL, "/nonexistent", PRECISION_FP32, NULL, &e) < 0 &&
          e.code == ERR_INPUT && !u);
    snprintf(config, sizeof config, "%s/config.json", dir);
    tiny_write_text(config, "{\"model_type\": \"umt5\", \"d_model\": 48}");
    CHECK(umt5_open(&u, NULL, dir, PRECISION_FP32, NULL, &e) < 0 && e.code == ERR_INPUT && !u);
    CHECK_MSG(strstr(e.msg, "wants"), "%s", e.msg); /* shape seen and wanted */
    if (truncate(file, 100) != 0) abort();
    CHECK(umt5_open(&u, NULL, dir, PRECISION_FP32, NULL, &e) < 0 && e.code == ERR_INPUT && !u);
    if (remove(file) != 0) abort();
    CHECK(umt5_open(&u, NULL, dir, PRECISION_FP32, NULL, &e) < 0 && e.code == ERR_INPUT && !u);
}

/* What converters put beside the encoder's own tensors, and what nobody may put there. */
static void companions(void)
{
    char dir[256], file[400], list[400], from[1024], text[8192];
    struct umt5 *u;
    struct err e = {0};
    tiny_folder(dir, file);
    snprintf(from, sizeof from, "%s/tests/golden/data/text_umt5_tiny.txt", TEST_SOURCE_DIR);
    snprintf(list, sizeof list, "%s/list.txt", dir);
    FILE *f = fopen(from, "rb");
    size_t n = f ? fread(text, 1, sizeof text - 100, f) : 0;
    if (!n) abort();
    fclose(f);
    strcpy(text + n, "spiece_model 3737\nscaled_fp8 2\nlm_head.weight 4 4\n");
    tiny_write_text(list, text);
    tiny_write_list(file, list);
    CHECK_OK(umt5_open(&u, NULL, dir, PRECISION_FP32, NULL, &e));
    umt5_close(u);
    strcpy(text + n, "encoder.block.0.layer.0.SelfAttention.q.scale_weight 1\n");
    tiny_write_text(list, text);
    tiny_write_list(file, list);
    CHECK(umt5_open(&u, NULL, dir, PRECISION_FP32, NULL, &e) < 0 && e.code == ERR_INPUT && !u &&
          strstr(e.msg, "scale_weight"));
    tiny_remove(dir);
}

/* Peak memory of umt5-xxl beyond the map stays under 2 GB, by the same code that carves it. */
static void sizes(void)
{
    struct umt5_config xxl = {256384, 4096, 10240, 64, 64, 24, 32, 128, 1e-6};
    size_t fp32 = umt5_bytes(&xxl, NULL, PRECISION_FP32, 512),
           bf16 = umt5_bytes(&xxl, NULL, PRECISION_BF16, 512);
    printf("umt5-xxl at 512 tokens: %.0f MB in fp32, %.0f MB in bf16\n", (double)fp32 / 1e6,
           (double)bf16 / 1e6);
    CHECK(fp32 < 2000000000u && bf16 < fp32);
}

static void embedded(enum precision p)
{
    char dir[1024];
    struct umt5 *u;
    struct err e = {0};
    struct golden g = golden_open("text_umt5_emoji.safetensors");
    snprintf(dir, sizeof dir, "%s/assets/emoji/text_encoder", TEST_SOURCE_DIR);
    CHECK_OK(umt5_open(&u, NULL, dir, p, NULL, &e));
    for (int i = 0; u && i < 4; i++) {
        double tol = p == PRECISION_FP32 ? FP32_TOL : BF16_SPREAD * spread(&g, i);
        compare(u, &g, "fp32", i, tol);
        if (p != PRECISION_FP32) compare(u, &g, "bf16", i, tol);
    }
    umt5_close(u);
    golden_close(&g);
}

int main(void)
{
    char dir[256], file[400];
    tiny_folder(dir, file);
    buckets();
    tiny_model(dir, PRECISION_FP32, "fp32");
    tiny_model(dir, PRECISION_BF16_EMULATED, "bf16");
    tiny_model(dir, PRECISION_BF16_EMULATED, "fp32");
    if (ops_has_bf16()) tiny_model(dir, PRECISION_BF16, "bf16");
    calls(dir);
    bad_configs(dir);
    bad_folder(dir, file);
    companions();
    sizes();
    embedded(PRECISION_FP32);
    embedded(PRECISION_BF16_EMULATED);
    if (ops_has_bf16()) embedded(PRECISION_BF16);
    tiny_remove(dir);
    return TEST_RESULT();
}
