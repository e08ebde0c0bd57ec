/* Names, shapes and kinds of every tensor of WanTransformer3DModel (wan.md 3.1), and what they take. */
#include "model/dit/dit_internal.h"

#define BLOCK(field) offsetof(struct dit_block, field)
#define TOP(field) offsetof(struct dit_top, field)

int dit_block_layers(const struct dit_config *c, struct layer_row rows[DIT_MAX_ROWS])
{
    int D = c->n_heads * c->head_dim, F = c->ffn_dim, n = 0;
#define L(field, nm, out, in, act, kind)                                                           \
    rows[n++] = (struct layer_row){"blocks.%d." nm, BLOCK(field), out,   in,   act, kind,          \
                                   false,           false,        false, false}
    L(q, "attn1.to_q", D, D, ACT_NONE, ROWS_TOKENS);
    L(k, "attn1.to_k", D, D, ACT_NONE, ROWS_TOKENS);
    L(v, "attn1.to_v", D, D, ACT_NONE, ROWS_TOKENS);
    L(o, "attn1.to_out.0", D, D, ACT_NONE, ROWS_TOKENS);
    L(xq, "attn2.to_q", D, D, ACT_NONE, ROWS_TOKENS);
    L(xk, "attn2.to_k", D, D, ACT_NONE, ROWS_TEXT);
    L(xv, "attn2.to_v", D, D, ACT_NONE, ROWS_TEXT);
    L(xo, "attn2.to_out.0", D, D, ACT_NONE, ROWS_TOKENS);
    L(up, "ffn.net.0.proj", F, D, ACT_GELU_TANH, ROWS_CHAIN);
    L(down, "ffn.net.2", D, F, ACT_NONE, ROWS_CHAIN);
    for (int i = 0; i < n; i++) { /* read by rms_norm_rope() and residual_gate() */
        size_t at = rows[i].offset;
        rows[i].sums = at == BLOCK(q) || at == BLOCK(k) || at == BLOCK(o) || at == BLOCK(xq) ||
                       at == BLOCK(xo) || at == BLOCK(down);
        rows[i].large = rows[i].kind == ROWS_TOKENS || rows[i].kind == ROWS_CHAIN;
    }
    if (c->added_kv_proj_dim) {
        L(ik, "attn2.add_k_proj", D, c->added_kv_proj_dim, ACT_NONE, ROWS_IMAGE);
        L(iv, "attn2.add_v_proj", D, c->added_kv_proj_dim, ACT_NONE, ROWS_IMAGE);
    }
#undef L
    return n;
}

int dit_top_layers(const struct dit_config *c, struct layer_row rows[DIT_MAX_ROWS])
{
    int D = c->n_heads * c->head_dim, patch = c->patch_t * c->patch_h * c->patch_w, n = 0;
#define C "condition_embedder."
#define L(field, nm, out, in, act, kind)                                                           \
    rows[n++] = (struct layer_row){nm, TOP(field), out, in, act, kind, false, false, false, false}
    L(patch, "patch_embedding", D, c->in_channels * patch, ACT_NONE, ROWS_TOKENS);
    rows[n - 1].patch = true;
    L(time_1, C "time_embedder.linear_1", D, c->freq_dim, ACT_SILU, ROWS_TIME);
    rows[n - 1].fp32 = true;
    L(time_2, C "time_embedder.linear_2", D, D, ACT_NONE, ROWS_TIME);
    rows[n - 1].fp32 = true;
    L(time_proj, C "time_proj", 6 * D, D, ACT_NONE, ROWS_TIME);
    L(text_1, C "text_embedder.linear_1", D, c->text_dim, ACT_GELU_TANH, ROWS_TEXT);
    L(text_2, C "text_embedder.linear_2", D, D, ACT_NONE, ROWS_TEXT);
    if (c->image_dim) {
        L(image_1, C "image_embedder.ff.net.0.proj", c->image_dim, c->image_dim, ACT_GELU_ERF,
          ROWS_IMAGE);
        L(image_2, C "image_embedder.ff.net.2", D, c->image_dim, ACT_NONE, ROWS_IMAGE);
    }
    L(head, "proj_out", c->out_channels * patch, D, ACT_NONE, ROWS_TOKENS);
#undef L
    return n;
}

