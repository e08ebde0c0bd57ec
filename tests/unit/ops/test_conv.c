/* Every convolution the VAE has, in every instruction set that runs here and by the library's
 * products, against the plain loops. */
#include "model/ops/cpu/frames/conv.h"

#include "model/base/dtype.h"
#include "model/base/threads.h"
#include "tests/check.h"

static float **lists(struct arena *a, int n, const struct frame_size *s)
{
    static float *table[8][MAX_FRAMES + 2];
    static int next;
    float **l = table[next++ % 8];
    for (int i = 0; i < n; i++) {
        l[i] = arena_take(a, frame_floats(s) * sizeof(float));
        memset(l[i], 0, frame_floats(s) * sizeof(float));
    }
    return l;
}

static void fill(float *p, size_t n, float std, struct test_rng *r)
{
    for (size_t i = 0; i < n; i++)
        p[i] = std * rng_normal(r);
}

/* Runs clip frames 0.. in two calls (first_part, rest), with the past between them. */
static void check_conv(const struct vae_kernels *k, enum products products,
                       const struct conv_shape *s, int frames, int first_part, int h, int w,
                       struct test_rng *r)
{
    struct err e;
    struct direct_set set = {.products = products};
    bool bf16 = products == PRODUCTS_LIBRARY_BF16;
    struct arena count = {0}, a;
    struct conv c;
    struct frame_size in = frame_size(h, w, s->in);
    int ho = s->up ? 2 * h : h / s->stride, wo = s->up ? 2 * w : w / s->stride;
    struct frame_size out = frame_size(ho, wo, s->out);
    conv_carve(&c, s, k, &set, &count);
    size_t bytes = count.used +
                   (size_t)(2 * frames + 6) * (frame_floats(&in) + frame_floats(&out)) * 4 + 65536;
    size_t stride = conv_scratch(&c, &out, frames, threads_count());
    CHECK_OK(arena_open(&a, bytes + stride * 4 * (size_t)threads_count(), &e));
    conv_carve(&c, s, k, &set, &a);
    float *scratch = arena_take(&a, stride * 4 * (size_t)threads_count());

    size_t n_w = (size_t)s->out * (size_t)(s->in * s->kt * s->ks * s->ks),
           n_in = (size_t)frames * (size_t)(h * w * s->in);
    float *weight = malloc(n_w * 4), *bias = malloc((size_t)s->out * 4), *x = malloc(n_in * 4);
    fill(weight, n_w, 1.0f / sqrtf((float)(s->in * s->kt * s->ks * s->ks)), r);
    fill(bias, (size_t)s->out, 0.2f, r);
    fill(x, n_in, 1.0f, r);
    for (size_t i = 0; bf16 && i < n_in; i++)
        x[i] = bf16_round(x[i]);
    for (size_t i = 0; bf16 && i < n_w; i++)
        weight[i] = bf16_round(weight[i]);
    for (int i = 0; bf16 && i < s->out; i++)
        bias[i] = bf16_round(bias[i]);
    conv_pack(&c, weight, bias);

