/* Convolutions, norms and attention of the VAE on a card against plain loops in double: ragged pictures, every window, both
 * types, frames before the clip, residuals, and the shapes of the real nets. --time: rates of the
 * decoder's convolutions. Needs a GPU; exit 77 without one. */
#include "model/ops/cuda/frames/conv_cuda.h"
#include "model/ops/cpu/frames/conv.h"
#include "tests/bench/frames/frames_data.h"

/* [out, in, kt, ks * ks] → [kt][ks * ks][out][in padded] */
static struct card packed_weight(const float *w, const struct conv_shape *s, bool bf16)
{
    size_t area = (size_t)(s->ks * s->ks), in = (size_t)pad8(s->in), out = (size_t)s->out;
    float *p = calloc((size_t)s->kt * area * out * in, sizeof *p);
    for (size_t o = 0; o < out; o++)
        for (size_t i = 0; i < (size_t)s->in; i++)
            for (size_t t = 0; t < (size_t)s->kt; t++)
                for (size_t q = 0; q < area; q++)
                    p[((t * area + q) * out + o) * in + i] =
                        w[((o * (size_t)s->in + i) * (size_t)s->kt + t) * area + q];
    struct card k = card_of(p, (size_t)s->kt * area * out * in, bf16);
    free(p);
    return k;
}

static int arch; /* of the convolutions under test: 80, or 0 for this card's best */

static struct conv_cuda call_of(const struct conv_shape *s, int frames, int h, int w, bool bf16)
{
    return (struct conv_cuda){.in = s->in,
                              .out = s->out,
                              .kt = s->kt,
                              .ks = s->ks,
                              .stride = s->stride,
                              .step = s->step,
                              .up = s->up,
                              .h = h,
                              .w = w,
                              .frames = frames,
                              .bf16 = bf16,
                              .arch = arch};
}

/* What the convolution left as y, normed, against what it left as the norm. */
static void check_normed(const char *what, const float *norm, const float *y, const float *gamma,
                         size_t n, int channels, bool silu, bool bf16)
{
    size_t all = n * (size_t)channels;
    double *want = malloc(all * sizeof *want), *tolerance = malloc(all * sizeof *tolerance);
    for (size_t p = 0; p < n; p++) {
        const float *v = y + p * (size_t)channels;
        double squares = 0;
        for (int c = 0; c < channels; c++)
            squares += (double)v[c] * (double)v[c];
        for (int c = 0; c < channels; c++) {
            size_t i = p * (size_t)channels + (size_t)c;
            double t = (double)v[c] / fmax(sqrt(squares), 1e-12) * sqrt((double)channels) *
                       (double)gamma[c];
            want[i] = silu ? t / (1 + exp(-t)) : t;
            /* four roundings on the way, and SiLU's slope is at most 1.1 */
            tolerance[i] = (bf16 ? 4 * 1.1 * 0x1p-8 : 4e-6) * fabs(t) + 1e-7;
        }
    }
    card_near(what, norm, want, tolerance, all);
    free(want), free(tolerance);
}

