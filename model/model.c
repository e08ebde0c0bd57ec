/* The three phases of one generation over the parts of a pipeline folder: each opens what it needs
 * and closes what the next does not. See model.h. */
#include "model/model.h"

#include "model/ops/ops.h"
#include "model/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct model {
    struct model_info info;
    struct model_params p;
    struct tokenizer *tokenizer;
    struct umt5 *text;
    struct dit *dit;
    struct dit *begun; /* whose weights go up while the text is read */
    char dit_path[4352];
    float *embeds[2]; /* [n, text_dim] of each branch */
    int n_embeds[2];
    struct dit_grid grid;
    struct model_vram plan; /* limit 0: none was taken */
    struct device_mark *marks[2]; /* ends of this step and the one before, on a device */
    int steps;
};

int model_open(struct model **out, const struct model_info *info, const struct model_params *p,
               struct err *e)
{
    *out = NULL;
    struct model *m = calloc(1, sizeof *m);
    if (!m) return err_set(e, ERR_RESOURCE, "no memory for the model");
    m->info = *info;
    m->p = *p;
    m->p.attn.precision = precision_beside(p->precision);
    m->p.attn.threads = p->threads;
    m->p.attn.log = p->log;
    m->p.attn.device = p->device;
    *out = m;
    return 0;
}

static void close_text(struct model *m)
{
    umt5_close(m->text);
    tokenizer_close(m->tokenizer);
    m->text = NULL;
    m->tokenizer = NULL;
}

/* Kept for the next run where there is a store. */
static void close_dit(struct model *m)
{
    for (int i = 0; i < 2; i++) {
        if (m->marks[i]) device_mark_close(m->p.device, m->marks[i]);
        m->marks[i] = NULL;
    }
    m->steps = 0;
    if (!m->p.store)
        dit_close(m->dit);
    else if (m->dit)
        dit_run_end(m->dit);
    m->dit = NULL;
}

void model_close(struct model *m)
{
    if (!m) return;
    close_text(m);
    close_dit(m);
    dit_close(m->begun);
    free(m->embeds[0]);
    free(m->embeds[1]);
    free(m);
}

static int open_text(struct model *m, struct err *e)
{
    char path[4352];
    if (m->text) return 0;
    snprintf(path, sizeof path, "%s/tokenizer", m->info.dir);
    if (tokenizer_open(&m->tokenizer, path,
                       m->info.tokenizer_class[0] ? m->info.tokenizer_class : NULL, e) < 0)
        return -1;
    if (tokenizer_vocab_size(m->tokenizer) > m->info.text.vocab_size)
        return err_set(e, ERR_INPUT,
                       "%s: has ids up to %d, the text encoder knows %d; the tokenizer is of "
                       "another model",
                       path, tokenizer_vocab_size(m->tokenizer) - 1, m->info.text.vocab_size);
    snprintf(path, sizeof path, "%s/text_encoder", m->info.dir);
    return umt5_open(&m->text, m->p.device, path, precision_beside(m->p.precision), m->p.log, e);
}

int model_check(struct model *m, struct err *e)
{
    char path[4352];
    if (open_text(m, e) < 0) return -1;
    snprintf(path, sizeof path, "%s/%s", m->info.dir,
             m->p.turbo ? "transformer_turbo" : "transformer");
    if (dit_check(path, m->p.lora, m->p.attn.method, e) < 0) return -1;
    snprintf(path, sizeof path, "%s/vae", m->info.dir);
    return vae_check(path, VAE_DECODER, e);
}

static int tokens_of(struct model *m, const char *prompt, int ids[MODEL_TEXT_LEN],
                     struct model_text *info, struct err *e)
{
    char *clean = NULL;
    if (open_text(m, e) < 0 || prompt_clean(&clean, prompt, m->p.fix_text, e) < 0) return -1;
    int r = tokenizer_encode(m->tokenizer, ids, MODEL_TEXT_LEN, &info->n_tokens, &info->truncated,
                             clean, e);
    free(clean);
    return r;
}

int model_count_tokens(struct model *m, const char *prompt, int *n, struct err *e)
{
    int ids[MODEL_TEXT_LEN];
    struct model_text info;
    if (tokens_of(m, prompt, ids, &info, e) < 0) return -1;
    *n = info.n_tokens;
    return 0;
}

/* What an earlier run left on the device and is not to stay beside this one's. */
static void leave_dit(struct model *m, const char *what)
{
    if (!m->p.store || !m->p.store->dit) return;
    log_line(m->p.log, 1, "the transformer leaves %s, so that %s has room",
             device_name(m->p.device), what);
    store_drop_dit(m->p.store);
}

static void leave_vae(struct model *m, const char *what)
{
    if (!m->p.store || !m->p.store->vae) return;
    log_line(m->p.log, 1, "the decoder leaves %s, so that %s has room", device_name(m->p.device),
             what);
    store_drop_vae(m->p.store);
}

