/* Packing for cpu_flash.h, which includes this: all keys of a head in the order of the plan, or the
 * keys that one row names. */

#define FLASH_PACK 8 /* panels a packing task: enough work to be worth handing out */

/* Rows of positions [at, at + n): as they lie, or gathered into tmp [n, d]. */
static const float *flash_rows(const struct heads *t, int head, const struct attn_order *o,
                               int plan, int at, int n, float *tmp, size_t *stride)
{
    *stride = (size_t)t->token;
    if (!o->token) return heads_at(t, at, head);
    *stride = (size_t)t->dim;
    for (int i = 0; i < n; i++)
        memcpy(tmp + i * t->dim, heads_at(t, attn_token(o, plan, at + i), head),
               (size_t)t->dim * sizeof *tmp);
    return tmp;
}

/* What smooth_q took off the scores of n keys, rows x, from packed key `at` of the nth head on. */
static void flash_delta(const struct flash *f, int nth, size_t at, const float *x, size_t stride,
                        int n)
{
    const float *less = f->k_less + (size_t)nth * (size_t)f->d;
    for (int i = 0; FLASH_CODES && f->delta && i < n; i++, x += stride) {
        float key[ATTN_MAX_HEAD_DIM + VLEN] = {0};
        for (int c = 0; c < f->d; c++)
            key[c] = x[c] - less[c];
        for (int b = 0; b < f->q_blocks; b++) {
            size_t block = (size_t)nth * (size_t)f->q_blocks + (size_t)b;
            const float *mean = f->q_mean + block * (size_t)f->d;
            vec sum = v_set1(0.0f);
            int c = 0;
            for (; c + VLEN <= f->d; c += VLEN)
                sum = v_fma(v_load(mean + c), v_load(key + c), sum);
            float s = v_hsum(sum);
            for (; c < f->d; c++)
                s += mean[c] * key[c];
            f->delta[block * f->keys + at + (size_t)i] = s * f->scale;
        }
    }
}

static void flash_pack_keys(const struct flash *f, struct flash_worker *w, int head, int panel)
{
    const struct attn_job *j = f->j;
    size_t keys = (size_t)head * f->keys, stride;
    int key = panel * FLASH_NR, n = flash_min(FLASH_NR, f->p->k.len - key);
    int plan = flash_plan(f, head), h = attn_head(f->p, f->first + head);
    packed *k = f->k + (keys + (size_t)key) * (size_t)f->key;
    packed_v *v = f->v + keys * (size_t)f->dv;
    const float *x = flash_rows(&j->k, h, &f->p->k_order, plan, key, n, w->rows, &stride);
    flash_delta(f, head, (size_t)key, x, stride, n);
    if (f->gather && !j->mass) return; /* no keys, for rows pick theirs */
    int ahead = flash_min(FLASH_NR, f->p->k.len - key - n);
    flash_fetch_rows(&j->k, h, &f->p->k_order, plan, key + n, ahead);
    if (j->o.at) flash_fetch_rows(&j->v, h, &f->p->k_order, plan, key + n, ahead);
    flash_pack_k(f, head, k, x, stride, n);
    if (!j->o.at) return; /* the mass alone */
    x = flash_rows(&j->v, h, &f->p->k_order, plan, key, n, w->rows, &stride);
    flash_pack_v(f, head, v, f->keys, x, stride, key, n);
}

