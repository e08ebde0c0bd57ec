/* Codes for cpu_flash.h (FLASH_CODES), which includes this: what a head's keys and values have in
 * common, made once a group; rows of q, of k and of v as codes. */
#include "attention/kernels/cpu_codes.h"

#define FLASH_CODES_CAN (FLASH_CAN | ATTN_NEED_QK_INT8 | ATTN_NEED_QK_INT4 | ATTN_NEED_SMOOTH_Q)

/* Means of q that smooth_q takes off. */
static void flash_q_means(const struct flash *f, int nth, int head)
{
    const struct attn_plan *p = f->p;
    for (int b = 0; b < f->q_blocks; b++) {
        double sum[ATTN_MAX_HEAD_DIM] = {0};
        int from = b * ATTN_CODE_BLOCK, n = flash_min(ATTN_CODE_BLOCK, p->q.len - from);
        for (int i = from; i < from + n; i++)
            codes_add(sum, NULL,
                      heads_at(&f->j->q, attn_token(&p->q_order, flash_plan(f, nth), i), head),
                      NULL, f->d);
        codes_mean(f->q_mean + ((size_t)nth * (size_t)f->q_blocks + (size_t)b) * (size_t)f->d, sum,
                   n, f->d);
    }
}

static void flash_codes_task(void *ctx, int nth, int worker)
{
    const struct flash *f = ctx;
    const struct attn_job *j = f->j;
    int head = attn_head(f->p, f->first + nth);
    double sum[ATTN_MAX_HEAD_DIM] = {0};
    uint32_t top[ATTN_MAX_HEAD_DIM] = {0};
    bool values = j->v.at && f->p->pv != ATTN_PREC_RUN;
    (void)worker;
    for (int i = 0; i < j->k.len; i++)
        codes_add(sum, top, f->p->codes.smooth_k ? heads_at(&j->k, i, head) : NULL,
                  values ? heads_at(&j->v, i, head) : NULL, f->d);
    size_t at = (size_t)nth * (size_t)f->d;
    codes_head(f->k_less + at, f->v_scale + at, sum, top, f->d, j->k.len, f->p);
    if (f->delta) flash_q_means(f, nth, head);
}

/* codes [MR, dk], scale and sum of rows of q from `at` on; zeros past `rows` and d. */
static void flash_code_q(const struct flash *f, struct flash_worker *w, int8_t *code, int nth,
                         int at, const float *q, size_t stride, int rows)
{
    const float *less = f->k_less + (size_t)nth * (size_t)f->d;
    const float *mean = NULL;
    float tmp[ATTN_MAX_HEAD_DIM];
    if (f->delta)
        mean = f->q_mean + ((size_t)nth * (size_t)f->q_blocks + (size_t)w->q_block) * (size_t)f->d;
    for (int i = 0; i < FLASH_MR; i++, code += f->dk) {
        const float *x = q + (size_t)i * stride;
        memset(code, 0, (size_t)f->dk);
        w->q_scale[at + i] = w->shift[at + i] = 0;
        w->q_sum[at + i] = 0;
        if (i >= rows) continue;
        float scale = codes_row(code, tmp, x, mean, f->d, codes_most(f->p->qk), f->p->codes.rotate);
        w->q_scale[at + i] = scale * f->scale;
        double shift = 0;
        int sum = 0;
        for (int c = 0; c < f->d; c++) {
            shift += (double)x[c] * (double)less[c];
            sum += code[c];
        }
        w->shift[at + i] = (float)(shift / sqrt((double)f->d));
        w->q_sum[at + i] = -VI_OFFSET * sum;
    }
}

/* codes [NR, dk] and scale [NR] of keys; zeros past `keys` and d. */
static void flash_code_k(const struct flash *f, int8_t *code, float *scale, int nth, const float *k,
                         size_t stride, int keys)
{
    const float *less = f->k_less + (size_t)nth * (size_t)f->d;
    float tmp[ATTN_MAX_HEAD_DIM];
    for (int i = 0; i < FLASH_NR; i++, code += f->dk) {
        memset(code, 0, (size_t)f->dk);
        scale[i] = 0;
        if (i < keys)
            scale[i] = codes_row(code, tmp, k + (size_t)i * stride, less, f->d,
                                 codes_most(f->p->qk), f->p->codes.rotate);
    }
}

/* Values as FP8 leaves them, in place of v [keys][stride]: out [NR, d]. */
static inline const float *flash_code_v(const struct flash *f, float *out, int nth, const float *v,
                                        size_t *stride, int keys)
{
    const float *scale = f->v_scale + (size_t)nth * (size_t)f->d;
    if (f->p->pv != ATTN_PREC_FP8) return v;
    for (int i = 0; i < keys; i++)
        for (int c = 0; c < f->d; c++)
            out[i * f->d + c] = codes_value_fp8(v[(size_t)i * *stride + (size_t)c], scale[c]);
    *stride = (size_t)f->d;
    return out;
}

/* Probabilities of FP8: e4m3 of 448ths, in place. */
static inline void flash_code_p(float *p, int n)
{
    for (int i = 0; i < n; i++)
        p[i] = codes_e4m3(p[i] * CODES_E4M3);
}
