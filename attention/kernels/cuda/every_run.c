/* A job to the launches of every.cu and every_extras.cu; see every_cuda.h. */
#include "attention/kernels/cuda/every_args.h"
#include "attention/kernels/kernels.h"
#include "model/base/device_table.h"

#include <math.h>
#include <string.h>

static struct every_tensor tensor(const struct heads *h)
{
    size_t size = dtype_size(h->type), wide = 16 / size;
    return (struct every_tensor){
        .at = h->at,
        .token = h->token,
        .head = h->head,
        .bf16 = h->type == DTYPE_BF16,
        .wide = h->dim % 8 == 0 && (uintptr_t)h->at % 16 == 0 && (uint64_t)h->token % wide == 0 &&
                (uint64_t)h->head % wide == 0,
    };
}

/* Without a prepared plan: every tile of equal blocks, in raster order. */
static int plain(struct every_plan *h, const struct attn_plan *p, struct err *e)
{
    if (!p->all || p->q_order.token || p->k_order.token || !p->q.size || !p->k.size ||
        p->sol_tau != 0)
        return err_set(e, ERR_BUG, "attention by a plan that was not put on the device");
    *h = (struct every_plan){.q_n = p->q.n,
                             .k_n = p->k.n,
                             .q_size = p->q.size,
                             .k_size = p->k.size,
                             .q_len = p->q.len,
                             .k_len = p->k.len,
                             .all = 1,
                             .words = attn_words(p->k.n)};
    return 0;
}

static int args_of(struct every_args *a, const struct attn_job *j, const void *at, struct err *e)
{
    const struct attn_plan *p = j->plan;
    const struct attn_size *s = j->size;
    memset(a, 0, sizeof *a);
    a->at = at;
    if (!at && p->rule != ATTN_ZERO && p->rule != ATTN_COPY && plain(&a->here, p, e) < 0) return -1;
    if (p->n_heads > 65535 || (p->heads && p->n_heads > 256))
        return err_set(e, ERR_USAGE, "attention of %d heads, at most 65535", p->n_heads);
    a->o = tensor(&j->o), a->resid = tensor(&j->residual);
    a->q = tensor(&j->q), a->k = tensor(&j->k), a->v = tensor(&j->v);
    a->k_mean = tensor(&j->k_mean);
    a->v_mean = tensor(p->sol_tau != 0 ? &j->v_sum : &j->v_mean);
    a->key_bias = p->key_bias;
    a->lse = j->lse, a->mass = j->mass, a->alive = j->alive;
    a->alive_log2 = j->alive_log2, a->skip_log2 = p->skip_log2, a->sol_tau = p->sol_tau;
    a->make = p->rule == ATTN_MAKE_RESIDUAL, a->add = p->rule == ATTN_ADD_RESIDUAL;
    a->accumulate = j->accumulate;
    a->round = j->o.type == DTYPE_F32 && s && s->precision != PRECISION_FP32;
    a->down = p->walk == ATTN_WALK_DOWN;
    a->n_heads = p->n_heads, a->len_q = p->q.len;
    a->dim = j->o.at ? j->o.dim : j->q.dim;
    a->scale = (float)(1 / sqrt((double)a->dim));
    a->named = p->heads != NULL;
    if (p->heads) memcpy(a->heads, p->heads, (size_t)p->n_heads);
    return 0;
}

/* The tiles that sol_tau computes, those that skip_log2 leaves in: into scratch. */
static int choose(struct every_args *a, const struct attn_job *j, int pieces, void *stream,
                  struct err *e)
{
    const struct attn_plan *p = j->plan;
    int words = attn_words(p->k.n);
    uint32_t *at = j->scratch;
    if (p->sol_tau != 0) {
        a->picked = at;
        at += (size_t)p->n_heads * (size_t)p->q.n * (size_t)words;
        if (every_choose_sol(a, p->q.n, stream, e) < 0) return -1;
    }
    if (!(p->skip_log2 < 0)) return 0;
    a->chosen = at;
    if (every_set(a, a->chosen, 1, p->q.n, words, 0, stream, e) < 0) return -1;
    a->choosing = 1;
    int rc = every_attend(a, pieces, stream, e);
    a->choosing = 0;
    return rc;
}

int every_run(struct device *d, const struct attn_job *j, const void *at, struct err *e)
{
    const struct attn_plan *p = j->plan;
    const struct attn_size *s = j->size;
    struct every_args a;
    void *stream = device_stream(d);
    if (args_of(&a, j, at, e) < 0) return -1;
    if (p->rule == ATTN_ZERO || p->rule == ATTN_COPY)
        return every_fill(&a, p->rule == ATTN_COPY, stream, e);
    if (a.dim < 1 || a.dim > EVERY_MOST_DIM)
        return err_set(e, ERR_USAGE, "attention heads of %d channels, wanted 1 to %d", a.dim,
                       EVERY_MOST_DIM);
    int pieces = every_pieces(p, s ? s->rows : p->q.n, a.dim);
    if (a.alive && every_set(&a, a.alive, 0, p->q.n, attn_words(p->k.n), 0, stream, e) < 0)
        return -1;
    if (j->o.at && choose(&a, j, pieces, stream, e) < 0) return -1;
    if (j->o.at && every_attend(&a, pieces, stream, e) < 0) return -1;
    return a.mass ? every_mass(&a, p->q.n, p->k.n, stream, e) : 0;
}
