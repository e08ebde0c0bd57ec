/* The second product by TDPBF16PS, behind cpu_bf16_probs.h: 32 x 32 blocks of output.
 *   v  [panels][channels / 16][16][16][2]    pairs of keys: one tile after the other
 *   P  [SUB][KB] bf16,  O  [QB][dv] fp32     row-major */
#define TILE_PAIRS (16 * 32) /* elements of one tile of pairs */

static void flash_pack_v(const struct flash *f, int nth, packed_v *dst, size_t len, const float *v,
                         size_t stride, int at, int keys)
{
    float fp8[FLASH_CODES ? FLASH_NR * ATTN_MAX_HEAD_DIM : 1];
    (void)nth;
    (void)len;
    (void)fp8;
#if FLASH_CODES
    v = flash_code_v(f, fp8, nth, v, &stride, keys);
#endif
    packed_v row[FLASH_NR * FLASH_MAX_PAD];
    pack_narrow(row, f->dv, FLASH_NR, v, stride, keys, f->d);
    dst += (size_t)at * (size_t)f->dv;
    for (int c0 = 0; c0 < f->dv; c0 += 16, dst += TILE_PAIRS)
        pack_pairs(dst, 16, row, f->dv, c0, FLASH_NR);
}

static void value_block(float *o, int dv, const packed_v *p, const packed_v *v,
                        const struct flash_chunk *c)
{
    size_t row = (size_t)dv * sizeof *o;
    tile_load(0, o, row);
    tile_load(1, o + 16, row);
    tile_load(2, o + 16 * dv, row);
    tile_load(3, o + 16 * dv + 16, row);
    for (int i = 0; i < c->n; i++) {
        const packed_v *pairs = v + c->panel[i].key * (size_t)dv;
        tile_load(4, p + i * FLASH_NR, FLASH_KB * sizeof *p);
        tile_load(5, p + 16 * FLASH_KB + i * FLASH_NR, FLASH_KB * sizeof *p);
        tile_load(6, pairs, 64);
        tile_load(7, pairs + TILE_PAIRS, 64);
        tile_dot(0, 4, 6);
        tile_dot(1, 4, 7);
        tile_dot(2, 5, 6);
        tile_dot(3, 5, 7);
    }
    tile_store(0, o, row);
    tile_store(1, o + 16, row);
    tile_store(2, o + 16 * dv, row);
    tile_store(3, o + 16 * dv + 16, row);
}

static void flash_values(const struct flash *f, struct flash_worker *w, const struct flash_chunk *c,
                         const packed_v *v, size_t len, int at, int rows)
{
    (void)len;
    for (int r = 0; r < rows; r++) {
        if (w->alpha[r] == 1.0f) continue; /* NaN goes on */
        vec alpha = v_set1(w->alpha[r]);
        float *o = w->o + (at + r) * f->dv;
        for (int i = 0; i < f->dv; i += VLEN)
            v_store(o + i, v_mul(v_load(o + i), alpha));
    }
    for (int c0 = 0; c0 < f->dv; c0 += 32)
        for (int r = 0; r < rows; r += FLASH_MR)
            value_block(w->o + (at + r) * f->dv + c0, f->dv, w->p + r * FLASH_KB, v + c0 * FLASH_NR,
                        c);
}
