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
#include "attention/kernels/cpu_bf16_values.h"

static void flash_pack_q(const struct flash *f, struct flash_worker *w, int nth, int at,
                         const float *q, size_t stride, int rows)
{
    packed *dst = w->q + (size_t)at * (size_t)f->dk;
    (void)nth;
    packed row[FLASH_MR * FLASH_MAX_PAD];
    pack_narrow(row, f->dk, FLASH_MR, q, stride, rows, f->d);
    pack_columns(dst, FLASH_MR, row, (size_t)f->dk / 2, FLASH_MR, f->dk / 2);
}

static void flash_pack_k(const struct flash *f, int nth, packed *dst, const float *k, size_t stride,
                         int keys)
{
    (void)nth;
    packed row[FLASH_NR * FLASH_MAX_PAD];
    pack_narrow(row, f->dk, FLASH_NR, k, stride, keys, f->d);
    pack_columns(dst, FLASH_NR, row, (size_t)f->dk / 2, FLASH_NR, f->dk / 2);
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

const struct attn_kernel attn_avx512bf16 = {
    .name = "avx512bf16",
    .summary = "bf16 products, AVX512-BF16",
    .needs = CPU_AVX512_BF16,
    .can = FLASH_CAN,
    .fits = flash_fits,
    .scratch = flash_scratch,
    .run = flash_run,
};
