/* The second product in fp32 over cpu_vec.h, behind cpu_flash.h: probabilities stay where the scores
 * were.
 *   v  [channels / NR][keys][NR]   columns are channels; a last panel of VLEN when D leaves one
 *   S  [SUB][KB]                   scores, then probabilities
 *
 * NV vectors of channels a step. Only keys of [lo, hi) enter: what a plan leaves out is never
 * touched. */
#if !defined(FLASH_VR)
#define FLASH_VR FLASH_MR /* rows of a micro-kernel here */
#endif
static void flash_pack_v(const struct flash *f, int nth, packed_v *dst, size_t len, const float *v,
                         size_t stride, int at, int keys)
{
    float fp8[FLASH_CODES ? FLASH_NR * ATTN_MAX_HEAD_DIM : 1];
    (void)nth;
    (void)fp8;
#if FLASH_CODES
    v = flash_code_v(f, fp8, nth, v, &stride, keys);
#endif
    for (int c0 = 0; c0 < f->dv; c0 += FLASH_NR) {
        int width = f->dv - c0 < FLASH_NR ? VLEN : FLASH_NR;
        int real = flash_min(width, f->d - c0);
        packed_v *row = dst + (size_t)c0 * len + (size_t)at * (size_t)width;
        for (int j = 0; j < FLASH_NR; j++, row += width) {
            int n = j < keys ? real : 0;
            memcpy(row, v + (j < keys ? (size_t)j * stride + (size_t)c0 : 0),
                   (size_t)n * sizeof *row);
            memset(row + n, 0, (size_t)(width - n) * sizeof *row);
        }
    }
}

static void flash_probs(const struct flash *f, struct flash_worker *w, const struct flash_chunk *c,
                        int at, int rows)
{
    (void)f;
    for (int i = 0; i < rows; i++) {
        flash_fetch_some(&w->ahead);
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
#if FLASH_CODES
        if (f->p->pv == ATTN_PREC_FP8) flash_code_p(s, c->n * FLASH_NR);
#endif
    }
}

/* nv must be a constant: FLASH_NV, or 1 for the last channels; so must rows. */
ALWAYS_INLINE void value_tile(float *o, int stride, const float *p, const float *alpha,
                              const float *v, const struct flash_chunk *c, int nv, int rows)
{
    vec acc[FLASH_VR][FLASH_NV];
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
                         const packed_v *v, size_t len, int at, int rows)
{
    for (int c0 = 0; c0 < f->dv; c0 += FLASH_NR) {
        const packed_v *panel = v + (size_t)c0 * len;
        for (int r = 0; r < rows; r += FLASH_VR) {
            float *o = w->o + (at + r) * f->dv + c0, *p = w->s + r * FLASH_KB;
            if (f->dv - c0 >= FLASH_NR)
                FLASH_ROWS_OF(FLASH_VR, rows - r, value_tile, o, f->dv, p, w->alpha + r, panel, c,
                              FLASH_NV);
            else
                FLASH_ROWS_OF(FLASH_VR, rows - r, value_tile, o, f->dv, p, w->alpha + r, panel, c,
                              1);
        }
    }
}
