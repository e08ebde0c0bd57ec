/* The job of cpu_flash.h, which includes this: tasks, their order, the mass of tiles. */

/* Rows of a task of a dense plan: FLASH_DB, halved while there are too few tasks to go round. */
static int flash_dense_block(const struct flash *f)
{
    int b = FLASH_DB, threads = f->j->size->threads, len = f->p->q.len;
    if (f->delta) b = ATTN_CODE_BLOCK; /* rows of a task share a block of smooth_q */
    while (b > FLASH_SUB && (int64_t)f->p->n_heads * ((len + b - 1) / b) < 3 * (int64_t)threads)
        b = f->delta ? b / 2 : flash_up(b / 2, FLASH_SUB);
    return b;
}

/* Positions from this one on that smooth_q takes the same mean off. */
static int flash_same_block(int at)
{
    _Static_assert(ATTN_CODE_BLOCK <= FLASH_QB, "a task holds a block's rows");
    return ATTN_CODE_BLOCK - at % ATTN_CODE_BLOCK;
}

/* Equal parts of each row of the plan, and what they cost. */
static void flash_list_tasks(struct flash *f)
{
    const struct attn_plan *p = f->p;
    f->n_tasks = 0;
    for (int head = 0; head < f->heads; head++) {
        int plan = flash_plan(f, head);
        for (int row = 0; row < p->q.n; row++) {
            int q0 = attn_block_at(&p->q, plan, row), n = attn_block_at(&p->q, plan, row + 1) - q0;
            int64_t kept = 0;
            for (struct attn_run r = attn_run_begin(p, plan, row); attn_run_next(&r);)
                kept += r.k1 - r.k0;
            if (p->rule == ATTN_MAKE_RESIDUAL) kept = p->k.len;
            int parts = (n + FLASH_QB - 1) / FLASH_QB;
            for (int i = 0, from = 0, to; from < n; i++, from = to) {
                to = f->delta ? flash_min(n, from + flash_same_block(q0 + from))
                              : (int)((int64_t)n * (i + 1) / parts);
                struct flash_task *t = &f->tasks[f->n_tasks++];
                *t = (struct flash_task){.head = head, .row = row, .q0 = q0 + from, .n = to - from};
                t->cost = (uint32_t)(kept * t->n * 255 / ((int64_t)p->k.len * FLASH_QB));
            }
        }
    }
}

/* Longest first (256 buckets), so that no long one is left for the end. */
static void flash_sort(struct flash *f)
{
    uint32_t start[257] = {0};
    for (int i = 0; i < f->n_tasks; i++)
        start[256 - f->tasks[i].cost]++;
    for (int i = 0; i < 256; i++)
        start[i + 1] += start[i];
    for (int i = 0; i < f->n_tasks; i++)
        f->order[start[255 - f->tasks[i].cost]++] = (uint32_t)i;
}

static void flash_task(void *ctx, int task, int worker)
{
    const struct flash *f = ctx;
    if (f->by_rows) {
        int after = task + threads_count(); /* the next one here, if all take as long */
        const struct flash_task *t = &f->tasks[f->order[task]],
                                *next = after < f->n_tasks ? &f->tasks[f->order[after]] : NULL;
        flash_one_task(f, t, next, worker);
        return;
    }
    int block = flash_dense_block(f), parts = (f->p->q.len + block - 1) / block;
    struct flash_task t = {.head = task / parts, .q0 = task % parts * block};
    t.n = flash_min(block, f->p->q.len - t.q0);
    flash_one_task(f, &t, NULL, worker);
}

/* Weights of one chunk's keys, summed over rows, into the row's tiles. */
static void flash_add_mass(struct flash_now *t, float *mass, int *tile, int key, float share)
{
    const struct attn_blocks *b = &t->f->p->k;
    for (int i = 0; i < t->c.n * FLASH_NR && key + i < b->len; i++) {
        while (attn_block_at(b, t->plan, *tile + 1) <= key + i)
            ++*tile;
        mass[*tile] += t->w.mass[i] * share;
    }
    t->c.n = t->c.runs = 0;
}

