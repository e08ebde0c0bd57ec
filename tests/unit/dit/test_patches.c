/* Patches that are not square: the grids that the plan takes run, and give other velocities than the
 * same model's with sides exchanged. */
#include "tests/unit/dit/fixture.h"

/* The tiny text-to-video transformer with patches of 1 x h x w. */
static struct dit *open_patches(int h, int w)
{
    char dir[256], path[1024], *text, *end, *config;
    size_t len;
    struct err e = {0};
    struct dit *d = NULL;
    tiny_temp(dir);
    data_path(path, sizeof path, "t2v", ".json");
    CHECK_OK(file_read(&text, &len, path, 1 << 20, &e));
    char *at = strstr(text, "\"patch_size\"");
    CHECK(at && (end = strchr(at, ']')) != NULL);
    if (!at || asprintf(&config, "%.*s\"patch_size\": [1, %d, %d%s", (int)(at - text), text, h, w,
                        end) < 0)
        abort();
    snprintf(path, sizeof path, "%s/config.json", dir);
    tiny_write_text(path, config);
    free(text), free(config);

    char list[1024], line[256];
    data_path(path, sizeof path, "t2v", ".txt");
    snprintf(list, sizeof list, "%s/list", dir);
    FILE *in = fopen(path, "r"), *out = fopen(list, "w");
    while (in && out && fgets(line, sizeof line, in)) {
        if (strncmp(line, "patch_embedding.weight ", 23) == 0)
            fprintf(out, "patch_embedding.weight 32 16 1 %d %d\n", h, w);
        else if (strncmp(line, "proj_out.weight ", 16) == 0)
            fprintf(out, "proj_out.weight %d 32\n", 16 * h * w);
        else if (strncmp(line, "proj_out.bias ", 14) == 0)
            fprintf(out, "proj_out.bias %d\n", 16 * h * w);
        else
            fputs(line, out);
    }
    CHECK(in && out && fclose(out) == 0);
    if (in) fclose(in);
    snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors", dir);
    tiny_write_list(path, list);
    CHECK_OK(dit_open(&d, dir, PRECISION_FP32, NULL, &e));
    tiny_remove(dir);
    return d;
}

static void check_runs(int h, int w, int rows, int columns)
{
    struct err e = {0};
    struct dit *d = open_patches(h, w);
    struct clip c = {2, rows * h, columns * w, 5, 700, 0, NULL, false, 0};
    struct attn_params attn = cpu_attention(PRECISION_FP32);
    struct dit_run_params p = run_params(&c, &attn);
    size_t bytes;
    if (!d) return;
    CHECK(dit_tokens(dit_config_of(d), &p.grid) == 2 * rows * columns);
    CHECK_OK(dit_bytes(&bytes, dit_config_of(d), PRECISION_FP32, &p, &e));
    float *v = velocity_of(d, &c);
    size_t wrong = 0, same = 0, n = velocity_len(d, &c);
    for (size_t i = 0; i < n; i++) {
        wrong += !isfinite(v[i]);
        same += i > 0 && v[i] == v[i - 1];
    }
    CHECK_MSG(wrong == 0 && same < n / 10, "%dx%d: %zu no numbers, %zu as before, of %zu", h, w,
              wrong, same, n);
    free(v);
    p.grid.width++; /* one column more than whole patches */
    if (w > 1) CHECK(dit_bytes(&bytes, dit_config_of(d), PRECISION_FP32, &p, &e) < 0);
    p.grid.width--;
    p.grid.height++;
    if (h > 1) CHECK(dit_bytes(&bytes, dit_config_of(d), PRECISION_FP32, &p, &e) < 0);
    dit_close(d);
}

int main(void)
{
    for (int h = 1; h <= 4; h++)
        for (int w = 1; w <= 4; w++)
            check_runs(h, w, 3, h == w ? 4 : 2);
    return TEST_RESULT();
}
