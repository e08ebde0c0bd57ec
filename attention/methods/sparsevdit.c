/* Every head gets one of five kinds, found once and kept for the clip: Sparse-vDiT, arXiv 2506.03065;
 * attention-sparse.md 6.
 *
 *   full       everything
 *   skip       left out, or its mean over tokens (fill)
 *   diagonal   a band in raster order: near in a frame, and the frames next to it
 *   multi      a band where all frames of a place stand together: diagonals a frame apart
 *   stripe     the blocks of keys that all look at
 *
 * A kind costs its error on exact rows, as a share of what a head of the layer has in the mean, +
 * lambda * the share of pairs that it computes; the cheapest is taken, unless all of the last four cost
 * more than eps. Rows are looked at in the exact steps, of both branches, or, where there is none, in
 * the first other one. Deviations: the paper searches offline over many prompts, with an error that is
 * no share (eps 1); widths are unpublished. Cost: 4 rows / len of a dense call in exact steps, nothing
 * later. */
#include "attention/axes/axes.h"
#include "attention/policy/order.h"
#include "attention/policy/score.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum kind { FULL, SKIP, DIAGONAL, MULTI, STRIPE, KINDS };

struct sparsevdit {
    struct attn_knobs knobs;
    double columns, lambda, eps;
    int rows, fill;
};

struct head { /* sums over what was looked at */
    double error[KINDS], norm;
    int64_t kind;
};

struct state { /* of a layer and branch */
    int64_t known;
    float mean[]; /* [N, D] of o */
};

static const struct sparsevdit *of(const struct attn_part *p) { return p->options; }

/* Shared: [layers, N] heads, then [layers] of which kinds are known, then [layers, N, blocks] weight
 * of blocks of keys. */
static struct head *heads_of(const struct attn_part *p, int layer)
{
    return (struct head *)attn_shared(p) + (size_t)layer * (size_t)p->shape->n_heads;
}
static int64_t *known_of(const struct attn_part *p)
{
    return (int64_t *)heads_of(p, p->shape->n_layers);
}
static float *columns_of(const struct attn_part *p, int layer, int head)
{
    size_t at = (size_t)layer * (size_t)p->shape->n_heads + (size_t)head;
    return (float *)(known_of(p) + p->shape->n_layers) + at * (size_t)attn_limits(p).blocks;
}

static void table_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    size_t layers = (size_t)p->shape->n_layers, heads = layers * (size_t)p->shape->n_heads;
    s->shared = heads * sizeof(struct head) + layers * sizeof(int64_t) +
                heads * (size_t)attn_limits(p).blocks * sizeof(float);
    s->state = sizeof(struct state) +
               (size_t)p->shape->n_heads * (size_t)p->shape->head_dim * sizeof(float);
    s->scratch = skip_lists(p) + (size_t)p->shape->n_heads;
}

/* --- looking --- */

static int rows_of(const struct attn_part *p)
{
    return of(p)->rows < p->tokens ? of(p)->rows : p->tokens;
}

/* The blocks of most weight so far: index[most]; returns how many. */
static int stripes(int *index, const struct axis_head *h, int cols)
{
    int most = (int)ceil(of(h->p)->columns * cols - 1e-9);
    return select_best(index, columns_of(h->p, h->t->plan_layer, h->head), cols,
                       most < 1 ? 1 : most);
}

/* Places of tokens that stand by place first: those of order_token_major(). */
static int place_of(const struct attn_shape *s, int token)
{
    int frame = s->grid_h * s->grid_w;
    return token % frame * s->grid_t + token / frame;
}

struct look {
    const struct axis_head *h;
    const uint32_t *band, *stripe; /* a plane; a row of one */
    int size; /* tokens a block */
};

