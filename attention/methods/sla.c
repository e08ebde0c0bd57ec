/* Blocks of keys by their means, the best of a row, and linear attention over all tokens through a
 * projection that was trained with it: SLA, arXiv 2509.24006; attention-kernels.md 3.2.
 *
 *   o = sparse + W (phi(q) sum phi(k) v^T) / (1e-5 + phi(q) . sum phi(k)) + b,   phi over channels
 *
 * W and b are a checkpoint's own (attn1.proj_l of each layer, shared by its heads; the names of
 * TurboDiffusion's files as well). Without them this is top-k, and the log says so: the projection
 * starts at zero in training, and the identity in its place would double o. Blocks of 128 queries by 64
 * keys, as those files were trained. Deviation: blocks weigh as many tokens as they have. Cost: scores,
 * and 2 dim / len of a dense call for the linear part. */
#include "attention/axes/axes.h"

#include <math.h>
#include <string.h>

enum map { SOFTMAX, ELU, RELU };

struct sla {
    struct attn_knobs knobs;
    int map;
};

static const struct tensor *own(const struct attn_part *p, int layer, bool bias)
{
    const struct tensor *t = attn_tensor(p, layer, bias ? "proj_l.bias" : "proj_l.weight");
    return t ? t
             : attn_tensor(p, layer,
                           bias ? "attn_op.local_attn.proj_l.bias"
                                : "attn_op.local_attn.proj_l.weight");
}

static int check(const struct tensor *t, int dim, bool bias, struct err *e)
{
    const int64_t wanted[] = {dim, dim};
    char seen[64], right[64];
    int dims = bias ? 1 : 2;
    if (t->n_dims == dims && memcmp(t->shape, wanted, (size_t)dims * sizeof *wanted) == 0) return 0;
    tensor_shape_text(seen, sizeof seen, t->n_dims, t->shape);
    tensor_shape_text(right, sizeof right, dims, wanted);
    return err_set(e, ERR_INPUT, "proj_l.%s is %s, heads of %d channels want %s",
                   bias ? "bias" : "weight", seen, dim, right);
}

static void feature(float *phi, const float *x, int dim, enum map map)
{
    float top = -INFINITY, sum = 0;
    for (int c = 0; c < dim; c++)
        top = fmaxf(top, x[c]);
    for (int c = 0; c < dim; c++) {
        phi[c] = map == SOFTMAX ? expf(x[c] - top)
                 : map == RELU  ? fmaxf(x[c], 0)
                 : x[c] > 0     ? x[c] + 1
                                : expf(x[c]);
        sum += phi[c];
    }
    for (int c = 0; map == SOFTMAX && c < dim; c++)
        phi[c] /= sum;
}

struct projection {
    const float *weight, *bias; /* [D, D] out by in; [D] or NULL */
};

static void add_linear(const struct axis_head *h)
{
    const struct projection *w = h->ctx;
    enum map map = (enum map)((const struct sla *)h->p->options)->map;
    int dim = h->q.dim;
    size_t square = (size_t)dim * (size_t)dim;
    double *sum = h->scratch, *norm = sum + square;
    float *out = (float *)(norm + dim), phi[256];
    memset(sum, 0, (square + (size_t)dim) * sizeof *sum);
    for (int j = 0; j < h->k.len; j++) {
        const float *v = heads_at(&h->t->v, j, h->head);
        feature(phi, heads_at(&h->t->k, j, h->head), dim, map);
        for (int c = 0; c < dim; c++) {
            norm[c] += (double)phi[c];
            for (int x = 0; x < dim; x++)
                sum[c * dim + x] += (double)(phi[c] * v[x]);
        }
    }
    for (int c = 0; c < dim; c++) /* the projection, once instead of for every query */
        for (int x = 0; x < dim; x++) {
            double to = 0;
            for (int y = 0; y < dim; y++)
                to += sum[c * dim + y] * (double)w->weight[x * dim + y];
            out[c * dim + x] = (float)to;
        }
    for (int i = 0; i < h->q.len; i++) {
        float *o = heads_at(&h->t->o, i, h->head);
        double all = 1e-5;
        feature(phi, heads_at(&h->t->q, i, h->head), dim, map);
        for (int c = 0; c < dim; c++)
            all += (double)phi[c] * norm[c];
        for (int c = 0; c < dim; c++) {
            float part = (float)((double)phi[c] / all);
            for (int x = 0; x < dim; x++)
                o[x] += part * out[c * dim + x];
        }
        for (int x = 0; w->bias && x < dim; x++)
            o[x] += w->bias[x];
    }
}

static int after(const struct attn_part *p, const struct attn_turn *t, const struct attn_seen *s,
                 struct err *e)
{
    const struct tensor *weight = own(p, t->at.layer, false), *bias = own(p, t->at.layer, true);
    struct attn_plan each = {.n_heads = p->shape->n_heads, .per_head = true};
    (void)s;
    if (!weight) return 0;
    if (check(weight, p->shape->head_dim, false, e) < 0) return -1;
    if (bias && check(bias, p->shape->head_dim, true, e) < 0) return -1;
    if (attn_plan_dense(&each, p->tokens, p->tokens, p->shape->n_heads, e) < 0) return -1;
    each.per_head = true;
    axis_heads(
        &(struct axis_job){.p = p,
                           .t = t,
                           .plan = &each,
                           .ctx = &(struct projection){weight->data, bias ? bias->data : NULL},
                           .fn = add_linear});
    return 0;
}

static unsigned linear_looks(const struct attn_part *p, const struct attn_turn *t)
{
    for (int layer = t ? t->at.layer : 0; layer < p->shape->n_layers; layer++) {
        if (own(p, layer, false)) return ATTN_LOOK_QKV | ATTN_LOOK_O;
        if (t) break;
    }
    return 0;
}

static void linear_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    size_t dim = (size_t)p->shape->head_dim;
    s->scratch = axis_scratch(p, dim * dim * (sizeof(double) + sizeof(float)) + dim * 8);
}

static const struct axis_compensate rest_linear = {
    .name = "linear",
    .summary = "linear attention over all tokens, through a learned projection",
    .after = after,
    .sizes = linear_sizes,
    .after_looks = linear_looks,
};

static const char *note(const struct attn_part *p)
{
    for (int layer = 0; layer < p->shape->n_layers; layer++)
        if (own(p, layer, false)) return NULL;
    return "the model has no proj_l: the best blocks of every row alone, without SLA's linear part";
}

static const char *const names[] = {"proj_l.weight", "proj_l.bias",
                                    "attn_op.local_attn.proj_l.weight",
                                    "attn_op.local_attn.proj_l.bias", NULL};

const struct attn_method attn_sla = {
    .name = "sla",
    .summary = "the best blocks of every row, and linear attention where the model learned it",
    .paper = "2509.24006",
    .recipe = {.score = &score_by_mean, .select = &keep_top_k, .compensate = &rest_linear},
    .options = OPTIONS(
        KNOB_DENSITY(0.1, "share of blocks that a row keeps"),
        OPT_ENUM(struct sla, map, "map", 0, "softmax|elu|relu", "what linear attention is made of"),
        OPT_INT(struct attn_knobs, block_q, "block_q", 128, 16, 1024, "queries a block"),
        OPT_INT(struct attn_knobs, block, "block", 64, 16, 1024, "keys a block"), KNOB_SINK(0),
        KNOB_FIRST(0.2), KNOB_LAST(0)),
    .options_size = sizeof(struct sla),
    .tensors = names,
    .note = note,
};
