/* What the two bf16 kernels share: q, k and v narrowed to bf16 (exactly, when the caller already
 * rounded), scores and sums in fp32, probabilities narrowed to bf16 for the second product. */
#define FLASH_NR (2 * VLEN)
#define FLASH_P 1
typedef uint16_t packed;
#include "attention/kernels/cpu_flash.h"
#include "attention/kernels/cpu_pack.h"

static bool flash_fits(const struct attn_size *s) /* the emulated form keeps its products in fp32 */
{
    return s->precision == PRECISION_BF16 && s->head_dim <= ATTN_MAX_HEAD_DIM;
}

#define FLASH_MAX_PAD ((ATTN_MAX_HEAD_DIM + 31) / 32 * 32)

static void flash_probs(const struct flash *f, struct flash_worker *w, const struct flash_chunk *c,
                        int at, int rows)
{
    (void)f;
    for (int i = 0; i < rows; i++) {
        const float *s = w->s + i * FLASH_KB;
        packed *p = w->p + i * FLASH_KB;
        vec base = v_set1(flash_new_max(w, at, i, 5)), sum = v_load(w->l + (at + i) * VLEN);
        for (int j = 0; j < c->n * FLASH_NR; j += FLASH_NR) {
            vec lo = v_exp2(v_sub(v_load(s + j), base), 3);
            vec hi = v_exp2(v_sub(v_load(s + j + VLEN), base), 3);
            vh_store(p + j, lo, hi);
            sum = v_add(sum, v_add(lo, hi));
        }
        v_store(w->l + (at + i) * VLEN, sum);
    }
}
