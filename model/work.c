/* What a run will take, before it: bytes by the code that carves them, operations by formula
 * (wan.md 9 and 4.9). */
#include "model/model.h"

struct dit_grid model_grid(const struct model_info *m, const struct model_clip *c)
{
    return (struct dit_grid){.frames = (c->frames - 1) / m->vae.scale_temporal + 1,
                             .height = c->height / m->vae.scale_spatial,
                             .width = c->width / m->vae.scale_spatial};
}

struct dit_run_params model_run_params(const struct model_info *m, const struct model_params *p,
                                       const struct model_clip *c, int text_rows)
{
    return (struct dit_run_params){.grid = model_grid(m, c),
                                   .n_steps = c->num_steps,
                                   .n_branches = c->guided ? 2 : 1,
                                   .max_text_rows = text_rows,
                                   .text_len = MODEL_TEXT_LEN,
                                   .collapse_pads = p->collapse_pads,
                                   .attn = &p->attn,
                                   .cache = p->cache};
}

int model_check_attention(struct attn_forecast *f, const struct model_info *m,
                          const struct model_params *p, const struct model_clip *c, struct err *e)
{
    struct dit_run_params r = model_run_params(m, p, c, MODEL_TEXT_LEN);
    struct attn_shape shape = dit_attn_shape(&m->dit, &r);
    struct arena count = {0};
    struct attn *a = NULL;
    int rc = attn_open(&a, &p->attn, &shape, &count, e);
    attn_close(a);
    return rc < 0 ? -1 : attn_forecast(f, &p->attn, &shape, e);
}

int model_time_planning(double *seconds, const struct attn_forecast *f, const struct model_info *m,
                        const struct model_params *p, const struct model_clip *c, struct err *e)
{
    struct dit_run_params r = model_run_params(m, p, c, MODEL_TEXT_LEN);
    struct attn_shape shape = dit_attn_shape(&m->dit, &r);
    *seconds = 0;
    if (f->planned[1] == 0) return 0;
    if (attn_time_planning(seconds, &p->attn, &shape, e) < 0) return -1;
    int threads = p->threads > 0 ? p->threads : 1;
    *seconds *= (f->plans + threads - 1) / threads; /* heads one after another on a thread */
    return 0;
}

#define ADDRESSES ((size_t)1 << 47) /* bytes that a process of a 64-bit system can have */

int model_check_cache(struct dit_cache_forecast *f, const struct model_info *m,
                      const struct model_params *p, const struct model_clip *c, struct err *e)
{
    struct dit_run_params r = model_run_params(m, p, c, MODEL_TEXT_LEN);
    return dit_cache_forecast(f, &m->dit, &r, e);
}

int model_plan_bytes(const struct model_info *m, const struct model_params *p,
                     const struct model_clip *c, int text_rows, size_t bytes[3], struct err *e)
{
    int below, above;
    model_frames_near(m, c->frames, &below, &above);
    if (below != c->frames) return err_set(e, ERR_BUG, "%d frames were not checked", c->frames);
    struct dit_run_params r = model_run_params(m, p, c, text_rows);
    enum precision beside = precision_beside(p->precision);
    bytes[0] = umt5_bytes(&m->text, p->device, beside, text_rows);
    if (dit_bytes(&bytes[1], &m->dit, p->precision, &r, e) < 0) return -1;
    if (vae_decode_bytes(&bytes[2], &m->vae, p->device, beside, r.grid.frames, r.grid.height,
                         r.grid.width, e) < 0)
        return -1;
    for (int i = 0; i < 3; i++)
        if (bytes[i] > ADDRESSES)
            return err_set(e, ERR_RESOURCE,
                           "%dx%d, %d frames: %s takes more memory than a process can have; try a "
                           "smaller size or fewer frames",
                           c->width, c->height, c->frames,
                           (const char *const[]){"the text encoder", "denoising", "decoding"}[i]);
    return 0;
}

static double linear_operations(const struct dit_config *c, double tokens)
{
    double d = (double)c->n_heads * c->head_dim;
    double layer = 12 * tokens * d * d + 4 * tokens * d * c->ffn_dim; /* q k v o, cross q o, ffn */
    double ends =
        2 * tokens * d * (c->in_channels + c->out_channels) * c->patch_t * c->patch_h * c->patch_w;
    return c->n_layers * layer + ends;
}

static double attn_operations(const struct dit_config *c, double tokens, double text_rows)
{
    double d = (double)c->n_heads * c->head_dim;
    return c->n_layers * (4 * tokens * tokens * d + 4 * tokens * text_rows * d);
}

/* wan.md 4.3: every 3x3x3 convolution of the decoder, level by level */
static double decode_operations(const struct vae_config *c, const struct dit_grid *g)
{
    int n = c->n_levels;
    double frames = g->frames, h = g->height, w = g->width;
    double base = c->decoder_base_dim;
    double width = base * c->dim_mult[n - 1], voxels = frames * h * w, t = frames;
    double sum = 54 * c->z_dim * width * voxels + 2 * 2 * 54 * width * width * voxels /* mid */ +
                 8 * width * width * voxels + 4 * h * w * h * w * frames * width;
    double in = width;
    for (int i = 0; i < n; i++) {
        double out = base * c->dim_mult[n - 1 - i];
        sum += 54 * (in * out + out * out) * voxels + 108 * out * out * voxels * c->num_res_blocks;
        in = out;
        if (i == n - 1) break;
        if (c->temporal_downsample[n - 2 - i]) {
            sum += 2 * 3 * out * 2 * out * voxels; /* time_conv */
            t = 1 + 2 * (t - 1);
        }
        h *= 2, w *= 2;
        voxels = t * h * w;
        double next = c->is_residual ? out : out / 2;
        sum += 18 * out * next * voxels;
        in = next;
    }
    return sum + 54 * in * c->out_channels * voxels;
}

void model_work(struct model_work *w, const struct model_info *m, const struct model_clip *c,
                int text_rows)
{
    const struct umt5_config *u = &m->text;
    struct dit_grid g = model_grid(m, c);
    w->tokens = dit_tokens(&m->dit, &g);
    w->linear = linear_operations(&m->dit, w->tokens);
    w->attn = attn_operations(&m->dit, w->tokens, text_rows);
    double width = (double)m->dit.n_heads * m->dit.head_dim;
    w->self = m->dit.n_layers * 4.0 * w->tokens * w->tokens * width;
    w->copied = m->dit.n_layers * 8.0 * w->tokens * width * width;
    w->decode = decode_operations(&m->vae, &g);
    w->text = 2.0 * text_rows * u->n_layers *
              (4.0 * u->d_model * u->n_heads * u->d_kv + 3.0 * u->d_model * u->d_ff);
}
