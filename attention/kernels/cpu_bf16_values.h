/* The second product by vdpbf16ps, behind cpu_bf16.h.
 *   v  [channels / NR][keys / 2][NR][2]   columns are channels; a last panel of VLEN
 *   P  [SUB][KB]                          two neighbouring keys are one 32-bit broadcast */
static void flash_pack_v(const struct flash *f, int nth, packed_v *dst, size_t len, const float *v,
                         size_t stride, int at, int keys)
{
    float fp8[FLASH_CODES ? FLASH_NR * ATTN_MAX_HEAD_DIM : 1];
    (void)nth;
    (void)fp8;
#if FLASH_CODES
    v = flash_code_v(f, fp8, nth, v, &stride, keys);
#endif
    packed_v row[FLASH_NR * FLASH_MAX_PAD];
    pack_narrow(row, f->dv, FLASH_NR, v, stride, keys, f->d);
    for (int c0 = 0; c0 < f->dv; c0 += FLASH_NR) {
        int width = f->dv - c0 < FLASH_NR ? VLEN : FLASH_NR;
        pack_pairs(dst + (size_t)c0 * len + (size_t)at * (size_t)width, width, row, f->dv, c0,
                   FLASH_NR);
    }
}

/* nv must be a constant: 2, or 1 for the last channels; so must rows. */
ALWAYS_INLINE void value_tile(float *o, int stride, const packed_v *p, const float *alpha,
                              const packed_v *v, const struct flash_chunk *c, int nv, int rows)
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
        const packed_v *row = v + (panel->key + (size_t)from) * (size_t)(nv * VLEN);
        const packed_v *x = p + i * FLASH_NR + from;
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
                         const packed_v *v, size_t len, int at, int rows)
{
    for (int c0 = 0; c0 < f->dv; c0 += FLASH_NR) {
        const packed_v *panel = v + (size_t)c0 * len;
        for (int r = 0; r < rows; r += FLASH_MR) {
            float *o = w->o + (at + r) * f->dv + c0;
            const packed_v *p = w->p + r * FLASH_KB;
            if (f->dv - c0 >= FLASH_NR)
                FLASH_ROWS(rows - r, value_tile, o, f->dv, p, w->alpha + r, panel, c, 2);
            else
                FLASH_ROWS(rows - r, value_tile, o, f->dv, p, w->alpha + r, panel, c, 1);
        }
    }
}
