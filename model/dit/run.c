/* One run of the transformer: its memory placed once, the prompt's keys and values made once a
 * branch, then velocities that allocate nothing. */
#include "model/dit/dit_internal.h"

#include "model/base/threads.h"

#include <math.h>

#define IMAGE_TEXT_LEN                                                                             \
    512 /* the reference cuts image from text rows by this constant: wan.md 3.6 */

static size_t mul3(size_t a, size_t b, size_t c)
{
    size_t ab, abc;
    if (__builtin_mul_overflow(a, b, &ab) || __builtin_mul_overflow(ab, c, &abc)) return SIZE_MAX;
    return abc;
}

static float *take(struct arena *a, size_t rows, size_t features)
{
    return arena_take(a, mul3(rows, features, sizeof(float)));
}

/* --- Checking and sizes --- */

static int check_params(const struct dit_config *c, const struct dit_run_params *p, struct err *e)
{
    const struct dit_grid *g = &p->grid;
    if (g->frames < 1 || g->height < 1 || g->width < 1 || g->frames % c->patch_t ||
        g->height % c->patch_h || g->width % c->patch_w)
        return err_set(e, ERR_USAGE,
                       "latents of %d x %d x %d cannot be cut into patches of %d x %d x %d",
                       g->frames, g->height, g->width, c->patch_t, c->patch_h, c->patch_w);
    int grid[3] = {g->frames / c->patch_t, g->height / c->patch_h, g->width / c->patch_w};
    for (int i = 0; i < 3; i++)
        if (grid[i] > c->rope_max_seq_len)
            return err_set(e, ERR_USAGE, "%d patches along %s, the model has positions for %d",
                           grid[i], (const char *const[]){"time", "height", "width"}[i],
                           c->rope_max_seq_len);
    if (mul3((size_t)grid[0], (size_t)grid[1], (size_t)grid[2]) > INT32_MAX / 2)
        return err_set(e, ERR_USAGE,
                       "%d x %d x %d patches are too many; try a smaller size or fewer "
                       "frames",
                       grid[0], grid[1], grid[2]);
    if (p->text_len < 1 || p->max_text_rows < 0 || p->max_text_rows > p->text_len)
        return err_set(e, ERR_USAGE, "%d rows of text, wanted at most %d", p->max_text_rows,
                       p->text_len);
    if (p->n_branches < 1 || p->n_steps < 1)
        return err_set(e, ERR_USAGE, "%d branches and %d steps, wanted at least 1 of each",
                       p->n_branches, p->n_steps);
    if (!c->image_dim && p->image_rows)
        return err_set(e, ERR_USAGE, "%d rows of an image, but the model takes none",
                       p->image_rows);
    if (c->image_dim && p->image_rows < 1)
        return err_set(e, ERR_USAGE, "this model animates an image: it cannot run without one");
    if (c->image_dim && p->text_len != IMAGE_TEXT_LEN)
        return err_set(e, ERR_USAGE,
                       "text of %d rows; a model with an image branch is made for exactly %d",
                       p->text_len, IMAGE_TEXT_LEN);
    if (c->pos_embed_seq_len && p->image_rows != c->pos_embed_seq_len)
        return err_set(e, ERR_USAGE, "%d rows of images, the model wants %d (first and last frame)",
                       p->image_rows, c->pos_embed_seq_len);
    return 0;
}

static void sizes(struct dit_run *r, const struct dit_config *c, enum precision precision,
                  const struct dit_run_params *p)
{
    r->p = *p;
    if (p->attn)
        r->attn_params = *p->attn;
    else
        cpu_detect(&r->attn_params.cpu); /* dense, best kernel, all threads */
    r->attn_params.precision = precision;
    r->p.attn = &r->attn_params;
    r->tokens = dit_tokens(c, &p->grid);
    r->tokens_a_frame = r->tokens / p->grid.frames;
    r->width = c->n_heads * c->head_dim;
    r->round = precision != PRECISION_FP32;
    r->text_keys =
        p->collapse_pads && p->max_text_rows < p->text_len ? p->max_text_rows + 1 : p->text_len;
}