int dit_block_vectors(const struct dit_config *c, struct vector_row rows[DIT_MAX_ROWS])
{
    int64_t D = (int64_t)c->n_heads * c->head_dim;
    int n = 0;
#define V(field, nm, narrow)                                                                       \
    rows[n++] = (struct vector_row){"blocks.%d." nm, BLOCK(field), 1, {D}, narrow}
    V(norm_q, "attn1.norm_q.weight", true);
    V(norm_k, "attn1.norm_k.weight", true);
    V(xnorm_q, "attn2.norm_q.weight", true);
    V(xnorm_k, "attn2.norm_k.weight", true);
    if (c->added_kv_proj_dim) V(inorm_k, "attn2.norm_added_k.weight", true);
    if (c->cross_attn_norm) {
        V(norm2_w, "norm2.weight", false);
        V(norm2_b, "norm2.bias", false);
    }
#undef V
    rows[n++] =
        (struct vector_row){"blocks.%d.scale_shift_table", BLOCK(table), 3, {1, 6, D}, false};
    return n;
}

int dit_top_vectors(const struct dit_config *c, struct vector_row rows[DIT_MAX_ROWS])
{
    int64_t D = (int64_t)c->n_heads * c->head_dim;
    int n = 0;
    rows[n++] = (struct vector_row){"scale_shift_table", TOP(table), 3, {1, 2, D}, false};
    if (!c->image_dim) return n;
#define V(field, nm, len)                                                                          \
    rows[n++] = (struct vector_row){C "image_embedder." nm, TOP(field), 1, {len}, false}
    V(image_norm1_w, "norm1.weight", c->image_dim);
    V(image_norm1_b, "norm1.bias", c->image_dim);
    V(image_norm2_w, "norm2.weight", D);
    V(image_norm2_b, "norm2.bias", D);
#undef V
    if (c->pos_embed_seq_len)
        rows[n++] = (struct vector_row){C "image_embedder.pos_embed",
                                        TOP(pos_embed),
                                        3,
                                        {1, c->pos_embed_seq_len, c->image_dim},
                                        true};
    return n;
}
#undef C

struct linear_params dit_linear_params(const struct layer_row *r, enum precision p)
{
    return (struct linear_params){.in = r->in,
                                  .out = r->out,
                                  .precision = r->fp32    ? PRECISION_FP32
                                               : r->large ? p
                                                          : precision_beside(p),
                                  .act = r->act,
                                  .round_out = !r->fp32 && !r->sums && p != PRECISION_FP32};
}

static size_t vector_len(const struct vector_row *r)
{
    size_t n = 1;
    for (int i = 0; i < r->n_dims; i++)
        n *= (size_t)r->shape[i];
    return n;
}

static void carve_vectors(void *target, const struct vector_row *rows, int n, struct arena *a)
{
    for (int i = 0; i < n; i++) {
        float *at = arena_take(a, vector_len(&rows[i]) * sizeof(float));
        if (target) memcpy((char *)target + rows[i].offset, &at, sizeof at);
    }
}

void dit_carve_vectors(struct dit_top *top, struct dit_block *blocks, const struct dit_config *c,
                       struct arena *a)
{
    struct vector_row rows[DIT_MAX_ROWS];
    carve_vectors(top, rows, dit_top_vectors(c, rows), a);
    int n = dit_block_vectors(c, rows);
    for (int i = 0; i < c->n_layers; i++)
        carve_vectors(blocks ? &blocks[i] : NULL, rows, n, a);
}

/* On the host layers take memory of their own, on a device they lie one behind the other. */
static void carve_layers(const struct ops *o, enum precision p, const struct layer_row *rows, int n,
                         struct arena *a)
{
    for (int i = 0; i < n; i++) {
        struct linear_params lp = dit_linear_params(&rows[i], p);
        size_t bytes = o->linear_bytes(&lp);
        if (o->kind == DEVICE_CPU)
            a->used += bytes;
        else
            arena_take(a, bytes);
    }
}

size_t dit_weight_bytes(const struct dit_config *c, struct device *device, enum precision p,
                        int streamed)
{
    struct layer_row rows[DIT_MAX_ROWS];
    struct arena count = {0};
    const struct ops *o = ops_of(device);
    size_t slots, packs;
    dit_carve_vectors(NULL, NULL, c, &count);
    dit_stream_bytes(c, o, p, streamed, &slots, &packs);
    count.used += slots;
    carve_layers(o, p, rows, dit_top_layers(c, rows), &count);
    for (int i = 0; i < c->n_layers - streamed; i++)
        carve_layers(o, p, rows, dit_block_layers(c, rows), &count);
    return count.used;
}

size_t dit_opening_bytes(const struct dit_config *c, enum precision p, bool host)
{
    struct layer_row rows[2 * DIT_MAX_ROWS];
    size_t most = 0, each = !host ? 4 : p == PRECISION_BF16 ? 2 : 2 + 4;
    int n = dit_block_layers(c, rows);
    n += dit_top_layers(c, rows + n);
    while (n-- > 0) {
        size_t bytes = (size_t)rows[n].out * (size_t)rows[n].in * each;
        if (bytes > most) most = bytes;
    }
    return most;
}
