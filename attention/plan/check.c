/* Whether plans and jobs keep their rules, and what a job asks of a kernel. */
#include "attention/plan/plan.h"

#include <stdio.h>
#include <string.h>

static int bad(struct err *e, const struct attn_plan *p, size_t row, const char *what)
{
    return err_set(e, ERR_BUG, "attention plan %zu, row %zu of %d: %s", row / (size_t)p->q.n,
                   row % (size_t)p->q.n, p->q.n, what);
}

static int check_blocks(const struct attn_blocks *b, const struct attn_plan *p, int tokens,
                        const char *what, struct err *e)
{
    if (b->len < 1 || b->len > tokens || b->n < 1 || b->n > ATTN_MAX_BLOCKS || b->size < 0)
        return err_set(e, ERR_BUG,
                       "attention plan: %d %s in %d blocks of %d, of %d tokens; at most %d blocks",
                       b->len, what, b->n, b->size, tokens, ATTN_MAX_BLOCKS);
    if (b->size) {
        if (b->n == (b->len - 1) / b->size + 1) return 0;
        return err_set(e, ERR_BUG, "attention plan: %d blocks of %d do not hold %d %s", b->n,
                       b->size, b->len, what);
    }
    if (!b->at) return err_set(e, ERR_BUG, "attention plan: blocks of %s without offsets", what);
    if (p->where != PLACE_HOST) return 0;
    for (int i = 0; i < (b->stride ? attn_plans(p) : 1); i++) {
        const int32_t *at = b->at + (int64_t)i * b->stride;
        bool rising = at[0] == 0 && at[b->n] == b->len;
        for (int n = 0; n < b->n; n++)
            rising = rising && at[n] <= at[n + 1];
        if (!rising)
            return err_set(e, ERR_BUG, "attention plan %d: blocks of %s do not rise from 0 to %d",
                           i, what, b->len);
    }
    return 0;
}

static int check_order(const struct attn_order *o, const struct attn_plan *p, int len, int tokens,
                       const char *what, uint32_t *seen, struct err *e)
{
    if (!o->token && len != tokens)
        return err_set(e, ERR_BUG, "attention plan: %d of %d %s without an order that names them",
                       len, tokens, what);
    if (!o->token || o->fixed || p->where != PLACE_HOST) return 0;
    if (!seen)
        return err_set(e, ERR_BUG, "attention plan: no memory to check the order of %s", what);
    for (int i = 0; i < (o->stride ? attn_plans(p) : 1); i++) {
        memset(seen, 0, (size_t)attn_words(tokens) * sizeof *seen);
        for (int n = 0; n < len; n++) {
            int t = attn_token(o, i, n);
            if (t < 0 || t >= tokens || attn_bit(seen, 0, 0, t))
                return err_set(
                    e, ERR_BUG, "attention plan %d: position %d of the %s is token %d, %s", i, n,
                    what, t,
                    t < 0 || t >= tokens ? "which there is none of" : "which stands elsewhere too");
            seen[t / 32] |= (uint32_t)1 << (t % 32);
        }
    }
    return 0;
}

static int check_planes(const struct attn_plan *p, size_t row, struct err *e)
{
    const uint32_t *planes[] = {p->kept, p->forced, p->dead, p->mean};
    size_t words = (size_t)attn_words(p->k.n);
    if (p->k.n % 32)
        for (size_t i = 0; i < ARRAY_LEN(planes); i++)
            if (planes[i] && planes[i][row * words + words - 1] >> (p->k.n % 32))
                return bad(e, p, row, "has a tile past the last");
    return 0;
}

static int check_columns(const struct attn_plan *p, int plan, int row, size_t at, struct err *e)
{
    if (!p->column_ptr) return 0;
    uint32_t from = p->column_ptr[at], to = p->column_ptr[at + 1];
    int tile = 0;
    for (uint32_t i = from; i < to; i++) {
        int key = p->columns[i];
        if (key < 0 || key >= p->k.len) return bad(e, p, at, "has a column past the last key");
        if (i > from && key <= p->columns[i - 1]) return bad(e, p, at, "columns do not rise");
        if (!p->mean) continue;
        while (attn_block_at(&p->k, plan, tile + 1) <= key)
            tile++;
        if (attn_plan_fate(p, plan, row, tile) == ATTN_BY_MEAN)
            return bad(e, p, at, "has a column in a tile that counts by its mean");
    }
    return 0;
}

