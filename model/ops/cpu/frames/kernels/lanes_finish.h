/* Element-wise: exp, rounding to bf16, the end of a convolution, softmax. A part of lanes.h. */

INLINE vf select_vf(vi mask, vf yes, vf no) { return (vf)((mask & (vi)yes) | (~mask & (vi)no)); }

#ifndef MAX_VF /* set where one instruction does it */
#define MAX_VF(a, b) select_vf((a) > (b), a, b)
#define MIN_VF(a, b) select_vf((a) < (b), a, b)
#endif

/* e^x by 2^n * e^r, |r| <= ln2/2, degree 6 (Cephes expf); within 2 ulp. Clamped to [-87, 88]. */
INLINE vf exp_vf(vf x)
{
    const vf hi = ZERO + 88.0f, lo = ZERO - 87.0f, magic = ZERO + 12582912.0f; /* 1.5 * 2^23 */
    x = MAX_VF(MIN_VF(x, hi), lo);
    vf n = x * 1.44269504f + magic;
    vi bits = (vi)n << 23;
    n -= magic;
    vf r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    vf p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    return (vf)((vi)p + bits);
}

INLINE float sum_vf(vf v)
{
    float s[LANES];
    STORE(s, v);
    for (int w = LANES / 2; w; w /= 2)
        for (int i = 0; i < w; i++)
            s[i] += s[i + w];
    return s[0];
}

/* to bf16 and back, nearest even; finite values */
INLINE vf round_vf(vf v)
{
    vu u = (vu)v;
    u += 0x7fffu + ((u >> 16) & 1u);
    return (vf)(u & 0xffff0000u);
}

INLINE vf silu_vf(vf v) { return v / (1.0f + exp_vf(-v)); }

/* Sums of a pixel and what is kept of them; returns the lanes' squares. */
INLINE vf finish_sums(const struct finish *f, const float *y, const float *add, float *keep,
                      const bool round)
{
    const float *bias = f->bias; /* in locals: a store through keep could change *f otherwise */
    const int channels = f->channels;
    vf squares = ZERO;
    for (int c = 0; c < channels; c += LANES) {
        vf v = LOAD(y + c) + LOAD(bias + c);
        if (round) v = round_vf(v);
        if (add) v += LOAD(add + c);
        if (round && add) v = round_vf(v);
        squares += v * v;
        STORE(keep + c, v);
    }
    return squares;
}

INLINE void finish_norm(const struct finish *f, const float *kept, float *norm, float scale,
                        const bool round)
{
    const float *gamma = f->gamma;
    const int channels = f->channels;
    const float sqrt_c = f->sqrt_c;
    const bool silu = f->silu;
    for (int c = 0; c < channels; c += LANES) {
        vf v = LOAD(kept + c) * scale;
        if (round) v = round_vf(round_vf(v) * sqrt_c);
        v *= LOAD(gamma + c);
        if (round) v = round_vf(v);
        if (silu) v = silu_vf(v);
        if (round) v = round_vf(v);
        STORE(norm + c, v);
    }
}

/* Four pixels at a time: the root and the division of one wait for nothing of the next. */
INLINE void finish_pixels(const struct finish *f, const float *y, ptrdiff_t y_stride, int n,
                          const float *residual, float *x, float *norm, const bool round)
{
    ptrdiff_t channels = f->channels;
    float *keep = x ? x : norm;
    for (int i = 0; i < n; i += 4) {
        int some = n - i < 4 ? n - i : 4;
        float squares[4][LANES], scale[4];
        for (int p = 0; p < some; p++)
            STORE(squares[p], finish_sums(f, y + (i + p) * y_stride,
                                          residual ? residual + (i + p) * channels : NULL,
                                          keep + (i + p) * channels, round));
        if (!norm) continue;
        for (int p = 0; p < some; p++) {
            for (int w = LANES / 2; w; w /= 2)
                for (int l = 0; l < w; l++)
                    squares[p][l] += squares[p][l + w];
            float len = sqrtf(squares[p][0]);
            len = len > 1e-12f ? len : 1e-12f;
            scale[p] = (round ? 1.0f : f->sqrt_c) / len;
        }
        for (int p = 0; p < some; p++)
            finish_norm(f, keep + (i + p) * channels, norm + (i + p) * channels, scale[p], round);
    }
}

static void finish(const struct finish *f, const float *y, ptrdiff_t y_stride, int n,
                   const float *residual, float *x, float *norm)
{
    if (f->round)
        finish_pixels(f, y, y_stride, n, residual, x, norm, true);
    else
        finish_pixels(f, y, y_stride, n, residual, x, norm, false);
}

static void narrow(uint16_t *dst, const float *src, size_t n)
{
    for (size_t i = 0; i < n; i += LANES) {
        vh h = __builtin_convertvector((vu)LOAD(src + i) >> 16, vh);
        memcpy(dst + i, &h, sizeof h);
    }
}

static float softmax(float *s, int n, float scale)
{
    float top = -INFINITY, total = 0;
    int i = 0;
    if (n >= LANES) {
        vf m = LOAD(s);
        for (i = LANES; i + LANES <= n; i += LANES) {
            vf v = LOAD(s + i);
            m = select_vf(v > m, v, m);
        }
        float lane[LANES];
        STORE(lane, m);
        for (int j = 0; j < LANES; j++)
            top = lane[j] > top ? lane[j] : top;
    }
    for (; i < n; i++)
        top = s[i] > top ? s[i] : top;
    vf sum = ZERO;
    for (i = 0; i + LANES <= n; i += LANES) {
        vf v = exp_vf((LOAD(s + i) - top) * scale);
        sum += v;
        STORE(s + i, v);
    }
    total = sum_vf(sum);
    for (; i < n; i++) {
        s[i] = expf((s[i] - top) * scale);
        total += s[i];
    }
    return 1.0f / total;
}
