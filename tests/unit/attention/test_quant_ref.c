/* 8-bit attention in plain C: numbers, codes, and the error of the whole against softmax in double.
 */
#include "attention/kernels/quant_ref.h"
#include "tests/check.h"

#define LEN_K 1500 /* ragged */
#define LEN_Q 300
#define MOST_D 128

static uint64_t state = 1;
static float unit(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (float)(state >> 40) * 0x1p-24f;
}
static float normal(void)
{
    return (float)(sqrt(-2 * log((double)unit() + 1e-9)) * cos(6.283185307179586 * (double)unit()));
}

static void check_e4m3(void)
{
    for (int code = 0; code < 256; code++) {
        float x = quant_e4m3_value((uint8_t)code);
        if (isnan(x)) continue;
        CHECK_MSG(quant_e4m3(x) == code, "e4m3: code %d is %g, whose code is %d", code, (double)x,
                  quant_e4m3(x));
    }
    for (int code = 0; code < 126; code++) { /* ties go to the even code, all else to the nearer */
        float a = quant_e4m3_value((uint8_t)code), b = quant_e4m3_value((uint8_t)(code + 1)),
              mid = (a + b) / 2;
        int even = code % 2 ? code + 1 : code;
        CHECK_MSG(quant_e4m3(mid) == even, "e4m3 of %g is %d, wanted %d", (double)mid,
                  quant_e4m3(mid), even);
        CHECK(quant_e4m3(nextafterf(mid, 0)) == code &&
              quant_e4m3(nextafterf(mid, 1e9f)) == code + 1);
        CHECK(quant_e4m3(-mid) == (even | 128));
    }
    CHECK(quant_e4m3(1e9f) == 126 && quant_e4m3(-INFINITY) == 254 && quant_e4m3(0x1p-20f) == 0);
}

static void check_layout(void)
{
    bool seen[QUANT_BLOCK] = {false};
    static const int first[16] = {0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15};
    for (int t = 0; t < QUANT_BLOCK; t++) {
        int slot = quant_slot(t);
        CHECK(slot >= 0 && slot < QUANT_BLOCK && !seen[slot] && slot / 16 == t / 16);
        CHECK(first[slot % 16] == t % 16);
        seen[slot] = true;
    }
    float x[MOST_D], y[MOST_D], a = 0, b = 0, c = 0;
    for (int i = 0; i < MOST_D; i++)
        x[i] = normal(), y[i] = normal(), a += x[i] * y[i];
    quant_rotate(x, MOST_D);
    quant_rotate(y, MOST_D);
    for (int i = 0; i < MOST_D; i++)
        b += x[i] * y[i];
    CHECK_MSG(fabsf(a - b) < 1e-4f, "rotation changes a product from %g to %g", (double)a,
              (double)b);
    memset(x, 0, sizeof x);
    x[5] = 8;
    quant_rotate(x, MOST_D);
    for (int i = 0; i < MOST_D; i++)
        c = fmaxf(c, fabsf(x[i]));
    CHECK_MSG(c < .71f, "an outlier of 8 is still %g after rotation", (double)c);
}

struct data {
    float q[LEN_Q * MOST_D], k[LEN_K * MOST_D], v[LEN_K * MOST_D];
};
static struct data data;

enum set { RANDOM, BIASED, OUTLIERS, SETS };

static void fill(enum set set, int d)
{
    float bias[MOST_D];
    for (int i = 0; i < d; i++)
        bias[i] = 2 * normal();
    for (int i = 0; i < LEN_Q * d; i++)
        data.q[i] = normal();
    for (int i = 0; i < LEN_K * d; i++) {
        data.k[i] = normal() + (set == BIASED && i % d < 8 ? 25 : 0);
        data.v[i] = normal() + (set == BIASED ? bias[i % d] : 0);
        if (set == OUTLIERS && i % d < 2) data.k[i] *= 40; /* spread, which a mean does not take */
    }
}

/* Relative L1 of the emulation against softmax in double, a few queries. */
static double error_of(struct quant_codes *c, double *lse_off)
{
    int d = c->head_dim;
    size_t bytes = quant_codes_carve(c, NULL);
    void *memory = NULL;
    uint32_t tiles[(LEN_K + 127) / 128];
    struct quant_rows q = {data.q, d, 0}, k = {data.k, d, 0}, v = {data.v, d, 0};
    double off = 0, all = 0;
    if (posix_memalign(&memory, 256, bytes) != 0) exit(4);
    quant_codes_carve(c, memory);
    quant_ref(c, &q, &k, &v);
    for (int i = 0; i < c->k_blocks; i++)
        tiles[i] = (uint32_t)(c->k_blocks - 1 - i);
    *lse_off = 0;
    for (int i = 0; i < LEN_Q; i += 37) {
        static double s[LEN_K];
        double o[MOST_D] = {0}, most = -1e300, sum = 0;
        float got[MOST_D], lse;
        for (int j = 0; j < LEN_K; j++) {
            s[j] = 0;
            for (int x = 0; x < d; x++)
                s[j] += (double)data.q[i * d + x] * (double)data.k[j * d + x];
            s[j] /= sqrt((double)d);
            most = s[j] > most ? s[j] : most;
        }
        for (int j = 0; j < LEN_K; j++) {
            double e = exp(s[j] - most);
            sum += e;
            for (int x = 0; x < d; x++)
                o[x] += e * (double)data.v[j * d + x];
        }
        quant_attend(got, &lse, NULL, c, 0, i, tiles, c->k_blocks);
        for (int x = 0; x < d; x++) {
            off += fabs((double)got[x] - o[x] / sum);
            all += fabs(o[x] / sum);
        }
        *lse_off = fmax(*lse_off, fabs((double)lse - most - log(sum)));
    }
    free(memory);
    return off / all;
}

