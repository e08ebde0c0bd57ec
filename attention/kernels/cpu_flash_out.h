/* What a task of cpu_flash.h writes, included by cpu_flash_task.h: o, rounded or not, added or not; a
 * residual; lse. */

/* Sums over codes of values become sums over values. */
ALWAYS_INLINE void flash_unscale(const struct flash_now *t, float *o)
{
    const struct flash *f = t->f;
    if (!FLASH_CODES || f->p->pv == ATTN_PREC_RUN) return;
    const float *scale = f->v_scale + (size_t)t->nth * (size_t)f->d;
    float most = f->p->pv == ATTN_PREC_FP8 ? 1 / 448.0f : 1.0f; /* probabilities were 448ths */
    for (int c = 0; c < f->d; c++)
        o[c] *= scale[c] * most;
}

/* bf16_round() without a branch, so that it vectorises */
ALWAYS_INLINE float flash_round(float x)
{
    uint32_t u, nan;
    memcpy(&u, &x, 4);
    nan = (u & 0x7fffffffu) > 0x7f800000u ? 0xffffffffu : 0;
    u = (((u & 0xffff0000u) | 0x400000u) & nan) |
        ((u + 0x7fffu + ((u >> 16) & 1)) & 0xffff0000u & ~nan);
    memcpy(&x, &u, 4);
    return x;
}

static void flash_write(const struct flash_now *t, int i, int token, float inv)
{
    const struct flash *f = t->f;
    const struct attn_job *j = f->j;
    bool round = j->size->precision != PRECISION_FP32;
    const float *src = t->w.o + (size_t)i * (size_t)f->dv;
    float *o = heads_at(&j->o, token, t->head);
    if (!round && !j->accumulate) {
        for (int c = 0; c < f->d; c++)
            o[c] = src[c] * inv;
    } else if (!round) {
        for (int c = 0; c < f->d; c++)
            o[c] += src[c] * inv;
    } else if (!j->accumulate) {
        for (int c = 0; c < f->d; c++)
            o[c] = flash_round(src[c] * inv);
    } else {
        for (int c = 0; c < f->d; c++)
            o[c] = flash_round(o[c] + flash_round(src[c] * inv));
    }
}

/* o with a residual: made of what is exact, or added. */
static void flash_write_residual(const struct flash_now *t, int i, int token, float inv)
{
    const struct flash *f = t->f;
    const struct attn_job *j = f->j;
    bool make = f->p->rule == ATTN_MAKE_RESIDUAL, round = j->size->precision != PRECISION_FP32;
    const float *src = t->w.o + (size_t)i * (size_t)f->dv;
    const float *part = t->w.part + (size_t)i * (size_t)f->dv;
    float *o = heads_at(&j->o, token, t->head);
    void *residual = heads_at(&j->residual, token, t->head);
    bool narrow = j->residual.type == DTYPE_BF16;
    for (int c = 0; c < f->d; c++) {
        float x = src[c] * inv;
        if (!make)
            x += narrow ? bf16_to_f32(((uint16_t *)residual)[c]) : ((float *)residual)[c];
        else if (narrow)
            ((uint16_t *)residual)[c] = f32_to_bf16(x - part[c]);
        else
            ((float *)residual)[c] = x - part[c];
        o[c] = round ? flash_round(x) : x;
    }
}

static void flash_finish(const struct flash_now *t, int q0)
{
    const struct attn_job *j = t->f->j;
    enum attn_out rule = t->f->p->rule;
    for (int i = 0; i < t->rows; i++) {
        int token = attn_token(&t->f->p->q_order, t->plan, q0 + i);
        float l = v_hsum(v_load(t->w.l + i * VLEN)), inv = l == 0 ? 0 : 1 / l;
        flash_unscale(t, t->w.o + (size_t)i * (size_t)t->f->dv);
        if (rule == ATTN_COMPUTE)
            flash_write(t, i, token, inv);
        else
            flash_write_residual(t, i, token, inv);
        if (!j->lse) continue;
        double lse = l == 0 ? -HUGE_VAL : ((double)t->w.m[i] + log2((double)l)) / FLASH_LOG2E;
        if (FLASH_CODES) lse += (double)t->w.shift[i];
        j->lse[(size_t)t->head * (size_t)j->q.len + (size_t)token] = (float)lse;
    }
}
