/* Merges low-rank adapters at open; see lora.h. Key forms and alpha: wan.md 8.3, first row. */
#include "model/dit/lora.h"

#include "model/base/json.h"
#include "model/base/threads.h"
#include "model/dit/lora_meta.h"
#include "model/weights/weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_RANK 65536

struct lora {
    struct weights *file;
    struct lora_meta *meta; /* NULL: the file has none */
    double strength;
    bool *used; /* a tensor of the file */
    int merged;
    bool check_only;
    float *weight, *bias; /* of the last merge */
};

int lora_open(struct lora **out, const char *path, double strength, struct err *e)
{
    *out = NULL;
    if (!isfinite(strength))
        return err_set(e, ERR_USAGE, "%s: the strength of an adapter must be a finite number",
                       path);
    struct lora *l = calloc(1, sizeof *l);
    if (!l) return err_set(e, ERR_RESOURCE, "no memory for the adapter");
    l->strength = strength;
    if (weights_open_file(&l->file, path, e) < 0) goto fail;
    l->used = calloc((size_t)weights_count(l->file) + 1, sizeof *l->used);
    if (!l->used) {
        err_set(e, ERR_RESOURCE, "no memory for the adapter");
        goto fail;
    }
    const char *meta = weights_metadata(l->file, "lora_adapter_metadata");
    if (meta && lora_meta_open(&l->meta, meta, path, e) < 0) goto fail;
    *out = l;
    return 0;
fail:
    lora_close(l);
    return -1;
}

void lora_check_only(struct lora *l) { l->check_only = true; }

void lora_close(struct lora *l)
{
    if (!l) return;
    lora_meta_close(l->meta);
    weights_close(l->file);
    free(l->used);
    free(l->weight);
    free(l->bias);
    free(l);
}

static const struct tensor *take(struct lora *l, const char *module, const char *tail)
{
    char key[256];
    snprintf(key, sizeof key, "transformer.%s%s", module, tail);
    const struct tensor *t = weights_find(l->file, key);
    if (t) l->used[weights_index(l->file, t)] = true;
    return t;
}

static float *to_f32(const struct tensor *t, struct err *e)
{
    size_t n = tensor_len(t);
    float *x = malloc(n ? n * sizeof *x : 1);
    if (!x) {
        err_set(e, ERR_RESOURCE, "no memory to merge an adapter (%zu values)", n);
        return NULL;
    }
    if (dtype_to_f32(x, t->data, t->dtype, n) < 0) {
        free(x);
        err_set(e, ERR_INPUT, "type %s cannot be merged", dtype_name(t->dtype));
        return NULL;
    }
    return x;
}

struct merge {
    float *w; /* [out, in] */
    const float *a, *b; /* [rank, in], [out, rank] */
    int64_t in, rank;
    float scale;
};

static void merge_row(void *ctx, int row, int worker)
{
    const struct merge *m = ctx;
    float *w = m->w + (size_t)row * (size_t)m->in;
    (void)worker;
    for (int64_t r = 0; r < m->rank; r++) {
        float s = m->scale * m->b[(int64_t)row * m->rank + r];
        const float *a = m->a + r * m->in;
        for (int64_t i = 0; i < m->in; i++)
            w[i] += s * a[i];
    }
}

static int merge_bias(struct lora *l, const struct tensor *delta, double scale, struct tensor *bias,
                      struct err *e)
{
    float *d = to_f32(delta, e);
    free(l->bias);
    l->bias = d ? to_f32(bias, e) : NULL;
    for (size_t i = 0; l->bias && i < tensor_len(bias); i++)
        l->bias[i] += (float)scale * d[i];
    free(d);
    if (!l->bias) return -1;
    bias->data = l->bias;
    bias->dtype = DTYPE_F32;
    return 0;
}

int lora_merge(struct lora *l, const char *module, struct tensor *weight, struct tensor *bias,
               struct err *e)
{
    if (!l) return 0;
    const struct tensor *a = take(l, module, ".lora_A.weight"),
                        *b = take(l, module, ".lora_B.weight");
    const struct tensor *b_bias = take(l, module, ".lora_B.bias");
    if (!a && !b && !b_bias) return 0;
    const char *path = weights_path(l->file);
    if (!a || !b)
        return err_set(e, ERR_INPUT, "%s: transformer.%s has no lora_%c.weight", path, module,
                       a ? 'B' : 'A');
    int64_t out = weight->shape[0], in = weight->shape[1], rank = a->n_dims ? a->shape[0] : 0;
    if (rank < 1 || rank > MAX_RANK || tensor_len(a) != (size_t)(rank * in) || b->n_dims < 2 ||
        b->shape[0] != out || tensor_len(b) != (size_t)(rank * out))
        return err_set(e, ERR_INPUT,
                       "%s: transformer.%s: lora_A has %zu values and lora_B %zu, wanted "
                       "[r, %lld] and [%lld, r] for one r; the adapter is for another model",
                       path, module, tensor_len(a), tensor_len(b), (long long)in, (long long)out);
    double scale = 1;
    if (l->meta && lora_meta_scale(l->meta, module, (int)rank, &scale, e) < 0)
        return err_wrap(e, "%s", path);
    scale *= l->strength;
    if (b_bias && tensor_len(b_bias) != tensor_len(bias))
        return err_set(e, ERR_INPUT, "%s: transformer.%s.lora_B.bias has %zu values, wanted %zu",
                       path, module, tensor_len(b_bias), tensor_len(bias));
    if (l->check_only) return 0;
    float *fa = to_f32(a, e), *fb = fa ? to_f32(b, e) : NULL;
    free(l->weight);
    l->weight = fb ? to_f32(weight, e) : NULL;
    if (l->weight) {
        struct merge m = {l->weight, fa, fb, in, rank, (float)scale};
        threads_run((int)out, merge_row, &m);
    }
    free(fa);
    free(fb);
    if (!l->weight) return err_wrap(e, "%s: transformer.%s", path, module);
    weight->data = l->weight;
    weight->dtype = DTYPE_F32;
    l->merged++;
    return b_bias ? merge_bias(l, b_bias, scale, bias, e) : 0;
}

int lora_all_used(const struct lora *l, struct err *e)
{
    int n = 0;
    const char *first = "";
    for (int i = weights_count(l->file); i-- > 0;) {
        if (l->used[i]) continue;
        weights_at(l->file, i, &first);
        n++;
    }
    if (!n) return 0;
    return err_set(e, ERR_INPUT,
                   "%s: %d keys name no linear layer of this model (%.200s%s); wanted "
                   "transformer.MODULE.lora_A.weight and lora_B.weight",
                   weights_path(l->file), n, first, n > 1 ? ", ..." : "");
}

int lora_modules(const struct lora *l) { return l->merged; }
