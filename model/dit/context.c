/* What a clip is about: text and image rows become keys and values of every layer, once a run, which
 * the blocks' cross-attention reads at each step. */
#include "model/dit/dit_internal.h"

#include <math.h>
#include <string.h>

static float *kv_at(float *base, int n_layers, int branch, int layer, bool value, size_t each)
{
    return base +
           (((size_t)branch * (size_t)n_layers + (size_t)layer) * 2 + (value ? 1 : 0)) * each;
}

float *dit_text_kv(const struct dit_run *r, int n_layers, int branch, int layer, bool value)
{
    return kv_at(r->text_kv, n_layers, branch, layer, value,
                 (size_t)r->text_keys * (size_t)r->width);
}

float *dit_image_kv(const struct dit_run *r, int n_layers, int branch, int layer, bool value)
{
    return kv_at(r->image_kv, n_layers, branch, layer, value,
                 (size_t)r->p.image_rows * (size_t)r->width);
}

static int project(struct dit *d, struct linear *key, struct linear *value, const float *norm,
                   float *k, float *v, const float *in, int rows, struct err *e)
{
    struct dit_run *r = &d->run;
    if (linear_run(key, k, in, rows, r->scratch, e) < 0 ||
        linear_run(value, v, in, rows, r->scratch, e) < 0)
        return -1;
    struct rms_rope_params p = {.eps = (float)d->config.eps, .weight = norm, .round = r->round};
    rms_norm_rope(k, rows, r->width, &p);
    return 0;
}

int dit_set_context(struct dit *d, int branch, const float *text, int n, const float *image,
                    struct err *e)
{
    struct dit_run *r = &d->run;
    int n_layers = d->config.n_layers;
    if (!r->arena.base || branch < 0 || branch >= r->p.n_branches)
        return err_set(e, ERR_BUG, "dit_set_context: branch %d of a run that has %d", branch,
                       r->arena.base ? r->p.n_branches : 0);
    if (n < 0 || n > r->p.max_text_rows)
        return err_set(e, ERR_BUG, "dit_set_context: %d rows of text in a run sized for %d", n,
                       r->p.max_text_rows);
    if ((image != NULL) != (r->p.image_rows > 0))
        return err_set(e, ERR_BUG, "dit_set_context: the run is sized for %d image rows",
                       r->p.image_rows);
    if (dit_embed_text(d, text, n, e) < 0) return -1;
    if (image && dit_embed_image(d, image, e) < 0) return -1;
    for (int i = 0; i < n_layers; i++) {
        const struct dit_block *b = &d->blocks[i];
        if (project(d, b->xk, b->xv, b->xnorm_k, dit_text_kv(r, n_layers, branch, i, false),
                    dit_text_kv(r, n_layers, branch, i, true), r->text, r->text_keys, e) < 0)
            return -1;
        if (image &&
            project(d, b->ik, b->iv, b->inorm_k, dit_image_kv(r, n_layers, branch, i, false),
                    dit_image_kv(r, n_layers, branch, i, true), r->image, r->p.image_rows, e) < 0)
            return -1;
    }
    /* The text_len - n pad rows are one and the same key: it stands for all of them when their
     * number's logarithm is added to its score. Exact: wan.md 1.4. */
    float *bias = r->key_bias + (size_t)branch * (size_t)r->text_keys;
    bool collapse = r->p.collapse_pads && n < r->p.text_len;
    memset(bias, 0, (size_t)r->text_keys * sizeof *bias);
    if (collapse) bias[n] = (float)log((double)(r->p.text_len - n));
    r->context[branch].keys = collapse ? n + 1 : r->p.text_len;
    r->context[branch].biased = collapse;
    r->context[branch].set = true;
    return 0;
}