static void check_conv(const struct conv_shape *s, int frames_in, int h, int w, bool bf16,
                       bool residual, struct test_rng *r)
{
    struct err e = {0};
    int past = s->kt == 3 && s->step == 1 ? 2 : 0;
    int frames = s->kt == 3 && s->step == 2 ? (frames_in - 1) / 2 : frames_in;
    int taps = s->kt * s->ks * s->ks;
    struct conv_cuda c = call_of(s, frames, h, w, bf16);
    size_t in = (size_t)h * (size_t)w, out = (size_t)conv_cuda_h(&c) * (size_t)conv_cuda_w(&c);
    size_t n_y = out * (size_t)s->out;
    float *weight =
        random_numbers((size_t)(s->out * s->in * taps), 1 / sqrtf((float)(s->in * taps)), bf16, r);
    float *bias = random_numbers((size_t)s->out, 0.2f, bf16, r);
    float *x = random_numbers((size_t)frames_in * in * (size_t)s->in, 1, bf16, r);
    float *more = random_numbers((size_t)frames * n_y, 1, bf16, r);
    float *want = malloc((size_t)frames * n_y * sizeof *want);
    struct card kw = packed_weight(weight, s, bf16), kb = card_of(bias, (size_t)s->out, false);
    struct card kx[CONV_CUDA_FRAMES], ky[CONV_CUDA_FRAMES];
    for (int f = 0; f < frames_in; f++) {
        kx[f] = padded_card(x + (size_t)f * in * (size_t)s->in, in, s->in, bf16);
        c.src[past + f] = kx[f].at;
    }
    for (int f = 0; f < frames; f++) {
        /* in place: what is added lies where the result goes */
        ky[f] = residual ? padded_card(more + (size_t)f * n_y, out, s->out, bf16)
                         : card_room(out * (size_t)pad8(s->out), bf16);
        c.y[f] = ky[f].at;
        c.residual[f] = residual ? ky[f].at : NULL;
    }
    c.weight = kw.at;
    c.bias = (const float *)(void *)kb.at;
    float *gamma = calloc((size_t)pad8(s->out), sizeof *gamma);
    for (int i = 0; i < s->out; i++)
        gamma[i] = bf16 ? bf16_round(1 + 0.2f * rng_normal(r)) : 1 + 0.2f * rng_normal(r);
    struct card kg = card_of(gamma, (size_t)pad8(s->out), false);
    struct card kn[2][CONV_CUDA_FRAMES];
    struct conv_cuda normed = c;
    normed.gamma = (const float *)(void *)kg.at;
    normed.silu = frames % 2;
    for (int i = 0; i < 2;
         i++) { /* the norm alone, then with y, which may lie where the residual lay */
        for (int f = 0; f < frames; f++) {
            kn[i][f] = card_room(out * (size_t)pad8(s->out), bf16);
            normed.norm[f] = kn[i][f].at;
            normed.y[f] = i ? ky[f].at : NULL;
        }
        CHECK_OK(conv_cuda_run(&normed, &e));
    }
    ref_conv(want, x, weight, bias, s, frames_in, h, w);
    double *sum = malloc(n_y * sizeof *sum), *tolerance = malloc(n_y * sizeof *tolerance);
    for (int f = 0; f < frames; f++) {
        char what[160];
        snprintf(what, sizeof what,
                 "conv %s%s %dx%dx%d stride %d step %d%s, %d to %d channels, %dx%d, frame %d%s",
                 bf16 ? "bf16" : "fp32", arch ? " by mma.sync" : "", s->kt, s->ks, s->ks, s->stride,
                 s->step, s->up ? " up" : "", s->in, s->out, w, h, f, residual ? ", residual" : "");
        float *got = unpadded(&ky[f], out, s->out);
        for (size_t i = 0; i < n_y; i++) {
            double conv = (double)want[(size_t)f * n_y + i];
            double add = residual ? (double)more[(size_t)f * n_y + i] : 0;
            sum[i] = conv + add;
            /* fp32 sums of `taps * in` products of about 1 / sqrt(taps * in); a bf16 is half a unit
             * of 2^-7 off, at the sum and behind the residual */
            tolerance[i] = 3e-7 * sqrt((double)(taps * s->in)) + 1e-6 * fabs(sum[i]);
            if (bf16) tolerance[i] += 0x1p-8 * 1.01 * (fabs(conv) + (residual ? fabs(sum[i]) : 0));
            if (bf16 && residual) tolerance[i] += 0x1p-16 * fabs(conv);
        }
        card_near(what, got, sum, tolerance, n_y);
        float *alone = unpadded(&kn[0][f], out, s->out), *norm = unpadded(&kn[1][f], out, s->out);
        check_normed(what, norm, got, gamma, out, s->out, normed.silu, bf16);
        CHECK_MSG(memcmp(alone, norm, n_y * sizeof *norm) == 0, "%s: the norm alone is another",
                  what);
        free(got), free(alone), free(norm);
        card_free(&ky[f]);
        card_free(&kn[0][f]);
        card_free(&kn[1][f]);
    }
    for (int f = 0; f < frames_in; f++)
        card_free(&kx[f]);
    card_free(&kw);
    card_free(&kb);
    card_free(&kg);
    free(gamma), free(sum), free(tolerance), free(weight), free(bias), free(x), free(more),
        free(want);
}

