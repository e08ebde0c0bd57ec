// ragged_sm90: blocks of any length, as clusters of tokens are, on the kernel of sm90.cuh.
#include "attention/kernels/cuda/sm90.cuh"

namespace
{

template <class S> int launch(const attn_cuda *w, const attn_ragged *r, err *e)
{
    static_assert(S::BQ == ATTN_RAGGED_QUERIES(S::D), "rows are cut for this instance");
    RaggedMaps maps;
    const Encode encode = encode_tiled(e);
    if (!encode) return -1;
    if (tensor_map(encode, &maps.q, w->q, w->len_q, w->n_heads, S::D, S::BQ, e) < 0) return -1;
    maps.k = static_cast<const bf16 *>(w->k.at);
    maps.v = static_cast<const bf16 *>(w->v.at);
    maps.k_token = static_cast<uint32_t>(w->k.token / 8);
    maps.v_token = static_cast<uint32_t>(w->v.token / 8);
    maps.k_head = w->k.head;
    maps.v_head = w->v.head;
    maps.runs = r->run;
    Args a = outputs_of(w);
    a.rows = 1;
    a.tiles = r->rows;
    a.ragged = r->row;
    return start<S>(maps, a, w, e);
}

} // namespace

int attn_ragged_sm90(const attn_cuda *w, const attn_ragged *r, err *e)
{
    attn_tile t;
    if (w->lists || w->alive)
        return err_set(e, ERR_USAGE, "ragged_sm90 takes a plan of runs, no lists and no record");
    if (attn_tile_pick(&t, ATTN_SM90, w, e) < 0) return -1;
    if (r->rows < 1 || r->block_q != ATTN_RAGGED_QUERIES(w->head_dim))
        return err_set(e, ERR_USAGE,
                       "ragged_sm90: %d rows of %d queries, wanted 1 or more of %d for heads of %d "
                       "channels",
                       r->rows, r->block_q, ATTN_RAGGED_QUERIES(w->head_dim), w->head_dim);
    const int64_t furthest = w->k.token > w->v.token ? w->k.token : w->v.token;
    if (furthest / 8 * w->len_k >= UINT32_MAX)
        return err_set(e, ERR_USAGE, "ragged_sm90: %d keys %lld elements apart are too far",
                       w->len_k, static_cast<long long>(furthest));
    return w->head_dim == 128 ? launch<Shape<128, 128, 2, 2, BY_RUNS | BY_TURNS>>(w, r, e)
                              : launch<Shape<64, 128, 3, 3, BY_RUNS | BY_TURNS>>(w, r, e);
}
