/* Probabilities narrowed to bf16, behind cpu_flash.h: what a second product over bf16 begins with. */
static bool flash_fits(const struct attn_size *s) /* the emulated form keeps its products in fp32 */
{
    return s->precision == PRECISION_BF16 && s->head_dim <= ATTN_MAX_HEAD_DIM;
}

static void flash_probs(const struct flash *f, struct flash_worker *w, const struct flash_chunk *c,
                        int at, int rows)
{
    (void)f;
    for (int i = 0; i < rows; i++) {
        flash_fetch_some(&w->ahead);
        const float *s = w->s + i * FLASH_KB;
        packed_v *p = w->p + i * FLASH_KB;
        vec base = v_set1(flash_new_max(w, at, i, 5)), sum = v_load(w->l + (at + i) * VLEN);
        for (int j = 0; j < c->n * FLASH_NR; j += FLASH_NR) {
            vec lo = v_exp2(v_sub(v_load(s + j), base), 3);
            vec hi = v_exp2(v_sub(v_load(s + j + VLEN), base), 3);
#if FLASH_CODES
            if (f->p->pv == ATTN_PREC_FP8) {
                float fp8[FLASH_NR];
                v_store(fp8, lo);
                v_store(fp8 + VLEN, hi);
                flash_code_p(fp8, FLASH_NR);
                vh_store(p + j, v_load(fp8), v_load(fp8 + VLEN));
            } else
#endif
                vh_store(p + j, lo, hi);
            sum = v_add(sum, v_add(lo, hi));
        }
        v_store(w->l + (at + i) * VLEN, sum);
    }
}
