/* One tensor of a safetensors file (format: wan.md 8.2); see latents.h. */
#include "app/clips/latents.h"

#include "model/base/file_map.h"
#include "model/base/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The values of one tensor of n elements, heap. */
static int read_values(float **values, size_t n, const struct tensor *t, const char *path,
                       struct err *e)
{
    if (tensor_len(t) != n)
        return err_set(e, ERR_INPUT, "%s: %zu values, wanted %zu", path, tensor_len(t), n);
    *values = malloc(n * sizeof(float));
    if (!*values) return err_set(e, ERR_RESOURCE, "%s: no memory for %zu latents", path, n);
    if (dtype_to_f32(*values, t->data, t->dtype, n) < 0)
        return err_set(e, ERR_INPUT, "%s: its latents are %s, wanted F32, F16, BF16 or F64", path,
                       dtype_name(t->dtype));
    return 0;
}

static int read_kept(struct latents *l, const struct safetensors *s, const char *path,
                     struct err *e)
{
    for (; l->n_kept < LATENTS_KEPT; l->n_kept++) {
        struct safetensors_entry entry;
        char name[32];
        snprintf(name, sizeof name, "kept.%d", l->n_kept);
        const struct json *t = json_get(s->root, name);
        if (!t) break;
        if (safetensors_read(&entry, s, t, path, e) < 0) return -1;
        size_t n = tensor_len(&entry.t);
        if (!n) return err_set(e, ERR_INPUT, "%s: its %s is empty", path, name);
        l->kept_len[l->n_kept] = n;
        if (read_values(&l->kept[l->n_kept], n, &entry.t, path, e) < 0) {
            l->n_kept++; /* may hold memory */
            return err_wrap(e, "%s", name);
        }
    }
    return 0;
}

static int read_all(struct latents *l, const struct safetensors *s, const char *path, struct err *e)
{
    struct safetensors_entry entry;
    const struct json *t = json_get(s->root, "latents");
    if (!t) return err_set(e, ERR_INPUT, "%s: no tensor \"latents\" in it", path);
    if (safetensors_read(&entry, s, t, path, e) < 0) return -1;
    l->n_dims = entry.t.n_dims;
    memcpy(l->shape, entry.t.shape, sizeof l->shape);
    l->n = tensor_len(&entry.t);
    if (!l->n) return err_set(e, ERR_INPUT, "%s: its latents are empty", path);
    if (read_values(&l->values, l->n, &entry.t, path, e) < 0) return -1;
    for (; l->n_blocks < LATENTS_BLOCKS; l->n_blocks++) {
        char name[32];
        snprintf(name, sizeof name, "history.%d", l->n_blocks);
        t = json_get(s->root, name);
        if (!t) break;
        if (safetensors_read(&entry, s, t, path, e) < 0) return -1;
        if (read_values(&l->blocks[l->n_blocks], l->n, &entry.t, path, e) < 0) {
            l->n_blocks++; /* may hold memory */
            return err_wrap(e, "%s", name);
        }
    }
    return read_kept(l, s, path, e);
}

int latents_parse(struct latents *l, const uint8_t *data, size_t size, const char *path,
                  struct err *e)
{
    struct safetensors s;
    memset(l, 0, sizeof *l);
    if (safetensors_open(&s, data, size, path, e) < 0) return -1;
    l->header = s.root;
    int rc = read_all(l, &s, path, e);
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
    for (int i = 0; i < l->n_kept; i++)
        free(l->kept[i]);
    json_close(l->header);
    memset(l, 0, sizeof *l);
}
