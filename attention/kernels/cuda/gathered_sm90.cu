// gathered_sm90: a contender to ragged_sm90 that copies keys one by one (sm90_gather.cuh).
#include "attention/kernels/cuda/sm90.cuh"

namespace
{

template <class S> int launch(const attn_cuda *w, const attn_gathered *g, err *e)
{
    GatherMaps maps;
    const Encode encode = encode_tiled(e);
    if (!encode) return -1;
    if (tensor_map(encode, &maps.q, w->q, w->len_q, w->n_heads, S::D, S::BQ, e) < 0) return -1;
    maps.k = static_cast<const bf16 *>(w->k.at);
    maps.v = static_cast<const bf16 *>(w->v.at);
    maps.k_token = static_cast<uint32_t>(w->k.token / 8);
    maps.v_token = static_cast<uint32_t>(w->v.token / 8);
    maps.k_head = w->k.head;
    maps.v_head = w->v.head;
    maps.runs = g->run;
    Args a = outputs_of(w);
    a.rows = 1;
    a.tiles = g->rows;
    a.ragged = g->row;
    return start<S>(maps, a, w, e);
}

template <unsigned WAYS> int pick(const attn_cuda *w, const attn_gathered *g, err *e)
{
    if (w->head_dim == 128) return launch<Shape<128, 128, 2, 2, WAYS | BY_TURNS>>(w, g, e);
    return g->block_q == 128 ? launch<Shape<64, 128, 2, 6, WAYS | BY_TWO | BY_TURNS>>(w, g, e)
                             : launch<Shape<64, 128, 3, 3, WAYS | BY_TURNS>>(w, g, e);
}

} // namespace

int attn_gathered_sm90(const attn_cuda *w, const attn_gathered *g, err *e)
{
    attn_tile t;
    if (w->lists || w->alive)
        return err_set(e, ERR_USAGE, "gathered_sm90 takes a plan of runs, no lists and no record");
    if (attn_tile_pick(&t, ATTN_SM90, w, e) < 0) return -1;
    if (g->rows < 1 || (g->block_q != 128 && (g->block_q != 192 || w->head_dim != 64)))
        return err_set(e, ERR_USAGE,
                       "gathered_sm90: %d rows of %d queries, wanted 1 or more of 128, or of 192 "
                       "with heads of 64 channels",
                       g->rows, g->block_q);
    const int64_t furthest = w->k.token > w->v.token ? w->k.token : w->v.token;
    if (furthest / 8 * w->len_k >= UINT32_MAX)
        return err_set(e, ERR_USAGE, "gathered_sm90: %d keys %lld elements apart are too far",
                       w->len_k, static_cast<long long>(furthest));
    return g->self ? pick<BY_GATHER | BY_SELF>(w, g, e) : pick<BY_GATHER>(w, g, e);
}
