/* Checkpoints that are not what the config says, runs that the model cannot do. */
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
        if (strncmp(t[i].name, "blocks.0.", 9) == 0) continue; /* as those of the last block */
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
    struct dit_run_params p = run_params(&good, &attn), bad[8];
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
    bad[7].text_len = 256; /* the reference hard-codes 512 for image models */
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        e = (struct err){0};
        CHECK_MSG(dit_prepare(d, &bad[i], &e) == -1 && e.code == ERR_USAGE, "run %zu", i);
        size_t bytes;
        char why[sizeof e.msg];
        snprintf(why, sizeof why, "%s", e.msg);
        CHECK(dit_bytes(&bytes, dit_config_of(d), PRECISION_FP32, &bad[i], &e) == -1);
        CHECK_STR(e.msg, why);
    }
    CHECK_OK(dit_prepare(d, &p, &e));
    dit_close(d);
    d = open_tiny("flf", PRECISION_FP32);
    if (d) CHECK(dit_prepare(d, &p, &e) == -1 && e.code == ERR_USAGE); /* 17 rows, wants 34 */
    dit_close(d);
}

int main(void)
{
    tiny_temp(dir);
    write_tiny(dir, "i2v");
    check_tensors();
    check_runs();
    tiny_remove(dir);
    return TEST_RESULT();
}
