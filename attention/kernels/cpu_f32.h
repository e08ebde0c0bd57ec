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
#define flash_pad_k(d) (d)
#define flash_pad_v(d) (((d) + VLEN - 1) / VLEN * VLEN)
#define FLASH_FETCH_V FLASH_NR
#include "attention/kernels/cpu_flash.h"
#include "attention/kernels/cpu_pack.h"

static bool
flash_fits(const struct attn_size *s) /* every precision: bf16 differs by its rounding */
{
    return s->head_dim <= ATTN_MAX_HEAD_DIM;
}

static void flash_pack_q(const struct flash *f, packed *dst, const float *q, size_t stride,
                         int rows)
{
    pack_columns(dst, FLASH_MR, q, stride, rows, f->d);
    for (int i = 0; i < FLASH_MR * f->d; i++)
        dst[i] *= f->scale;
}

static void flash_pack_k(const struct flash *f, packed *dst, const float *k, size_t stride,
                         int keys)
{
    pack_columns(dst, FLASH_NR, k, stride, keys, f->d);
}

static void flash_pack_v(const struct flash *f, packed *dst, size_t len, const float *v,
                         size_t stride, int at, int keys)
{
    for (int c0 = 0; c0 < f->dv; c0 += FLASH_NR) {
        int width = f->dv - c0 < FLASH_NR ? VLEN : FLASH_NR;
        int real = flash_min(width, f->d - c0);
        packed *row = dst + (size_t)c0 * len + (size_t)at * (size_t)width;
        for (int j = 0; j < FLASH_NR; j++, row += width) {
            int n = j < keys ? real : 0;
            memcpy(row, v + (j < keys ? (size_t)j * stride + (size_t)c0 : 0),
                   (size_t)n * sizeof *row);
            memset(row + n, 0, (size_t)(width - n) * sizeof *row);
        }
    }
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

static void flash_probs(const struct flash *f, struct flash_worker *w, const struct flash_chunk *c,
                        int at, int rows)
{
    (void)f;
    for (int i = 0; i < rows; i++) {
        float *s = w->s + i * FLASH_KB;
        vec base = v_set1(flash_new_max(w, at, i, 5)), sum = v_load(w->l + (at + i) * VLEN);
        for (int j = 0; j < c->n * FLASH_NR; j += FLASH_NR) {
            UNROLL(4) for (int n = 0; n < FLASH_NV; n++)
            {
                vec p = v_exp2(v_sub(v_load(s + j + n * VLEN), base), 5);
                v_store(s + j + n * VLEN, p);
                sum = v_add(sum, p);
            }
        }
        v_store(w->l + (at + i) * VLEN, sum);
    }
}

/* nv must be a constant: FLASH_NV, or 1 for the last channels; so must rows. */
ALWAYS_INLINE void value_tile(float *o, int stride, const float *p, const float *alpha,
                              const float *v, const struct flash_chunk *c, int nv, int rows)
{
    vec acc[FLASH_MR][FLASH_NV];
    UNROLL(16) for (int r = 0; r < rows; r++)
    {
        vec x = v_set1(alpha[r]);
        UNROLL(4)
        for (int n = 0; n < nv; n++)
            acc[r][n] = v_mul(v_load(o + r * stride + n * VLEN), x);
    }
    for (int i = 0; i < c->runs; i++) {
        const struct flash_keys *keys = &c->run[i];
        const float *row = v + keys->key * (size_t)(nv * VLEN);
        const float *x = p + keys->column;
        REPEAT(4) for (int j = keys->n; j > 0; j--, row += nv * VLEN, x++)
        {
            vec b[FLASH_NV];
            UNROLL(4) for (int n = 0; n < nv; n++) b[n] = v_load(row + n * VLEN);
            UNROLL(16) for (int r = 0; r < rows; r++)
            {
                vec y = v_set1(x[r * FLASH_KB]);
                UNROLL(4) for (int n = 0; n < nv; n++) acc[r][n] = v_fma(y, b[n], acc[r][n]);
            }
        }
    }
    UNROLL(16)
    for (int r = 0; r < rows; r++)
        UNROLL(4) for (int n = 0; n < nv; n++) v_store(o + r * stride + n * VLEN, acc[r][n]);
}

static void flash_values(const struct flash *f, struct flash_worker *w, const struct flash_chunk *c,
                         const packed *v, size_t len, int at, int rows)
{
    for (int c0 = 0; c0 < f->dv; c0 += FLASH_NR) {
        const packed *panel = v + (size_t)c0 * len;
        for (int r = 0; r < rows; r += FLASH_MR) {
            float *o = w->o + (at + r) * f->dv + c0, *p = w->s + r * FLASH_KB;
            if (f->dv - c0 >= FLASH_NR)
                FLASH_ROWS(rows - r, value_tile, o, f->dv, p, w->alpha + r, panel, c, FLASH_NV);
            else
                FLASH_ROWS(rows - r, value_tile, o, f->dv, p, w->alpha + r, panel, c, 1);
        }
    }
}