static double error_with(enum quant_values values, int bits, bool smooth_k, bool smooth_q,
                         bool rotate, int d, double *lse)
{
    struct quant_codes c = {.len_q = LEN_Q,
                            .len_k = LEN_K,
                            .n_heads = 1,
                            .head_dim = d,
                            .how = {bits, smooth_k, smooth_q, rotate, values, 2}};
    return error_of(&c, lse);
}

/* attention-kernels 9.4's bounds; and what each option is for, by sets where it matters */
static void check_errors(int d)
{
    double lse, plain, other;
    fill(RANDOM, d);
    plain = error_with(QUANT_E4M3, 8, true, false, false, d, &lse);
    CHECK_MSG(plain < .060 && lse < .02, "random, e4m3: %.4f, lse %.4f", plain, lse);
    other = error_with(QUANT_S8, 8, true, false, false, d, &lse);
    CHECK_MSG(other < .027 && other < .7 * plain, "random, s8: %.4f", other);
    other = error_with(QUANT_S8, 4, true, false, false, d, &lse);
    CHECK_MSG(other > .1 && other < .35, "random, 4 bits: %.4f", other);
    fill(BIASED, d);
    plain = error_with(QUANT_E4M3, 8, true, false, false, d, &lse);
    CHECK_MSG(plain < .0060 && lse < .03, "biased, e4m3: %.4f, lse %.4f", plain, lse);
    other = error_with(QUANT_S8, 8, false, false, false, d, &lse);
    plain = error_with(QUANT_S8, 8, true, false, false, d, &lse);
    CHECK_MSG(plain < .0035 && other > 1.5 * plain, "biased, s8: %.4f, without smoothing keys %.4f",
              plain, other);
    plain = error_with(QUANT_S8, 4, true, false, false, d, &lse);
    other = error_with(QUANT_S8, 4, true, true, false, d, &lse);
    CHECK_MSG(other < 1.2 * plain, "biased, 4 bits: %.4f, with smoothed queries %.4f", plain,
              other);
    fill(OUTLIERS, d);
    plain = error_with(QUANT_S8, 8, true, false, false, d, &lse);
    other = error_with(QUANT_S8, 8, true, false, true, d, &lse);
    CHECK_MSG(other < .8 * plain, "outlier channels: %.4f, rotated %.4f", plain, other);
    printf("d%d: outlier channels %.4f, rotated %.4f\n", d, plain, other);
}

/* Nothing but zeros: no division by zero, no NaN. Values that are the same come out as they are. */
static void check_degenerate(void)
{
    double lse;
    memset(&data, 0, sizeof data);
    for (int v = 0; v < 2; v++) {
        memset(data.v, 0, sizeof data.v);
        error_with(v ? QUANT_S8 : QUANT_E4M3, 8, true, true, true, 64, &lse);
        CHECK_MSG(lse < 1e-3, "zeros: lse off by %g", lse);
        for (int i = 0; i < LEN_K * 64; i++)
            data.v[i] = 1.5f;
        double off = error_with(v ? QUANT_S8 : QUANT_E4M3, 8, true, false, false, 64, &lse);
        CHECK_MSG(off < 1e-2, "equal values come out off by %g", off);
    }
    struct quant_codes c = {
        .len_q = 1, .len_k = 1, .n_heads = 1, .head_dim = 64, .how = {.bits = 8}};
    float o[64], x;
    size_t bytes = quant_codes_carve(&c, NULL);
    void *memory = NULL;
    if (posix_memalign(&memory, 256, bytes) != 0) exit(4);
    quant_codes_carve(&c, memory);
    struct quant_rows rows = {data.v, 64, 0};
    quant_ref(&c, &rows, &rows, &rows);
    quant_attend(o, &x, NULL, &c, 0, 0, NULL, 0);
    CHECK(o[0] == 0 && o[63] == 0 && x < 0 && isinf(x));
    CHECK(bytes % 256 == 0 && c.q_blocks == 1 && c.k_scale[4] == 1 && c.q_pool == NULL &&
          c.delta == NULL);
    free(memory);
}

int main(void)
{
    check_e4m3();
    check_layout();
    check_errors(64);
    check_errors(128);
    check_degenerate();
    return TEST_RESULT();
}
