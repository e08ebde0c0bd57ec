/* One task of cpu_flash.h, which includes this: the keys of a row, in chunks; what is written. */

struct flash_now { /* a task under way */
    const struct flash *f;
    struct flash_worker w;
    struct flash_chunk c,
        before; /* being filled; full, to be computed while the next one's keys come */
    /* what comes behind the last chunk: the rest of the row, or the next task's first; its v */
    struct flash_chunk coming;
    const packed_v *coming_v;
    const packed *k; /* of this head */
    const packed_v *v;
    const float *delta; /* of this head and the rows' block, by packed key, or NULL */
    int head, nth, plan, row, rows; /* head: of the tensors; nth: of the group */
    bool record, alive; /* whether a chunk's largest scores matter, and did */
};

/* Whether some row's largest score of this chunk comes near its largest before. */
static bool flash_near(const struct flash_now *t, int at, int rows)
{
    bool near = false;
    for (int i = 0; i < rows; i++) {
        float before = t->w.m[at + i], most = v_hmax(v_load(t->w.rowmax + i * VLEN));
        near = near || before == -INFINITY || most - before > t->f->j->alive_log2;
    }
    return near;
}

/* What is to be fetched while `rows` rows of this chunk are computed: rows of a plan jump where no
 * hardware looks ahead. next NULL: nothing; v: of its head. */
static void flash_look_ahead(struct flash_now *t, const struct flash_chunk *next, const packed_v *v,
                             int rows)
{
    const struct flash *f = t->f;
    struct flash_ahead *a = &t->w.ahead;
    int width = FLASH_FETCH_V ? FLASH_FETCH_V : f->dv;
    size_t lines = 0, k_bytes = (size_t)f->key * FLASH_NR * sizeof(packed),
           v_bytes = (size_t)width * FLASH_NR * sizeof(packed_v);
    a->n = a->at = 0, a->offset = 0;
    for (int i = 0; next && i < next->n; i++) {
        const struct flash_panel *panel = &next->panel[i];
        a->piece[a->n++] = (struct flash_piece){(const char *)panel->k, k_bytes};
        for (int c0 = 0; c0 < f->dv; c0 += width)
            a->piece[a->n++] = (struct flash_piece){
                (const char *)(v + (size_t)c0 * f->keys + panel->key * (size_t)width), v_bytes};
    }
    for (int i = 0; i < a->n; i++)
        lines += (a->piece[i].bytes + 63) / 64;
    a->lines = rows ? ((int)lines + rows - 1) / rows : 0;
}

/* All rows over one chunk; next: whose panels to fetch meanwhile, or NULL; v: next's. */
static void flash_compute(struct flash_now *t, struct flash_chunk *c,
                          const struct flash_chunk *next, const packed_v *next_v)
{
    const struct flash *f = t->f;
    const packed_v *v = t->v;
    size_t len = f->keys;
    if (c->picked) {
        flash_pack_picked(f, &t->w, c, t->delta, t->plan, t->head, t->nth);
        v = t->w.v;
        len = FLASH_KB;
    }
    flash_look_ahead(t, next, next_v, t->rows);
    for (int at = 0; c->n && at < t->rows; at += FLASH_SUB) {
        int n = flash_min(FLASH_SUB, t->rows - at);
        flash_scores(f, &t->w, c, at, n);
        if (t->record && !t->alive) t->alive = flash_near(t, at, n);
        flash_probs(f, &t->w, c, at, n);
        flash_values(f, &t->w, c, v, len, at, n);
    }
    c->n = c->runs = c->picked = 0;
}

/* The chunk is full, or picked: compute the one before it, then this one if there is no more to
 * come or nothing to fetch. */
static void flash_turn(struct flash_now *t)
{
    bool fetch = !t->c.picked && !t->f->p->all;
    flash_compute(t, &t->before, fetch ? &t->c : NULL, t->v);
    if (!fetch) {
        flash_compute(t, &t->c, NULL, NULL);
        return;
    }
    struct flash_chunk free = {.biases = t->before.biases};
    t->before = t->c;
    t->c = free;
}