static void check_convs(bool whole, struct test_rng *r)
{
    static const struct conv_shape kinds[] = {
        {.kt = 3, .ks = 3, .stride = 1, .step = 1},
        {.kt = 1, .ks = 1, .stride = 1, .step = 1},
        {.kt = 3, .ks = 1, .stride = 1, .step = 1},
        {.kt = 3, .ks = 1, .stride = 1, .step = 2},
        {.kt = 1, .ks = 3, .stride = 1, .step = 1, .up = true},
        {.kt = 1, .ks = 3, .stride = 2, .step = 1},
        {.kt = 1, .ks = 3, .stride = 1, .step = 1},
    };
    static const int channels[][2] = {{3, 8},    {16, 24},  {24, 48}, {48, 3},   {8, 33},
                                      {96, 96},  {40, 130}, {96, 3},  {192, 96}, {12, 160},
                                      {96, 384}, {64, 192}, {33, 97}};
    static const int sizes[][3] = {{1, 2, 2}, {3, 5, 7}, {5, 18, 34}, {3, 16, 16}, {5, 33, 17}};
    int n = whole ? (int)ARRAY_LEN(channels) : 4;
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++)
        for (int i = 0; i < n; i++)
            for (int way = 0; way < 3; way++) {
                bool bf16 = way > 0;
                struct conv_shape s = kinds[k];
                const int *size = sizes[(k + (size_t)i) % ARRAY_LEN(sizes)];
                arch = way == 2 ? 80 : 0;
                if (arch && (s.ks != 3 || s.stride != 1)) continue; /* one kernel has them */
                int even = s.stride; /* pictures that are halved have even sides */
                s.in = channels[i][0], s.out = channels[i][1];
                check_conv(&s, s.step == 2 && size[0] < 3 ? 3 : size[0], size[1] * even,
                           size[2] * even, bf16, i % 2, r);
            }
}

/* Two frames, the second with a residual, which stays in its place with the sum. */
static void check_norm(int channels, size_t n, bool silu, bool bf16, struct test_rng *r)
{
    struct err e = {0};
    size_t all = n * (size_t)channels;
    float *x = random_numbers(2 * all, 2, bf16, r), *more = random_numbers(all, 1, bf16, r);
    float *gamma = calloc((size_t)pad8(channels), sizeof *gamma);
    for (int c = 0; c < channels; c++)
        gamma[c] = bf16 ? bf16_round(1 + 0.2f * rng_normal(r)) : 1 + 0.2f * rng_normal(r);
    memset(x, 0, (size_t)channels * sizeof *x); /* a pixel of nothing stays nothing */
    struct card kx[2] = {padded_card(x, n, channels, bf16),
                         padded_card(x + all, n, channels, bf16)},
                km = padded_card(more, n, channels, bf16),
                ky = card_room(n * (size_t)pad8(channels), bf16),
                kg = card_of(gamma, (size_t)pad8(channels), false);
    void *y[] = {kx[0].at, ky.at}, *sum[] = {NULL, km.at};
    const void *from[] = {kx[0].at, kx[1].at}, *residual[] = {NULL, km.at};
    struct pixel_norm p = {.y = y,
                           .x = from,
                           .residual = residual,
                           .sum = sum,
                           .frames = 2,
                           .channels = channels,
                           .n = n,
                           .gamma = (const float *)(void *)kg.at,
                           .silu = silu,
                           .bf16 = bf16};
    CHECK_OK(pixel_norm_cuda(&p, &e));
    float *got[2] = {unpadded(&kx[0], n, channels), unpadded(&ky, n, channels)},
          *kept = unpadded(&km, n, channels);
    for (int f = 0; f < 2; f++) {
        int bad = 0;
        for (size_t i = 0; f == 1 && i < all; i++) {
            float v = x[all + i] + more[i];
            x[all + i] = bf16 ? bf16_round(v) : v;
            bad += kept[i] != x[all + i];
        }
        CHECK_MSG(bad == 0, "sums before a norm: %d differ", bad);
        char what[96];
        snprintf(what, sizeof what, "norm %s of %d channels%s, frame %d", bf16 ? "bf16" : "fp32",
                 channels, silu ? ", SiLU" : "", f);
        check_normed(what, got[f], x + (size_t)f * all, gamma, n, channels, silu, bf16);
        free(got[f]);
        card_free(&kx[f]);
    }
    free(kept), free(x), free(more), free(gamma);
    card_free(&km), card_free(&ky), card_free(&kg);
}

