/* Adapters: the reference's merge as a whole, the arithmetic and dtype of one merge, and refusals.
 */
#include "tests/unit/dit/fixture.h"

#include "model/dit/lora.h"
#include "model/dit/lora_meta.h"

static char dir[256];

#define STRENGTH 0.75 /* of make_dit.py */

static void check_velocity(void)
{
    struct golden g = golden_open("dit_golden.safetensors");
    struct clip c = {3, 6, 10, 5, 999, 0, NULL, false, 0};
    struct dit *d = NULL;
    struct err e;
    char path[1024];
    size_t n;
    const float *want = golden_f32(&g, "lora.velocity", &n),
                *plain = golden_f32(&g, "t2v.velocity", &n);
    data_path(path, sizeof path, "lora", ".safetensors");
    CHECK_OK(dit_open_lora(&d, dir, path, STRENGTH, PRECISION_FP32, NULL, &e));
    if (d) {
        float *got = velocity_of(d, &c);
        CHECK(rel_l2(want, plain, n) > 1e-2); /* it matters */
        check_close("adapter", got, want, n, 1e-5);
        free(got);
    }
    dit_close(d);
    d = NULL;
    CHECK_OK(dit_open_lora(&d, dir, path, 0, PRECISION_FP32, NULL, &e));
    if (d) {
        float *got = velocity_of(d, &c);
        check_close("adapter of strength 0", got, plain, n, 1e-5);
        free(got);
    }
    dit_close(d);
    golden_close(&g);
}

/* W [3, 4] + 2 * B [3, 1] A [1, 4], each dtype that W may have; the sum is fp32. */
static void check_arithmetic(void)
{
    char path[300];
    float a[4], b[3], w[12];
    uint16_t half[12];
    struct tiny_tensor t[2] = {{"transformer.m.lora_A.weight", 2, {1, 4}, 1, 0},
                               {"transformer.m.lora_B.weight", 2, {3, 1}, 1, 0}};
    static const enum dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
    snprintf(path, sizeof path, "%s/lora.safetensors", dir);
    tiny_write(path, t, 2);
    tiny_fill(a, 4, t[0].name, 1, 0);
    tiny_fill(b, 3, t[1].name, 1, 0);
    for (int i = 0; i < 12; i++)
        half[i] = (uint16_t)(i % 2 ? 0x0001 + 700 * i : 0xb000 + 300 * i);
    half[3] = 0x0003; /* below the normal numbers of F16 */
    for (size_t k = 0; k < ARRAY_LEN(types); k++) {
        struct tensor weight = {half, types[k], 2, {3, 4}}, bias = {0};
        struct lora *l;
        struct err e;
        if (types[k] == DTYPE_F32) {
            tiny_fill(w, 12, "w", 1, 0);
            weight.data = w;
        } else {
            dtype_to_f32(w, half, types[k], 12);
        }
        CHECK_OK(lora_open(&l, path, 2, &e));
        CHECK_OK(lora_merge(l, "other", &weight, &bias, &e));
        CHECK(lora_modules(l) == 0 && lora_all_used(l, &e) == -1);
        CHECK_OK(lora_merge(l, "m", &weight, &bias, &e));
        CHECK_OK(lora_all_used(l, &e));
        CHECK(lora_modules(l) == 1 && weight.dtype == DTYPE_F32 && weight.data != w);
        const float *got = weight.data;
        for (int i = 0; i < 12; i++) {
            float want = w[i] + 2 * b[i / 4] * a[i % 4];
            CHECK_MSG(got[i] == want, "%s %d: %.9g, wanted %.9g", dtype_name(types[k]), i,
                      (double)got[i], (double)want);
        }
        lora_close(l);
    }
}

