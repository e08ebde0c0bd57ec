/* Shortcuts and ends of the VAE on a card against plain loops: latents, pictures, patches, both types.
 * Needs a GPU; exit 77 without one. */
#include "model/ops/cuda/frames/conv_cuda.h"
#include "tests/bench/frames/frames_data.h"

/* wan.md 4.6 word for word */
static void check_shortcuts(int in, int out, int h, int w, int ft, bool bf16, struct test_rng *r)
{
    struct err e = {0};
    size_t n_in = (size_t)(h * w * in), n_up = (size_t)(4 * h * w * out);
    float *x = random_numbers(2 * n_in * 4, 1, bf16, r);
    struct card kx = padded_card(x, (size_t)(h * w), in, bf16),
                up = card_room((size_t)(4 * h * w * pad8(out)), bf16);
    for (int a = 0; a < ft; a++) {
        CHECK_OK(dup_up_cuda(up.at, out, kx.at, in, h, w, ft, a, bf16, NULL, &e));
        float *got = unpadded(&up, (size_t)(4 * h * w), out);
        int repeats = out * ft * 4 / in, bad = 0;
        for (size_t i = 0; i < n_up; i++) {
            int o = (int)(i % (size_t)out), px = (int)(i / (size_t)out) % (2 * w),
                py = (int)(i / (size_t)out) / (2 * w);
            int c = (((o * ft + a) * 2 + py % 2) * 2 + px % 2) / repeats;
            bad += !(got[i] == x[(py / 2 * w + px / 2) * in + c]);
        }
        CHECK_MSG(bad == 0, "dup_up %d to %d, frame %d of %d: %d numbers differ", in, out, a, ft,
                  bad);
        free(got);
    }
    /* the way down: the same channels, read backwards */
    struct card k0 = padded_card(x, (size_t)(4 * h * w), in, bf16),
                k1 = padded_card(x + 4 * n_in, (size_t)(4 * h * w), in, bf16),
                down = card_room((size_t)(h * w * pad8(out)), bf16);
    for (int gone = 0; gone < 2; gone++) {
        const void *from[2] = {gone && ft == 2 ? NULL : k0.at, k1.at};
        CHECK_OK(avg_down_cuda(down.at, out, h, w, from, in, ft, 2, bf16, NULL, &e));
        float *got = unpadded(&down, (size_t)(h * w), out);
        size_t n = (size_t)(h * w * out);
        double *want = calloc(n, sizeof *want), *tolerance = malloc(n * sizeof *tolerance);
        int group = in * ft * 4 / out;
        for (size_t i = 0; i < n; i++) {
            int o = (int)(i % (size_t)out), px = (int)(i / (size_t)out) % w,
                py = (int)(i / (size_t)out) / w;
            for (int g = o * group; g < (o + 1) * group; g++) {
                int b = g % 2, a = g / 2 % 2, t = g / 4 % ft, c = g / 4 / ft;
                if (from[t])
                    want[i] += (double)x[(size_t)t * 4 * n_in +
                                         (size_t)(((py * 2 + a) * 2 * w + px * 2 + b) * in + c)] /
                               group;
            }
            tolerance[i] = (bf16 ? 0x1p-8 : 1e-6) * fabs(want[i]) + 1e-6;
        }
        card_near("avg_down", got, want, tolerance, n);
        free(got), free(want), free(tolerance);
    }
    card_free(&kx), card_free(&up), card_free(&k0), card_free(&k1), card_free(&down);
    free(x);
}

