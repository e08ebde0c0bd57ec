/* One tensor of a safetensors file (format: wan.md 8.2); see latents.h. */
#include "app/clips/latents.h"

#include "model/base/file_map.h"
#include "model/base/json.h"

#include <stdio.h>
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
    l->n_dims = 0;
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

/* The values of one tensor, of l's shape, heap. data: the part behind the header. */
static int read_values(float **values, struct latents *l, const struct json *t, const uint8_t *data,
                       size_t size, const char *path, struct err *e)
{
    const char *name = json_string(json_get(t, "dtype"));
    const struct json *offsets = json_get(t, "data_offsets");
    uint64_t begin, end;
    int dtype = name ? dtype_from_name(name) : -1;
    if (dtype < 0)
        return err_set(e, ERR_INPUT, "%s: its latents are %.20s", path,
                       name ? name : "of no dtype");
    if (json_count(offsets) != 2 || !whole(json_at(offsets, 0), &begin) ||
        !whole(json_at(offsets, 1), &end) || begin > end || end > size ||
        end - begin != l->n * dtype_size((enum dtype)dtype))
        return err_set(e, ERR_INPUT, "%s: its latents do not lie inside the file (cut short?)",
                       path);
    *values = malloc(l->n * sizeof(float));
    if (!*values) return err_set(e, ERR_RESOURCE, "%s: no memory for %zu latents", path, l->n);
    if (dtype_to_f32(*values, data + begin, (enum dtype)dtype, l->n) < 0)
        return err_set(e, ERR_INPUT, "%s: its latents are %s, wanted F32, F16, BF16 or F64", path,
                       name);
    return 0;
}

static int read_all(struct latents *l, const uint8_t *data, size_t size, const char *path,
                    struct err *e)
{
    const struct json *t = json_get(l->header, "latents");
    if (!t) return err_set(e, ERR_INPUT, "%s: no tensor \"latents\" in it", path);
    if (read_shape(l, json_get(t, "shape"), path, e) < 0) return -1;
    if (read_values(&l->values, l, t, data, size, path, e) < 0) return -1;
    for (; l->n_blocks < LATENTS_BLOCKS; l->n_blocks++) {
        char name[32];
        snprintf(name, sizeof name, "history.%d", l->n_blocks);
        t = json_get(l->header, name);
        if (!t) break;
        if (read_values(&l->blocks[l->n_blocks], l, t, data, size, path, e) < 0) {
            l->n_blocks++; /* may hold memory */
            return err_wrap(e, "%s", name);
        }
    }
    return 0;
}

int latents_parse(struct latents *l, const uint8_t *data, size_t size, const char *path,
                  struct err *e)
{
    uint64_t len = 0;
    memset(l, 0, sizeof *l);
    for (int i = 7; i >= 0 && size >= 8; i--)
        len = len << 8 | data[i];
    if (len < 2 || len > HEADER_MAX || len > size - 8)
        return err_set(e, ERR_INPUT,
                       "%s: no safetensors file (its header would be %llu bytes of %zu)", path,
                       (unsigned long long)len, size);
    if (json_parse(&l->header, (const char *)data + 8, (size_t)len, path, e) < 0) return -1;
    int rc = read_all(l, data + 8 + len, size - 8 - (size_t)len, path, e);
    if (rc < 0) latents_fini(l);
    return rc;
}

const char *latents_note(const struct latents *l, const char *key)
{
    return json_string(json_get(json_get(l->header, "__metadata__"), key));
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
    for (int i = 0; i < l->n_blocks; i++)
        free(l->blocks[i]);
    json_close(l->header);
    memset(l, 0, sizeof *l);
}
