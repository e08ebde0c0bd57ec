/* text_encoder/config.json of a UMT5 encoder; see text.h. Sizes are bounded so that no product of
 * them leaves 63 bits: the largest real one (umt5-xxl) has 24 layers of 4096, 64 heads and 10240.
 */
#include "model/text/text.h"

#include "model/base/json.h"
#include "model/text/umt5.h"

#include <math.h>
#include <string.h>

/* Only UMT5 has a bias table in every layer; T5 shares the first one's. */
static int check_class(const struct json *o, const char *path, struct err *e)
{
    const char *type, *name = json_string(json_at(json_get(o, "architectures"), 0));
    if (json_read_string(o, path, "model_type", NULL, &type, e) < 0) return -1;
    bool ok = type ? strcmp(type, "umt5") == 0 : name && strncmp(name, "UMT5", 4) == 0;
    if (ok && name && strncmp(name, "UMT5", 4) != 0) ok = false;
    if (ok) return 0;
    return err_set(e, ERR_INPUT,
                   "%s: describes a \"%.60s\", wanted UMT5EncoderModel (model_type umt5)", path,
                   name   ? name
                   : type ? type
                          : "(nothing)");
}

static int check_activation(const struct json *o, const char *path, struct err *e)
{
    const char *ff, *act;
    if (json_read_string(o, path, "feed_forward_proj", "gated-gelu", &ff, e) < 0) return -1;
    if (strcmp(ff, "gated-gelu") != 0) /* which means gelu_new, the tanh form, gated */
        return err_set(e, ERR_INPUT, "%s: feed_forward_proj is \"%.40s\", wanted \"gated-gelu\"",
                       path, ff);
    if (json_read_string(o, path, "dense_act_fn", "gelu_new", &act, e) < 0) return -1;
    if (strcmp(act, "gelu_new") != 0)
        return err_set(e, ERR_INPUT, "%s: dense_act_fn is \"%.40s\", wanted \"gelu_new\"", path,
                       act);
    return 0;
}

/* Absent keys take UMT5Config's defaults. */
static int read_sizes(struct umt5_config *c, const struct json *o, const char *path, struct err *e)
{
    const struct {
        const char *key;
        int *to, lo, hi, fallback;
    } rows[] = {
        {"vocab_size", &c->vocab_size, 1, 1 << 22, 250112},
        {"d_model", &c->d_model, 1, 1 << 16, 512},
        {"d_ff", &c->d_ff, 1, 1 << 18, 1024},
        {"d_kv", &c->d_kv, 1, 1 << 12, 64},
        {"num_heads", &c->n_heads, 1, 1 << 12, 6},
        {"num_layers", &c->n_layers, 1, 1 << 10, 8},
        {"relative_attention_num_buckets", &c->buckets, 4, 1 << 12, 32},
        {"relative_attention_max_distance", &c->max_distance, 2, 1 << 20, 128},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (json_read_int(o, path, rows[i].key, rows[i].lo, rows[i].hi, rows[i].fallback,
                          rows[i].to, e) < 0)
            return -1;
    if (json_read_double(o, path, "layer_norm_epsilon", 1e-12, 0.1, 1e-6, &c->eps, e) < 0)
        return -1;
    if ((int64_t)c->n_heads * c->d_kv > 1 << 15)
        return err_set(e, ERR_INPUT, "%s: %d heads of %d are wider than 32768", path, c->n_heads,
                       c->d_kv);
    if (c->buckets % 4 || c->max_distance <= c->buckets / 4)
        return err_set(e, ERR_INPUT,
                       "%s: %d relative buckets up to distance %d; wanted a multiple of 4, and a "
                       "distance above a quarter of it",
                       path, c->buckets, c->max_distance);
    return 0;
}

int umt5_config_read(struct umt5_config *c, const char *path, struct err *e)
{
    struct json *root;
    memset(c, 0, sizeof *c);
    if (json_open(&root, path, e) < 0) return -1;
    int status = json_is_object(root) ? check_class(root, path, e)
                                      : err_set(e, ERR_INPUT, "%s: not a JSON object", path);
    if (status == 0) status = check_activation(root, path, e);
    if (status == 0) status = read_sizes(c, root, path, e);
    json_close(root);
    return status;
}

int umt5_bucket(int relative, int buckets, int max_distance)
{
    int half = buckets / 2, exact = half / 2;
    int side = relative > 0 ? half : 0, far = relative < 0 ? -relative : relative;
    if (far < exact) return side + far;
    /* the reference divides a float logarithm by a double one narrowed to float */
    float ratio = logf((float)far / (float)exact) / (float)log((double)max_distance / exact);
    int b = exact + (int)(ratio * (float)(half - exact));
    return side + (b < half - 1 ? b : half - 1);
}