void model_take_plan(struct model *m, const struct model_vram *v)
{
    m->plan = *v;
    m->p.streamed = v->streamed;
    if (!v->clear_for_text) return;
    leave_dit(m, "the text encoder");
    leave_vae(m, "the text encoder");
}

/* The transformer's weights begin to go up, once: the text's are behind them on the bus, or beside. */
static int begin_dit(struct model *m, struct err *e)
{
    struct dit_params dp;
    if (!m->plan.early || m->begun) return 0;
    store_dit_params(&dp, m->dit_path, sizeof m->dit_path, &m->info, &m->p);
    return dit_open_begin(&m->begun, &dp, true, e);
}

int model_encode_text(struct model *m, int branch, const char *prompt, struct model_text *info,
                      model_progress progress, void *ctx, struct err *e)
{
    int ids[MODEL_TEXT_LEN];
    if (tokens_of(m, prompt, ids, info, e) < 0 || begin_dit(m, e) < 0) return -1;
    size_t n = (size_t)info->n_tokens * (size_t)m->info.text.d_model;
    free(m->embeds[branch]);
    m->embeds[branch] = malloc((n ? n : 1) * sizeof(float));
    if (!m->embeds[branch]) return err_set(e, ERR_RESOURCE, "no memory for the text's embeddings");
    m->n_embeds[branch] = info->n_tokens;
    return umt5_encode(m->text, m->embeds[branch], ids, info->n_tokens, progress, ctx, e);
}

void model_text_done(struct model *m) { close_text(m); }

static int open_dit(struct model *m, struct err *e)
{
    struct dit_params dp;
    store_dit_params(&dp, m->dit_path, sizeof m->dit_path, &m->info, &m->p);
    if (!m->p.store) return dit_open_with(&m->dit, &dp, e);
    if (m->plan.limit && !m->plan.vae_stays) leave_vae(m, "the transformer");
    return store_dit(&m->dit, m->p.store, &dp, &m->begun, e);
}

int model_denoise_begin(struct model *m, const struct model_clip *c, struct err *e)
{
    close_text(m); /* the phases never overlap in memory */
    int rows = m->n_embeds[0];
    if (c->guided && m->n_embeds[1] > rows) rows = m->n_embeds[1];
    if (!m->embeds[0] || (c->guided && !m->embeds[1]))
        return err_set(e, ERR_BUG, "the text was not encoded");
    if (open_dit(m, e) < 0) return -1;
    for (int i = 0; i < 2 && device_place(m->p.device) != PLACE_HOST; i++)
        if (device_mark_open(m->p.device, &m->marks[i], e) < 0) return -1;
    struct dit_run_params r = model_run_params(&m->info, &m->p, c, rows);
    m->grid = r.grid;
    if (dit_prepare(m->dit, &r, e) < 0) return -1;
    for (int b = 0; b < r.n_branches; b++)
        if (dit_set_context(m->dit, b, m->embeds[b], m->n_embeds[b], NULL, e) < 0) return -1;
    return 0;
}

size_t model_latents_len(const struct model *m, const struct model_clip *c)
{
    struct dit_grid g = model_grid(&m->info, c);
    return (size_t)m->info.vae.z_dim * (size_t)g.frames * (size_t)g.height * (size_t)g.width;
}

static struct dit_call call_of(const struct model_ask *a)
{
    return (struct dit_call){.step = a->step,
                             .n_branches = a->n_branches,
                             .expert = a->expert,
                             .sigma = a->sigma,
                             .timestep = a->timestep,
                             .frame_timesteps = a->frame_timesteps,
                             .progress = a->progress,
                             .progress_ctx = a->ctx};
}

int model_trace(struct model *m, float *const *velocity, const float *latents,
                const struct model_ask *a, struct err *e)
{
    struct dit_call c = call_of(a);
    return dit_trace(m->dit, velocity, latents, &c, e);
}

int model_velocity(struct model *m, float *const *velocity, const float *latents,
                   const struct model_ask *a, struct err *e)
{
    struct dit_call c = call_of(a);
    if (a->expert)
        return err_set(e, ERR_BUG, "expert %d of a model that has one transformer", a->expert);
    return dit_velocity(m->dit, velocity, latents, &c, e);
}

struct lincomb_place model_place(const struct model *m)
{
    return m->p.device ? ops_place(m->p.device) : lincomb_host;
}

const char *model_on_device(void) { return "text, steps and frames"; }

const char *model_op_name(int op) { return op_name(op); }

int model_step_done(struct model *m, struct err *e)
{
    if (!m->marks[0]) return 0;
    int now = m->steps++ & 1;
    if (device_mark_set(m->p.device, m->marks[now], e) < 0) return -1;
    return m->steps > 1 ? device_mark_wait(m->p.device, m->marks[!now], e) : 0;
}

