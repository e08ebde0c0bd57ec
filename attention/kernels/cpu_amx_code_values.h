/* The second product over codes by TDPBUSD, behind cpu_amx_codes.h: 32 x 32 blocks of output.
 *   v  [channels / 16][keys / 4][16][4]   quads of keys
 *   P  [SUB][KB] 0 .. 255                 row-major */
#include "attention/kernels/cpu_code_probs.h"

static void flash_pack_v(const struct flash *f, int nth, packed_v *dst, size_t len, const float *v,
                         size_t stride, int at, int keys)
{
    packed_v row[FLASH_NR * FLASH_MAX_PAD];
    code_values(f, nth, row, v, stride, keys);
    for (int c0 = 0; c0 < f->dv; c0 += 16) {
        packed_v *to = dst + (size_t)c0 * len + (size_t)at * 16;
        for (int j = 0; j < FLASH_NR; j += 4)
            for (int c = 0; c < 16; c++, to += 4)
                for (int i = 0; i < 4; i++)
                    to[i] = row[(j + i) * f->dv + c0 + c];
    }
}

/* Tile 6 or 7: 64 keys that follow each other, or 32 of which the tile's other half is zeros. Then P's
 * columns there may be whatever they are: the next panel's, or what stands behind the last row. */
#define LOAD_QUADS(t, v, whole)                                                                    \
    do {                                                                                           \
        packed_v half_[TILE_QUADS];                                                                \
        if (whole) {                                                                               \
            tile_load(t, v, 64);                                                                   \
        } else {                                                                                   \
            memcpy(half_, v, TILE_QUADS / 2);                                                      \
            memset(half_ + TILE_QUADS / 2, 0, TILE_QUADS / 2);                                     \
            tile_load(t, half_, 64);                                                               \
        }                                                                                          \
    } while (0)

/* sum [32][32]: of 32 rows and channels */
static void value_block(int32_t *sum, const packed_v *p, const packed_v *v, size_t len,
                        const struct flash_chunk *c)
{
    tile_zero(0);
    tile_zero(1);
    tile_zero(2);
    tile_zero(3);
    for (int i = 0; i < c->n; i++) {
        const packed_v *quads = v + c->panel[i].key * 16, *x = p + i * FLASH_NR;
        bool whole = i + 1 < c->n && c->panel[i + 1].key == c->panel[i].key + FLASH_NR;
        tile_load(4, x, FLASH_KB * sizeof *p);
        tile_load(5, x + 16 * FLASH_KB, FLASH_KB * sizeof *p);
        LOAD_QUADS(6, quads, whole);
        LOAD_QUADS(7, quads + 16 * len, whole);
        tile_dot_us(0, 4, 6);
        tile_dot_us(1, 4, 7);
        tile_dot_us(2, 5, 6);
        tile_dot_us(3, 5, 7);
        i += whole;
    }
    tile_store(0, sum, 32 * sizeof *sum);
    tile_store(1, sum + 16, 32 * sizeof *sum);
    tile_store(2, sum + 16 * 32, 32 * sizeof *sum);
    tile_store(3, sum + 16 * 32 + 16, 32 * sizeof *sum);
}

static void flash_values(const struct flash *f, struct flash_worker *w, const struct flash_chunk *c,
                         const packed_v *v, size_t len, int at, int rows)
{
    int32_t sum[32 * 32];
    for (int c0 = 0; c0 < f->dv; c0 += 32) {
        value_block(sum, w->p, v + (size_t)c0 * len, len, c);
        for (int r = 0; r < rows; r++) {
            vec alpha = v_set1(w->alpha[r]), weight = v_set1(w->weight[r]);
            float *o = w->o + (at + r) * f->dv + c0;
            for (int n = 0; n < 32; n += VLEN)
                v_store(o + n, v_fma(vi_float(vi_load(sum + r * 32 + n)), weight,
                                     v_mul(v_load(o + n), alpha)));
        }
    }
}