static void check_ends(int h, int w, int z, int p, bool bf16, struct test_rng *r)
{
    struct err e = {0};
    int frames = 3, t = 1, area = h * w;
    float *latents = random_numbers((size_t)(z * frames * area), 1, bf16, r);
    float scale[LATENT_CUDA_CHANNELS], shift[LATENT_CUDA_CHANNELS];
    for (int c = 0; c < z; c++)
        scale[c] = 0.5f + (float)rng_unit(r), shift[c] = rng_normal(r);
    struct card kl = card_of(latents, (size_t)(z * frames * area), false),
                kf = card_room((size_t)(area * pad8(z)), bf16);
    CHECK_OK(latent_in_cuda(kf.at, (const float *)(void *)kl.at, z, frames, t, h, w, scale, shift,
                            bf16, NULL, &e));
    float *got = unpadded(&kf, (size_t)area, z);
    int bad = 0;
    for (int i = 0; i < area; i++)
        for (int c = 0; c < z; c++) {
            float v = latents[(c * frames + t) * area + i];
            v = bf16 ? bf16_round(bf16_round(v / scale[c]) + shift[c]) : v / scale[c] + shift[c];
            bad += !(fabsf(got[i * z + c] - v) <= 1e-6f * fabsf(v));
        }
    CHECK_MSG(bad == 0, "latents of %d channels: %d numbers differ", z, bad);
    free(got);
    CHECK_OK(latent_out_cuda((float *)(void *)kl.at, kf.at, pad8(z), z, frames, 2, h, w, shift,
                             scale, bf16, NULL, &e));
    float *back = card_get(&kl);
    got = unpadded(&kf, (size_t)area, z);
    for (int i = 0; i < area; i++)
        for (int c = 0; c < z; c++) {
            float v = (got[i * z + c] - shift[c]) * scale[c];
            bad += !(fabsf(back[(c * frames + 2) * area + i] - v) <= 1e-6f * fabsf(v) + 1e-6f);
            bad += back[(c * frames + t) * area + i] != latents[(c * frames + t) * area + i];
        }
    CHECK_MSG(bad == 0, "latents of %d channels, way back: %d numbers differ", z, bad);
    free(got), free(back), free(latents);
    card_free(&kl), card_free(&kf);

    int rgb = 3 * p * p, n = area * p * p * 3;
    float *frame = random_numbers((size_t)(area * rgb), 1, bf16, r);
    struct card kr = padded_card(frame, (size_t)area, rgb, bf16), kp = card_room((size_t)n, false),
                kb = card_room((size_t)(n + 3) / 4, false), flag = card_room(1, false);
    card_must(cudaMemset(flag.at, 0, 4), "a flag");
    CHECK_OK(rgb_out_cuda((float *)(void *)kp.at, (uint8_t *)kb.at, p == 2, (int *)(void *)flag.at,
                          kr.at, h, w, p, bf16, NULL, &e));
    float *picture = card_get(&kp);
    uint8_t *bytes = malloc((size_t)n);
    int set = 0;
    card_must(cudaMemcpy(bytes, kb.at, (size_t)n, cudaMemcpyDeviceToHost), "bytes");
    card_must(cudaMemcpy(&set, flag.at, 4, cudaMemcpyDeviceToHost), "a flag");
    for (int i = 0; i < n; i++) {
        int c = i % 3, x = i / 3 % (w * p), y = i / 3 / (w * p);
        float v = frame[((y / p) * w + x / p) * rgb + (c * p + x % p) * p + y % p];
        v = v < -1 ? -1 : v > 1 ? 1 : v;
        bad += picture[i] != v;
        float byte = (v * 0.5f + 0.5f) * 255.0f;
        bad += bytes[i] != (uint8_t)(p == 2 ? byte : nearbyintf(byte));
    }
    CHECK_MSG(bad == 0 && set == 0, "pictures of patches of %d: %d numbers differ", p, bad);
    CHECK_OK(rgb_in_cuda(kr.at, (const float *)(void *)kp.at, h, w, p, bf16, NULL, &e));
    got = unpadded(&kr, (size_t)area, rgb);
    for (int i = 0; i < area * rgb; i++) {
        float v = frame[i] < -1 ? -1 : frame[i] > 1 ? 1 : frame[i];
        bad += got[i] != v;
    }
    CHECK_MSG(bad == 0, "pictures of patches of %d, way back: %d numbers differ", p, bad);
    free(got);
    frame[area * rgb - 1] = NAN;
    card_free(&kr);
    kr = padded_card(frame, (size_t)area, rgb, bf16);
    CHECK_OK(
        finite_cuda((int *)(void *)flag.at, kr.at, (size_t)(area * pad8(rgb)), bf16, NULL, &e));
    card_must(cudaMemcpy(&set, flag.at, 4, cudaMemcpyDeviceToHost), "a flag");
    CHECK(set == 1);
    free(picture), free(bytes), free(frame);
    card_free(&kr), card_free(&kp), card_free(&kb), card_free(&flag);
}

/* A weight of 32-bit or half the bits, [out, in, taps], to [taps, out, in padded] of either type. */
static void check_pack(int out, int in, int taps, bool half, bool bf16, struct test_rng *r)
{
    struct err e = {0};
    size_t n = (size_t)(out * in * taps), wide = (size_t)pad8(in),
           all = (size_t)taps * (size_t)out * wide, bad = 0;
    float *w = random_numbers(n, 1, half, r);
    struct card from = card_of(w, n, half), to = card_room(all, bf16);
    struct conv_weight p = {out, in, taps, half ? CONV_WEIGHT_BF16 : CONV_WEIGHT_F32, bf16};
    CHECK_OK(conv_pack_cuda(to.at, from.at, &p, NULL, &e));
    float *got = card_get(&to);
    for (size_t i = 0; i < all; i++) {
        size_t c = i % wide, o = i / wide % (size_t)out, t = i / wide / (size_t)out;
        float v = c < (size_t)in ? w[(o * (size_t)in + c) * (size_t)taps + t] : 0;
        bad += got[i] != (bf16 ? bf16_round(v) : v);
    }
    CHECK_MSG(bad == 0, "weight [%d, %d, %d]: %zu numbers differ", out, in, taps, bad);
    free(got), free(w);
    card_free(&from), card_free(&to);
}

int main(int argc, char **argv)
{
    int devices = 0;
    struct test_rng r = test_seed(argc, argv);
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices < 1) {
        printf("no GPU\n");
        return 77;
    }
    for (int bf16 = 0; bf16 < 2; bf16++) {
        check_shortcuts(16, 8, 3, 5, 2, bf16, &r);
        check_shortcuts(8, 8, 3, 5, 1, bf16, &r);
        check_shortcuts(8, 16, 5, 3, 2, bf16, &r);
        check_ends(5, 7, 16, 1, bf16, &r);
        check_ends(4, 9, 48, 2, bf16, &r);
        for (int half = 0; half < 2; half++) {
            check_pack(7, 3, 27, half, bf16, &r);
            check_pack(33, 16, 9, half, bf16, &r);
        }
    }
    return TEST_RESULT();
}
