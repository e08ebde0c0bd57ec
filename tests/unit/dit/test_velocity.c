/* One forward of every input mode against the reference: wan.md 3. */
#include "tests/unit/dit/fixture.h"

/* fp32 sums in another order; the bar for one module */
#define TOLERANCE 1e-5

static const float frame_times[] = {0, 700, 700};

static const struct {
    const char *config, *golden;
    struct clip clip;
} cases[] = {
    {"t2v", "t2v", {3, 6, 10, 5, 999, 0, NULL, false, 0}},
    {"t2v", "t2v", {3, 6, 10, 5, 999, 0, NULL, true, 0}},
    {"t2v", "t2v", {3, 6, 10, 5, 999, 0, NULL, false, 19}}, /* sized for a longer prompt */
    {"t2v", "t2v", {3, 6, 10, 5, 999, 0, NULL, false, TEXT_LEN}},
    {"t2v", "t2v_one", {1, 2, 2, 1, 1, 0, NULL, false, 0}},
    {"t2v", "t2v_full", {2, 8, 4, TEXT_LEN, 417, 0, NULL, false, 0}},
    {"t2v", "t2v_full", {2, 8, 4, TEXT_LEN, 417, 0, NULL, true, 0}},
    {"wide", "t2v_wide", {2, 6, 4, 20, 731.25f, 0, NULL, false, 0}},
    {"i2v", "i2v", {2, 4, 6, 7, 850, 17, NULL, false, 0}},
    {"i2v", "i2v", {2, 4, 6, 7, 850, 17, NULL, true, 0}},
    {"flf", "flf", {3, 4, 4, 9, 900, 34, NULL, false, 0}},
    {"odd", "odd", {3, 5, 9, 3, 333, 0, NULL, false, 0}},
    {"ti2v", "frames", {3, 4, 6, 6, 700, 0, frame_times, false, 0}},
};

static void check_case(const struct golden *g, int i)
{
    struct dit *d = open_tiny(cases[i].config, PRECISION_FP32);
    char name[64];
    size_t n;
    if (!d) return;
    snprintf(name, sizeof name, "%s.velocity", cases[i].golden);
    const float *want = golden_f32(g, name, &n);
    CHECK(n == velocity_len(d, &cases[i].clip));
    float *got = velocity_of(d, &cases[i].clip);
    printf("%-16s rel L2 %.3g\n", name, rel_l2(got, want, n));
    check_close(name, got, want, n, TOLERANCE);
    free(got);
    dit_close(d);
}

/* How far bf16 storage moves a velocity, derived:
 *
 * One rounding of numbers with 8 bits of mantissa is off by at most 2^-8 of [1, 2), evenly spread: a
 * root mean square of 2^-8 / sqrt(3). Numbers spread evenly over [1, 2) have one of sqrt(7 / 3). So a
 * rounding adds a relative L2 of 2^-8 / sqrt(7), and roundings add like independent errors.
 *
 * The longest path of a value through a block is rounded after: norm, q or k, its RMS norm, its
 * rotary step, attention, output layer, gated sum (7); norm, q, RMS norm, attention, output layer,
 * sum (6); norm, up, activation, down, gated sum (5); with an image also its attention and the sum
 * of the two (2). Outside the blocks: patches, the head's norm, the head (3). Every rounding is
 * counted as if all of the value went through it; what the residual stream carries past does not, so
 * this is an upper bound. Two runs that round at the same places, but sum in another order, are at
 * most as far apart as if their roundings had nothing to do with each other: sqrt(2) of it. And the
 * velocity's own rounding is the least that a bf16 run must be off. */
static double one_rounding(void) { return 0x1p-8 / sqrt(7); }

static double roundings(const struct dit_config *c)
{
    return 3 + c->n_layers * (7 + 6 + 5 + (c->image_dim ? 2 : 0));
}

