/* Winograd F(4x4, 3x3): points 0, +-A, +-B, infinity; and of doubled pictures. A part of lanes.h. */

#define A 0.625f
#define B 1.5f

/* six inputs → six points */
INLINE void in_1d(vf y[6], vf d0, vf d1, vf d2, vf d3, vf d4, vf d5)
{
    const float aa = A * A, bb = B * B;
    vf ea = d4 - bb * d2, oa = A * (d3 - bb * d1);
    vf eb = d4 - aa * d2, ob = B * (d3 - aa * d1);
    y[0] = aa * bb * d0 - (aa + bb) * d2 + d4;
    y[1] = ea + oa;
    y[2] = ea - oa;
    y[3] = eb + ob;
    y[4] = eb - ob;
    y[5] = aa * bb * d1 - (aa + bb) * d3 + d5;
}

/* six points → four outputs */
INLINE void out_1d(vf y[4], vf m0, vf m1, vf m2, vf m3, vf m4, vf m5)
{
    const float aa = A * A, bb = B * B;
    vf sa = m1 + m2, da = m1 - m2, sb = m3 + m4, db = m3 - m4;
    y[0] = m0 + sa + sb;
    y[1] = A * da + B * db;
    y[2] = aa * sa + bb * sb;
    y[3] = aa * A * da + bb * B * db + m5;
}

static void wino_in(float *v, ptrdiff_t stride, const float *src, ptrdiff_t pitch, int channels)
{
    for (int c = 0; c < channels; c += LANES) {
        vf t[6][6]; /* [column of the patch][row point] */
        for (int x = 0; x < 6; x++) {
            const float *p = src + x * channels + c;
            in_1d(t[x], LOAD(p), LOAD(p + pitch), LOAD(p + 2 * pitch), LOAD(p + 3 * pitch),
                  LOAD(p + 4 * pitch), LOAD(p + 5 * pitch));
        }
        float *o = v + c;
        for (int i = 0; i < 6; i++) {
            vf r[6];
            in_1d(r, t[0][i], t[1][i], t[2][i], t[3][i], t[4][i], t[5][i]);
#pragma GCC unroll 6
            for (int j = 0; j < 6; j++, o += stride)
                STORE(o, r[j]);
        }
    }
}

static void wino_out(float *y, const float *m, ptrdiff_t stride, int channels)
{
    for (int c = 0; c < channels; c += LANES) {
        vf t[6][4]; /* [column point][output row] */
        for (int j = 0; j < 6; j++) {
            const float *p = m + j * stride + c;
            out_1d(t[j], LOAD(p), LOAD(p + 6 * stride), LOAD(p + 12 * stride),
                   LOAD(p + 18 * stride), LOAD(p + 24 * stride), LOAD(p + 30 * stride));
        }
        for (int i = 0; i < 4; i++) {
            vf r[4];
            out_1d(r, t[0][i], t[1][i], t[2][i], t[3][i], t[4][i], t[5][i]);
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++)
                STORE(y + (i * 4 + j) * channels + c, r[j]);
        }
    }
}

/* The same for a doubled picture, points 0, 1, 2, -2, infinity (-1 is always 0). The six inputs are
 * a b b c c d. */
INLINE void in_1d_up(vf y[5], vf a, vf b, vf c, vf d)
{
    vf cb = c - b;
    y[0] = 4.0f * (a - b) + cb;
    y[1] = 2.0f * c - 8.0f * b;
    y[2] = 3.0f * cb;
    y[3] = b - c;
    y[4] = d - c - 4.0f * cb;
}

INLINE void out_1d_up(vf y[4], vf m0, vf m1, vf m2, vf m3, vf m4)
{
    vf s = m2 + m3, d = m2 - m3;
    y[0] = m0 + m1 + s;
    y[1] = m1 + 2.0f * d;
    y[2] = m1 + 4.0f * s;
    y[3] = m1 + 8.0f * d + m4;
}

static void wino_in_up(float *v, ptrdiff_t stride, const float *src, ptrdiff_t pitch, int channels)
{
    for (int c = 0; c < channels; c += LANES) {
        vf t[4][5];
        for (int x = 0; x < 4; x++) {
            const float *p = src + x * channels + c;
            in_1d_up(t[x], LOAD(p), LOAD(p + pitch), LOAD(p + 2 * pitch), LOAD(p + 3 * pitch));
        }
        float *o = v + c;
        for (int i = 0; i < 5; i++) {
            vf r[5];
            in_1d_up(r, t[0][i], t[1][i], t[2][i], t[3][i]);
#pragma GCC unroll 5
            for (int j = 0; j < 5; j++, o += stride)
                STORE(o, r[j]);
        }
    }
}

static void wino_out_up(float *y, const float *m, ptrdiff_t stride, int channels)
{
    for (int c = 0; c < channels; c += LANES) {
        vf t[5][4];
        for (int j = 0; j < 5; j++) {
            const float *p = m + j * stride + c;
            out_1d_up(t[j], LOAD(p), LOAD(p + 5 * stride), LOAD(p + 10 * stride),
                      LOAD(p + 15 * stride), LOAD(p + 20 * stride));
        }
        for (int i = 0; i < 4; i++) {
            vf r[4];
            out_1d_up(r, t[0][i], t[1][i], t[2][i], t[3][i], t[4][i]);
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++)
                STORE(y + (i * 4 + j) * channels + c, r[j]);
        }
    }
}
