/* A checkpoint's own attention tensors reach the method that names them, by layer; a stack that does
 * not name them refuses the checkpoint, and one that does runs without them too. */
#define ATTN_METHODS "tests/unit/dit/own.def"
#include "attention/recipe.c" /* with the methods below instead of those of methods.def */

#include "tests/unit/dit/fixture.h"

static int reads, found;

static int reader_plan(const struct attn_part *p, const struct attn_turn *t, struct attn_calls *c,
                       struct err *e)
{
    (void)c, (void)e;
    const struct tensor *gate = attn_tensor(p, t->at.layer, "gate.weight");
    reads++;
    CHECK(!attn_tensor(p, t->at.layer, "other.weight"));
    if (!gate) return 0;
    float want[6];
    char name[64];
    snprintf(name, sizeof name, "blocks.%d.attn1.gate.weight", t->at.layer);
    tiny_fill(want, 6, name, 1, 0);
    CHECK(gate->n_dims == 2 && gate->shape[0] == 2 && gate->shape[1] == 3);
    CHECK(gate->dtype == DTYPE_F32 && memcmp(gate->data, want, sizeof want) == 0);
    found++;
    return 0;
}

static const char *const names[] = {"gate.weight", "other.weight", NULL};
const struct attn_method attn_plain = {.name = "plain", .summary = "dense", .exact = true};
const struct attn_method attn_reader = {
    .name = "reader", .summary = "reads a gate", .tensors = names, .plan = reader_plan};

static void run(struct dit *d, const struct clip *c)
{
    struct attn_params attn = cpu_attention(PRECISION_FP32);
    attn.method = "reader";
    struct dit_run_params p = run_params(c, &attn);
    float *text = drawn("dit.text", (size_t)c->rows * (size_t)dit_config_of(d)->text_dim);
    float *latents = drawn("dit.latents", velocity_len(d, c)), *v = calloc(velocity_len(d, c), 4);
    struct dit_call call = {.n_branches = 1, .timestep = 500};
    struct err e = {0};
    CHECK_OK(dit_prepare(d, &p, &e));
    CHECK_OK(dit_set_context(d, 0, text, c->rows, NULL, &e));
    CHECK_OK(dit_velocity(d, &v, latents, &call, &e));
    free(text), free(latents), free(v);
}

int main(void)
{
    struct clip c = {1, 4, 4, 2, 500, 0, NULL, false, 0};
    char dir[256], path[1024], list[1024];
    struct tiny_tensor *t;
    struct dit *d = NULL;
    struct err e = {0};
    tiny_temp(dir);
    write_tiny(dir, "t2v");
    CHECK_OK(dit_open_for(&d, "reader", dir, NULL, 1, PRECISION_FP32, NULL, &e));
    if (d) run(d, &c);
    dit_close(d);
    CHECK(reads == 2 && found == 0); /* two layers, none in the file */

    data_path(list, sizeof list, "t2v", ".txt");
    int n = tiny_read_list(&t, list);
    t = realloc(t, (size_t)(n + 2) * sizeof *t);
    t[n] = (struct tiny_tensor){"blocks.0.attn1.gate.weight", 2, {2, 3}, 1, 0};
    t[n + 1] = (struct tiny_tensor){"blocks.1.attn1.gate.weight", 2, {2, 3}, 1, 0};
    snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors", dir);
    tiny_write(path, t, n + 2);
    CHECK(dit_check(dir, NULL, NULL, &e) < 0 && e.code == ERR_INPUT &&
          strstr(e.msg, "gate.weight"));
    CHECK(dit_open_for(&d, "plain", dir, NULL, 1, PRECISION_FP32, NULL, &e) < 0 && !d);
    CHECK_OK(dit_check(dir, NULL, "reader", &e));
    CHECK_OK(dit_open_for(&d, "reader", dir, NULL, 1, PRECISION_FP32, NULL, &e));
    if (d) run(d, &c);
    dit_close(d);
    CHECK(reads == 4 && found == 2);
    free(t);
    tiny_remove(dir);
    return TEST_RESULT();
}