/* The row counts a layer runs with; returns how many. */
static int row_counts(const struct dit_run *r, enum row_kind kind, int counts[2])
{
    switch (kind) {
    case ROWS_TOKENS:
        return counts[0] = r->tokens, 1;
    case ROWS_CHAIN:
        return 0;
    case ROWS_TIME:
        return counts[0] = 1, counts[1] = r->p.grid.frames, counts[1] > 1 ? 2 : 1;
    case ROWS_TEXT:
        return counts[0] = r->text_keys, 1;
    case ROWS_IMAGE:
        return counts[0] = r->p.image_rows, counts[0] > 0 ? 1 : 0;
    }
    return 0;
}

static void grow(size_t *most, size_t bytes)
{
    if (bytes > *most) *most = bytes;
}

static int prepare_layer(const struct dit_run *r, struct linear *l, enum row_kind kind,
                         size_t *most, struct err *e)
{
    int counts[2];
    for (int i = row_counts(r, kind, counts); i-- > 0;) {
        size_t bytes;
        if (linear_prepare(l, counts[i], &bytes, e) < 0) return -1;
        grow(most, bytes);
    }
    return 0;
}

static int prepare_layers(const struct dit_run *r, void *target, const struct layer_row *rows,
                          int n, size_t *most, struct err *e)
{
    for (int i = 0; i < n; i++) {
        struct linear *l;
        memcpy(&l, (char *)target + rows[i].offset, sizeof l);
        if (prepare_layer(r, l, rows[i].kind, most, e) < 0) return -1;
    }
    return 0;
}

static int prepare_block(const struct dit_run *r, struct dit_block *b, const struct layer_row *rows,
                         int n, size_t *most, struct err *e)
{
    size_t bytes;
    if (prepare_layers(r, b, rows, n, most, e) < 0 ||
        linear_prepare_chain(b->up, b->down, r->tokens, &bytes, e) < 0)
        return -1;
    grow(most, bytes);
    return 0;
}

/* The same without weights. */
static void ask_layers(const struct dit_run *r, const struct layer_row *rows, int n,
                       enum precision precision, size_t *most)
{
    for (int i = 0; i < n; i++) {
        struct linear_params lp = dit_linear_params(&rows[i], precision);
        int counts[2];
        for (int k = row_counts(r, rows[i].kind, counts); k-- > 0;)
            grow(most, linear_scratch(&lp, counts[k]));
        if (rows[i].kind == ROWS_CHAIN && i + 1 < n && rows[i + 1].kind == ROWS_CHAIN) {
            struct linear_params next = dit_linear_params(&rows[i + 1], precision);
            grow(most, linear_chain_scratch(&lp, &next, r->tokens));
        }
    }
}

static void cross_scratch(const struct dit_run *r, const struct dit_config *c, size_t *most)
{
    grow(most,
         attn_cross_scratch(&r->attn_params, r->tokens, r->text_keys, c->n_heads, c->head_dim));
    if (r->p.image_rows)
        grow(most, attn_cross_scratch(&r->attn_params, r->tokens, r->p.image_rows, c->n_heads,
                                      c->head_dim));
}

/* --- Placing: run once to measure, once to place --- */

