/* What an 8-bit launch is refused for: decided on the host, without a GPU. */
#include "attention/kernels/cuda/sage_cuda.h"

int sage_check(const struct quant_codes *c, const struct attn_cuda *w, struct err *e)
{
    const struct attn_lists *l = w->lists;
    if (c->head_dim != 64 && c->head_dim != 128)
        return err_set(e, ERR_USAGE,
                       "8-bit attention takes heads of 64 or 128 channels, these have %d",
                       c->head_dim);
    if (c->len_q < 1 || c->len_k < 1 || c->n_heads < 1 || c->n_heads > 65535)
        return err_set(e, ERR_USAGE,
                       "8-bit attention over %d queries, %d keys, %d heads: all must be 1 or more, "
                       "heads 65535 or fewer",
                       c->len_q, c->len_k, c->n_heads);
    if (c->len_q > INT32_MAX - 256 || c->len_k > INT32_MAX - 256 ||
        ((int64_t)(c->len_q - 1) / 128 + 1) * c->n_heads > INT32_MAX / 128 ||
        ((int64_t)(c->len_k - 1) / 128 + 1) * c->n_heads > INT32_MAX / 128)
        return err_set(e, ERR_USAGE,
                       "8-bit attention over %d queries, %d keys, %d heads: too many for 31 bits",
                       c->len_q, c->len_k, c->n_heads);
    if ((c->how.bits != 8 && c->how.bits != 4) ||
        (c->how.values != QUANT_E4M3 && c->how.values != QUANT_S8))
        return err_set(
            e, ERR_USAGE,
            "8-bit attention takes codes of 8 or 4 bits and values in e4m3 or s8, not %d and %d",
            c->how.bits, (int)c->how.values);
    if (c->how.pools < 0 || c->how.pools > QUANT_MOST_POOLS || c->how.pools == 3)
        return err_set(e, ERR_USAGE, "%d means a block of queries or keys, wanted 0, 1, 2 or 4",
                       c->how.pools);
    if (w->len_q != c->len_q || w->len_k != c->len_k || w->n_heads != c->n_heads ||
        w->head_dim != c->head_dim)
        return err_set(
            e, ERR_BUG,
            "codes of %d x %d tokens, %d heads x %d do not fit a call of %d x %d, %d x %d",
            c->len_q, c->len_k, c->n_heads, c->head_dim, w->len_q, w->len_k, w->n_heads,
            w->head_dim);
    if (!c->q || (uintptr_t)c->q % 256)
        return err_set(
            e, ERR_BUG,
            "codes at %p, wanted memory that quant_codes_carve() has cut, 256-byte aligned",
            (void *)c->q);
    if (!w->o.at) return 0; /* to make codes no more is wanted */
    if ((uintptr_t)w->o.at % 16 || w->o.token < 1 || w->o.head < 1 || w->o.token % 8 ||
        w->o.head % 8)
        return err_set(e, ERR_USAGE,
                       "8-bit attention: o at %p with strides %lld, %lld; wanted 16-byte alignment "
                       "and strides that are "
                       "positive multiples of 8 elements",
                       w->o.at, (long long)w->o.token, (long long)w->o.head);
    if (!w->scratch || (uintptr_t)w->scratch % 16)
        return err_set(e, ERR_BUG, "8-bit attention: scratch at %p, wanted 16-byte aligned memory",
                       w->scratch);
    if (w->key_bias)
        return err_set(e, ERR_USAGE,
                       "8-bit attention takes no key bias; use flash_sm80 or sparse_sm80");
    if (w->alive && (!l || !(w->alive_log2 < 0)))
        return err_set(e, ERR_USAGE,
                       "8-bit attention: tiles that stay alive are recorded for plans only, under "
                       "a bound below 0 "
                       "(seen: %g)",
                       (double)w->alive_log2);
    if (!l) return 0;
    if (l->block_q != 128 || l->block_k != QUANT_BLOCK)
        return err_set(e, ERR_USAGE,
                       "8-bit attention takes tiles of 128 x 128, this plan has %d x %d",
                       l->block_q, l->block_k);
    if (l->mean)
        return err_set(
            e, ERR_USAGE,
            "8-bit attention has no codes of mean keys; use sparse_sm90 for plans with means");
    if (l->rows != (w->len_q - 1) / 128 + 1 || l->cols != c->k_blocks ||
        (l->n_plans != 1 && l->n_plans != w->n_heads) || l->words != (l->cols + 31) / 32)
        return err_set(e, ERR_BUG,
                       "8-bit attention: a plan of %d x %d tiles, %d of them, does not cover %d "
                       "queries, %d keys, %d heads",
                       l->rows, l->cols, l->n_plans, w->len_q, w->len_k, w->n_heads);
    return 0;
}