static void check_bf16(const struct golden *g, const char *config, enum precision precision,
                       struct clip c)
{
    struct dit *d = open_tiny(config, precision);
    char low_name[64], name[64];
    size_t n;
    if (!d) return;
    snprintf(low_name, sizeof low_name, "%s.bf16", config);
    snprintf(name, sizeof name, "%s.velocity", config);
    const float *low = golden_f32(g, low_name, &n), *want = golden_f32(g, name, &n);
    double apart = rel_l2(low, want, n), most = sqrt(roundings(dit_config_of(d))) * one_rounding();
    float *got = velocity_of(d, &c);
    printf("%-16s %s: rel L2 %.3g to the reference's bf16, %.3g to its fp32 (its own: %.3g)\n",
           low_name, precision_name(precision), rel_l2(got, low, n), rel_l2(got, want, n), apart);
    printf("%-16s at most %.3g and %.3g, at least %.3g\n", "", sqrt(2) * most, most,
           one_rounding());
    CHECK_MSG(apart <= most && apart >= one_rounding(),
              "the formula does not hold for the reference");
    check_close(low_name, got, low, n, sqrt(2) * most);
    check_close(name, got, want, n, most);
    CHECK(rel_l2(got, want, n) >= one_rounding());
    for (size_t i = 0; i < n; i++)
        if (bf16_round(got[i]) != got[i]) {
            CHECK_MSG(0, "velocity %zu is %.9g, no bf16 number", i, (double)got[i]);
            break;
        }
    free(got);
    dit_close(d);
}

static void check_embedded(const struct golden *g)
{
    struct clip c = {3, 6, 10, 9, 650, 0, NULL, false, 0};
    struct err e;
    struct dit *d;
    size_t n;
    CHECK_OK(dit_open_on(&d, test_device(), NULL, TEST_SOURCE_DIR "/assets/emoji/transformer", NULL,
                         1, PRECISION_FP32, NULL, &e));
    if (!d) return;
    const float *want = golden_f32(g, "emoji.velocity", &n);
    CHECK_MSG(n == velocity_len(d, &c),
              "the embedded model has changed: run tests/golden/make_dit.py");
    if (n == velocity_len(d, &c)) {
        float *got = velocity_of(d, &c);
        printf("%-16s rel L2 %.3g\n", "embedded", rel_l2(got, want, n));
        check_close("embedded model", got, want, n, TOLERANCE);
        free(got);
    }
    dit_close(d);
}

/* A model that ran one clip runs another size afterwards as if it were new; branches do not mix. */
static void check_reuse(void)
{
    struct clip a = {3, 6, 10, 5, 999, 0, NULL, false, 0}, b = {2, 8, 4, 9, 417, 0, NULL, false, 0};
    struct dit *d = open_tiny("t2v", PRECISION_FP32);
    struct err e = {0};
    if (!d) return;
    size_t n = velocity_len(d, &a);
    float *first = velocity_of(d, &a), *other = velocity_of(d, &b), *again = velocity_of(d, &a);
    CHECK(memcmp(first, again, n * sizeof *first) == 0);
    /* branch 0 gets another prompt; branch 1 still answers as before */
    float *text = drawn("dit.other", (size_t)3 * (size_t)dit_config_of(d)->text_dim);
    float *latents = drawn("dit.latents", n), *v = calloc(n, sizeof *v);
    struct dit_call call = {.branch = 0, .n_branches = 1, .timestep = 999};
    CHECK(dit_velocity(d, &v, latents, &call, &e) < 0 && e.code == ERR_BUG); /* no context yet */
    CHECK_OK(dit_set_context(d, 0, text, 3, NULL, &e));
    CHECK_OK(dit_velocity(d, &v, latents, &call, &e));
    CHECK(rel_l2(v, first, n) > 1e-3);
    call.branch = 1;
    CHECK_OK(dit_velocity(d, &v, latents, &call, &e));
    CHECK(memcmp(first, v, n * sizeof *first) == 0);
    free(first), free(other), free(again), free(text), free(latents), free(v);
    dit_close(d);
}

/* Both branches in one visit of each block give the bytes of two visits; a branch without a text,
 * or past the last, is refused. */