/* Means stand behind the keys; those of blocks that hold nothing are not looked at. */
static void flash_pack_means(const struct flash *f, struct flash_worker *w, int head, int panel)
{
    static const struct attn_order as_is = {0};
    const struct attn_job *j = f->j;
    const struct attn_blocks *b = &f->p->k;
    size_t keys = (size_t)head * f->keys, stride;
    int tile = panel * FLASH_NR, n = flash_min(FLASH_NR, b->n - tile),
        key = f->panels * FLASH_NR + tile;
    int plan = flash_plan(f, head), h = attn_head(f->p, f->first + head);
    packed *k = f->k + (keys + (size_t)key) * (size_t)f->key;
    packed_v *v = f->v + keys * (size_t)f->dv;
    for (int turn = 0; turn < 2; turn++) {
        const float *x =
            flash_rows(turn ? &j->v_mean : &j->k_mean, h, &as_is, 0, tile, n, NULL, &stride);
        for (int i = 0; i < n; i++) {
            size_t bytes = (size_t)f->d * sizeof *x;
            if (attn_block_at(b, plan, tile + i) == attn_block_at(b, plan, tile + i + 1))
                memset(w->rows + i * f->d, 0, bytes);
            else
                memcpy(w->rows + i * f->d, x + (size_t)i * stride, bytes);
        }
        if (!turn) flash_delta(f, head, (size_t)key, w->rows, (size_t)f->d, n);
        if (turn)
            flash_pack_v(f, head, v, f->keys, w->rows, (size_t)f->d, key, n);
        else
            flash_pack_k(f, head, k, w->rows, (size_t)f->d, n);
    }
}

static void flash_pack_task(void *ctx, int task, int worker)
{
    const struct flash *f = ctx;
    int all = f->panels + f->means;
    /* heads after each other, since rows of theirs lie side by side */
    int head = task % f->heads, from = task / f->heads * FLASH_PACK;
    struct flash_worker w;
    flash_worker_of(f, &w, worker);
    for (int i = from; i < from + FLASH_PACK && i < all; i++)
        if (i >= f->panels)
            flash_pack_means(f, &w, head, i - f->panels);
        else if (!f->gather || f->j->mass || f->delta)
            flash_pack_keys(f, &w, head, i);
}

/* log2 units, -inf outside [lo, hi); delta: of smooth_q, by packed key, or NULL */
static void flash_bias(const struct flash *f, float *b, const float *delta, int position, int lo,
                       int hi)
{
    const float *bias = f->p->key_bias;
    for (int i = 0; i < FLASH_NR; i++) {
        if (i < lo || i >= hi)
            b[i] = -INFINITY;
        else
            b[i] = (bias ? (float)(FLASH_LOG2E * (double)bias[position + i]) : 0.0f) +
                   (delta ? delta[position + i] : 0.0f);
    }
}

/* Picked positions become the panels of the chunk. head: of the tensors; nth: of the group. */
static void flash_pack_picked(const struct flash *f, struct flash_worker *w, struct flash_chunk *c,
                              const float *delta, int plan, int head, int nth)
{
    const struct attn_job *j = f->j;
    c->runs = 1;
    c->run[0] = (struct flash_keys){.n = c->picked};
    for (int at = 0; at < c->picked; at += FLASH_NR) {
        int n = flash_min(FLASH_NR, c->picked - at);
        const int32_t *pick = w->pick + at;
        packed *k = w->k + (size_t)at * (size_t)f->key;
        for (int i = 0; i < n; i++)
            memcpy(w->rows + i * f->d,
                   heads_at(&j->k, attn_token(&f->p->k_order, plan, pick[i]), head),
                   (size_t)f->d * sizeof *w->rows);
        flash_pack_k(f, nth, k, w->rows, (size_t)f->d, n);
        for (int i = 0; i < n; i++)
            memcpy(w->rows + i * f->d,
                   heads_at(&j->v, attn_token(&f->p->k_order, plan, pick[i]), head),
                   (size_t)f->d * sizeof *w->rows);
        flash_pack_v(f, nth, w->v, FLASH_KB, w->rows, (size_t)f->d, at, n);
        struct flash_panel *p = &c->panel[c->n++];
        *p = (struct flash_panel){.k = k, .key = (size_t)at, .hi = n};
        if (!f->p->key_bias && !delta && n == FLASH_NR) continue;
        float *b = c->biases + at;
        for (int i = 0; i < FLASH_NR; i++) {
            b[i] = i < n ? 0.0f : -INFINITY;
            if (i < n && f->p->key_bias)
                b[i] = (float)(FLASH_LOG2E * (double)f->p->key_bias[pick[i]]);
            if (i < n && delta) b[i] += delta[pick[i]];
        }
        p->bias = b;
    }
}