/* Views of phases that do not overlap in time: each starts at the same address. */
static size_t carve_work(struct dit_run *r, const struct dit_config *c, void *base, size_t size)
{
    size_t L = (size_t)r->tokens, D = (size_t)r->width, frames = (size_t)r->p.grid.frames;
    size_t patch = (size_t)c->patch_t * (size_t)c->patch_h * (size_t)c->patch_w, most = 0;
    struct arena a = {.base = base, .size = size};
    r->q = take(&a, L, D);
    r->k = take(&a, L, D);
    r->v = take(&a, L, D);
    grow(&most, a.used);
    a.used = 0; /* latents in */
    r->cols = take(&a, L, (size_t)c->in_channels * patch);
    grow(&most, a.used);
    a.used = 0; /* velocity out */
    r->out_cols = take(&a, L, (size_t)c->out_channels * patch);
    grow(&most, a.used);
    a.used = 0; /* time */
    r->sinus = take(&a, frames, (size_t)c->freq_dim);
    r->time_h = take(&a, frames, D);
    grow(&most, a.used);
    a.used = 0; /* context: embeddings */
    r->text = take(&a, (size_t)r->text_keys, D);
    r->image = take(&a, (size_t)r->p.image_rows, D);
    r->text_in = take(&a, (size_t)r->text_keys, (size_t)c->text_dim);
    r->text_h = take(&a, (size_t)r->text_keys, D);
    r->image_in = take(&a, (size_t)r->p.image_rows, (size_t)c->image_dim);
    r->image_h = take(&a, (size_t)r->p.image_rows, (size_t)c->image_dim);
    grow(&most, a.used);
    return most;
}

struct attn_shape dit_attn_shape(const struct dit_config *c, const struct dit_run_params *p)
{
    return (struct attn_shape){.n_heads = c->n_heads,
                               .head_dim = c->head_dim,
                               .grid_t = p->grid.frames / c->patch_t,
                               .grid_h = p->grid.height / c->patch_h,
                               .grid_w = p->grid.width / c->patch_w,
                               .n_layers = c->n_layers,
                               .n_branches = p->n_branches,
                               .n_steps = p->n_steps};
}

static int carve_run(struct dit_run *r, const struct dit_config *c, struct arena *a, struct err *e)
{
    size_t L = (size_t)r->tokens, D = (size_t)r->width, frames = (size_t)r->p.grid.frames;
    size_t kv = mul3((size_t)r->p.n_branches, (size_t)c->n_layers, 2);
    struct attn_shape shape = dit_attn_shape(c, &r->p);
    r->context = arena_take(a, (size_t)r->p.n_branches * sizeof *r->context);
    r->cos_t = take(a, L, (size_t)c->head_dim / 2);
    r->sin_t = take(a, L, (size_t)c->head_dim / 2);
    r->text_kv = take(a, mul3(kv, (size_t)r->text_keys, 1), D);
    r->image_kv = take(a, mul3(kv, (size_t)r->p.image_rows, 1), D);
    r->key_bias = take(a, (size_t)r->p.n_branches, (size_t)r->text_keys);
    r->freqs = take(a, (size_t)c->freq_dim / 2, 1);
    r->temb = take(a, frames, D);
    r->time6 = take(a, frames, 6 * D);
    r->mod = take(a, frames, 6 * D);
    r->streams = take(a, mul3((size_t)r->p.n_branches, L, 1), D);
    r->n = take(a, L, D);
    r->scratch = arena_take(a, r->scratch_bytes);
    r->work_bytes = carve_work(r, c, NULL, 0);
    r->work = arena_take(a, r->work_bytes);
    if (r->work) carve_work(r, c, r->work, r->work_bytes);
    if (step_cache_carve(r, c, a, e) < 0) return -1;
    return attn_open(&r->attn, &r->attn_params, &shape, a, e);
}

int dit_bytes(size_t *bytes, const struct dit_config *c, enum precision precision,
              const struct dit_run_params *p, struct err *e)
{
    struct layer_row rows[DIT_MAX_ROWS];
    struct arena measure = {0};
    struct dit_run r = {0};
    *bytes = 0;
    if (check_params(c, p, e) < 0) return -1;
    sizes(&r, c, precision, p);
    ask_layers(&r, rows, dit_top_layers(c, rows), precision, &r.scratch_bytes);
    ask_layers(&r, rows, dit_block_layers(c, rows), precision, &r.scratch_bytes);
    cross_scratch(&r, c, &r.scratch_bytes);
    if (carve_run(&r, c, &measure, e) < 0) return -1;
    size_t opening = dit_opening_bytes(c, precision), weights = dit_weight_bytes(c, precision);
    grow(&measure.used, opening);
    if (__builtin_add_overflow(weights, measure.used, bytes)) *bytes = SIZE_MAX;
    return 0;
}

