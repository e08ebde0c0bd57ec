/* torch.randn on a CPU generator, bit for bit: mt19937, then two ways to make it normal
 * (wan.md 6.1, 6.2). 16 values or more: torch's vector kernel, whose Cephes polynomials are
 * contracted to fused multiply-adds; so fmaf() is written out here, and nothing may fuse or reorder
 * by itself. Below 16: scalar double with a cached half.
 *
 * Checked against torch 2.15 on AVX2: tests/unit/sched/test_noise.c. */
#include "sched/sched.h"

#include <math.h>
#include <string.h>

void noise_seed(struct noise_rng *r, uint64_t seed)
{
    memset(r, 0, sizeof *r);
    r->state[0] = (uint32_t)seed;
    for (uint32_t j = 1; j < 624; j++) {
        uint32_t before = r->state[j - 1];
        r->state[j] = 1812433253u * (before ^ (before >> 30)) + j;
    }
    r->index = 624; /* refill before the first output */
}

static void refill(struct noise_rng *r)
{
    uint32_t *st = r->state;
    for (int i = 0; i < 624; i++) {
        uint32_t next = st[(i + 1) % 624];
        uint32_t y = (st[i] & 0x80000000u) | (next & 0x7fffffffu);
        st[i] = st[(i + 397) % 624] ^ (y >> 1) ^ (next & 1 ? 0x9908b0dfu : 0);
    }
    r->index = 0;
}

static uint32_t r32(struct noise_rng *r)
{
    if (r->index >= 624) refill(r);
    uint32_t y = r->state[r->index++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

static float uniform24(struct noise_rng *r) { return (float)(r32(r) & 0xffffffu) * 0x1p-24f; }

static double uniform53(struct noise_rng *r)
{
    uint64_t high = r32(r); /* the first draw is the high word */
    uint64_t both = high << 32 | r32(r);
    return (double)(both & ((1ull << 53) - 1)) * 0x1p-53;
}

/* ln x for 0 < x <= 1; wan.md 6.2 */
static float ln_cephes(float x)
{
    static const float p[] = {
        -1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f, 1.4249322787e-1f,
        -1.6668057665e-1f, 2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f,
    };
    uint32_t u;
    memcpy(&u, &x, 4);
    float e = (float)((int)(u >> 23) - 127 + 1);
    u = (u & 0x007fffffu) | 0x3f000000u; /* mantissa in [0.5, 1) */
    memcpy(&x, &u, 4);
    float less = x - 1;
    if (x < 0.707106781186547524f) {
        e -= 1;
        x = less + x;
    } else {
        x = less;
    }
    float z = x * x, y = 7.0376836292e-2f;
    for (size_t i = 0; i < ARRAY_LEN(p); i++)
        y = fmaf(y, x, p[i]);
    y = y * x;
    y = fmaf(y, z, e * -2.12194440e-4f);
    y = fmaf(-z, 0.5f, y);
    x = x + y;
    return fmaf(e, 0.693359375f, x);
}

/* theta >= 0 */
static void sincos_cephes(float theta, float *sine, float *cosine)
{
    int j = ((int)(theta * 1.27323954473516f) + 1) & ~1; /* octants, to the even one above */
    float y = (float)j;
    theta = fmaf(y, -0.78515625f, theta);
    theta = fmaf(y, -2.4187564849853515625e-4f, theta);
    theta = fmaf(y, -3.77489497744594108e-8f, theta);
    float z = theta * theta;
    float a = 2.443315711809948e-5f;
    a = fmaf(a, z, -1.388731625493765e-3f);
    a = fmaf(a, z, 4.166664568298827e-2f);
    a = a * z;
    a = fmaf(a, z, -(z * 0.5f));
    a = a + 1;
    float b = -1.9515295891e-4f;
    b = fmaf(b, z, 8.3321608736e-3f);
    b = fmaf(b, z, -1.6666654611e-1f);
    b = b * z;
    b = fmaf(b, theta, theta);
    float s = j & 2 ? a : b, c = j & 2 ? b : a;
    *sine = j & 4 ? -s : s;
    *cosine = ((j - 2) & 4) == 0 ? -c : c;
}

/* Box-Muller on 16 uniforms in place: 8 radii, 8 angles. */
static void box_muller(float d[16])
{
    for (int j = 0; j < 8; j++) {
        float sine, cosine;
        float radius = sqrtf(-2 * ln_cephes(1 - d[j]));
        sincos_cephes(6.28318530717958647692f * d[j + 8], &sine, &cosine);
        d[j] = radius * cosine;
        d[j + 8] = radius * sine;
    }
}

static float scalar_normal(struct noise_rng *r)
{
    if (r->has_next) {
        r->has_next = false;
        return (float)r->next;
    }
    double a = uniform53(r), b = uniform53(r);
    double radius = sqrt(-2 * log1p(-b)), theta = 2 * 3.14159265358979323846 * a;
    r->next = radius * sin(theta);
    r->has_next = true;
    return (float)(radius * cos(theta));
}

void noise_randn(struct noise_rng *r, float *x, size_t n)
{
    if (n < 16) {
        for (size_t i = 0; i < n; i++)
            x[i] = scalar_normal(r);
        return;
    }
    for (size_t i = 0; i < n; i++)
        x[i] = uniform24(r);
    for (size_t i = 0; i + 16 <= n; i += 16)
        box_muller(x + i);
    if (n % 16) { /* the tail: the last 16 are drawn anew, over the end of the block before */
        float *last = x + n - 16;
        for (int i = 0; i < 16; i++)
            last[i] = uniform24(r);
        box_muller(last);
    }
}
