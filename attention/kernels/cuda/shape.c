/* Which kernel instance takes a call: decided on the host, so that it can be tested without one. */
#include "attention/kernels/cuda/attn_cuda.h"
#include "attention/kernels/cuda/pair_cuda.h"

#include <assert.h>

/* Most shared memory that a block may have (CUDA C++ guide, table of features). */
#define SHARED_SM90 232448
#define SHARED_SM86 101376 /* and sm_89: the least of all since sm_80 */

/* block_k of a row of a dense kernel is its own; lists must be cut as the kernel is. Lists with
 * mean tiles and calls that record are taken by the later of two instances where there are two.
 * shared: what attn_sm90.cu computes from the same numbers, as test_cuda_shapes sees to. */
enum takes { DENSE, LISTS, PLAIN_LISTS };
static const struct {
    enum attn_cuda_row row;
    enum takes takes;
    struct attn_tile tile;
} instances[] = {
    {ATTN_SM90, DENSE, {"flash_sm90", 128, 128, 176, 2, 384, 1, 1024 + 128 * 256 + 4 * 176 * 256}},
    {ATTN_SM90, DENSE, {"flash_sm90", 64, 192, 128, 3, 512, 1, 1024 + 192 * 128 + 6 * 128 * 128}},
    {ATTN_SM90, LISTS, {"sparse_sm90", 128, 128, 128, 2, 384, 1, 1024 + 128 * 256 + 4 * 128 * 256}},
    {ATTN_SM90,
     PLAIN_LISTS,
     {"sparse_sm90", 64, 128, 128, 6, 384, 1, 1024 + 128 * 128 + 12 * 128 * 128}},
    {ATTN_SM90, LISTS, {"sparse_sm90", 64, 128, 128, 3, 384, 1, 1024 + 128 * 128 + 6 * 128 * 128}},
    {ATTN_SM90, LISTS, {"sparse64_sm90", 128, 64, 64, 2, 256, 2, 1024 + 64 * 256 + 4 * 64 * 256}},
    {ATTN_SM90, PLAIN_LISTS, {"sparse64_sm90", 64, 64, 64, 3, 256, 2, ATTN_PAIR_SHARED}},
    {ATTN_SM90, LISTS, {"sparse64_sm90", 64, 64, 64, 3, 256, 2, 1024 + 64 * 128 + 6 * 64 * 128}},
    {ATTN_SM80, DENSE, {"flash_sm80", 128, 128, 64, 2, 128, 1, 128 * 256 + 4 * 64 * 256}},
    {ATTN_SM80, DENSE, {"flash_sm80", 64, 128, 64, 2, 128, 2, 128 * 128 + 4 * 64 * 128}},
    {ATTN_SM80, LISTS, {"sparse_sm80", 128, 128, 64, 2, 128, 1, 128 * 256 + 4 * 64 * 256}},
    {ATTN_SM80, LISTS, {"sparse_sm80", 64, 128, 64, 2, 128, 2, 128 * 128 + 4 * 64 * 128}},
    {ATTN_SM80, LISTS, {"sparse64_sm80", 128, 64, 64, 2, 128, 2, 64 * 256 + 4 * 64 * 256}},
    {ATTN_SM80, LISTS, {"sparse64_sm80", 64, 64, 64, 2, 128, 2, 64 * 128 + 4 * 64 * 128}},
    {ATTN_CUDNN, DENSE, {"cudnn", 128, 0, 0, 0, 0, 0, 0}},
    {ATTN_CUDNN, DENSE, {"cudnn", 64, 0, 0, 0, 0, 0, 0}},
};
static const char *const names[] = {[ATTN_SM80] = "sm_80 attention",
                                    [ATTN_SM90] = "sm_90 attention",
                                    [ATTN_CUDNN] = "cuDNN attention"};

static int check_tensor(const struct attn_tensor *t, const char *row, const char *what,
                        struct err *e)
{
    if (!t->at || (uintptr_t)t->at % 16 || t->token < 1 || t->head < 1 || t->token % 8 ||
        t->head % 8)
        return err_set(e, ERR_USAGE,
                       "%s: %s at %p with strides %lld, %lld; wanted 16-byte alignment and strides "
                       "that are positive multiples of 8 elements",
                       row, what, t->at, (long long)t->token, (long long)t->head);
    return 0;
}

