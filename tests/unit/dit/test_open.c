/* Checkpoints that are not what the config says, runs that the model cannot do, and adapters. */
#include "tests/unit/dit/fixture.h"

static char dir[256];

static void write_list(const struct tiny_tensor *t, int n)
{
    char path[300];
    snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors", dir);
    tiny_write(path, t, n);
}

static void check_refused(const char *what, const char *word)
{
    struct dit *d = NULL;
    struct err e = {0};
    CHECK_MSG(dit_open(&d, dir, PRECISION_FP32, NULL, &e) == -1 && !d, "%s: opened", what);
    CHECK_MSG(e.code == ERR_INPUT && strstr(e.msg, word), "%s: \"%s\" does not name %s", what,
              e.msg, word);
    dit_close(d);
}

static void check_tensors(void)
{
    struct tiny_tensor *t;
    struct dit *d = NULL;
    struct err e;
    char list[1024];
    data_path(list, sizeof list, "i2v", ".txt");
    int n = tiny_read_list(&t, list);
    t = realloc(t, (size_t)(n + 1) * sizeof *t);
    for (int i = 0; i < n; i++) { /* each in turn: missing, then misshapen */
        struct tiny_tensor keep = t[i];
        t[i] = t[n - 1];
        write_list(t, n - 1);
        t[i] = keep;
        if (i != n - 1) check_refused("missing", keep.name);
        t[i].shape[t[i].n_dims - 1]++;
        write_list(t, n);
        check_refused("misshapen", keep.name);
        t[i] = keep;
    }
    t[n] = (struct tiny_tensor){"blocks.0.attn1.to_extra.weight", 1, {4}, 1, 0};
    write_list(t, n + 1);
    check_refused("surplus", "to_extra");
    t[n] = (struct tiny_tensor){"blocks.1.attn2.norm_added_q.weight", 1, {32}, 1, 0};
    write_list(t, n + 1); /* the reference ignores this one */
    CHECK_OK(dit_open(&d, dir, PRECISION_FP32, NULL, &e));
    dit_close(d);
    free(t);
}

static void check_runs(void)
{
    struct clip good = {2, 4, 6, 7, 850, 17, NULL, false, 0};
    struct dit *d = open_tiny("i2v", PRECISION_FP32);
    struct attn_params attn = cpu_attention(PRECISION_FP32);
    struct dit_run_params p = run_params(&good, &attn), bad[7];
    struct err e;
    if (!d) return;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        bad[i] = p;
    bad[0].grid.height = 5;
    bad[1].grid.width = 0;
    bad[2].grid.height = 66; /* 33 patches, positions for 32 */
    bad[3].image_rows = 0;
    bad[4].max_text_rows = TEXT_LEN + 1;
    bad[5].n_branches = 0;
    bad[6].grid.frames = -1;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        e = (struct err){0};
        CHECK_MSG(dit_prepare(d, &bad[i], &e) == -1 && e.code == ERR_USAGE, "run %zu", i);
        CHECK(dit_bytes(dit_config_of(d), PRECISION_FP32, &bad[i]) == SIZE_MAX);
    }
    CHECK_OK(dit_prepare(d, &p, &e));
    dit_close(d);
    d = open_tiny("flf", PRECISION_FP32);
    if (d) CHECK(dit_prepare(d, &p, &e) == -1 && e.code == ERR_USAGE); /* 17 rows, wants 34 */
    dit_close(d);
}

static void check_lora(void)
{
    struct golden g = golden_open("dit_golden.safetensors");
    struct clip c = {3, 6, 10, 5, 999, 0, NULL, false, 0};
    struct dit *d = NULL;
    struct err e;
    char path[1024], bad[300];
    size_t n;
    const float *want = golden_f32(&g, "lora.velocity", &n),
                *plain = golden_f32(&g, "t2v.velocity", &n);
    write_tiny(dir, "t2v");
    data_path(path, sizeof path, "lora", ".safetensors");
    CHECK_OK(dit_open_lora(&d, dir, path, 0.75, PRECISION_FP32, NULL, &e));
    if (d) {
        float *got = velocity_of(d, &c);
        CHECK(rel_l2(want, plain, n) > 1e-2);
        check_close("adapter", got, want, n, 1e-5);
        free(got);
    }
    dit_close(d);
    CHECK_OK(
        dit_open_lora(&d, dir, path, 0, PRECISION_FP32, NULL, &e)); /* strength 0 changes nothing */
    if (d) {
        float *got = velocity_of(d, &c);
        check_close("adapter of strength 0", got, plain, n, 1e-5);
        free(got);
    }
    dit_close(d);
    snprintf(bad, sizeof bad, "%s/lora.safetensors", dir);
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
    };
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        e = (struct err){0};
        tiny_write(bad, wrong[i].t, 2);
        CHECK(dit_open_lora(&d, dir, bad, 1, PRECISION_FP32, NULL, &e) == -1 &&
              e.code == ERR_INPUT);
        CHECK_MSG(strstr(e.msg, wrong[i].word), "\"%s\" does not name %s", e.msg, wrong[i].word);
        dit_close(d);
    }
    CHECK(dit_open_lora(&d, dir, bad, NAN, PRECISION_FP32, NULL, &e) == -1 && e.code == ERR_USAGE);
    golden_close(&g);
}

int main(void)
{
    tiny_temp(dir);
    write_tiny(dir, "i2v");
    check_tensors();
    check_runs();
    check_lora();
    tiny_remove(dir);
    return TEST_RESULT();
}
