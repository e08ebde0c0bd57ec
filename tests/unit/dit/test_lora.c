/* Adapters: the reference's merge as a whole, the arithmetic and dtype of one merge, and refusals.
 */
#include "tests/unit/dit/fixture.h"

#include "model/dit/lora.h"

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

int main(void)
{
    tiny_temp(dir);
    write_tiny(dir, "t2v");
    check_velocity();
    check_arithmetic();
    check_refused();
    tiny_remove(dir);
    return TEST_RESULT();
}
