/* Scores over codes, by cpu_vec8.h: tiles of MR x 2 vectors of 32-bit sums, G codes a lane.
 *   q  [rows / MR][dk / G][MR][G]   signed codes; a scale and a sum a row beside them
 *   k  [panels]{[dk / G][NR][G], [NR] fp32}   codes + VI_OFFSET, columns are keys; then their scales
 *
 * Where an instruction multiplies unsigned with signed bytes keys are offset by 128: what that adds to
 * each sum, 128 times the sum of a row's codes, is what its sums begin from. MR, SUB and KB are the
 * file's that includes this. */
#define FLASH_NR (2 * VLEN)
#define FLASH_DB 96
#define FLASH_QB 128
#define FLASH_CODES 1
#define FLASH_FETCH_V FLASH_NR
typedef vi_code packed;
#define flash_pad_k(d) (((d) + VI_GROUP - 1) / VI_GROUP * VI_GROUP)
#define flash_key(d) (flash_pad_k(d) + (int)(sizeof(float) / sizeof(packed)))
#define flash_pad_v(d) (((d) + VLEN - 1) / VLEN * VLEN)
#define FLASH_MAX_PAD ((ATTN_MAX_HEAD_DIM + 31) / 32 * 32)
#include "attention/kernels/cpu_flash.h"
#include "attention/kernels/cpu_flash_codes.h"
#include "attention/kernels/cpu_pack.h"

/* G codes a lane, whatever a code takes there. */
static inline void widen(packed *to, const int8_t *code, int n, int offset)
{
    for (int i = 0; i < n; i++)
        to[i] = (packed)(code[i] + offset);
}

static void flash_pack_q(const struct flash *f, struct flash_worker *w, int nth, int at,
                         const float *q, size_t stride, int rows)
{
    int8_t code[FLASH_MR * FLASH_MAX_PAD];
    packed wide[FLASH_MR * FLASH_MAX_PAD];
    int quads = f->dk / VI_GROUP;
    flash_code_q(f, w, code, nth, at, q, stride, rows);
    widen(wide, code, FLASH_MR * f->dk, 0);
    pack_columns(w->q + at * f->dk, FLASH_MR, wide, (size_t)quads, FLASH_MR, quads);
}

static void flash_pack_k(const struct flash *f, int nth, packed *dst, const float *k, size_t stride,
                         int keys)
{
    int8_t code[FLASH_NR * FLASH_MAX_PAD];
    packed wide[FLASH_NR * FLASH_MAX_PAD];
    float scale[FLASH_NR];
    int quads = f->dk / VI_GROUP;
    flash_code_k(f, code, scale, nth, k, stride, keys);
    widen(wide, code, FLASH_NR * f->dk, VI_OFFSET);
    pack_columns(dst, FLASH_NR, wide, (size_t)quads, FLASH_NR, quads);
    memcpy(dst + FLASH_NR * f->dk, scale, sizeof scale);
}

struct code_rows { /* of the task, from the first of a tile on */
    const packed *q;
    const float *scale;
    const int32_t *sum;
};

/* rows must be a constant */
ALWAYS_INLINE void score_tile(float *s, float *rowmax, const struct code_rows *at, const packed *k,
                              int quads, const float *bias, int rows)
{
    veci acc[FLASH_MR][2];
    const packed *q = at->q;
    UNROLL(16) for (int r = 0; r < rows; r++) acc[r][0] = acc[r][1] = vi_const(at->sum[r]);
    REPEAT(2) for (int c = 0; c < quads; c++, q += VI_GROUP * FLASH_MR, k += VI_GROUP * FLASH_NR)
    {
        veci b0 = vi_load(k), b1 = vi_load(k + VI_GROUP * VLEN);
        UNROLL(16) for (int r = 0; r < rows; r++)
        {
            veci x = vi_set1(q + VI_GROUP * r);
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
            struct code_rows q = {w->q + (at + r) * f->dk, w->q_scale + at + r, w->q_sum + at + r};
            const float *bias = c->panel[i].bias;
            FLASH_ROWS(rows - r, score_tile, s, most, &q, c->panel[i].k, f->dk / VI_GROUP, bias);
        }
}
