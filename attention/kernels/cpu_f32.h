/* fp32 micro-kernels over cpu_vec.h, for avx2.c and avx512.c.
 *
 * MR rows x NV vectors: MR * NV accumulators, NV loads and MR broadcasts a step.
 *   q  [rows / MR][d][MR]          scaled by log2(e) / sqrt(D)
 *   k  [panels][d][NR]             columns are keys, NR = NV * VLEN
 *   v  [channels / NR][keys][NR]   columns are channels; a last panel of VLEN when D leaves one
 *   S  [SUB][KB]                   scores, then probabilities
 *
 * Only keys of [lo, hi) enter the second product: what a plan leaves out is never touched. */
#define FLASH_NV 2
#define FLASH_NR (FLASH_NV * VLEN)
#define FLASH_P 0
typedef float packed;
typedef float packed_v;
#define flash_pad_k(d) (d)
#define flash_pad_v(d) (((d) + VLEN - 1) / VLEN * VLEN)
#define FLASH_FETCH_V FLASH_NR
#include "attention/kernels/cpu_flash.h"
#include "attention/kernels/cpu_pack.h"
#include "attention/kernels/cpu_f32_values.h"

static bool
flash_fits(const struct attn_size *s) /* every precision: bf16 differs by its rounding */
{
    return s->head_dim <= ATTN_MAX_HEAD_DIM;
}

static void flash_pack_q(const struct flash *f, struct flash_worker *w, int nth, int at,
                         const float *q, size_t stride, int rows)
{
    packed *dst = w->q + (size_t)at * (size_t)f->dk;
    (void)nth;
    pack_columns(dst, FLASH_MR, q, stride, rows, f->d);
    for (int i = 0; i < FLASH_MR * f->d; i++)
        dst[i] *= f->scale;
}

static void flash_pack_k(const struct flash *f, int nth, packed *dst, const float *k, size_t stride,
                         int keys)
{
    (void)nth;
    pack_columns(dst, FLASH_NR, k, stride, keys, f->d);
}

/* rows must be a constant */
ALWAYS_INLINE void score_tile(float *s, float *rowmax, const float *q, const float *k, int d,
                              const float *bias, int rows)
{
    vec acc[FLASH_MR][FLASH_NV];
    UNROLL(16)
    for (int r = 0; r < rows; r++)
        UNROLL(4) for (int n = 0; n < FLASH_NV; n++) acc[r][n] = v_set1(0.0f);
    REPEAT(4) for (int c = 0; c < d; c++, q += FLASH_MR, k += FLASH_NR)
    {
        vec b[FLASH_NV];
        UNROLL(4) for (int n = 0; n < FLASH_NV; n++) b[n] = v_load(k + n * VLEN);
        UNROLL(16) for (int r = 0; r < rows; r++)
        {
            vec x = v_set1(q[r]);
            UNROLL(4) for (int n = 0; n < FLASH_NV; n++) acc[r][n] = v_fma(x, b[n], acc[r][n]);
        }
    }
    if (bias) UNROLL(16)
    for (int r = 0; r < rows; r++)
        UNROLL(4)
    for (int n = 0; n < FLASH_NV; n++)
        acc[r][n] = v_bias(acc[r][n], v_load(bias + n * VLEN));
    UNROLL(16) for (int r = 0; r < rows; r++)
    {
        vec most = v_load(rowmax + r * VLEN);
        UNROLL(4) for (int n = 0; n < FLASH_NV; n++)
        {
            v_store(s + r * FLASH_KB + n * VLEN, acc[r][n]);
            most = v_max(most, acc[r][n]);
        }
        v_store(rowmax + r * VLEN, most);
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
            const float *q = w->q + (at + r) * f->d, *k = c->panel[i].k;
            FLASH_ROWS(rows - r, score_tile, s, most, q, k, f->d, c->panel[i].bias);
        }
}