/* Chunks that are left: behind the last one comes what t->coming says, while it is fetched. */
static void flash_flush(struct flash_now *t)
{
    const struct flash_chunk *coming = t->coming.n ? &t->coming : NULL;
    if (t->c.n)
        flash_compute(t, &t->before, &t->c, t->v);
    else
        flash_compute(t, &t->before, t->c.picked ? NULL : coming, t->coming_v);
    flash_compute(t, &t->c, coming, t->coming_v);
}

/* Adds keys [lo, hi) of the panel that starts at `key`; bias [NR], or NULL. */
static void flash_push(struct flash_now *t, size_t key, int lo, int hi, const float *bias)
{
    struct flash_chunk *c = &t->c;
    c->panel[c->n] = (struct flash_panel){
        .k = t->k + key * (size_t)t->f->key, .key = key, .bias = bias, .lo = lo, .hi = hi};
    struct flash_keys *last = c->runs ? &c->run[c->runs - 1] : NULL;
    int column = c->n * FLASH_NR + lo;
    if (last && last->key + (size_t)last->n == key + (size_t)lo && last->column + last->n == column)
        last->n += hi - lo;
    else
        c->run[c->runs++] = (struct flash_keys){key + (size_t)lo, column, hi - lo};
    if (++c->n == FLASH_PANELS) flash_turn(t);
}

static void flash_pick(struct flash_now *t, int position)
{
    t->w.pick[t->c.picked] = position;
    if (++t->c.picked == FLASH_KB) flash_turn(t);
}

/* Positions [k0, k1). */
static void flash_add(struct flash_now *t, int k0, int k1)
{
    for (int i = k0; t->f->gather && i < k1; i++)
        flash_pick(t, i);
    for (int key = k0 / FLASH_NR * FLASH_NR; !t->f->gather && key < k1; key += FLASH_NR) {
        int lo = key < k0 ? k0 - key : 0, hi = flash_min(FLASH_NR, k1 - key);
        float *b = NULL;
        if (t->f->p->key_bias || t->delta || lo > 0 || hi < FLASH_NR) {
            b = t->c.biases + t->c.n * FLASH_NR;
            flash_bias(t->f, b, t->delta, key, lo, hi);
        }
        flash_push(t, (size_t)key, lo, hi, b);
    }
}

/* The row's tiles, each by itself where is recorded which matter; the walk matters to that alone. */
static void flash_tiles(struct flash_now *t)
{
    const struct attn_plan *p = t->f->p;
    if (t->record) {
        uint32_t *alive = t->f->j->alive + ((size_t)t->head * (size_t)p->q.n + (size_t)t->row) *
                                               (size_t)attn_words(p->k.n);
        for (int visit = 0; visit < p->k.n; visit++) {
            int i = p->walk == ATTN_WALK_DOWN ? p->k.n - 1 - visit : visit;
            if (attn_plan_fate(p, t->plan, t->row, i) != ATTN_COMPUTED) continue;
            t->alive = false;
            flash_add(t, attn_block_at(&p->k, t->plan, i), attn_block_at(&p->k, t->plan, i + 1));
            flash_flush(t);
            if (t->alive) /* tasks of one row share the words */
                __atomic_fetch_or(&alive[i / 32], (uint32_t)1 << (i % 32), __ATOMIC_RELAXED);
        }
        t->record = false;
        return;
    }
    struct attn_run r = attn_run_begin(p, t->plan, t->row);
    if (!t->f->gather) r.columns = r.column; /* they come by themselves */
    while (attn_run_next(&r))
        flash_add(t, r.k0, r.k1);
    flash_flush(t);
}