#define KEY(module, half) "transformer." module ".lora_" half ".weight"
static const struct {
    struct tiny_tensor t[2];
    const char *word;
} wrong[] = {
    {{{KEY("blocks.0.attn1.to_q", "A"), 2, {2, 32}, 1, 0},
      {KEY("blocks.9.attn1.to_q", "B"), 2, {32, 2}, 1, 0}},
     "lora_B"},
    {{{KEY("blocks.9.attn1.to_q", "A"), 2, {2, 32}, 1, 0},
      {KEY("blocks.9.attn1.to_q", "B"), 2, {32, 2}, 1, 0}},
     "blocks.9.attn1.to_q"},
    {{{KEY("blocks.0.attn1.to_q", "A"), 2, {2, 48}, 1, 0},
      {KEY("blocks.0.attn1.to_q", "B"), 2, {32, 2}, 1, 0}},
     "blocks.0.attn1.to_q"},
    {{{KEY("blocks.0.attn1.to_q", "A"), 2, {2, 32}, 1, 0},
      {KEY("blocks.0.attn1.to_q", "B"), 2, {32, 3}, 1, 0}},
     "blocks.0.attn1.to_q"},
    {{{KEY("blocks.0.attn1.to_q", "A"), 0, {0}, 1, 0},
      {KEY("blocks.0.attn1.to_q", "B"), 0, {0}, 1, 0}},
     "blocks.0.attn1.to_q"},
    {{{KEY("blocks.0.attn1.to_q", "A"), 2, {0, 32}, 1, 0},
      {KEY("blocks.0.attn1.to_q", "B"), 2, {32, 0}, 1, 0}},
     "blocks.0.attn1.to_q"},
    {{{"lora_unet_blocks_0_self_attn_q.lora_down.weight", 2, {2, 32}, 1, 0},
      {"lora_unet_blocks_0_self_attn_q.lora_up.weight", 2, {32, 2}, 1, 0}},
     "lora_unet_blocks_0_self_attn_q"},
};

static void check_refused(void)
{
    char path[300];
    struct dit *d = NULL;
    struct err e;
    snprintf(path, sizeof path, "%s/lora.safetensors", dir);
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        e = (struct err){0};
        tiny_write(path, wrong[i].t, 2);
        CHECK(dit_open_lora(&d, dir, path, 1, PRECISION_FP32, NULL, &e) == -1 && !d);
        CHECK_MSG(e.code == ERR_INPUT && strstr(e.msg, wrong[i].word), "\"%s\" does not name %s",
                  e.msg, wrong[i].word);
    }
    CHECK(dit_open_lora(&d, dir, path, NAN, PRECISION_FP32, NULL, &e) == -1);
    CHECK(e.code == ERR_USAGE);
    remove(path);
    CHECK(dit_open_lora(&d, dir, path, 1, PRECISION_FP32, NULL, &e) == -1 && e.code == ERR_INPUT);
}

/* ---- metadata ---- */

static void meta_refused(const char *text, const char *says)
{
    struct lora_meta *m;
    struct err e = {0};
    double scale;
    int r = lora_meta_open(&m, text, "x.safetensors", &e);
    if (r == 0) r = lora_meta_scale(m, "blocks.0.attn1.to_q", 2, &scale, &e);
    CHECK_MSG(r < 0 && e.code == ERR_INPUT && strstr(e.msg, says), "%s: \"%s\", wanted \"%s\"",
              text, r < 0 ? e.msg : "accepted", says);
    lora_meta_close(m);
}

/* alpha of a module of rank 2, as peft finds it */
static void meta_alpha(const char *pattern, const char *module, double want)
{
    struct lora_meta *m;
    struct err e = {0};
    char text[600];
    double scale = 0;
    snprintf(text, sizeof text,
             "{\"transformer.r\": 2, \"transformer.lora_alpha\": 4, \"transformer.alpha_pattern\": "
             "{%s}}",
             pattern);
    CHECK_OK(lora_meta_open(&m, text, "x.safetensors", &e));
    if (m) CHECK_OK(lora_meta_scale(m, module, 2, &scale, &e));
    CHECK_MSG(scale * 2 == want, "%s of %s: %g, wanted %g", pattern, module, scale * 2, want);
    lora_meta_close(m);
}