/* Squared error of one row's output when only what a kind keeps is looked at, o[dim] being exact. */
static double error_of(const struct look *l, enum kind kind, const float *p, const double *o,
                       int token)
{
    const struct axis_head *h = l->h;
    const struct attn_shape *s = h->p->shape;
    double got[256] = {0}, sum = 0, error = 0;
    int dim = h->q.dim, words = attn_words(h->k.n);
    int row = (kind == MULTI ? place_of(s, token) : token) / l->size;
    const uint32_t *keeps = kind == STRIPE ? l->stripe : l->band + (size_t)row * (size_t)words;
    for (int j = 0; j < h->k.len; j++) {
        if (!select_has(keeps, (kind == MULTI ? place_of(s, j) : j) / l->size)) continue;
        const float *v = heads_at(&h->t->v, j, h->head);
        for (int c = 0; c < dim; c++)
            got[c] += (double)p[j] * (double)v[c];
        sum += (double)p[j];
    }
    for (int c = 0; c < dim; c++) {
        double d = (sum > 0 ? got[c] / sum : 0) - o[c];
        error += d * d;
    }
    return error;
}

static void look_at(const struct axis_head *h)
{
    int rows = rows_of(h->p), len = h->k.len, dim = h->q.dim, words = attn_words(h->k.n);
    float *p = h->scratch, *column = columns_of(h->p, h->t->plan_layer, h->head);
    double *o = (double *)(p + (size_t)(rows + rows % 2) * (size_t)(len + len % 2)),
           *mean = o + (size_t)rows * (size_t)dim;
    uint32_t *band = (uint32_t *)(mean + dim), *stripe = band + (size_t)h->q.n * (size_t)words;
    int *index = (int *)(stripe + words);
    struct head *to = heads_of(h->p, h->t->plan_layer) + h->head;
    struct look look = {h, band, stripe, h->k.size};
    memset(o, 0, ((size_t)rows + 1) * (size_t)dim * sizeof *o);
    memset(band, 0, ((size_t)h->q.n + 1) * (size_t)words * sizeof *band);
    select_band(band, h->q.n, h->k.n, h->p->knobs->density);
    for (int r = 0; r < rows; r++) {
        float *row = p + (size_t)r * (size_t)len;
        int32_t token = (int32_t)((2 * (int64_t)r + 1) * len / (2 * (int64_t)rows));
        score_probe(row, &h->q, &token, 1, &h->k, h->scale, h->dots);
        for (int j = 0; j < len; j++) {
            const float *v = heads_at(&h->t->v, j, h->head);
            column[j / h->k.size] += row[j];
            for (int c = 0; c < dim; c++)
                o[r * dim + c] += (double)row[j] * (double)v[c];
        }
        for (int c = 0; c < dim; c++)
            mean[c] += o[r * dim + c] / rows;
    }
    for (int i = stripes(index, h, h->k.n); i-- > 0;)
        select_add(stripe, index[i]);
    for (int r = 0; r < rows; r++) {
        int token = (int)((2 * (int64_t)r + 1) * len / (2 * (int64_t)rows));
        for (int c = 0; c < dim; c++) {
            double x = o[r * dim + c], d = of(h->p)->fill == 0 ? x - mean[c] : x;
            to->norm += x * x;
            to->error[SKIP] += d * d * (rows > 1 ? rows / (rows - 1.) : 1); /* the rows' own mean */
        }
        for (int kind = DIAGONAL; kind < KINDS; kind++)
            to->error[kind] +=
                error_of(&look, (enum kind)kind, p + (size_t)r * (size_t)len, o + r * dim, token);
    }
}

static size_t look_scratch(const struct attn_part *p)
{
    size_t rows = (size_t)rows_of(p), dim = (size_t)p->shape->head_dim;
    size_t n = (size_t)attn_limits(p).blocks, words = (size_t)attn_words((int)n);
    return (rows + 1) * ((size_t)p->tokens + 1) * sizeof(float) +
           (rows + 1) * dim * sizeof(double) + ((n + 1) * words + n) * 4;
}

static int look(const struct attn_part *p, const struct attn_turn *t, struct err *e)
{
    struct attn_plan each = {.n_heads = p->shape->n_heads, .per_head = true};
    if (attn_blocks_equal(&each.q, p->tokens, attn_limits(p).block, e) < 0) return -1;
    each.k = each.q;
    axis_heads(&(struct axis_job){.p = p, .t = t, .plan = &each, .fn = look_at});
    return 0;
}

/* --- choosing --- */

