/* Reads transformer/config.json and counts tokens; see dit.h. Defaults: wan.md 0.1, 8.1. */
#include "model/dit/dit.h"

#include "model/base/json.h"

#include <string.h>

/* Largest sizes taken from a file: far above any model of the family, far below what would overflow
 * an int where rows and columns are counted. */
#define MAX_HEADS 1024
#define MAX_HEAD_DIM 256
#define MAX_WIDTH 65536
#define MAX_FEATURES 1048576
#define MAX_LAYERS 1024
#define MAX_CHANNELS 4096
#define MAX_PATCH 16

static int read_patch(struct dit_config *c, const struct json *o, const char *path, struct err *e)
{
    int v[3] = {1, 2, 2}, n;
    if (json_read_ints(o, path, "patch_size", 1, MAX_PATCH, 3, v, &n, e) < 0) return -1;
    if (n != -1 && n != 3)
        return err_set(e, ERR_INPUT, "%s: patch_size has %d entries, wanted 3: time, height, width",
                       path, n);
    if (v[0] != 1)
        return err_set(e, ERR_INPUT,
                       "%s: patch_size is [%d, %d, %d]; only 1 latent frame a patch is "
                       "supported",
                       path, v[0], v[1], v[2]);
    c->patch_t = v[0];
    c->patch_h = v[1];
    c->patch_w = v[2];
    return 0;
}

/* The image branch of Wan2.1 image-to-video: both keys or neither. */
static int read_image(struct dit_config *c, const struct json *o, const char *path, struct err *e)
{
    int width = c->n_heads * c->head_dim;
    if (json_read_int(o, path, "image_dim", 1, MAX_WIDTH, 0, &c->image_dim, e) < 0 ||
        json_read_int(o, path, "added_kv_proj_dim", 1, MAX_WIDTH, 0, &c->added_kv_proj_dim, e) <
            0 ||
        json_read_int(o, path, "pos_embed_seq_len", 1, MAX_WIDTH, 0, &c->pos_embed_seq_len, e) < 0)
        return -1;
    if ((c->image_dim > 0) != (c->added_kv_proj_dim > 0))
        return err_set(e, ERR_INPUT,
                       "%s: image_dim and added_kv_proj_dim must be set together, here "
                       "they are %d and %d (0: not set)",
                       path, c->image_dim, c->added_kv_proj_dim);
    if (c->added_kv_proj_dim && c->added_kv_proj_dim != width)
        return err_set(e, ERR_INPUT,
                       "%s: added_kv_proj_dim is %d, wanted num_attention_heads * "
                       "attention_head_dim = %d",
                       path, c->added_kv_proj_dim, width);
    if (c->pos_embed_seq_len && !c->image_dim)
        return err_set(e, ERR_INPUT, "%s: pos_embed_seq_len is %d, but there is no image_dim", path,
                       c->pos_embed_seq_len);
    return 0;
}

static int check_class(const struct json *o, const char *path, struct err *e)
{
    const char *name, *qk_norm;
    if (json_read_string(o, path, "_class_name", "none", &name, e) < 0) return -1;
    if (strcmp(name, "WanTransformer3DModel") != 0)
        return err_set(e, ERR_INPUT, "%s: the class is %.60s, wanted WanTransformer3DModel", path,
                       name);
    /* the reference ignores null and norms all the same */
    if (json_read_string(o, path, "qk_norm", "rms_norm_across_heads", &qk_norm, e) < 0) return -1;
    if (strcmp(qk_norm, "rms_norm_across_heads") != 0)
        return err_set(e, ERR_INPUT,
                       "%s: qk_norm is \"%.60s\", only \"rms_norm_across_heads\" is "
                       "supported",
                       path, qk_norm);
    if (!json_is_null(json_get(o, "quantization_config")))
        return err_set(e, ERR_INPUT,
                       "%s: quantization_config is set; only plain weights (F32, BF16, "
                       "F16) can be read",
                       path);
    return 0;
}

static int read_fields(struct dit_config *c, const struct json *o, const char *path, struct err *e)
{
    if (json_read_int(o, path, "num_attention_heads", 1, MAX_HEADS, 40, &c->n_heads, e) < 0 ||
        json_read_int(o, path, "attention_head_dim", 2, MAX_HEAD_DIM, 128, &c->head_dim, e) < 0 ||
        json_read_int(o, path, "in_channels", 1, MAX_CHANNELS, 16, &c->in_channels, e) < 0 ||
        json_read_int(o, path, "text_dim", 1, MAX_WIDTH, 4096, &c->text_dim, e) < 0 ||
        json_read_int(o, path, "freq_dim", 2, MAX_WIDTH, 256, &c->freq_dim, e) < 0 ||
        json_read_int(o, path, "ffn_dim", 1, MAX_FEATURES, 13824, &c->ffn_dim, e) < 0 ||
        json_read_int(o, path, "num_layers", 1, MAX_LAYERS, 40, &c->n_layers, e) < 0 ||
        json_read_bool(o, path, "cross_attn_norm", true, &c->cross_attn_norm, e) < 0 ||
        json_read_double(o, path, "eps", 1e-30, 1, 1e-6, &c->eps, e) < 0 ||
        json_read_int(o, path, "rope_max_seq_len", 1, MAX_FEATURES, 1024, &c->rope_max_seq_len, e) <
            0)
        return -1;
    /* absent is 16, null is as many as go in */
    const struct json *out = json_get(o, "out_channels");
    int fallback = out ? c->in_channels : 16;
    if (json_read_int(o, path, "out_channels", 1, MAX_CHANNELS, fallback, &c->out_channels, e) < 0)
        return -1;
    if (c->head_dim % 2)
        return err_set(e, ERR_INPUT,
                       "%s: attention_head_dim is %d; rotary embeddings want an even "
                       "number",
                       path, c->head_dim);
    if (c->freq_dim % 2)
        return err_set(e, ERR_INPUT, "%s: freq_dim is %d, wanted an even number", path,
                       c->freq_dim);
    if (c->n_heads * c->head_dim > MAX_WIDTH)
        return err_set(e, ERR_INPUT,
                       "%s: num_attention_heads * attention_head_dim is %d, at most %d is "
                       "supported",
                       path, c->n_heads * c->head_dim, MAX_WIDTH);
    return 0;
}

int dit_config_read(struct dit_config *c, const char *path, struct err *e)
{
    struct json *o = NULL;
    *c = (struct dit_config){0};
    if (json_open(&o, path, e) < 0) return -1;
    int r = -1;
    if (!json_is_object(o)) {
        err_set(e, ERR_INPUT, "%s: not a JSON object", path);
        goto done;
    }
    if (check_class(o, path, e) < 0 || read_fields(c, o, path, e) < 0 ||
        read_patch(c, o, path, e) < 0 || read_image(c, o, path, e) < 0)
        goto done;
    r = 0;
done:
    json_close(o);
    return r;
}

int dit_tokens(const struct dit_config *c, const struct dit_grid *g)
{
    return g->frames / c->patch_t * (g->height / c->patch_h) * (g->width / c->patch_w);
}