#define T "\"transformer."
static void check_metadata(void)
{
    static const char q[] = "blocks.0.attn1.to_q", out[] = "blocks.11.attn2.to_out.0";
    meta_alpha("\"to_q\": 9", q, 9);
    meta_alpha("\"to_q\": 9", out, 4);
    meta_alpha("\"o_q\": 9", q, 4); /* not after a dot */
    meta_alpha("\"blocks.0.attn1.to_q\": 9", q, 9);
    meta_alpha("\"attn.\": 9", q, 4);
    meta_alpha("\"attn..to_q\": 9", q, 9); /* a dot is any character */
    meta_alpha("\"^to_q\": 9, \"to_q$\": 8", q, 8);
    meta_alpha("\"^blocks\\\\.0\\\\..*\": 9", q, 9);
    meta_alpha("\"^blocks\\\\.0\\\\..*\": 9", out, 4);
    meta_alpha("\"blocks\\\\.(?:[0-9]|1[01])\\\\.attn2\\\\.to_(q|k|v|out\\\\.0)\": 9", out, 9);
    meta_alpha("\"\\\\d{2,}\\\\.attn\\\\d\\\\.\\\\w+\\\\.0\": 9", out, 9);
    meta_alpha("\"\\\\d{2,}\\\\.attn\\\\d\\\\.\\\\w+\": 9", q, 4);
    meta_alpha("\"[^.]+\": 9", q, 9);
    meta_alpha("\".*attn1.*?to_[a-q]\": 9, \"to_q\": 7", q, 9); /* the first that matches */
    meta_alpha("\"(a*)*(b|c*)+to_q\": 9", q, 9);
    meta_alpha("\"(x|)to_q|nothing\": 9", q, 9);

    meta_refused("[]", "not a JSON object");
    meta_refused("{", "not valid JSON");
    meta_refused("{\"text_encoder.r\": 2}", "nothing of the transformer");
    meta_refused("{" T "r\": 4}", "rank 4, its tensors have 2");
    meta_refused("{" T "lora_alpha\": 2}", "rank 8, its tensors have 2"); /* peft's default */
    meta_refused("{" T "r\": 4, " T "rank_pattern\": {\"to_q\": 3}}", "rank 3");
    meta_refused("{" T "r\": 2, " T "lora_alpha\": NaN}", "lora_alpha");
    meta_refused("{" T "r\": 2, " T "lora_alpha\": \"x\"}", "lora_alpha");
    meta_refused("{" T "r\": 2, " T "use_rslora\": 1}", "use_rslora");
    meta_refused("{" T "r\": 2, " T "use_dora\": true}", "use_dora");
    meta_refused("{" T "r\": 2, " T "bias\": \"all\"}", "bias all");
    meta_refused("{" T "r\": 2, " T "init_lora_weights\": \"pissa\"}", "pissa");
    meta_refused("{" T "r\": 2, " T "modules_to_save\": [\"x\"]}", "modules_to_save");
    meta_refused("{" T "r\": 2, " T "fan_in_fan_out\": true}", "fan_in_fan_out");
    meta_refused("{" T "r\": 2, " T "something_new\": {\"a\": 1}}", "something_new");
    meta_refused("{" T "r\": 2, " T "alpha_pattern\": []}", "alpha_pattern");
    meta_refused("{" T "r\": 2, " T "alpha_pattern\": {\"to_q\": null}}", "to_q");
    static const char *const patterns[] = {
        "(?=x)to_q", "(?P<a>to_q)", "\\\\bto_q",   "(to_q",
        "to_q)",     "[to_q",       "*",           "to_q**",
        "a{3,2}",    "\\\\1",       "t\\u00f6+_q", "((((((((((((((((((((((((((((((((((((((((((("};
    for (size_t i = 0; i < ARRAY_LEN(patterns); i++) {
        char text[300];
        snprintf(text, sizeof text, "{" T "r\": 2, " T "alpha_pattern\": {\"%s\": 1}}",
                 patterns[i]);
        meta_refused(text, "pattern");
    }
    /* ways that a search going back would try one after the other */
    meta_alpha("\"(b*o*)*(b|o|l|c)*x\": 9, \"(.*.*.*.*.*.*.*.*.*.*)*z\": 8", q, 4);
}

int main(void)
{
    check_metadata();
    tiny_temp(dir);
    write_tiny(dir, "t2v");
    check_velocity();
    check_arithmetic();
    check_refused();
    tiny_remove(dir);
    return TEST_RESULT();
}