static bool keeps_something(const struct attn_plan *p, int plan, int row)
{
    struct attn_run r = attn_run_begin(p, plan, row);
    if (attn_run_next(&r)) return true;
    for (int t = 0; p->mean && t < p->k.n; t++)
        if (attn_plan_fate(p, plan, row, t) == ATTN_BY_MEAN &&
            attn_block_at(&p->k, plan, t) < attn_block_at(&p->k, plan, t + 1))
            return true;
    return attn_block_at(&p->q, plan, row) == attn_block_at(&p->q, plan, row + 1);
}

static int check_heads(const struct attn_plan *p, struct err *e)
{
    uint32_t seen[8] = {0};
    if (p->n_heads < 1 || (p->heads && p->n_heads > 256))
        return err_set(e, ERR_BUG, "attention plan of %d heads", p->n_heads);
    for (int i = 0; p->heads && i < p->n_heads; i++) {
        int h = p->heads[i];
        if (attn_bit(seen, 0, 0, h))
            return err_set(e, ERR_BUG, "attention plan names head %d twice", h);
        seen[h / 32] |= (uint32_t)1 << (h % 32);
    }
    return 0;
}

size_t attn_seen_size(int len_q, int len_k)
{
    return (size_t)attn_words(len_q > len_k ? len_q : len_k);
}

int attn_plan_check(const struct attn_plan *p, int len_q, int len_k, uint32_t *seen, struct err *e)
{
    if (check_heads(p, e) < 0) return -1;
    if (check_blocks(&p->q, p, len_q, "queries", e) < 0) return -1;
    if (check_blocks(&p->k, p, len_k, "keys", e) < 0) return -1;
    if (p->q.len != len_q)
        return err_set(e, ERR_BUG, "attention plan of %d queries, wanted all %d", p->q.len, len_q);
    if (!(p->skip_log2 <= 0))
        return err_set(e, ERR_BUG, "attention plan: skip_log2 is %g, wanted 0 or less",
                       (double)p->skip_log2);
    if (check_order(&p->q_order, p, p->q.len, len_q, "queries", seen, e) < 0) return -1;
    if (check_order(&p->k_order, p, p->k.len, len_k, "keys", seen, e) < 0) return -1;
    if (p->column_ptr && !p->columns)
        return err_set(e, ERR_BUG, "attention plan: offsets of columns without columns");
    if (p->all || p->where != PLACE_HOST) return 0;
    if (p->rule == ATTN_ZERO || p->rule == ATTN_COPY) return 0;
    for (size_t r = 0; p->column_ptr && r < (size_t)attn_plans(p) * (size_t)p->q.n; r++)
        if (p->column_ptr[r + 1] < p->column_ptr[r] || p->column_ptr[0])
            return bad(e, p, r, "offsets of columns out of order");
    for (int i = 0; i < attn_plans(p); i++) {
        for (int row = 0; row < p->q.n; row++) {
            size_t at = (size_t)i * (size_t)p->q.n + (size_t)row;
            if (check_planes(p, at, e) < 0 || check_columns(p, i, row, at, e) < 0) return -1;
            if (!p->may_be_empty && p->sol_tau == 0 && !keeps_something(p, i, row))
                return bad(e, p, at, "keeps nothing");
        }
    }
    return 0;
}

static const char *const fields[ATTN_NEEDS] = {
    "plan.kept", /* and forced, dead */
    "plan.mean",
    "blocks by offsets (plan.q.at, plan.k.at)",
    "plan.q_order",
    "plan.k_order",
    "plan.columns",
    "plan.key_bias",
    "plan.heads",
    "plan.rule zero",
    "plan.rule copy",
    "plan.rule make residual",
    "plan.rule add residual",
    "plan.skip_log2",
    "plan.sol_tau",
    "plan.walk",
    "plan.qk, plan.pv",
    "lse",
    "mass",
    "alive",
    "accumulate",
    "plan.where",
    "tensors of bf16",
    "plan.qk int8",
    "plan.qk int4",
    "plan.pv int8",
    "plan.pv fp8",
    "plan.codes.smooth_q",
};

