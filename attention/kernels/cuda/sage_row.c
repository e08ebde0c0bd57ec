/* What the room's row `sage` does around its two launches, decided on the host; see sage_cuda.h. */
#include "attention/kernels/cuda/sage_cuda.h"
#include "attention/kernels/kernels.h"

/* Keys from which the products over codes save more than the codes cost: at 32,760 tokens of 128 channels
 * .74 ms a call of 8.9 against .257 for the codes, which grow with the length where the other grows with
 * its square (tests/bench/NOTES_kernels.md: 1.09 times bf16 without quantisation, 1.06 with). */
#define PAYS_FROM 16384

static size_t align(size_t bytes) { return (bytes + 255) / 256 * 256; }

/* The most that any call of the run needs: no option of the codes but smooth_q, which is not done here,
 * takes more. */
size_t sage_scratch(const struct attn_size *s)
{
    struct quant_codes c = {.len_q = s->len_q,
                            .len_k = s->len_k,
                            .n_heads = s->n_heads,
                            .head_dim = s->head_dim,
                            .how = {.bits = 8}};
    return align(attn_cuda_scratch()) + quant_codes_carve(&c, NULL);
}

/* At 64 channels, and of lists, whose few tiles are quick while their codes cost as much, it measures as
 * fast as bf16 or slower. */
unsigned sage_pays(const struct attn_size *s)
{
    if (s->head_dim != 128 || s->needs & ATTN_NEED_PLANES || s->len_k < PAYS_FROM) return 0;
    return ATTN_NEED_QK_INT8 | ATTN_NEED_PV_FP8;
}

int sage_codes(struct quant_codes *c, const struct attn_job *j, struct err *e)
{
    const struct attn_plan *p = j->plan;
    bool qk = p->qk == ATTN_PREC_INT8 || p->qk == ATTN_PREC_INT4;
    bool pv = p->pv == ATTN_PREC_INT8 || p->pv == ATTN_PREC_FP8;
    char text[200];
    if (!qk || !pv || p->codes.smooth_q)
        return err_set(
            e, ERR_DEVICE,
            "attention kernel sage multiplies int8 or int4 codes of q and k, and int8 or "
            "fp8 values; this plan asks for %s",
            attn_needs_text(attn_plan_needs(p), text, sizeof text));
    *c = (struct quant_codes){.len_q = j->q.len,
                              .len_k = j->k.len,
                              .n_heads = j->q.n,
                              .head_dim = j->q.dim,
                              .how = {.bits = p->qk == ATTN_PREC_INT4 ? 4 : 8,
                                      .smooth_k = p->codes.smooth_k,
                                      .rotate = p->codes.rotate,
                                      .values = p->pv == ATTN_PREC_INT8 ? QUANT_S8 : QUANT_E4M3}};
    quant_codes_carve(c, (char *)j->scratch + align(attn_cuda_scratch()));
    return 0;
}