int model_check_precision(const struct device *d, enum precision precision, struct err *e)
{
    enum dtype ignored;
    const struct ops *o = ops_of(d);
    if (precision != PRECISION_FP8 || !o) return 0;
    return o->type((struct device *)(uintptr_t)d, precision, &ignored, e);
}

int model_fp8_error(const struct model *m, double *error, long *products, struct err *e)
{
    *error = 0;
    *products = 0;
    return m->dit ? dit_fp8_error(m->dit, error, products, e) : 0;
}

void model_attn_stats(const struct model *m, struct attn_stats *stats)
{
    *stats = (struct attn_stats){.density = 1};
    if (m->dit) dit_attn_stats(m->dit, stats);
}

void model_cache_stats(const struct model *m, struct dit_cache_stats *stats)
{
    *stats = (struct dit_cache_stats){0};
    if (m->dit) dit_cache_stats(m->dit, stats);
}

void model_cache_kept(struct model *m, struct dit_cache_kept *kept)
{
    *kept = (struct dit_cache_kept){0};
    if (m->dit) dit_cache_kept(m->dit, kept);
}

void model_attn_kept(const struct model *m, struct attn_kept *kept)
{
    *kept = (struct attn_kept){0};
    if (m->dit) dit_attn_kept(m->dit, kept);
}

int model_attn_kept_read(const struct model *m, void *to, struct err *e)
{
    return m->dit ? dit_attn_kept_read(m->dit, to, e) : 0;
}

int model_attn_kept_write(struct model *m, const void *from, struct err *e)
{
    return m->dit ? dit_attn_kept_write(m->dit, from, e) : 0;
}

int model_attn_kept_check(const struct model *m, struct err *e)
{
    return m->dit ? dit_attn_kept_check(m->dit, e) : 0;
}

int model_cache_fetch(struct model *m, struct err *e)
{
    return m->dit ? dit_cache_fetch(m->dit, e) : 0;
}

int model_cache_resume(struct model *m, int step, struct err *e)
{
    return m->dit ? dit_cache_resume(m->dit, step, e) : 0;
}

void model_denoise_end(struct model *m, struct attn_stats *stats)
{
    if (stats) *stats = (struct attn_stats){.density = 1};
    if (stats && m->dit) dit_attn_stats(m->dit, stats);
    close_dit(m);
}

/* Weights that stay on a device for the next run make room for frames where both do not fit. */
static int make_room(struct model *m, const struct model_clip *c, struct err *e)
{
    struct dit_grid g = model_grid(&m->info, c);
    size_t bytes;
    if (!m->p.store || !m->p.store->dit) return 0;
    if (vae_decode_bytes(&bytes, &m->info.vae, m->p.device, precision_beside(m->p.precision),
                         g.frames, g.height, g.width, e) < 0)
        return -1;
    if (m->p.store->vae) bytes -= vae_held_bytes(m->p.store->vae);
    bool stays = !m->plan.limit || m->plan.dit_stays;
    if (!stays || device_room(m->p.device) < bytes) leave_dit(m, "decoding");
    return 0;
}

static int open_vae(struct model *m, struct vae **v, int part, struct err *e)
{
    char path[4352];
    snprintf(path, sizeof path, "%s/vae", m->info.dir);
    if (m->p.store && part == VAE_DECODER) return store_vae(v, m->p.store, path, &m->p, e);
    return vae_open(v, m->p.device, path, part, precision_beside(m->p.precision), m->p.log, e);
}

/* Kept for the next run where there is a store. */
static void close_vae(struct model *m, struct vae *v)
{
    if (!m->p.store || v != m->p.store->vae) vae_close(v);
}

int model_decode(struct model *m, const float *latents, const struct model_clip *c, vae_sink sink,
                 void *ctx, struct err *e)
{
    struct vae *v;
    struct dit_grid g = model_grid(&m->info, c);
    if (make_room(m, c, e) < 0 || open_vae(m, &v, VAE_DECODER, e) < 0) return -1;
    int r = vae_decode(v, latents, g.frames, g.height, g.width, sink, ctx, e);
    close_vae(m, v);
    return r;
}

int model_decode_pictures(struct model *m, const float *latents, const struct model_clip *c,
                          bool truncate, vae_byte_sink sink, void *ctx, struct err *e)
{
    struct vae *v;
    struct dit_grid g = model_grid(&m->info, c);
    if (make_room(m, c, e) < 0 || open_vae(m, &v, VAE_DECODER, e) < 0) return -1;
    int r = vae_decode_pictures(v, latents, g.frames, g.height, g.width, truncate, sink, ctx, e);
    close_vae(m, v);
    return r;
}

int model_encode_frames(struct model *m, float *latents, const float *rgb,
                        const struct model_clip *c, struct err *e)
{
    struct vae *v;
    if (open_vae(m, &v, VAE_ENCODER, e) < 0) return -1;
    int r = vae_encode(v, latents, rgb, c->frames, c->height, c->width, e);
    vae_close(v);
    return r;
}