static void check_attention(int n, int channels, bool bf16, struct test_rng *r)
{
    struct err e = {0};
    size_t all = (size_t)n * (size_t)channels;
    float *q = random_numbers(all, 1.5f, bf16, r), *k = random_numbers(all, 1.5f, bf16, r),
          *v = random_numbers(all, 1, bf16, r);
    struct card kq = padded_card(q, (size_t)n, channels, bf16),
                kk = padded_card(k, (size_t)n, channels, bf16),
                kv = padded_card(v, (size_t)n, channels, bf16),
                ko = card_room((size_t)n * (size_t)pad8(channels), bf16),
                room = card_room(wide_attention_scratch(n, channels, bf16) / 4 + 64, false);
    char *scratch = (char *)(((uintptr_t)room.at + 255) / 256 * 256);
    CHECK_OK(wide_attention_cuda(ko.at, kq.at, kk.at, kv.at, n, channels, bf16, scratch, NULL, &e));
    float *got = unpadded(&ko, (size_t)n, channels);
    double *want = calloc(all, sizeof *want), *tolerance = malloc(all * sizeof *tolerance),
           *s = malloc((size_t)n * sizeof *s);
    for (int i = 0; i < n; i++) {
        double most = -INFINITY, sum = 0;
        for (int j = 0; j < n; j++) {
            s[j] = 0;
            for (int c = 0; c < channels; c++)
                s[j] += (double)q[i * channels + c] * (double)k[j * channels + c];
            s[j] /= sqrt((double)channels);
            most = fmax(most, s[j]);
        }
        for (int j = 0; j < n; j++)
            sum += s[j] = exp(s[j] - most);
        for (int j = 0; j < n; j++)
            for (int c = 0; c < channels; c++)
                want[i * channels + c] += s[j] / sum * (double)v[j * channels + c];
    }
    for (size_t i = 0; i < all; i++) /* weights and the result are rounded, |v| is about 1 */
        tolerance[i] = bf16 ? 0x1p-8 * fabs(want[i]) + 0x1p-7 : 2e-5;
    char what[96];
    snprintf(what, sizeof what, "wide attention %s, %d pixels of %d", bf16 ? "bf16" : "fp32", n,
             channels);
    card_near(what, got, want, tolerance, all);
    free(got), free(want), free(tolerance), free(s), free(q), free(k), free(v);
    card_free(&kq), card_free(&kk), card_free(&kv), card_free(&ko), card_free(&room);
}

#include "tests/bench/frames/time_frames.h"

int main(int argc, char **argv)
{
    int devices = 0;
    bool small = argc > 1 && strcmp(argv[1], "--small") == 0;
    struct test_rng r = test_seed(argc, argv);
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices < 1) {
        printf("no GPU\n");
        return 77;
    }
    if (argc > 1 && strcmp(argv[1], "--time") == 0) return time_all();
    check_convs(!small, &r);
    static const int widths[] = {3, 24, 33, 48, 96, 192, 384, 1024};
    for (size_t i = 0; i < ARRAY_LEN(widths) - 3 * small; i++)
        for (int bf16 = 0; bf16 < 2; bf16++)
            check_norm(widths[i], small ? 70 : 1003, i % 2, bf16, &r);
    for (int bf16 = 0; bf16 < 2; bf16++) {
        check_attention(1, 8, bf16, &r);
        check_attention(77, 40, bf16, &r);
        if (!small) check_attention(641, 384, bf16, &r);
    }
    return TEST_RESULT();
}
