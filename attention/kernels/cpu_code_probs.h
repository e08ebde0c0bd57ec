/* Weights as codes, behind cpu_flash_codes.h and cpu_vec8.h: 255ths of a chunk's largest, and values
 * as signed codes (attention-kernels.md 1.10): what a second product over codes begins with.
 *
 *   w = exp2(m_chunk - m) / 255;   l = l*alpha + w * sum(P);   O = O*alpha + w * P·v
 *
 * The sums of a chunk are exact; the running maximum never cuts off a tail of small weights. */
static bool flash_fits(const struct attn_size *s) { return s->head_dim <= ATTN_MAX_HEAD_DIM; }

/* rows [NR][dv] of codes of values; zeros past keys and d. */
static void code_values(const struct flash *f, int nth, packed_v *row, const float *v,
                        size_t stride, int keys)
{
    const float *scale = f->v_scale + (size_t)nth * (size_t)f->d;
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