    int past = s->kt == 3 && s->step == 1 ? 2 : 0;
    int n_out = s->kt == 3 && s->step == 2 ? (frames - 1) / 2 : frames;
    float **src = lists(&a, frames + past, &in), **dst = lists(&a, n_out, &out);
    for (int i = 0; i < past; i++)
        fill(src[i], frame_floats(&in), NAN, r); /* before the clip: never read */
    for (int f = 0; f < frames; f++)
        for (int y = 0; y < h; y++)
            for (int px = 0; px < w; px++)
                memcpy(src[past + f] + frame_at(&in, y, px),
                       x + (((size_t)f * (size_t)h + (size_t)y) * (size_t)w + (size_t)px) *
                               (size_t)s->in,
                       (size_t)s->in * 4);
    for (int f0 = 0, n; f0 < n_out; f0 += n) {
        n = f0 == 0 && first_part < n_out ? first_part : n_out - f0;
        struct conv_call call = {.src = (const float *const *)src + f0 * s->step,
                                 .in = in,
                                 .out = out,
                                 .frames = n,
                                 .x = dst + f0};
        call.missing = past > f0 ? past - f0 : 0;
        conv_run(&c, &call, scratch, stride, threads_count());
    }
    CHECK_MSG(set.error.code == ERR_NONE, "%s", set.error.msg);
    size_t n_y = (size_t)n_out * (size_t)(ho * wo * s->out);
    float *got = malloc(n_y * 4), *want = malloc(n_y * 4);
    for (int f = 0; f < n_out; f++)
        for (int y = 0; y < ho; y++)
            for (int px = 0; px < wo; px++)
                memcpy(got + (((size_t)f * (size_t)ho + (size_t)y) * (size_t)wo + (size_t)px) *
                                 (size_t)s->out,
                       dst[f] + frame_at(&out, y, px), (size_t)s->out * 4);
    ref_conv(want, x, weight, bias, s, frames, h, w);
    char what[128];
    snprintf(what, sizeof what,
             "%s, products %d: %d->%d kt %d ks %d stride %d step %d up %d, %d frames of %dx%d",
             k->name, (int)products, s->in, s->out, s->kt, s->ks, s->stride, s->step, s->up, frames,
             h, w);
    /* plain sums round like sqrt(terms) * 2^-24 (products of bf16 are exact in fp32); Winograd's
     * transforms cost a factor of about 8 */
    double tol =
        sqrt((double)(s->in * s->kt * s->ks * s->ks)) * 0x1p-24 + (c.points ? 2.5e-6 : 1e-7);
    check_close(what, got, want, n_y, tol);
    for (int f = 0; f < n_out; f++) { /* the border stays 0 */
        bool clean = true;
        for (int px = -1; px <= wo; px++)
            for (int i = 0; i < out.channels; i++)
                clean = clean && dst[f][frame_at(&out, -1, px) + i] == 0.0f &&
                        dst[f][frame_at(&out, ho, px) + i] == 0.0f;
        CHECK(clean);
    }
    free(weight), free(bias), free(x), free(got), free(want);
    direct_set_close(&set);
    arena_close(&a);
}

int main(int argc, char **argv)
{
    struct test_rng r = test_seed(argc, argv);
    static const struct conv_shape shapes[] = {
        {24, 24, 3, 3, 1, 1, false},  {48, 96, 3, 3, 1, 1, false}, {96, 96, 3, 3, 1, 1, false},
        {16, 32, 3, 3, 1, 1, false},  {24, 3, 3, 3, 1, 1, false},  {3, 8, 3, 3, 1, 1, false},
        {320, 40, 3, 3, 1, 1, false}, {96, 48, 1, 3, 1, 1, true},  {16, 8, 1, 3, 1, 1, true},
        {24, 24, 1, 3, 2, 1, false},  {96, 96, 3, 1, 1, 1, false}, {32, 32, 3, 1, 1, 2, false},
        {16, 16, 1, 1, 1, 1, false},  {48, 96, 1, 1, 1, 1, false}, {6, 12, 1, 1, 1, 1, false},
    };
    static const char *const names[] = {"ref", "avx2", "avx512"};
    struct cpu cpu;
    cpu_detect(&cpu);
    for (int p = PRODUCTS_OWN; p <= PRODUCTS_LIBRARY_BF16; p++) {
        if (p != PRODUCTS_OWN && !conv3d_available(p == PRODUCTS_LIBRARY_BF16)) {
            printf("products %d not tested: this build or processor lacks them\n", p);
            continue;
        }
        for (int t = 1; t <= 2; t++) {
            threads_set(t);
            for (size_t k = 0; k < ARRAY_LEN(names); k++) {
                const struct vae_kernels *kernels = vae_kernels_pick(&cpu, names[k]);
                for (size_t i = 0; kernels && i < ARRAY_LEN(shapes); i++) {
                    int even = shapes[i].stride == 2 ? 2 : 1;
                    int frames = shapes[i].step == 2 ? 5 : rng_int(&r, 1, 5);
                    check_conv(kernels, (enum products)p, &shapes[i], frames, rng_int(&r, 1, 3),
                               even * rng_int(&r, 1, 9), even * rng_int(&r, 1, 11), &r);
                }
            }
        }
    }
    return TEST_RESULT();
}
