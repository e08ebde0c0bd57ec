/* bf16 attention for AVX512-BF16: the 12 x 32 tiles of avx512.c over pairs (vdpbf16ps).
 *   q  [rows / MR][dk / 2][MR][2]
 *   k  [panels][dk / 2][NR][2]              columns are keys
 *   v  [channels / NR][keys / 2][NR][2]     columns are channels; a last panel of VLEN
 *   P  [SUB][KB]                            two neighbouring keys are one 32-bit broadcast
 *
 * The instruction flushes denormals and rounds in an order of its own: compare within a
 * tolerance. */
#if !defined(FLASH_EMULATE) && !defined(__AVX512BF16__)
#error "avx512bf16.c needs -mavx512bf16"
#endif
#define FLASH_MR 12
#define FLASH_SUB 24
#define FLASH_DB 96
#define FLASH_QB 128
#define FLASH_KB 128
#define flash_pad_k(d) (((d) + 1) / 2 * 2)
#define flash_pad_v(d) (((d) + VLEN - 1) / VLEN * VLEN)
#define FLASH_FETCH_V FLASH_NR
#include "attention/kernels/cpu_vec.h"
#include "attention/kernels/cpu_bf16.h"

static void flash_pack_q(const struct flash *f, packed *dst, const float *q, size_t stride,
                         int rows)
{
    packed row[FLASH_MR * FLASH_MAX_PAD];
    pack_narrow(row, f->dk, FLASH_MR, q, stride, rows, f->d);
    pack_columns(dst, FLASH_MR, row, (size_t)f->dk / 2, FLASH_MR, f->dk / 2);
}

static void flash_pack_k(const struct flash *f, packed *dst, const float *k, size_t stride,
                         int keys)
{
    packed row[FLASH_NR * FLASH_MAX_PAD];
    pack_narrow(row, f->dk, FLASH_NR, k, stride, keys, f->d);
    pack_columns(dst, FLASH_NR, row, (size_t)f->dk / 2, FLASH_NR, f->dk / 2);
}

static void flash_pack_v(const struct flash *f, packed *dst, size_t len, const float *v,
                         size_t stride, int at, int keys)
{
    packed row[FLASH_NR * FLASH_MAX_PAD];
    pack_narrow(row, f->dv, FLASH_NR, v, stride, keys, f->d);
    for (int c0 = 0; c0 < f->dv; c0 += FLASH_NR) {
        int width = f->dv - c0 < FLASH_NR ? VLEN : FLASH_NR;
        pack_pairs(dst + (size_t)c0 * len + (size_t)at * (size_t)width, width, row, f->dv, c0,
                   FLASH_NR);
    }
}

/* rows must be a constant */
ALWAYS_INLINE void score_tile(float *s, float *rowmax, const packed *q, const packed *k, int pairs,
                              const float *bias, float scale, int rows)
{
    vec acc[FLASH_MR][2];
    UNROLL(16) for (int r = 0; r < rows; r++) acc[r][0] = acc[r][1] = v_set1(0.0f);
    REPEAT(2) for (int c = 0; c < pairs; c++, q += 2 * FLASH_MR, k += 2 * FLASH_NR)
    {
        vech b0 = vh_load(k), b1 = vh_load(k + 2 * VLEN);
        UNROLL(16) for (int r = 0; r < rows; r++)
        {
            vech x = vh_set1(q + 2 * r);
            acc[r][0] = vh_dot(acc[r][0], x, b0);
            acc[r][1] = vh_dot(acc[r][1], x, b1);
        }
    }
    vec by = v_set1(scale);
    UNROLL(16) for (int r = 0; r < rows; r++)
    {
        vec lo = v_mul(acc[r][0], by), hi = v_mul(acc[r][1], by);
        if (bias) lo = v_bias(lo, v_load(bias)), hi = v_bias(hi, v_load(bias + VLEN));
        v_store(s + r * FLASH_KB, lo);
        v_store(s + r * FLASH_KB + VLEN, hi);
        v_store(rowmax + r * VLEN, v_max(v_max(v_load(rowmax + r * VLEN), lo), hi));
    }
}

static void flash_scores(const struct flash *f, struct flash_worker *w, const struct flash_chunk *c,
                         int at, int rows)
{
    for (int i = 0; i < rows; i++)
        v_store(w->rowmax + i * VLEN, v_set1(-INFINITY));
    for (int i = 0; i < c->n; i++)
        for (int r = 0; r < rows; r += FLASH_MR) {
            float *s = w->s + r * FLASH_KB + i * FLASH_NR, *most = w->rowmax + r * VLEN;
            const packed *q = w->q + (at + r) * f->dk, *k = c->panel[i].k;
            FLASH_ROWS(rows - r, score_tile, s, most, q, k, f->dk / 2, c->panel[i].bias, f->scale);
        }
}

/* nv must be a constant: 2, or 1 for the last channels; so must rows. */
ALWAYS_INLINE void value_tile(float *o, int stride, const packed *p, const float *alpha,
                              const packed *v, const struct flash_chunk *c, int nv, int rows)
{
    vec acc[FLASH_MR][2];
    UNROLL(16) for (int r = 0; r < rows; r++)
    {
        vec x = v_set1(alpha[r]);
        UNROLL(2)
        for (int n = 0; n < nv; n++)
            acc[r][n] = v_mul(v_load(o + r * stride + n * VLEN), x);
    }
    for (int i = 0; i < c->n; i++) {
        const struct flash_panel *panel = &c->panel[i];
        int from = panel->lo / 2 * 2; /* a masked half of a pair has P = 0 */
        const packed *row = v + (panel->key + (size_t)from) * (size_t)(nv * VLEN);
        const packed *x = p + i * FLASH_NR + from;
        REPEAT(2) for (int j = panel->hi - from; j > 0; j -= 2, row += 2 * nv * VLEN, x += 2)
        {
            vech b[2];
            UNROLL(2) for (int n = 0; n < nv; n++) b[n] = vh_load(row + 2 * n * VLEN);
            UNROLL(16) for (int r = 0; r < rows; r++)
            {
                vech y = vh_set1(x + r * FLASH_KB);
                UNROLL(2) for (int n = 0; n < nv; n++) acc[r][n] = vh_dot(acc[r][n], y, b[n]);
            }
        }
    }
    UNROLL(16)
    for (int r = 0; r < rows; r++)
        UNROLL(2) for (int n = 0; n < nv; n++) v_store(o + r * stride + n * VLEN, acc[r][n]);
}

static void flash_values(const struct flash *f, struct flash_worker *w, const struct flash_chunk *c,
                         const packed *v, size_t len, int at, int rows)
{
    for (int c0 = 0; c0 < f->dv; c0 += FLASH_NR) {
        const packed *panel = v + (size_t)c0 * len;
        for (int r = 0; r < rows; r += FLASH_MR) {
            float *o = w->o + (at + r) * f->dv + c0;
            const packed *p = w->p + r * FLASH_KB;
            if (f->dv - c0 >= FLASH_NR)
                FLASH_ROWS(rows - r, value_tile, o, f->dv, p, w->alpha + r, panel, c, 2);
            else
                FLASH_ROWS(rows - r, value_tile, o, f->dv, p, w->alpha + r, panel, c, 1);
        }
    }
}

const struct attn_kernel attn_avx512bf16 = {
    .name = "avx512bf16",
    .summary = "bf16 products, AVX512-BF16",
    .needs = CPU_AVX512_BF16,
    .can = FLASH_CAN,
    .fits = flash_fits,
    .scratch = flash_scratch,
    .run = flash_run,
};
