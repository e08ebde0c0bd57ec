/* One tensor of a safetensors file (format: wan.md 8.2); see latents.h. */
#include "app/clips/latents.h"

#include "model/base/file_map.h"
#include "model/base/json.h"

#include <stdlib.h>
#include <string.h>

#define HEADER_MAX 100000000 /* bytes: the format's own limit */

/* A number that counts something: whole, from 0 to what a double holds exactly. */
static bool whole(const struct json *n, uint64_t *v)
{
    double d;
    if (!json_number(n, &d) || d < 0 || d > 9007199254740992.0) return false;
    *v = (uint64_t)d;
    return (double)*v == d;
}

static int read_shape(struct latents *l, const struct json *shape, const char *path, struct err *e)
{
    uint64_t side, n = 1;
    if (!json_is_array(shape) || json_count(shape) > TENSOR_MAX_DIMS)
        return err_set(e, ERR_INPUT, "%s: its latents have no shape of at most %d axes", path,
                       TENSOR_MAX_DIMS);
    for (const struct json *d = json_first(shape); d; d = json_next(d)) {
        if (!whole(d, &side) || side < 1 || side > ((uint64_t)1 << 40) / n)
            return err_set(e, ERR_INPUT, "%s: axis %d of its latents is no size", path, l->n_dims);
        l->shape[l->n_dims++] = (int64_t)side;
        n *= side;
    }
    l->n = (size_t)n;
    return 0;
}

/* data: the part behind the header. */
static int read_tensor(struct latents *l, const struct json *t, const uint8_t *data, size_t size,
                       const char *path, struct err *e)
{
    const char *name = json_string(json_get(t, "dtype"));
    const struct json *offsets = json_get(t, "data_offsets");
    uint64_t begin, end;
    int dtype = name ? dtype_from_name(name) : -1;
    if (dtype < 0)
        return err_set(e, ERR_INPUT, "%s: its latents are %.20s", path,
                       name ? name : "of no dtype");
    if (read_shape(l, json_get(t, "shape"), path, e) < 0) return -1;
    if (json_count(offsets) != 2 || !whole(json_at(offsets, 0), &begin) ||
        !whole(json_at(offsets, 1), &end) || begin > end || end > size ||
        end - begin != l->n * dtype_size((enum dtype)dtype))
        return err_set(e, ERR_INPUT, "%s: its latents do not lie inside the file (cut short?)",
                       path);
    l->values = malloc(l->n * sizeof(float));
    if (!l->values) return err_set(e, ERR_RESOURCE, "%s: no memory for %zu latents", path, l->n);
    if (dtype_to_f32(l->values, data + begin, (enum dtype)dtype, l->n) < 0)
        return err_set(e, ERR_INPUT, "%s: its latents are %s, wanted F32, F16, BF16 or F64", path,
                       name);
    return 0;
}

int latents_parse(struct latents *l, const uint8_t *data, size_t size, const char *path,
                  struct err *e)
{
    uint64_t len = 0;
    struct json *root = NULL;
    memset(l, 0, sizeof *l);
    for (int i = 7; i >= 0 && size >= 8; i--)
        len = len << 8 | data[i];
    if (len < 2 || len > HEADER_MAX || len > size - 8)
        return err_set(e, ERR_INPUT,
                       "%s: no safetensors file (its header would be %llu bytes of %zu)", path,
                       (unsigned long long)len, size);
    if (json_parse(&root, (const char *)data + 8, (size_t)len, path, e) < 0) return -1;
    const struct json *t = json_get(root, "latents");
    int rc = t ? read_tensor(l, t, data + 8 + len, size - 8 - (size_t)len, path, e)
               : err_set(e, ERR_INPUT, "%s: no tensor \"latents\" in it", path);
    json_close(root);
    if (rc < 0) latents_fini(l);
    return rc;
}

int latents_read(struct latents *l, const char *path, struct err *e)
{
    struct file_map m;
    memset(l, 0, sizeof *l);
    if (file_map_open(&m, path, e) < 0) return -1;
    int rc = latents_parse(l, m.data, m.size, path, e);
    file_map_close(&m);
    return rc;
}

void latents_fini(struct latents *l)
{
    free(l->values);
    memset(l, 0, sizeof *l);
}