/* Weights of some queries of the row under lse, in log2 units [rows] of w.m. */
static void flash_part_mass(struct flash_now *t, float *mass, float share)
{
    const struct flash *f = t->f;
    struct flash_chunk *c = &t->c;
    int tile = 0, first = 0;
    for (int key = 0; key < f->p->k.len; key += FLASH_NR) {
        int hi = flash_min(FLASH_NR, f->p->k.len - key);
        float *b = c->biases + c->n * FLASH_NR;
        flash_bias(f, b, t->delta, key, 0, hi);
        c->panel[c->n++] = (struct flash_panel){
            .k = t->k + (size_t)key * (size_t)f->key, .key = (size_t)key, .bias = b, .hi = hi};
        if (c->n < FLASH_PANELS && key + FLASH_NR < f->p->k.len) continue;
        for (int i = 0; i < FLASH_KB; i++)
            t->w.mass[i] = 0;
        for (int at = 0; at < t->rows; at += FLASH_SUB) {
            int n = flash_min(FLASH_SUB, t->rows - at);
            flash_scores(f, &t->w, c, at, n);
            for (int i = 0; i < n; i++) {
                vec base = v_set1(t->w.m[at + i]), most = v_set1(-127.0f), zero = v_set1(0.0f);
                for (int x = 0; x < c->n * FLASH_NR; x += VLEN) { /* at most 2^127 */
                    vec s = v_max(most, v_sub(base, v_load(t->w.s + i * FLASH_KB + x)));
                    vec p = v_exp2(v_sub(zero, s), 5);
                    v_store(t->w.mass + x, v_add(v_load(t->w.mass + x), p));
                }
            }
        }
        flash_add_mass(t, mass, &tile, first, share);
        first = key + FLASH_NR;
    }
}

static void flash_mass_task(void *ctx, int task, int worker)
{
    const struct flash *f = ctx;
    const struct attn_plan *p = f->p;
    const struct attn_job *j = f->j;
    struct flash_task all = {.head = task / p->q.n, .row = task % p->q.n};
    int plan = flash_plan(f, all.head), head = attn_head(p, f->first + all.head);
    int q0 = attn_block_at(&p->q, plan, all.row), q1 = attn_block_at(&p->q, plan, all.row + 1);
    float *mass = j->mass + ((size_t)head * (size_t)p->q.n + (size_t)all.row) * (size_t)p->k.n;
    for (int i = 0; i < p->k.n; i++)
        mass[i] = 0;
    for (all.q0 = q0; all.q0 < q1; all.q0 += all.n) {
        struct flash_now t;
        all.n = flash_min(f->delta ? flash_same_block(all.q0) : FLASH_QB, q1 - all.q0);
        flash_begin(&t, f, &all, worker);
        for (int i = 0; i < all.n; i++) {
            int token = attn_token(&p->q_order, plan, all.q0 + i);
            double lse = (double)j->lse[(size_t)head * (size_t)j->q.len + (size_t)token];
            if (FLASH_CODES) lse -= (double)t.w.shift[i];
            /* a query without a sum has no weights */
            t.w.m[i] = lse == -HUGE_VAL ? INFINITY : (float)(lse * FLASH_LOG2E);
        }
        FLASH_ENTER();
        flash_part_mass(&t, mass, 1.0f / (float)(q1 - q0));
        FLASH_LEAVE();
    }
}

static void flash_run(const struct attn_job *j)
{
    const struct attn_plan *p = j->plan;
    struct flash f = {.j = j, .p = p};
    struct arena a = {.base = j->scratch, .size = SIZE_MAX};
    flash_carve(&f, j->size, &a);
    f.panels = (p->k.len + FLASH_NR - 1) / FLASH_NR;
    f.means = p->mean && !p->all ? (p->k.n + FLASH_NR - 1) / FLASH_NR : 0;
    f.keys = flash_keys_apart((size_t)(f.panels + f.means) * FLASH_NR);
    f.q_blocks = (p->q.len + ATTN_CODE_BLOCK - 1) / ATTN_CODE_BLOCK;
    if (!FLASH_CODES || p->qk == ATTN_PREC_RUN || !p->codes.smooth_q) f.delta = NULL;
    f.by_rows = !p->all || j->alive;
    f.gather = !p->all && !p->k.size;
    int groups = (p->n_heads + f.group - 1) / f.group;
    int group =
        (p->n_heads + groups - 1) / groups; /* of equal size, or the last one idles threads */
    for (f.first = 0; f.first < p->n_heads; f.first += group) {
        f.heads = flash_min(group, p->n_heads - f.first);
#if FLASH_CODES
        threads_run(f.heads, flash_codes_task, &f);
#endif
        int panels = f.gather && !j->mass && !f.delta ? f.means : f.panels + f.means;
        if (panels)
            threads_run(f.heads * ((f.panels + f.means + FLASH_PACK - 1) / FLASH_PACK),
                        flash_pack_task, &f);
        for (int i = 0; j->alive && i < f.heads; i++)
            memset(j->alive + (size_t)attn_head(p, f.first + i) * (size_t)p->q.n *
                                  (size_t)attn_words(p->k.n),
                   0, (size_t)p->q.n * (size_t)attn_words(p->k.n) * sizeof *j->alive);
        int block = flash_dense_block(&f);
        f.n_tasks = f.heads * ((p->q.len + block - 1) / block);
        if (f.by_rows) {
            flash_list_tasks(&f);
            flash_sort(&f);
        }
        if (j->o.at) threads_run(f.n_tasks, flash_task, &f);
        if (j->mass) threads_run(f.heads * p->q.n, flash_mass_task, &f);
    }
}