/* Columns that no computed tile holds. */
static void flash_columns(struct flash_now *t)
{
    const struct attn_plan *p = t->f->p;
    size_t at = (size_t)t->plan * (size_t)p->q.n + (size_t)t->row;
    int tile = 0;
    if (!p->column_ptr || p->all) return;
    for (uint32_t i = p->column_ptr[at]; i < p->column_ptr[at + 1]; i++) {
        while (attn_block_at(&p->k, t->plan, tile + 1) <= p->columns[i])
            tile++;
        if (attn_plan_fate(p, t->plan, t->row, tile) != ATTN_COMPUTED) flash_pick(t, p->columns[i]);
    }
    flash_flush(t);
}

/* Mean keys: panels of which the row's are kept, with the logarithm of how many keys each is. */
static void flash_mean_tiles(struct flash_now *t)
{
    const struct flash *f = t->f;
    const struct attn_plan *p = f->p;
    for (int first = 0; first < p->k.n; first += FLASH_NR) {
        float *b = t->c.biases + t->c.n * FLASH_NR;
        int lo = FLASH_NR, hi = 0;
        for (int i = 0; i < FLASH_NR; i++) {
            int tile = first + i, n = 0;
            if (tile < p->k.n && attn_plan_fate(p, t->plan, t->row, tile) == ATTN_BY_MEAN)
                n = attn_block_at(&p->k, t->plan, tile + 1) - attn_block_at(&p->k, t->plan, tile);
            b[i] = n > 0 ? (float)log2((double)n) : -INFINITY;
            if (n > 0 && t->delta) b[i] += t->delta[f->panels * FLASH_NR + tile];
            if (n > 0) hi = i + 1;
            if (n > 0 && lo == FLASH_NR) lo = i;
        }
        if (hi) flash_push(t, (size_t)f->panels * FLASH_NR + (size_t)first, lo, hi, b);
    }
    flash_flush(t);
}

/* What the plan leaves out: MAKE_RESIDUAL goes on to it. */
static void flash_rest(struct flash_now *t)
{
    int from = 0;
    for (struct attn_run r = attn_run_begin(t->f->p, t->plan, t->row); attn_run_next(&r);) {
        flash_add(t, from, r.k0);
        from = r.k1;
    }
    flash_add(t, from, t->f->p->k.len);
    flash_flush(t);
}

/* t->coming: the panels that a task begins with, or what its row leaves out. */
static void flash_coming(struct flash_now *t, const struct flash_task *task, bool rest)
{
    const struct flash *f = t->f;
    struct flash_chunk *c = &t->coming;
    size_t keys = (size_t)task->head * f->keys;
    int from = 0;
    c->n = 0;
    if (f->gather || t->record) return; /* nothing is packed yet; each tile by itself */
    t->coming_v = f->v + keys * (size_t)f->dv;
    struct attn_run r = attn_run_begin(f->p, flash_plan(f, task->head), task->row);
    for (r.columns = r.column; c->n < FLASH_PANELS && attn_run_next(&r); from = r.k1)
        for (int key = (rest ? from : r.k0) / FLASH_NR * FLASH_NR;
             key < (rest ? r.k0 : r.k1) && c->n < FLASH_PANELS; key += FLASH_NR)
            c->panel[c->n++] = (struct flash_panel){
                .k = f->k + (keys + (size_t)key) * (size_t)f->key, .key = (size_t)key};
}

static void flash_copy_sums(const struct flash *f, float *to[3], float *from[3], int rows)
{
    memcpy(to[0], from[0], (size_t)rows * (size_t)f->dv * sizeof(float));
    memcpy(to[1], from[1], (size_t)rows * sizeof(float));
    memcpy(to[2], from[2], (size_t)rows * VLEN * sizeof(float));
}

#include "attention/kernels/cpu_flash_out.h"