static void check_branches(enum precision precision)
{
    struct clip c = {3, 6, 10, 5, 999, 0, NULL, false, 0};
    struct dit *d = open_tiny("t2v", precision);
    struct err e = {0};
    if (!d) return;
    float *negative = velocity_of(d, &c); /* branch 1 has its text */
    size_t n = velocity_len(d, &c);
    float *text = drawn("dit.other", (size_t)3 * (size_t)dit_config_of(d)->text_dim);
    float *latents = drawn("dit.latents", n), *alone = calloc(n, sizeof *alone);
    float *v[2] = {calloc(n, sizeof **v), calloc(n, sizeof **v)};
    struct dit_call one = {.n_branches = 1, .timestep = 999}, both = one;
    both.n_branches = 2;
    CHECK(dit_velocity(d, v, latents, &both, &e) < 0 && e.code == ERR_BUG);
    CHECK_OK(dit_set_context(d, 0, text, 3, NULL, &e));
    CHECK_OK(dit_velocity(d, &alone, latents, &one, &e));
    CHECK_OK(dit_velocity(d, v, latents, &both, &e));
    CHECK(memcmp(v[0], alone, n * sizeof *alone) == 0);
    CHECK(memcmp(v[1], negative, n * sizeof *negative) == 0);
    CHECK(rel_l2(v[0], v[1], n) > 1e-3);
    both.n_branches = 3;
    CHECK(dit_velocity(d, v, latents, &both, &e) < 0 && e.code == ERR_BUG);
    both.n_branches = 0;
    CHECK(dit_velocity(d, v, latents, &both, &e) < 0 && e.code == ERR_BUG);
    free(negative), free(text), free(latents), free(alone), free(v[0]), free(v[1]);
    dit_close(d);
}

static int stop_at(void *ctx, int layer, int n_layers)
{
    int *calls = ctx;
    (*calls)++;
    CHECK(layer == *calls && n_layers == 2);
    return *calls == calls[1];
}

static void check_progress(void)
{
    struct clip c = {1, 4, 4, 2, 500, 0, NULL, false, 0};
    struct dit *d = open_tiny("t2v", PRECISION_FP32);
    struct err e = {0};
    if (!d) return;
    free(velocity_of(d, &c));
    float *latents = drawn("dit.latents", velocity_len(d, &c)), *v = calloc(velocity_len(d, &c), 4);
    int calls[2] = {0, 99};
    struct dit_call call = {
        .branch = 1, .n_branches = 1, .timestep = 500, .progress = stop_at, .progress_ctx = calls};
    CHECK_OK(dit_velocity(d, &v, latents, &call, &e));
    CHECK(calls[0] == 2);
    calls[0] = 0, calls[1] = 1;
    CHECK(dit_velocity(d, &v, latents, &call, &e) < 0 && e.code == ERR_CANCELLED && calls[0] == 1);
    free(latents), free(v);
    dit_close(d);
}

int main(void)
{
    struct golden g = golden_open("dit_golden.safetensors");
    for (int i = 0; i < (int)ARRAY_LEN(cases); i++)
        check_case(&g, i);
    /* a GPU has bf16 and nothing to emulate it with */
    for (int native = on_gpu(); native <= (on_gpu() || ops_has_bf16()); native++) {
        enum precision p = native ? PRECISION_BF16 : PRECISION_BF16_EMULATED;
        check_bf16(&g, "t2v", p, (struct clip){3, 6, 10, 5, 999, 0, NULL, false, 0});
        check_bf16(&g, "i2v", p, (struct clip){2, 4, 6, 7, 850, 17, NULL, false, 0});
    }
    if (!on_gpu() && !ops_has_bf16())
        printf("native bf16 not tested: this build or processor does not multiply it\n");
    check_embedded(&g);
    if (!on_gpu()) { /* latents of the host, and branches whose bytes do not depend on company */
        check_reuse();
        check_branches(PRECISION_FP32);
        check_branches(PRECISION_BF16_EMULATED);
        check_progress();
    }
    golden_close(&g);
    device_close(test_device());
    return TEST_RESULT();
}