static void choose_kinds(const struct attn_part *p, int layer)
{
    struct head *head = heads_of(p, layer);
    const struct sparsevdit *o = of(p);
    const double share[KINDS] = {1, 0, o->knobs.density, o->knobs.density, o->columns};
    double mean = 0;
    for (int h = 0; h < p->shape->n_heads; h++)
        mean += head[h].norm / p->shape->n_heads;
    for (int h = 0; h < p->shape->n_heads; h++) {
        double best = o->eps;
        head[h].kind = FULL;
        for (int kind = SKIP; kind < KINDS; kind++) {
            double cost = (mean > 0 ? head[h].error[kind] / mean : 0) + o->lambda * share[kind];
            if (!(cost <= best) || (cost >= best && head[h].kind != FULL)) continue;
            best = cost;
            head[h].kind = kind;
        }
    }
    known_of(p)[layer] = 1;
}

static void place(const struct axis_head *h)
{
    const struct attn_shape *s = h->p->shape;
    int32_t *order = (int32_t *)h->ctx + (size_t)h->plan_no * (size_t)h->q.len;
    if (heads_of(h->p, h->t->plan_layer)[h->head].kind == MULTI)
        order_token_major(order, (struct grid){s->grid_t, s->grid_h, s->grid_w});
    else
        for (int i = 0; i < h->q.len; i++)
            order[i] = i;
}

static int place_all(const struct attn_part *p, const struct attn_turn *t, struct attn_plan *plan,
                     int32_t *q_token, int32_t *k_token, int32_t *q_at, int32_t *k_at,
                     struct err *e)
{
    int layer = t->plan_layer;
    (void)k_token, (void)q_at, (void)k_at;
    if (!known_of(p)[layer]) {
        if (heads_of(p, layer)[0].norm <= 0 && look(p, t, e) < 0) return -1;
        choose_kinds(p, layer);
    }
    axis_heads(&(struct axis_job){.p = p, .t = t, .plan = plan, .ctx = q_token, .fn = place});
    return 0;
}

static void place_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    s->scratch = axis_scratch(p, look_scratch(p));
}

/* Kinds are chosen from what exact steps were seen to be, or here. */
static unsigned place_looks(const struct attn_part *p, const struct attn_turn *t)
{
    if (t && (known_of(p)[t->plan_layer] || heads_of(p, t->plan_layer)[0].norm > 0)) return 0;
    return ATTN_LOOK_QKV;
}

static const struct axis_order order_by_kind = {.name = "kind",
                                                .summary = "raster, or frames of a place together",
                                                .per_head = true,
                                                .make = place_all,
                                                .looks = place_looks,
                                                .sizes = place_sizes};

static void keep(const struct axis_head *h)
{
    int *index = h->scratch;
    switch (heads_of(h->p, h->t->plan_layer)[h->head].kind) {
    case FULL:
        for (int r = 0; r < h->q.n; r++)
            select_row(h->kept, h->k.n, r);
        break;
    case DIAGONAL:
    case MULTI:
        select_band(h->kept, h->q.n, h->k.n, h->p->knobs->density);
        break;
    case STRIPE:
        for (int i = stripes(index, h, h->k.n); i-- > 0;)
            select_column(h->kept, h->q.n, h->k.n, index[i]);
        break;
    default: /* left out: what it keeps is not looked at */
        break;
    }
    axis_finish(h);
}

AXIS_SELECT(keep)

static const struct axis_select keep_by_kind = {.name = "kind",
                                                .summary = "what the head's kind looks at",
                                                .select = keep_all,
                                                .looks = attn_looks_nowhere};

static int leave_out(const struct attn_part *p, const struct attn_turn *t, struct attn_calls *c,
                     struct err *e)
{
    struct state *mine = attn_state(p, t->at.layer, t->at.branch);
    uint8_t *lists = attn_scratch(p), *out = lists + skip_lists(p);
    for (int h = 0; h < p->shape->n_heads; h++)
        out[h] = heads_of(p, t->plan_layer)[h].kind == SKIP && (mine->known || of(p)->fill);
    return skip_heads(c, p, out, of(p)->fill == 0 ? mine->mean : NULL, lists, e);
}

/* Means are those of the last call that computed all heads of the pair. */
static int see(const struct attn_part *p, const struct attn_turn *t, const struct attn_seen *s,
               struct err *e)
{
    struct state *mine = attn_state(p, t->at.layer, t->at.branch);
    (void)s;
    if (mine->known && !t->exact) return 0;
    if (of(p)->fill == 0) skip_mean(mine->mean, p, t);
    mine->known = 1;
    if (!t->exact || known_of(p)[t->plan_layer]) return 0;
    return look(p, t, e);
}

