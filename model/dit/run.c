/* One run of the transformer: its memory placed once, the prompt's keys and values made once a
 * branch, then velocities that allocate nothing. */
#include "model/dit/dit_internal.h"

#include "model/base/threads.h"

#include <math.h>
#include <stdlib.h>

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

static struct rows take_rows(const struct dit_run *r, struct arena *a, enum dtype type, size_t n,
                             size_t cols)
{
    void *at = arena_take(a, mul3(n, cols, dtype_size(type)));
    return rows_of(r->device, at, type, (int64_t)n, (int64_t)cols);
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

/* Refused before weights are read. */
static int check_fp8(const struct dit_run *r, const struct dit_config *c, struct err *e)
{
    if (!r->fp8 || (r->width % 16 == 0 && c->ffn_dim % 16 == 0)) return 0;
    return err_set(e, ERR_USAGE,
                   "fp8 products take features in multiples of 16, this transformer has %d and "
                   "%d; use --precision bf16",
                   r->width, c->ffn_dim);
}

static int sizes(struct dit_run *r, const struct dit_config *c, enum precision precision,
                 const struct dit_run_params *p, struct device *device, struct err *e)
{
    r->p = *p;
    r->device = device;
    r->ops = ops_of(device);
    r->act = DTYPE_F32;
    if (!r->ops)
        return err_set(e, ERR_DEVICE, "%s: this build computes nothing there; use --device cpu",
                       device_name(device));
    if ((device_place(device) != PLACE_HOST || precision == PRECISION_FP8) &&
        r->ops->type(device, precision, &r->act, e) < 0)
        return -1;
    if (p->attn)
        r->attn_params = *p->attn;
    else
        cpu_detect(&r->attn_params.cpu); /* dense, best kernel, all threads */
    r->attn_params.device = device;
    r->attn_params.precision = precision_beside(precision);
    r->p.attn = &r->attn_params;
    r->tokens = dit_tokens(c, &p->grid);
    r->tokens_a_frame = r->tokens / p->grid.frames;
    r->width = c->n_heads * c->head_dim;
    r->round = precision != PRECISION_FP32;
    r->fp8 = precision == PRECISION_FP8;
    r->text_keys =
        p->collapse_pads && p->max_text_rows < p->text_len ? p->max_text_rows + 1 : p->text_len;
    struct attn_shape shape = dit_attn_shape(c, p);
    bool copies;
    if (attn_may_copy(&copies, &r->attn_params, &shape, e) < 0) return -1;
    r->together = r->ops->together && !copies ? p->n_branches : 1; /* one may copy the other's */
    return check_fp8(r, c, e);
}

/* The row counts a layer runs with; returns how many. */
static int row_counts(const struct dit_run *r, enum row_kind kind, int counts[2])
{
    switch (kind) {
    case ROWS_TOKENS:
        return counts[0] = r->tokens, counts[1] = r->together * r->tokens, r->together > 1 ? 2 : 1;
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

static int prepare_layer(const struct dit_run *r, struct op_linear *l, enum row_kind kind,
                         size_t *most, struct err *e)
{
    int counts[2];
    for (int i = row_counts(r, kind, counts); i-- > 0;) {
        size_t bytes;
        if (r->ops->linear_prepare(l, counts[i], &bytes, e) < 0) return -1;
        grow(most, bytes);
    }
    return 0;
}

static int prepare_layers(const struct dit_run *r, void *target, const struct layer_row *rows,
                          int n, size_t *most, struct err *e)
{
    for (int i = 0; i < n; i++) {
        struct op_linear *l;
        memcpy(&l, (char *)target + rows[i].offset, sizeof l);
        if (prepare_layer(r, l, rows[i].kind, most, e) < 0) return -1;
    }
    return 0;
}

static int prepare_block(const struct dit_run *r, struct dit_block *b, const struct layer_row *rows,
                         int n, size_t *most, struct err *e)
{
    int counts[2];
    if (prepare_layers(r, b, rows, n, most, e) < 0) return -1;
    for (int i = row_counts(r, ROWS_TOKENS, counts); i-- > 0;) {
        size_t bytes;
        if (r->ops->ffn_prepare(b->up, b->down, counts[i], &bytes, e) < 0) return -1;
        grow(most, bytes);
    }
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
            grow(most, r->ops->linear_scratch(&lp, counts[k]));
        if (rows[i].kind == ROWS_CHAIN && i + 1 < n && rows[i + 1].kind == ROWS_CHAIN) {
            struct linear_params next = dit_linear_params(&rows[i + 1], precision);
            for (int k = row_counts(r, ROWS_TOKENS, counts); k-- > 0;)
                grow(most, r->ops->ffn_scratch(&lp, &next, counts[k]));
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
    size_t all = L * (size_t)r->together, text = (size_t)r->text_keys;
    size_t image = (size_t)r->p.image_rows, image_dim = (size_t)c->image_dim;
    struct arena a = {.base = base, .size = size};
    r->q = take_rows(r, &a, r->act, all, D);
    r->k = take_rows(r, &a, r->act, all, D);
    r->v = take_rows(r, &a, r->act, all, D);
    grow(&most, a.used);
    a.used = 0; /* latents in */
    r->cols = take_rows(r, &a, r->act, L, (size_t)c->in_channels * patch);
    grow(&most, a.used);
    a.used = 0; /* velocity out */
    r->out_cols = take_rows(r, &a, r->act, all, (size_t)c->out_channels * patch);
    grow(&most, a.used);
    a.used = 0; /* time */
    r->sinus = take_rows(r, &a, DTYPE_F32, frames, (size_t)c->freq_dim);
    r->time_h = take_rows(r, &a, DTYPE_F32, frames, D);
    r->time_a = take_rows(r, &a, r->act, frames, D);
    grow(&most, a.used);
    a.used = 0; /* context: embeddings */
    r->text = take_rows(r, &a, r->act, text, D);
    r->image = take_rows(r, &a, r->act, image, D);
    r->text_in = take_rows(r, &a, r->act, text, (size_t)c->text_dim);
    r->text_h = take_rows(r, &a, r->act, text, D);
    r->image_in = take_rows(r, &a, r->act, image, image_dim);
    r->image_h = take_rows(r, &a, r->act, image, image_dim);
    if (device_place(r->device) != PLACE_HOST) {
        size_t text_len = mul3(text, (size_t)c->text_dim, 1), image_len = mul3(image, image_dim, 1);
        r->staging = take_rows(r, &a, DTYPE_F32, 1, text_len > image_len ? text_len : image_len);
    }
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

/* n, and of fp8 its codes in the same memory: they are read before attention, or the next norm, writes n
 * again. */
static struct rows take_n(struct dit_run *r, struct arena *a, size_t n, size_t cols)
{
    size_t bytes = mul3(n, cols, dtype_size(r->act)), codes = mul3(n, cols, 1);
    if (r->fp8 && codes < SIZE_MAX / 8) {
        codes = (codes + 255) / 256 * 256;
        grow(&bytes, codes + mul3(n, sizeof(float), 1));
    }
    char *at = arena_take(a, bytes);
    r->codes = rows_of(r->device, at, DTYPE_F8_E4M3, (int64_t)n, (int64_t)cols);
    r->codes.scale = at ? (float *)(void *)(at + codes) : NULL;
    return rows_of(r->device, at, r->act, (int64_t)n, (int64_t)cols);
}

/* a: of the device; host: what the host alone reads. On the host both are one. */
static int carve_run(struct dit_run *r, const struct dit_config *c, struct arena *a,
                     struct arena *host, struct err *e)
{
    size_t L = (size_t)r->tokens, D = (size_t)r->width, frames = (size_t)r->p.grid.frames;
    size_t kv = mul3((size_t)r->p.n_branches, (size_t)c->n_layers, 2), each = dtype_size(r->act);
    struct attn_shape shape = dit_attn_shape(c, &r->p);
    r->context = arena_take(host, (size_t)r->p.n_branches * sizeof *r->context);
    r->cos_t = take(a, L, (size_t)c->head_dim / 2);
    r->sin_t = take(a, L, (size_t)c->head_dim / 2);
    r->text_kv = arena_take(a, mul3(mul3(kv, (size_t)r->text_keys, 1), D, each));
    r->image_kv = arena_take(a, mul3(mul3(kv, (size_t)r->p.image_rows, 1), D, each));
    r->key_bias = take(a, (size_t)r->p.n_branches, (size_t)r->text_keys);
    r->freqs = take(a, (size_t)c->freq_dim / 2, 1);
    r->timesteps = take(a, frames, 1);
    r->temb = take_rows(r, a, DTYPE_F32, frames, D);
    r->time6 = take_rows(r, a, r->act, frames, 6 * D);
    r->mod = take_rows(r, a, DTYPE_F32, frames, 6 * D);
    r->streams = take_rows(r, a, r->act, mul3((size_t)r->p.n_branches, L, 1), D);
    r->n = take_n(r, a, L * (size_t)r->together, D);
    r->scratch = arena_take(a, r->scratch_bytes);
    r->work_bytes = carve_work(r, c, NULL, 0);
    r->work = arena_take(a, r->work_bytes);
    if (r->work) carve_work(r, c, r->work, r->work_bytes);
    if (step_cache_carve(r, c, a, host, e) < 0) return -1;
    return attn_open_on(&r->attn, &r->attn_params, &shape, host, a, e);
}

static bool on_host(const struct dit_run *r) { return device_place(r->device) == PLACE_HOST; }

/* Both arenas measured, then placed; what is half done is dit_prepare()'s to close. */
static int place_run(struct dit_run *r, const struct dit_config *c, size_t *bytes, struct err *e)
{
    struct arena there = {0}, here = {0};
    if (carve_run(r, c, &there, on_host(r) ? &there : &here, e) < 0) return -1;
    *bytes = there.used;
    if (arena_open_on(&r->arena, r->device, there.used, e) < 0) return err_wrap(e, "transformer");
    if (!on_host(r) && arena_open(&r->host, here.used, e) < 0) return err_wrap(e, "transformer");
    return carve_run(r, c, &r->arena, on_host(r) ? &r->arena : &r->host, e);
}

int dit_run_bytes(size_t *bytes, size_t *host, const struct dit_config *c, enum precision precision,
                  const struct dit_run_params *p, struct err *e)
{
    struct layer_row rows[DIT_MAX_ROWS];
    struct arena measure = {0}, here = {0};
    struct dit_run r = {0};
    *bytes = 0;
    if (host) *host = 0;
    if (check_params(c, p, e) < 0) return -1;
    if (sizes(&r, c, precision, p, p->attn ? p->attn->device : NULL, e) < 0) return -1;
    ask_layers(&r, rows, dit_top_layers(c, rows), precision, &r.scratch_bytes);
    ask_layers(&r, rows, dit_block_layers(c, rows), precision, &r.scratch_bytes);
    cross_scratch(&r, c, &r.scratch_bytes);
    if (carve_run(&r, c, &measure, on_host(&r) ? &measure : &here, e) < 0) return -1;
    if (host) *host = here.used;
    grow(&measure.used, dit_opening_bytes(c, precision, on_host(&r)));
    *bytes = measure.used;
    return 0;
}

int dit_bytes(size_t *bytes, const struct dit_config *c, enum precision precision,
              const struct dit_run_params *p, struct err *e)
{
    size_t run, weights;
    *bytes = 0;
    if (dit_run_bytes(&run, NULL, c, precision, p, e) < 0) return -1;
    weights = dit_weight_bytes(c, p->attn ? p->attn->device : NULL, precision, 0);
    if (__builtin_add_overflow(weights, run, bytes)) *bytes = SIZE_MAX;
    return 0;
}

void dit_run_close(struct dit_run *r)
{
    for (int i = 0; i < DIT_KINDS; i++)
        device_steps_close(r->device, r->recorded[i].steps);
    attn_close(r->attn);
    arena_close(&r->arena);
    arena_close(&r->host);
    *r = (struct dit_run){0};
}

void dit_run_end(struct dit *d) { dit_run_close(&d->run); }

size_t dit_kept_bytes(const struct dit_config *c, struct device *device, enum precision precision,
                      int streamed, size_t *packs)
{
    size_t slots;
    dit_stream_bytes(c, ops_of(device), precision, streamed, &slots, packs);
    return dit_weight_bytes(c, device, precision, streamed);
}

/* n numbers that the host made → the device. */
static int put(const struct dit_run *r, float *to, const float *from, size_t n, struct err *e)
{
    return on_host(r) ? 0 : device_upload(r->device, to, from, n * sizeof *from, e);
}

/* Tables that depend on sizes alone; on the host made where they stay. */
static int fill_tables(struct dit_run *r, const struct dit_config *c, struct err *e)
{
    const struct dit_grid *g = &r->p.grid;
    size_t rope = (size_t)r->tokens * ((size_t)c->head_dim / 2), freqs = (size_t)c->freq_dim / 2;
    float *room = on_host(r) ? NULL : malloc((2 * rope + freqs) * sizeof *room);
    if (!on_host(r) && !room) return err_set(e, ERR_RESOURCE, "no memory for tables of positions");
    float *cos_t = room ? room : r->cos_t, *sin_t = room ? room + rope : r->sin_t;
    float *f = room ? room + 2 * rope : r->freqs;
    rope_tables(cos_t, sin_t, c, g->frames / c->patch_t, g->height / c->patch_h,
                g->width / c->patch_w);
    time_freqs(f, c->freq_dim / 2);
    int rc = put(r, r->cos_t, cos_t, rope, e);
    if (rc == 0) rc = put(r, r->sin_t, sin_t, rope, e);
    if (rc == 0) rc = put(r, r->freqs, f, freqs, e);
    free(room);
    return rc;
}

int dit_prepare(struct dit *d, const struct dit_run_params *p, struct err *e)
{
    const struct dit_config *c = &d->config;
    struct layer_row rows[DIT_MAX_ROWS];
    struct dit_run *r = &d->run;
    size_t bytes;
    dit_run_close(r);
    if (check_params(c, p, e) < 0) return -1;
    if (sizes(r, c, d->precision, p, d->device, e) < 0) return -1;
    r->attn_params.tensor = dit_own_tensor;
    r->attn_params.tensor_ctx = d->own;
    int n = dit_top_layers(c, rows);
    if (prepare_layers(r, &d->top, rows, n, &r->scratch_bytes, e) < 0) return -1;
    n = dit_block_layers(c, rows);
    for (int i = 0; i < c->n_layers; i++)
        if (prepare_block(r, &d->blocks[i], rows, n, &r->scratch_bytes, e) < 0) return -1;
    cross_scratch(r, c, &r->scratch_bytes);
    if (place_run(r, c, &bytes, e) < 0 || fill_tables(r, c, e) < 0 || step_cache_fill(r, e) < 0) {
        dit_run_close(r);
        return -1;
    }
    memset(r->context, 0, (size_t)p->n_branches * sizeof *r->context);
    log_line(&d->log, 3, "transformer: %d tokens, %d text keys, %.1f MiB", r->tokens, r->text_keys,
             (double)bytes / 1048576);
    return 0;
}
