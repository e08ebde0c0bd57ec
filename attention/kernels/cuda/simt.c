/* What flash_simt and flash_tf32 take, decided on the host; see simt_cuda.h. */
#include "attention/kernels/cuda/simt_cuda.h"

int attn_simt_takes(const struct attn_cuda *w, enum dtype type, struct err *e)
{
    const struct attn_lists *l = w->lists;
    if (type != DTYPE_F32 && type != DTYPE_BF16)
        return err_set(e, ERR_USAGE, "flash_simt over %s, wanted F32 or BF16", dtype_name(type));
    if (w->len_q < 1 || w->len_k < 1 || w->len_q > INT32_MAX - 256 || w->len_k > INT32_MAX - 256 ||
        w->n_heads < 1 || w->n_heads > 65535)
        return err_set(
            e, ERR_USAGE,
            "flash_simt over %d queries, %d keys, %d heads: all must be 1 or more, heads "
            "65535 or fewer",
            w->len_q, w->len_k, w->n_heads);
    if (w->head_dim < 1 || w->head_dim > 128)
        return err_set(e, ERR_USAGE, "flash_simt takes heads of 1 to 128 channels, these have %d",
                       w->head_dim);
    if (!w->q.at || !w->k.at || !w->v.at || !w->o.at)
        return err_set(e, ERR_BUG, "flash_simt without q, k, v or o");
    if (w->alive || (l && l->mean))
        return err_set(e, ERR_USAGE, "flash_simt takes no %s", w->alive ? "alive" : "plan.mean");
    if (l && (l->block_q < 64 || l->block_q % 64 || l->block_k < 32 || l->block_k % 32))
        return err_set(e, ERR_USAGE,
                       "flash_simt takes tiles of multiples of 64 x 32, this plan has %d x %d",
                       l->block_q, l->block_k);
    if (l &&
        (l->rows != (w->len_q - 1) / l->block_q + 1 || l->cols != (w->len_k - 1) / l->block_k + 1 ||
         (l->n_plans != 1 && l->n_plans != w->n_heads)))
        return err_set(
            e, ERR_BUG,
            "flash_simt: a plan of %d x %d tiles of %d x %d does not cover %d queries, %d "
            "keys",
            l->rows, l->cols, l->block_q, l->block_k, w->len_q, w->len_k);
    return 0;
}

static bool whole(const struct attn_tensor *t)
{
    return (uintptr_t)t->at % 16 == 0 && t->token % 4 == 0 && t->head % 4 == 0;
}

int attn_tf32_takes(const struct attn_cuda *w, struct err *e)
{
    if (attn_simt_takes(w, DTYPE_F32, e) < 0) return err_wrap(e, "flash_tf32");
    if (w->head_dim % 4 == 0 && whole(&w->q) && whole(&w->k) && whole(&w->v) && whole(&w->o))
        return 0;
    return err_set(e, ERR_USAGE,
                   "flash_tf32 takes heads and strides in multiples of 4 numbers, these heads have "
                   "%d channels",
                   w->head_dim);
}