/* The plan's o beside the sums, which then go on without its means. */
static void flash_part(struct flash_now *t)
{
    struct flash_worker *w = &t->w;
    const struct flash *f = t->f;
    float *sums[3] = {w->o, w->m, w->l}, *then[3] = {w->o_then, w->m_then, w->l_then};
    if (f->means) flash_copy_sums(f, then, sums, t->rows);
    if (f->means) flash_mean_tiles(t);
    for (int i = 0; i < t->rows; i++) {
        float l = v_hsum(v_load(w->l + i * VLEN)), inv = l == 0 ? 0 : 1 / l;
        for (int c = 0; c < f->dv; c++)
            w->part[i * f->dv + c] = w->o[i * f->dv + c] * inv;
        flash_unscale(t, w->part + i * f->dv);
    }
    if (f->means) flash_copy_sums(f, sums, then, t->rows);
}

static void flash_begin(struct flash_now *t, const struct flash *f, const struct flash_task *task,
                        int worker)
{
    size_t keys = (size_t)task->head * f->keys, stride;
    *t = (struct flash_now){.f = f, .nth = task->head, .row = task->row, .rows = task->n};
    t->plan = flash_plan(f, task->head);
    t->head = attn_head(f->p, f->first + task->head);
    t->k = f->k + keys * (size_t)f->key;
    t->v = f->v + keys * (size_t)f->dv;
    flash_worker_of(f, &t->w, worker);
    t->w.q_block = task->q0 / ATTN_CODE_BLOCK;
    if (f->delta)
        t->delta =
            f->delta + ((size_t)task->head * (size_t)f->q_blocks + (size_t)t->w.q_block) * f->keys;
    t->c.biases = t->w.bias[0];
    t->before.biases = t->w.bias[1];
    for (int i = 0; i < task->n; i += FLASH_MR) {
        int n = flash_min(FLASH_MR, task->n - i);
        const float *q = flash_rows(&f->j->q, t->head, &f->p->q_order, t->plan, task->q0 + i, n,
                                    t->w.rows, &stride);
        flash_pack_q(f, &t->w, t->nth, i, q, stride, n);
    }
}

/* What is fetched a row at a time besides the panels. */
static void flash_far_rows(struct flash_now *t, const struct flash_task *task,
                           const struct flash_task *next)
{
    const struct flash *f = t->f;
    struct flash_ahead *a = &t->w.ahead;
    a->order = &f->p->q_order;
    a->far[0] = (struct flash_far){&f->j->o, t->plan, t->head, task->q0, task->q0 + task->n};
    a->far[1] = (struct flash_far){0};
    if (next)
        a->far[1] = (struct flash_far){&f->j->q, flash_plan(f, next->head),
                                       attn_head(f->p, f->first + next->head), next->q0,
                                       next->q0 + next->n};
}

/* next: the task that comes behind this one here, or NULL. */
static void flash_one_task(const struct flash *f, const struct flash_task *task,
                           const struct flash_task *next, int worker)
{
    struct flash_now t;
    flash_begin(&t, f, task, worker);
    int rows = flash_up(task->n, FLASH_MR);
    for (int i = 0; i < rows; i++)
        t.w.m[i] = -INFINITY;
    memset(t.w.l, 0, (size_t)rows * VLEN * sizeof *t.w.l);
    memset(t.w.o, 0, (size_t)rows * (size_t)f->dv * sizeof *t.w.o);
    t.record = f->j->alive != NULL;
    flash_far_rows(&t, task, next);
    FLASH_ENTER();
    bool rest = f->p->rule == ATTN_MAKE_RESIDUAL;
    if (rest || next) flash_coming(&t, rest ? task : next, rest);
    flash_tiles(&t);
    if (!f->gather || f->j->alive) flash_columns(&t);
    if (rest) {
        flash_part(&t);
        t.coming.n = 0;
        if (next) flash_coming(&t, next, false);
        flash_rest(&t);
    } else if (f->means) {
        flash_mean_tiles(&t);
    }
    FLASH_LEAVE();
    flash_finish(&t, task->q0);
}
