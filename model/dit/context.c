/* What a clip is about: text and image rows become keys and values of every layer, once a run, which
 * the blocks' cross-attention reads at each step. */
#include "model/dit/dit_internal.h"

#include <math.h>

static struct rows kv_at(const struct dit_run *r, char *base, int n_layers, int branch, int layer,
                         bool value, int keys)
{
    size_t each = (size_t)keys * (size_t)r->width * dtype_size(r->act);
    size_t at = ((size_t)branch * (size_t)n_layers + (size_t)layer) * 2 + (value ? 1 : 0);
    return rows_of(r->device, base + at * each, r->act, keys, r->width);
}

struct rows dit_text_kv(const struct dit_run *r, int n_layers, int branch, int layer, bool value)
{
    return kv_at(r, r->text_kv, n_layers, branch, layer, value, r->text_keys);
}

struct rows dit_image_kv(const struct dit_run *r, int n_layers, int branch, int layer, bool value)
{
    return kv_at(r, r->image_kv, n_layers, branch, layer, value, r->p.image_rows);
}

static int project(struct dit *d, struct op_linear *key, struct op_linear *value, const float *norm,
                   struct rows k, struct rows v, const struct rows *in, struct err *e)
{
    struct dit_run *r = &d->run;
    struct rms_rope_params p = {.eps = (float)d->config.eps, .weight = norm, .round = r->round};
    if (r->ops->linear(key, &k, in, r->scratch, e) < 0 ||
        r->ops->linear(value, &v, in, r->scratch, e) < 0)
        return -1;
    return r->ops->rms_rope(r->device, &k, &p, 1, e);
}

/* What was embedded, as keys and values of one layer. */
static int project_layer(struct dit *d, int branch, int i, bool image, struct err *e)
{
    struct dit_run *r = &d->run;
    const struct dit_block *b = &d->blocks[i];
    int n = d->config.n_layers;
    if (dit_stream_take(d, i, e) < 0 ||
        project(d, b->xk, b->xv, b->xnorm_k, dit_text_kv(r, n, branch, i, false),
                dit_text_kv(r, n, branch, i, true), &r->text, e) < 0)
        return -1;
    if (image && project(d, b->ik, b->iv, b->inorm_k, dit_image_kv(r, n, branch, i, false),
                         dit_image_kv(r, n, branch, i, true), &r->image, e) < 0)
        return -1;
    return dit_stream_leave(d, i, e);
}

/* The text_len - n pad rows are one and the same key: it stands for all of them when their number's
 * logarithm is added to its score. Exact: wan.md 1.4. */
static int set_bias(struct dit_run *r, int branch, int n, struct err *e)
{
    float *bias = r->key_bias + (size_t)branch * (size_t)r->text_keys;
    bool collapse = r->p.collapse_pads && n < r->p.text_len;
    if (device_zero(r->device, bias, (size_t)r->text_keys * sizeof *bias, e) < 0) return -1;
    float more = (float)log((double)(r->p.text_len - n));
    if (collapse && device_upload(r->device, bias + n, &more, sizeof more, e) < 0) return -1;
    r->context[branch].keys = collapse ? n + 1 : r->p.text_len;
    r->context[branch].biased = collapse;
    return 0;
}

int dit_set_context_rows(struct dit *d, int branch, const struct rows *text,
                         const struct rows *image, struct err *e)
{
    struct dit_run *r = &d->run;
    int n_layers = d->config.n_layers;
    if (!r->arena.base || branch < 0 || branch >= r->p.n_branches)
        return err_set(e, ERR_BUG, "dit_set_context: branch %d of a run that has %d", branch,
                       r->arena.base ? r->p.n_branches : 0);
    if (text->n < 0 || text->n > r->p.max_text_rows)
        return err_set(e, ERR_BUG, "dit_set_context: %d rows of text in a run sized for %d",
                       (int)text->n, r->p.max_text_rows);
    if ((image != NULL) != (r->p.image_rows > 0))
        return err_set(e, ERR_BUG, "dit_set_context: the run is sized for %d image rows",
                       r->p.image_rows);
    if (dit_embed_text(d, text, e) < 0) return -1;
    if (image && dit_embed_image(d, image, e) < 0) return -1;
    int rc = dit_stream_begin(d, 0, n_layers, true, e);
    for (int i = 0; i < n_layers && rc == 0; i++)
        rc = project_layer(d, branch, i, image != NULL, e);
    if (dit_stream_end(d, rc, e) < 0) return -1;
    if (set_bias(r, branch, (int)text->n, e) < 0) return -1;
    r->context[branch].set = true;
    return 0;
}

int dit_set_context(struct dit *d, int branch, const float *text, int n, const float *image,
                    struct err *e)
{
    struct rows t = rows_of(NULL, (void *)(uintptr_t)text, DTYPE_F32, n, d->config.text_dim);
    struct rows i = rows_of(NULL, (void *)(uintptr_t)image, DTYPE_F32, d->run.p.image_rows,
                            d->config.image_dim);
    return dit_set_context_rows(d, branch, &t, image ? &i : NULL, e);
}
