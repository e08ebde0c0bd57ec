/* Tokens of like kind stand together: queries and keys are clustered by k-means, head by head, and a
 * row keeps the clusters that hold a share of its weight: SVG2, arXiv 2505.18875; attention-sparse.md
 * 1. by=lsh: by the sides of random planes instead (MagicPIG, arXiv 2410.16179), the same ones for
 * queries and keys. rest=mean: clusters that are not kept count by their means; rest=error: besides,
 * those are kept, for as many pairs, whose mean would err most (SVG-EAR, arXiv 2603.08982; 1c). On the
 * model that was looked at means lost against dropping (17.2).
 *
 * Clusters are blocks, of any length. Centroids stay from step to step, so that `again` iterations do
 * after `begin` at the first plan; fp32, for each layer and branch. Deviations: seeds are spread
 * evenly over the clip (drawn in the reference), branches do not share centroids, exact steps do not
 * warm them. Cost: (q + k clusters) / (2 len) of a dense call for each iteration. */
#include "attention/axes/axes.h"
#include "attention/policy/cluster.h"

#include <string.h>

struct svg2 {
    struct attn_knobs knobs;
    int q, k, begin, again, by, rest;
};
enum { BY_MEANS, BY_HASH, REST_DROPPED = 0, REST_MEAN, REST_ERROR };

static const struct svg2 *of(const struct attn_part *p) { return p->options; }

static int planes_for(int n) /* largest power of two that is not above n */
{
    int planes = 0;
    while (2 << planes <= n)
        planes++;
    return planes;
}

/* 0: what makes about 160 tokens a cluster of queries, 65 of keys. */
static int clusters(const struct attn_part *p, bool keys)
{
    int n = keys ? of(p)->k : of(p)->q, some = p->tokens / (keys ? 65 : 160);
    if (!n) n = some > 4 ? some : 4;
    if (n > p->tokens) n = p->tokens;
    return of(p)->by == BY_HASH ? 1 << planes_for(n) : n;
}

static int most(const struct attn_part *p)
{
    int q = clusters(p, false), k = clusters(p, true);
    return q > k ? q : k;
}

struct state { /* of a layer and branch; centroids of all heads follow, queries' then keys' */
    int64_t warm[8];
    float centroid[];
};

struct orders {
    int32_t *q, *k, *q_at, *k_at;
    struct state *state;
    int stride; /* from the offsets of one head to the next */
};

static void side(const struct axis_head *h, bool keys)
{
    const struct orders *o = h->ctx;
    const struct blocks *tokens = keys ? &h->k : &h->q;
    int n = clusters(h->p, keys), len = h->q.len;
    size_t dim = (size_t)h->q.dim,
           all = (size_t)clusters(h->p, false) + (size_t)clusters(h->p, true);
    int32_t *label = (int32_t *)((char *)h->scratch + cluster_scratch(most(h->p), &h->q));
    int *count = label + len;
    if (of(h->p)->by == BY_HASH) {
        struct attn_ctx who = {.layer = h->t->at.layer};
        cluster_hash(label, count, planes_for(n), attn_random(&who, h->head, 1), tokens, h->scratch,
                     h->dots);
    } else {
        float *centroid = o->state->centroid + (size_t)h->head * all * dim +
                          (keys ? (size_t)clusters(h->p, false) * dim : 0);
        bool warm = o->state->warm[0];
        if (!warm) cluster_seed(centroid, n, tokens);
        cluster_means(centroid, label, count, n, tokens, warm ? of(h->p)->again : of(h->p)->begin,
                      h->scratch, h->dots);
    }
    cluster_order((keys ? o->k : o->q) + (size_t)h->plan_no * (size_t)len,
                  (keys ? o->k_at : o->q_at) + (size_t)h->plan_no * (size_t)o->stride, label, count,
                  n, len);
}

static void sort(const struct axis_head *h)
{
    side(h, false);
    side(h, true);
}

static int sort_all(const struct attn_part *p, const struct attn_turn *t, struct attn_plan *plan,
                    int32_t *q_token, int32_t *k_token, int32_t *q_at, int32_t *k_at, struct err *e)
{
    struct orders o = {q_token,    k_token, q_at, k_at, attn_state(p, t->at.layer, t->at.branch),
                       most(p) + 1};
    (void)e;
    axis_heads(&(struct axis_job){.p = p, .t = t, .plan = plan, .ctx = &o, .fn = sort});
    if (o.state) o.state->warm[0] = 1;
    plan->q.n = clusters(p, false);
    plan->k.n = clusters(p, true);
    return 0;
}

static void sort_sizes(const struct attn_part *p, struct attn_sizes *s)
{
    struct blocks tokens = {.len = p->tokens, .dim = p->shape->head_dim};
    size_t all = (size_t)clusters(p, false) + (size_t)clusters(p, true), n = (size_t)most(p);
    if (of(p)->by == BY_MEANS)
        s->state = sizeof(struct state) +
                   (size_t)p->shape->n_heads * all * (size_t)p->shape->head_dim * sizeof(float);
    s->scratch = axis_scratch(p, cluster_scratch((int)n, &tokens) +
                                     ((size_t)p->tokens + n) * sizeof(int32_t));
}

static const struct axis_order order_by_kind = {.name = "clusters",
                                                .summary = "tokens of like kind together",
                                                .per_head = true,
                                                .keys_apart = true,
                                                .blocks = most,
                                                .make = sort_all,
                                                .sizes = sort_sizes};

static int svg2_choose(const struct attn_part *p, struct attn_recipe *r, struct err *e)
{
    (void)e;
    if (of(p)->rest != REST_DROPPED) r->compensate = &rest_by_mean;
    if (of(p)->rest == REST_ERROR) r->select = &keep_by_error;
    return 0;
}

const struct attn_method attn_svg2 = {
    .name = "svg2",
    .summary = "queries and keys clustered by kind, and the clusters that hold a row's weight",
    .paper = "2505.18875",
    .recipe = {.order = &order_by_kind, .score = &score_by_mean, .select = &keep_top_p},
    .options =
        OPTIONS(KNOB_MASS(0.9), KNOB_LEAST(0.1),
                OPT_INT(struct svg2, q, "q", 0, 0, 4096, "clusters of queries; 0: tokens / 160"),
                OPT_INT(struct svg2, k, "k", 0, 0, 4096, "clusters of keys; 0: tokens / 65"),
                OPT_INT(struct svg2, begin, "begin", 10, 1, 100, "iterations of the first plan"),
                OPT_INT(struct svg2, again, "again", 2, 1, 100, "iterations of later ones"),
                OPT_ENUM(struct svg2, by, "by", 0, "kmeans|lsh",
                         "how tokens are sorted: by their nearest mean, or by random planes"),
                OPT_ENUM(struct svg2, rest, "rest", 0, "dropped|mean|error",
                         "what stands for clusters that are not kept: nothing, their mean, or that "
                         "and those are kept whose mean would err most"),
                KNOB_FIRST(0.2), KNOB_LAST(0)),
    .options_size = sizeof(struct svg2),
    .choose = svg2_choose,
};