const char *attn_needs_text(unsigned needs, char *buf, size_t size)
{
    size_t at = 0;
    buf[0] = '\0';
    for (int i = 0; i < ATTN_NEEDS; i++) {
        if (!(needs >> i & 1) || at >= size) continue;
        int n = snprintf(buf + at, size - at, "%s%s", at ? ", " : "", fields[i]);
        at += n > 0 ? (size_t)n : 0;
    }
    return buf;
}

static unsigned precision_needs(const struct attn_plan *p)
{
    static const unsigned qk[] = {[ATTN_PREC_INT8] = ATTN_NEED_QK_INT8,
                                  [ATTN_PREC_INT4] = ATTN_NEED_QK_INT4,
                                  [ATTN_PREC_FP8] = ATTN_NEED_PREC,
                                  [ATTN_PREC_FP4] = ATTN_NEED_PREC},
                          pv[] = {[ATTN_PREC_INT8] = ATTN_NEED_PV_INT8,
                                  [ATTN_PREC_INT4] = ATTN_NEED_PREC,
                                  [ATTN_PREC_FP8] = ATTN_NEED_PV_FP8,
                                  [ATTN_PREC_FP4] = ATTN_NEED_PREC};
    unsigned n = qk[p->qk] | pv[p->pv];
    if (p->qk == ATTN_PREC_RUN) return p->pv == ATTN_PREC_RUN ? 0 : ATTN_NEED_PREC;
    return p->codes.smooth_q ? n | ATTN_NEED_SMOOTH_Q : n;
}

unsigned attn_plan_needs(const struct attn_plan *p)
{
    static const unsigned rules[] = {
        [ATTN_ZERO] = ATTN_NEED_ZERO,
        [ATTN_COPY] = ATTN_NEED_COPY,
        [ATTN_MAKE_RESIDUAL] = ATTN_NEED_MAKE_RESIDUAL,
        [ATTN_ADD_RESIDUAL] = ATTN_NEED_ADD_RESIDUAL,
    };
    unsigned n = rules[p->rule];
    if (p->where != PLACE_HOST) n |= ATTN_NEED_DEVICE;
    if (p->heads) n |= ATTN_NEED_HEADS;
    if (p->rule == ATTN_ZERO || p->rule == ATTN_COPY) return n;
    if (!p->all) {
        if (p->kept || p->forced || p->dead) n |= ATTN_NEED_PLANES;
        if (p->mean) n |= ATTN_NEED_MEAN;
        if (p->column_ptr) n |= ATTN_NEED_COLUMNS;
    }
    if (!p->q.size || !p->k.size) n |= ATTN_NEED_BLOCKS;
    if (p->q_order.token) n |= ATTN_NEED_Q_ORDER;
    if (p->k_order.token) n |= ATTN_NEED_K_ORDER;
    if (p->key_bias) n |= ATTN_NEED_KEY_BIAS;
    if (p->skip_log2 < 0) n |= ATTN_NEED_SKIP;
    if (p->sol_tau != 0) n |= ATTN_NEED_SOL;
    if (p->walk != ATTN_WALK_UP) n |= ATTN_NEED_WALK;
    return n | precision_needs(p);
}

unsigned attn_job_needs(const struct attn_job *j)
{
    const struct attn_plan *p = j->plan;
    unsigned n = attn_plan_needs(p);
    if (p->n_heads != (j->o.at ? j->o.n : j->q.n)) n |= ATTN_NEED_HEADS;
    if (p->rule == ATTN_ZERO || p->rule == ATTN_COPY) return n;
    const enum dtype narrow = DTYPE_BF16;
    if (j->q.type == narrow || j->k.type == narrow || j->v.type == narrow || j->o.type == narrow ||
        j->k_mean.type == narrow || j->v_mean.type == narrow)
        n |= ATTN_NEED_BF16;
    if (j->lse) n |= ATTN_NEED_LSE;
    if (j->mass) n |= ATTN_NEED_MASS;
    if (j->alive) n |= ATTN_NEED_ALIVE;
    if (j->accumulate) n |= ATTN_NEED_ACCUMULATE;
    return n;
}

