/* The second product over codes, by cpu_vec8.h, behind cpu_code_scores.h.
 *   v  [channels / NR][keys / G][NR][G]   columns are channels; a last panel of VLEN
 *   P  [SUB][KB] 0 .. 255                 G neighbouring keys are one 32-bit broadcast */
#include "attention/kernels/cpu_code_probs.h"

static void flash_pack_v(const struct flash *f, int nth, packed_v *dst, size_t len, const float *v,
                         size_t stride, int at, int keys)
{
    packed_v row[FLASH_NR * FLASH_MAX_PAD];
    code_values(f, nth, row, v, stride, keys);
    for (int c0 = 0; c0 < f->dv; c0 += FLASH_NR) {
        int width = f->dv - c0 < FLASH_NR ? VLEN : FLASH_NR;
        packed_v *to = dst + (size_t)c0 * len + (size_t)at * (size_t)width;
        for (int j = 0; j < FLASH_NR; j += VI_GROUP)
            for (int c = 0; c < width; c++, to += VI_GROUP)
                for (int i = 0; i < VI_GROUP; i++)
                    to[i] = row[(j + i) * f->dv + c0 + c];
    }
}

/* nv must be a constant: 2, or 1 for the last channels; so must rows. */
ALWAYS_INLINE void value_tile(float *o, int stride, const packed_v *p, const float *alpha,
                              const float *weight, const packed_v *v, const struct flash_chunk *c,
                              int nv, int rows)
{
    veci acc[FLASH_MR][2];
    UNROLL(16) for (int r = 0; r < rows; r++) acc[r][0] = acc[r][1] = vi_const(0);
    for (int i = 0; i < c->n; i++) {
        const struct flash_panel *panel = &c->panel[i];
        int from = panel->lo / VI_GROUP * VI_GROUP; /* a masked part of a group has P = 0 */
        const packed_v *row = v + (panel->key + (size_t)from) * (size_t)(nv * VLEN);
        const packed_v *x = p + i * FLASH_NR + from;
        REPEAT(2)
        for (int j = panel->hi - from; j > 0;
             j -= VI_GROUP, row += VI_GROUP * nv * VLEN, x += VI_GROUP) {
            veci b[2];
            UNROLL(2) for (int n = 0; n < nv; n++) b[n] = vi_load(row + VI_GROUP * n * VLEN);
            UNROLL(16) for (int r = 0; r < rows; r++)
            {
                veci y = vi_set1(x + r * FLASH_KB);
                UNROLL(2) for (int n = 0; n < nv; n++) acc[r][n] = vi_dot(acc[r][n], y, b[n]);
            }
        }
    }
    UNROLL(16)
    for (int r = 0; r < rows; r++)
        UNROLL(2)
    for (int n = 0; n < nv; n++) {
        float *to = o + r * stride + n * VLEN;
        vec old = v_mul(v_load(to), v_set1(alpha[r]));
        v_store(to, v_fma(vi_float(acc[r][n]), v_set1(weight[r]), old));
    }
}

static void flash_values(const struct flash *f, struct flash_worker *w, const struct flash_chunk *c,
                         const packed_v *v, size_t len, int at, int rows)
{
    for (int c0 = 0; c0 < f->dv; c0 += FLASH_NR) {
        const packed_v *panel = v + (size_t)c0 * len;
        for (int r = 0; r < rows; r += FLASH_MR) {
            float *o = w->o + (at + r) * f->dv + c0;
            const packed_v *p = w->p + r * FLASH_KB;
            const float *alpha = w->alpha + r, *weight = w->weight + r;
            if (f->dv - c0 >= FLASH_NR)
                FLASH_ROWS(rows - r, value_tile, o, f->dv, p, alpha, weight, panel, c, 2);
            else
                FLASH_ROWS(rows - r, value_tile, o, f->dv, p, alpha, weight, panel, c, 1);
        }
    }
}
