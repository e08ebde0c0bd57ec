// ragged_sm90: blocks of any length, as clusters of tokens are, on the kernel of sm90.cuh.
#include "attention/kernels/cuda/sm90.cuh"

namespace
{

template <class S> int launch(const attn_cuda *w, const attn_ragged *r, err *e)
{
    RaggedMaps maps;
    const Encode encode = encode_tiled(e);
    if (!encode) return -1;
    if (tensor_map(encode, &maps.q, w->q, w->len_q, w->n_heads, S::D, S::BQ, e) < 0) return -1;
    for (int i = 0; i < ATTN_RAGGED_BOXES; i++)
        if (tensor_map(encode, &maps.k[i], w->k, w->len_k, w->n_heads, S::D, 8 << i, e) < 0 ||
            tensor_map(encode, &maps.v[i], w->v, w->len_k, w->n_heads, S::D, 8 << i, e) < 0)
            return -1;
    Args a = outputs_of(w);
    a.rows = 1;
    a.tiles = r->rows;
    a.ragged = r->row;
    a.stages = r->stage;
    return start<S>(maps, a, w, e);
}

} // namespace

int attn_ragged_sm90(const attn_cuda *w, const attn_ragged *r, err *e)
{
    attn_tile t;
    if (w->lists || w->alive)
        return err_set(e, ERR_USAGE, "ragged_sm90 takes a plan of runs, no lists and no record");
    if (attn_tile_pick(&t, ATTN_SM90, w, e) < 0) return -1;
    if (r->rows < 1 || (r->block_q != 64 && r->block_q != 128))
        return err_set(e, ERR_USAGE,
                       "ragged_sm90: %d rows of %d queries, wanted 1 or more of 64 or 128", r->rows,
                       r->block_q);
    if (reinterpret_cast<uintptr_t>(r->stage) % 16)
        return err_set(e, ERR_BUG, "ragged_sm90: stages at %p, wanted 16-byte alignment",
                       static_cast<const void *>(r->stage));
    if (w->head_dim == 128)
        return r->block_q == 128 ? launch<Shape<128, 128, 2, 2, BY_RUNS | BY_TURNS>>(w, r, e)
                                 : launch<Shape<128, 128, 1, 1, BY_RUNS>>(w, r, e);
    return r->block_q == 128 ? launch<Shape<64, 128, 2, 3, BY_RUNS | BY_TURNS>>(w, r, e)
                             : launch<Shape<64, 128, 1, 2, BY_RUNS>>(w, r, e);
}