int dit_prepare(struct dit *d, const struct dit_run_params *p, struct err *e)
{
    const struct dit_config *c = &d->config;
    struct layer_row rows[DIT_MAX_ROWS];
    struct arena measure = {0};
    struct dit_run *r = &d->run;
    attn_close(r->attn);
    arena_close(&r->arena);
    *r = (struct dit_run){0};
    if (check_params(c, p, e) < 0) return -1;
    sizes(r, c, d->precision, p);
    r->attn_params.tensor = dit_own_tensor;
    r->attn_params.tensor_ctx = d->own;
    int n = dit_top_layers(c, rows);
    if (prepare_layers(r, &d->top, rows, n, &r->scratch_bytes, e) < 0) return -1;
    n = dit_block_layers(c, rows);
    for (int i = 0; i < c->n_layers; i++)
        if (prepare_block(r, &d->blocks[i], rows, n, &r->scratch_bytes, e) < 0) return -1;
    cross_scratch(r, c, &r->scratch_bytes);
    if (carve_run(r, c, &measure, e) < 0) return -1;
    if (arena_open(&r->arena, measure.used, e) < 0) return err_wrap(e, "transformer");
    if (carve_run(r, c, &r->arena, e) < 0) {
        arena_close(&r->arena);
        return -1;
    }
    memset(r->context, 0, (size_t)p->n_branches * sizeof *r->context);
    rope_tables(r->cos_t, r->sin_t, c, p->grid.frames / c->patch_t, p->grid.height / c->patch_h,
                p->grid.width / c->patch_w);
    time_freqs(r->freqs, c->freq_dim / 2);
    log_line(&d->log, 3, "transformer: %d tokens, %d text keys, %.1f MiB", r->tokens, r->text_keys,
             (double)measure.used / 1048576);
    return 0;
}

/* --- Velocity --- */

void dit_stream(struct dit_run *r, int i)
{
    r->x = r->streams + (size_t)i * (size_t)r->tokens * (size_t)r->width;
}

int dit_velocity(struct dit *d, float *const *velocity, const float *latents,
                 const struct dit_call *c, struct err *e)
{
    struct dit_run *r = &d->run;
    if (c->n_branches < 1)
        return err_set(e, ERR_BUG, "dit_velocity: %d branches are asked for", c->n_branches);
    for (int b = c->branch; b < c->branch + c->n_branches; b++)
        if (!r->arena.base || b < 0 || b >= r->p.n_branches || !r->context[b].set)
            return err_set(e, ERR_BUG, "dit_velocity: branch %d has no context", b);
    if (dit_embed_time(d, c, e) < 0) return -1;
    if (step_cache_velocity(d, velocity, latents, c)) return 0;
    if (dit_embed_latents(d, latents, c->n_branches, e) < 0) return -1;
    step_cache_block(d, latents, c, 0);
    for (int i = 0; i < d->config.n_layers && !r->cache.whole; i++) {
        if (dit_block_run(d, i, c, e) < 0) return err_wrap(e, "transformer block %d", i);
        step_cache_block(d, latents, c, i + 1);
    }
    for (int i = 0; i < c->n_branches; i++) {
        dit_stream(r, i);
        if (dit_head(d, velocity[i], e) < 0) return -1;
    }
    step_cache_keep(d, velocity, latents, c);
    return 0;
}

void dit_attn_stats(const struct dit *d, struct attn_stats *s)
{
    *s = (struct attn_stats){.density = 1};
    if (d->run.attn) attn_stats(d->run.attn, s);
}

void dit_attn_kept(const struct dit *d, struct attn_kept *k)
{
    *k = (struct attn_kept){0};
    if (d->run.attn) attn_kept(d->run.attn, k);
}

int dit_attn_kept_check(const struct dit *d, struct err *e)
{
    return d->run.attn ? attn_kept_check(d->run.attn, e) : 0;
}