static unsigned see_looks(const struct attn_part *p, const struct attn_turn *t)
{
    unsigned mean = of(p)->fill == 0 ? ATTN_LOOK_O : 0;
    if (!t) return mean | ATTN_LOOK_QKV;
    const struct state *mine = attn_state(p, t->at.layer, t->at.branch);
    if (mine->known && !t->exact) return 0;
    return t->exact && !known_of(p)[t->plan_layer] ? mean | ATTN_LOOK_QKV : mean;
}

/* --- the table --- */

static int kinds_save(const struct attn_part *p, FILE *to, struct err *e)
{
    static const char letter[] = "FSDMV";
    (void)e;
    for (int layer = 0; layer < p->shape->n_layers; layer++) {
        for (int h = 0; h < p->shape->n_heads; h++) {
            int64_t kind =
                heads_of(p, layer)[h].kind; /* a state that was read back may say anything */
            fputc(known_of(p)[layer] && kind >= 0 && kind < KINDS ? letter[kind] : '?', to);
        }
        fputc('\n', to);
    }
    return 0;
}

/* A line a layer, a letter a head: full, skip, diagonal, multi, or ? where a layer is not known.
 * Stripes are not in it, since their columns go with the clip: a layer that has one is looked at
 * again. */
static int kinds_load(const struct attn_part *p, const char *text, size_t n, struct err *e)
{
    static const char letter[] = "FSDMV";
    size_t heads = (size_t)p->shape->n_heads, layers = (size_t)p->shape->n_layers;
    if (n != layers * (heads + 1))
        return err_set(e, ERR_INPUT, "kinds of heads: %zu bytes, wanted %zu (%zu layers of %zu)", n,
                       layers * (heads + 1), layers, heads);
    for (size_t i = 0; i < n; i++)
        if (!text[i] || (i % (heads + 1) == heads ? text[i] != '\n' : !strchr("FSDMV?", text[i])))
            return err_set(e, ERR_INPUT, "kinds of heads: byte %zu is not one of FSDMV?", i);
    for (size_t layer = 0; layer < layers; layer++) {
        const char *line = text + layer * (heads + 1);
        if (memchr(line, '?', heads) || memchr(line, 'V', heads)) continue;
        for (size_t h = 0; h < heads; h++)
            heads_of(p, (int)layer)[h].kind = strchr(letter, line[h]) - letter;
        known_of(p)[layer] = 1;
    }
    return 0;
}

const struct attn_method attn_sparsevdit = {
    .name = "sparsevdit",
    .summary = "each head full, left out, a band in space or in time, or stripes, found once",
    .paper = "2506.03065",
    .recipe = {.order = &order_by_kind, .select = &keep_by_kind},
    .options = OPTIONS(
        KNOB_DENSITY(0.3, "share of pairs in a band"),
        OPT_DOUBLE(struct sparsevdit, columns, "columns", 0.25, 0.01, 1,
                   "share of keys in stripes"),
        OPT_DOUBLE(struct sparsevdit, lambda, "lambda", 0.2, 0, 100,
                   "what computing everything would cost, in errors"),
        OPT_DOUBLE(struct sparsevdit, eps, "eps", 0.1, 0, 100,
                   "a head all of whose kinds cost more stays full"),
        OPT_INT(struct sparsevdit, rows, "rows", 16, 2, 1024, "exact rows that are looked at"),
        OPT_ENUM(struct sparsevdit, fill, "fill", 0, "mean|zero",
                 "what stands for a head that is left out: its mean over tokens, or nothing"),
        KNOB_FIRST(0.2), KNOB_LAST(0), KNOB_BLOCK(64)),
    .options_size = sizeof(struct sparsevdit),
    .needs = ATTN_NEED_HEADS | ATTN_NEED_ZERO | ATTN_NEED_COPY,
    .sizes = table_sizes,
    .plan = leave_out,
    .plan_looks = attn_looks_nowhere,
    .steady = true,
    .splits = true,
    .observe = see,
    .observe_looks = see_looks,
    .save = kinds_save,
    .load = kinds_load,
};