static int check_tensor(const struct heads *t, const struct attn_job *j, int len, const char *what,
                        struct err *e)
{
    const struct heads *like = j->o.at ? &j->o : &j->q;
    if (!t->at) return err_set(e, ERR_BUG, "attention without %s", what);
    if (t->type != DTYPE_F32 && t->type != DTYPE_BF16)
        return err_set(e, ERR_BUG, "attention: %s of %s, wanted F32 or BF16", what,
                       dtype_name(t->type));
    if (t->len == len && t->n == like->n && t->dim == like->dim && t->where == j->plan->where)
        return 0;
    return err_set(e, ERR_BUG, "attention: %s is [%d, %d, %d]%s, wanted [%d, %d, %d]%s", what,
                   t->len, t->n, t->dim, t->where == PLACE_HOST ? "" : " on a device", len, like->n,
                   like->dim, j->plan->where == PLACE_HOST ? "" : " on a device");
}

int attn_job_check(const struct attn_job *j, struct err *e)
{
    const struct attn_plan *p = j->plan;
    int n = j->o.at ? j->o.n : j->q.n;
    for (int i = 0; i < p->n_heads; i++)
        if (attn_head(p, i) >= n)
            return err_set(e, ERR_BUG, "attention plan for head %d of %d", attn_head(p, i), n);
    if (p->rule == ATTN_ZERO || p->rule == ATTN_COPY) {
        if (j->lse || j->mass || j->alive)
            return err_set(e, ERR_BUG, "attention: lse, mass or alive of a head that is left out");
        if (check_tensor(&j->o, j, p->q.len, "o", e) < 0) return -1;
        return p->rule == ATTN_COPY ? check_tensor(&j->residual, j, p->q.len, "residual", e) : 0;
    }
    if (check_tensor(&j->q, j, p->q.len, "q", e) < 0) return -1;
    if (check_tensor(&j->k, j, j->k.len, "k", e) < 0) return -1;
    if (check_tensor(&j->v, j, j->k.len, "v", e) < 0 && (j->o.at || j->v.at)) return -1;
    if (p->k.len > j->k.len || (!p->k_order.token && p->k.len != j->k.len))
        return err_set(e, ERR_BUG, "attention plan of %d keys for a k of %d", p->k.len, j->k.len);
    if (!j->o.at && !j->mass) return err_set(e, ERR_BUG, "attention without o");
    if (j->o.at && check_tensor(&j->o, j, p->q.len, "o", e) < 0) return -1;
    if (p->rule == ATTN_MAKE_RESIDUAL || p->rule == ATTN_ADD_RESIDUAL) {
        if (check_tensor(&j->residual, j, p->q.len, "residual", e) < 0) return -1;
        if (j->accumulate)
            return err_set(e, ERR_BUG, "attention: a residual of a sum (accumulate)");
    }
    if (p->mean && !p->all) {
        if (check_tensor(&j->k_mean, j, p->k.n, "k_mean", e) < 0) return -1;
        if (check_tensor(&j->v_mean, j, p->k.n, "v_mean", e) < 0) return -1;
    }
    if (p->sol_tau != 0) {
        if (check_tensor(&j->k_mean, j, p->k.n, "k_mean", e) < 0) return -1;
        if (check_tensor(&j->v_sum, j, p->k.n, "v_sum", e) < 0) return -1;
        if (p->all || p->kept || p->dead || p->mean || p->column_ptr)
            return err_set(e, ERR_BUG,
                           "attention: sol_tau chooses tiles; only forced may stand "
                           "beside it");
    }
    if (p->qk != ATTN_PREC_RUN && p->codes.rotate && (j->q.dim & (j->q.dim - 1)))
        return err_set(e, ERR_BUG,
                       "attention: plan.codes.rotate wants a power of 2 of channels, not %d",
                       j->q.dim);
    if (j->mass && !j->lse) return err_set(e, ERR_BUG, "attention: mass without lse");
    if (j->alive && !(j->alive_log2 < 0))
        return err_set(e, ERR_BUG, "attention: tiles stay alive under a bound of %g, wanted < 0",
                       (double)j->alive_log2);
    return 0;
}
