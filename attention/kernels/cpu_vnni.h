/* Scores by vpdpbusd over cpu_vec8.h, for vnni_*.c: 12 x 32 tiles of 32-bit sums.
 *   q  [rows / MR][dk / 4][MR][4]   signed codes; a scale and a sum a row beside them
 *   k  [panels]{[dk / 4][NR][4], [NR] fp32}   codes + 128, columns are keys; then their scales
 *
 * The instruction multiplies unsigned with signed bytes: 128 times the sum of a row's codes, which
 * the offset of the keys adds to each of its products, is where its sums begin from. */
#define FLASH_MR 12
#define FLASH_NR (2 * VLEN)
#define FLASH_SUB 24
#define FLASH_DB 96
#define FLASH_QB 128
#define FLASH_KB 128
#define FLASH_CODES 1
#define FLASH_FETCH_V FLASH_NR
typedef int8_t packed;
#define flash_pad_k(d) (((d) + 3) / 4 * 4)
#define flash_key(d) (flash_pad_k(d) + 4)
#define flash_pad_v(d) (((d) + VLEN - 1) / VLEN * VLEN)
#define FLASH_MAX_PAD ((ATTN_MAX_HEAD_DIM + 31) / 32 * 32)
#include "attention/kernels/cpu_flash.h"
#include "attention/kernels/cpu_flash_codes.h"
#include "attention/kernels/cpu_pack.h"
#include "attention/kernels/cpu_vec8.h"

#define VNNI_CAN (FLASH_CAN | ATTN_NEED_QK_INT8 | ATTN_NEED_QK_INT4)

static void flash_pack_q(const struct flash *f, struct flash_worker *w, int nth, int at,
                         const float *q, size_t stride, int rows)
{
    int8_t code[FLASH_MR * FLASH_MAX_PAD];
    flash_code_q(f, w, code, nth, at, q, stride, rows);
    pack_columns(w->q + at * f->dk, FLASH_MR, code, (size_t)f->dk / 4, FLASH_MR, f->dk / 4);
}

static void flash_pack_k(const struct flash *f, int nth, packed *dst, const float *k, size_t stride,
                         int keys)
{
    int8_t code[FLASH_NR * FLASH_MAX_PAD];
    float scale[FLASH_NR];
    flash_code_k(f, code, scale, nth, k, stride, keys);
    for (int i = 0; i < FLASH_NR * f->dk; i++)
        code[i] = (int8_t)(code[i] ^ -128);
    pack_columns(dst, FLASH_NR, code, (size_t)f->dk / 4, FLASH_NR, f->dk / 4);
    memcpy(dst + FLASH_NR * f->dk, scale, sizeof scale);
}

struct vnni_rows { /* of the task, from the first of a tile on */
    const packed *q;
    const float *scale;
    const int32_t *sum;
};

/* rows must be a constant */
ALWAYS_INLINE void score_tile(float *s, float *rowmax, const struct vnni_rows *at, const packed *k,
                              int quads, const float *bias, int rows)
{
    veci acc[FLASH_MR][2];
    const packed *q = at->q;
    UNROLL(16) for (int r = 0; r < rows; r++) acc[r][0] = acc[r][1] = vi_const(at->sum[r]);
    REPEAT(2) for (int c = 0; c < quads; c++, q += 4 * FLASH_MR, k += 4 * FLASH_NR)
    {
        veci b0 = vi_load(k), b1 = vi_load(k + 4 * VLEN);
        UNROLL(16) for (int r = 0; r < rows; r++)
        {
            veci x = vi_set1(q + 4 * r);
            acc[r][0] = vi_dot(acc[r][0], b0, x);
            acc[r][1] = vi_dot(acc[r][1], b1, x);
        }
    }
    vec k0 = v_load((const float *)(const void *)k),
        k1 = v_load((const float *)(const void *)k + VLEN);
    UNROLL(16) for (int r = 0; r < rows; r++)
    {
        vec by = v_set1(at->scale[r]);
        vec lo = v_mul(v_mul(vi_float(acc[r][0]), k0), by);
        vec hi = v_mul(v_mul(vi_float(acc[r][1]), k1), by);
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
            struct vnni_rows q = {w->q + (at + r) * f->dk, w->q_scale + at + r, w->q_sum + at + r};
            const float *bias = c->panel[i].bias;
            FLASH_ROWS(rows - r, score_tile, s, most, &q, c->panel[i].k, f->dk / 4, bias);
        }
}
