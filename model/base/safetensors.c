/* Headers of safetensors files; see safetensors.h. */
#include "model/base/safetensors.h"

#include <string.h>

#define MAX_HEADER 100000000 /* bytes: the format's own limit */

int safetensors_open(struct safetensors *s, const uint8_t *bytes, size_t size, const char *path,
                     struct err *e)
{
    uint64_t header = 0;
    memset(s, 0, sizeof *s);
    if (size < 10)
        return err_set(e, ERR_INPUT, "%s: %zu bytes are too few; no safetensors file", path, size);
    for (int i = 7; i >= 0; i--)
        header = header << 8 | bytes[i];
    if (header < 2 || header > MAX_HEADER || header > size - 8)
        return err_set(e, ERR_INPUT,
                       "%s: header of %llu bytes in a file of %zu; the file is cut short "
                       "or no safetensors file",
                       path, (unsigned long long)header, size);
    if (bytes[8] != '{')
        return err_set(e, ERR_INPUT, "%s: header does not begin with '{'; no safetensors file",
                       path);
    s->data_at = 8 + (size_t)header;
    s->data = bytes + s->data_at;
    s->data_len = size - s->data_at;
    return json_parse(&s->root, (const char *)bytes + 8, (size_t)header, path, e);
}

void safetensors_close(struct safetensors *s)
{
    json_close(s->root);
    memset(s, 0, sizeof *s);
}

/* The shape, and the bytes that it and the type want. */
static int read_shape(struct tensor *t, size_t *bytes, const struct json *shape, const char *name,
                      const char *path, struct err *e)
{
    bool zero = false;
    *bytes = dtype_size(t->dtype);
    for (const struct json *d = json_first(shape); d; d = json_next(d)) {
        double v;
        if (!json_number(d, &v) || v < 0 || v > 9e15 || v != (double)(int64_t)v)
            return err_set(e, ERR_INPUT, "%s: %.200s has a dimension that is no size", path, name);
        t->shape[t->n_dims++] = (int64_t)v;
        if (v == 0)
            zero = true;
        else if (__builtin_mul_overflow(*bytes, (size_t)v, bytes))
            return err_set(e, ERR_INPUT, "%s: %.200s is larger than any memory", path, name);
    }
    if (zero) *bytes = 0;
    return 0;
}

int safetensors_read(struct safetensors_entry *entry, const struct safetensors *s,
                     const struct json *node, const char *path, struct err *e)
{
    const char *name = json_key(node), *dtype = json_string(json_get(node, "dtype"));
    const struct json *shape = json_get(node, "shape"), *offsets = json_get(node, "data_offsets");
    struct tensor *t = &entry->t;
    size_t bytes;
    double b, n;
    memset(entry, 0, sizeof *entry);
    if (!dtype || !json_is_array(shape) || !json_is_array(offsets) || json_count(offsets) != 2)
        return err_set(e, ERR_INPUT, "%s: %.200s lacks dtype, shape or data_offsets", path, name);
    int type = dtype_from_name(dtype);
    if (type < 0)
        return err_set(e, ERR_INPUT, "%s: %.200s has type %.20s, which is not supported", path,
                       name, dtype);
    if (json_count(shape) > TENSOR_MAX_DIMS)
        return err_set(e, ERR_INPUT, "%s: %.200s has %d dimensions, at most %d are supported", path,
                       name, json_count(shape), TENSOR_MAX_DIMS);
    t->dtype = (enum dtype)type;
    if (read_shape(t, &bytes, shape, name, path, e) < 0) return -1;
    if (!json_number(json_at(offsets, 0), &b) || !json_number(json_at(offsets, 1), &n) || b < 0 ||
        n < b || n > (double)s->data_len || b != (double)(size_t)b || n != (double)(size_t)n)
        return err_set(e, ERR_INPUT, "%s: %.200s has offsets outside the %zu bytes of data", path,
                       name, s->data_len);
    entry->begin = (size_t)b;
    entry->end = (size_t)n;
    if (entry->end - entry->begin != bytes)
        return err_set(e, ERR_INPUT, "%s: %.200s spans %zu bytes, its shape and type want %zu",
                       path, name, entry->end - entry->begin, bytes);
    t->data = s->data + entry->begin;
    return 0;
}