static int check_lists(const struct attn_cuda *w, enum attn_cuda_row row, struct err *e)
{
    const struct attn_lists *l = w->lists;
    if (l->rows != (w->len_q - 1) / l->block_q + 1 || l->cols != (w->len_k - 1) / l->block_k + 1 ||
        (l->n_plans != 1 && l->n_plans != w->n_heads) || l->words != (l->cols + 31) / 32)
        return err_set(e, ERR_BUG,
                       "%s: a plan of %d x %d tiles of %d x %d, %d of them, does not cover %d "
                       "queries, %d keys, %d heads",
                       names[row], l->rows, l->cols, l->block_q, l->block_k, l->n_plans, w->len_q,
                       w->len_k, w->n_heads);
    if (l->mean) {
        if (check_tensor(&w->k_mean, names[row], "mean keys", e) < 0) return -1;
        if (check_tensor(&w->v_mean, names[row], "mean values", e) < 0) return -1;
    }
    return 0;
}

int attn_tile_pick(struct attn_tile *t, enum attn_cuda_row row, const struct attn_cuda *w,
                   struct err *e)
{
    const char *name = names[row];
    const struct attn_lists *l = w->lists;
    if (w->len_q < 1 || w->len_k < 1 || w->n_heads < 1 || w->n_heads > 65535)
        return err_set(e, ERR_USAGE,
                       "%s over %d queries, %d keys, %d heads: all must be 1 or more, heads 65535 "
                       "or fewer",
                       name, w->len_q, w->len_k, w->n_heads);
    if (w->len_q > INT32_MAX - 256 || w->len_k > INT32_MAX - 256 ||
        ((int64_t)(w->len_q - 1) / 128 + 1) * w->n_heads > INT32_MAX / 2)
        return err_set(e, ERR_USAGE, "%s over %d queries, %d keys, %d heads: too many for 31 bits",
                       name, w->len_q, w->len_k, w->n_heads);
    if (check_tensor(&w->q, name, "q", e) < 0 || check_tensor(&w->k, name, "k", e) < 0 ||
        check_tensor(&w->v, name, "v", e) < 0 || check_tensor(&w->o, name, "o", e) < 0)
        return -1;
    if (!w->scratch || (uintptr_t)w->scratch % 16)
        return err_set(e, ERR_BUG, "%s: scratch at %p, wanted 16-byte aligned memory", name,
                       w->scratch);
    if (w->key_bias && row != ATTN_SM80)
        return err_set(e, ERR_USAGE, "%s takes no key bias; use flash_sm80 or sparse_sm80", name);
    if (l && row == ATTN_CUDNN)
        return err_set(e, ERR_USAGE,
                       "cuDNN attention takes no plan on this generation of GPUs; use "
                       "sparse_sm90 or sparse_sm80");
    if (w->alive && (!l || !(w->alive_log2 < 0)))
        return err_set(e, ERR_USAGE,
                       "%s: tiles that stay alive are recorded for plans only, under a bound below "
                       "0 (seen: %g)",
                       name, (double)w->alive_log2);
    if (l && check_lists(w, row, e) < 0) return -1;
    bool dim = false;
    for (size_t i = 0; i < ARRAY_LEN(instances); i++) {
        const struct attn_tile *x = &instances[i].tile;
        if (instances[i].row != row || (instances[i].takes != DENSE) != (l != NULL)) continue;
        if (instances[i].takes == PLAIN_LISTS && (l->mean || w->alive)) continue;
        if (x->head_dim != w->head_dim) continue;
        dim = true;
        /* sm_80 walks keys by 64, whatever the plan's tiles are made of */
        if (l && (l->block_q != x->block_q ||
                  (l->block_k != x->block_k && (row != ATTN_SM80 || l->block_k != 128))))
            continue;
        *t = *x;
        return 0;
    }
    if (dim)
        return err_set(e, ERR_USAGE, "%s takes tiles of %s, this plan has %d x %d", name,
                       row == ATTN_SM80 ? "128 or 64 x 128 or 64" : "128 x 128 or 64 x 64",
                       l->block_q, l->block_k);
    return err_set(e, ERR_USAGE, "%s takes heads of 64 or 128 channels, these have %d", name,
                   w->head_dim);
}

size_t attn_cuda_scratch(void) { return 64; /* the counter of rows, a cache line of its own */ }

static_assert(1024 + 128 * 256 + 4 * 176 * 256 + 1024 <= SHARED_SM90, "flash_sm90 fits a block");
static_assert(128 * 256 + 4 * 64 * 256 <= SHARED_SM86, "flash_sm80 fits sm_86 and sm_89");
