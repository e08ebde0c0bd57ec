/* The second product over codes, by cpu_vec8.h: weights of a chunk as 255ths of its largest, values
 * as signed codes (attention-kernels.md 1.10).
 *   v  [channels / NR][keys / G][NR][G]   columns are channels; a last panel of VLEN
 *   P  [SUB][KB] 0 .. 255                 G neighbouring keys are one 32-bit broadcast
 *
 *   w = exp2(m_chunk - m) / 255;   l = l*alpha + w * sum(P);   O = O*alpha + w * P·v
 *
 * The sums of a chunk are exact; the running maximum never cuts off a tail of small weights. */
static bool flash_fits(const struct attn_size *s) { return s->head_dim <= ATTN_MAX_HEAD_DIM; }

static void flash_pack_v(const struct flash *f, int nth, packed_v *dst, size_t len, const float *v,
                         size_t stride, int at, int keys)
{
    const float *scale = f->v_scale + (size_t)nth * (size_t)f->d;
    packed_v row[FLASH_NR * FLASH_MAX_PAD];
    float inverse[ATTN_MAX_HEAD_DIM];
    for (int c = 0; c < f->d; c++)
        inverse[c] = 1 / scale[c];
    for (int j = 0; j < FLASH_NR; j++) {
        int n = j < keys ? f->d : 0;
        const float *x = v + (j < keys ? (size_t)j * stride : 0);
        for (int c = 0; c < n; c++)
            row[j * f->dv + c] = codes_near(x[c] * inverse[c]);
        memset(row + j * f->dv + n, 0, (size_t)(f->dv - n) * sizeof *row);
    }
    for (int c0 = 0; c0 < f->dv; c0 += FLASH_NR) {
        int width = f->dv - c0 < FLASH_NR ? VLEN : FLASH_NR;
        packed_v *to = dst + (size_t)c0 * len + (size_t)at * (size_t)width;
        for (int j = 0; j < FLASH_NR; j += VI_GROUP)
            for (int c = 0; c < width; c++, to += VI_GROUP)
                for (int i = 0; i < VI_GROUP; i++)
                    to[i] = row[(j + i) * f->dv + c0 + c];
    }
}

static void flash_probs(const struct flash *f, struct flash_worker *w, const struct flash_chunk *c,
                        int at, int rows)
{
    (void)f;
    for (int i = 0; i < rows; i++) {
        flash_fetch_some(&w->ahead);
        const float *s = w->s + i * FLASH_KB;
        packed_v *p = w->p + i * FLASH_KB;
        float most = v_hmax(v_load(w->rowmax + i * VLEN)), first[VLEN];
        float base = flash_new_max(w, at, i, 5); /* w->alpha, and w->l by it */
        float from = (most == -INFINITY ? 0.0f : most) - 7.99435344f; /* log2(255) */
        veci sum = vi_const(0);
        for (int j = 0; j < c->n * FLASH_NR; j += VLEN) {
            veci x = vi_near(v_exp2(v_sub(v_load(s + j), v_set1(from)), 4));
            vi_store(p + j, x);
            sum = vi_add(sum, x);
        }
        vec weight = v_mul(v_exp2(v_set1(most - base), 5), v_set1(1 / 255.0f));
        v_store(w->l + (at + i) * VLEN,
                v_fma(vi_float(sum), weight, v_load(w->l + (at + i) * VLEN)));
        v_store(first, weight);
        w->weight[i] = first[0];
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
