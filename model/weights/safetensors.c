/* Checkpoints of one file or several: their tensors, which fill each file without holes or overlaps.
 * Headers are read by base/safetensors.h; binding is bind.c's. */
#include "model/weights/weights_internal.h"

#include "model/base/json.h"
#include "model/base/safetensors.h"

#include <stdio.h>
#include <stdlib.h>

static int add_entry(struct weights *w, const struct entry *add, struct err *e)
{
    if (w->n_entries == w->cap_entries) {
        int cap = w->cap_entries ? 2 * w->cap_entries : 256;
        struct entry *grown = realloc(w->entries, (size_t)cap * sizeof *grown);
        if (!grown) return err_set(e, ERR_RESOURCE, "no memory for %d tensor names", cap);
        w->entries = grown;
        w->cap_entries = cap;
    }
    w->entries[w->n_entries] = *add;
    w->entries[w->n_entries].name = strdup(add->name);
    if (!w->entries[w->n_entries].name)
        return err_set(e, ERR_RESOURCE, "no memory for tensor names");
    w->n_entries++;
    return 0;
}

static int by_begin(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

/* Maps one file and appends its tensors. */
static int open_shard(struct weights *w, const char *path, struct err *e)
{
    struct shard *s = &w->shards[w->n_shards];
    s->path = strdup(path);
    if (!s->path) return err_set(e, ERR_RESOURCE, "no memory");
    int index = w->n_shards++;
    if (file_map_open(&s->map, path, e) < 0) return -1;
    if (file_is_pointer((const char *)s->map.data, s->map.size, path, e)) return -1;
    struct safetensors file;
    if (safetensors_open(&file, s->map.data, s->map.size, path, e) < 0) return -1;
    int first = w->n_entries, r = -1;
    for (const struct json *n = json_first(file.root); n; n = json_next(n)) {
        struct safetensors_entry read;
        if (strcmp(json_key(n), "__metadata__") == 0) continue;
        if (safetensors_read(&read, &file, n, path, e) < 0) goto done;
        struct entry t = {.t = read.t, .begin = read.begin, .end = read.end, .file = index};
        t.name = (char *)(uintptr_t)json_key(n);
        if (add_entry(w, &t, e) < 0) goto done;
    }
    /* no holes, no overlaps, nothing after the last */
    if (w->n_entries > first) /* of none there is no array yet */
        qsort(w->entries + first, (size_t)(w->n_entries - first), sizeof *w->entries, by_begin);
    size_t at = 0;
    for (int i = first; i < w->n_entries; i++) {
        struct entry *t = &w->entries[i];
        if (t->begin != at) {
            err_set(e, ERR_INPUT, "%s: %.200s begins at byte %zu of the data, wanted %zu (%s)",
                    path, t->name, t->begin, at, t->begin < at ? "tensors overlap" : "a hole");
            goto done;
        }
        at = t->end;
    }
    if (at != file.data_len) {
        err_set(e, ERR_INPUT,
                "%s: tensors fill %zu bytes, the file holds %zu; cut short or damaged", path, at,
                file.data_len);
        goto done;
    }
    r = 0;
done:
    if (r == 0 && !w->metadata && json_get(file.root, "__metadata__"))
        w->metadata = file.root, file.root = NULL;
    safetensors_close(&file);
    return r;
}

static int finish(struct weights *w, struct err *e)
{
    if (w->n_entries) qsort(w->entries, (size_t)w->n_entries, sizeof *w->entries, by_name);
    for (int i = 1; i < w->n_entries; i++)
        if (strcmp(w->entries[i - 1].name, w->entries[i].name) == 0)
            return err_set(e, ERR_INPUT, "%s: tensor %.200s appears twice", w->path,
                           w->entries[i].name);
    return 0;
}

static int begin(struct weights **out, const char *path, int shards, struct err *e)
{
    struct weights *w = calloc(1, sizeof *w);
    *out = NULL;
    if (w) w->path = strdup(path);
    if (w) w->shards = calloc((size_t)(shards ? shards : 1), sizeof *w->shards);
    if (!w || !w->path || !w->shards) {
        weights_close(w);
        return err_set(e, ERR_RESOURCE, "%s: no memory to open it", path);
    }
    *out = w;
    return 0;
}

int weights_open_file(struct weights **out, const char *path, struct err *e)
{
    struct weights *w;
    *out = NULL;
    if (begin(&w, path, 1, e) < 0) return -1;
    if (open_shard(w, path, e) < 0 || finish(w, e) < 0) {
        weights_close(w);
        return -1;
    }
    *out = w;
    return 0;
}

/* Every tensor of the index must be in the shard it names, and no shard may hold others. */
static int check_index(const struct weights *w, const struct json *map, const char *path,
                       struct err *e)
{
    int n = 0;
    for (const struct json *m = json_first(map); m; m = json_next(m), n++) {
        const struct entry key = {.name = (char *)(uintptr_t)json_key(m)};
        const struct entry *t =
            bsearch(&key, w->entries, (size_t)w->n_entries, sizeof key, by_name);
        const char *slash = t ? strrchr(w->shards[t->file].path, '/') : NULL;
        if (!t || strcmp(slash ? slash + 1 : w->shards[t->file].path, json_string(m)) != 0)
            return err_set(e, ERR_INPUT, "%s: %.200s is not in %.100s as the index says", path,
                           json_key(m), json_string(m));
    }
    if (n != w->n_entries)
        return err_set(e, ERR_INPUT, "%s: names %d tensors, the shards hold %d", path, n,
                       w->n_entries);
    return 0;
}

static int open_index(struct weights **out, const char *dir, const char *path, struct err *e)
{
    struct json *root = NULL;
    struct weights *w = NULL;
    const char *files[MAX_SHARDS];
    int n = 0;
    if (json_open(&root, path, e) < 0) return -1;
    const struct json *map = json_get(root, "weight_map");
    if (weights_index_files(files, &n, map, path, e) < 0) goto fail;
    if (begin(&w, path, n, e) < 0) goto fail;
    for (int i = 0; i < n; i++) {
        char shard[4864];
        snprintf(shard, sizeof shard, "%s/%s", dir, files[i]);
        if (open_shard(w, shard, e) < 0) goto fail;
    }
    if (finish(w, e) < 0 || check_index(w, map, path, e) < 0) goto fail;
    json_close(root);
    *out = w;
    return 0;
fail:
    json_close(root);
    weights_close(w);
    return -1;
}

int weights_open(struct weights **w, const char *dir, const char *stem, struct err *e)
{
    struct weights_place p;
    *w = NULL;
    if (weights_locate(&p, dir, stem, e) < 0) return -1;
    return p.index ? open_index(w, dir, p.path, e) : weights_open_file(w, p.path, e);
}

void weights_close(struct weights *w)
{
    if (!w) return;
    for (int i = 0; i < w->n_shards; i++) {
        file_map_close(&w->shards[i].map);
        free(w->shards[i].path);
    }
    for (int i = 0; i < w->n_entries; i++)
        free(w->entries[i].name);
    free(w->entries);
    free(w->shards);
    free(w->path);
    json_close(w->metadata);
    free(w);
}

int weights_count(const struct weights *w) { return w->n_entries; }

const struct tensor *weights_at(const struct weights *w, int i, const char **name)
{
    if (name) *name = w->entries[i].name;
    return &w->entries[i].t;
}

const struct tensor *weights_find(const struct weights *w, const char *name)
{
    const struct entry key = {.name = (char *)(uintptr_t)name};
    const struct entry *t =
        w->n_entries ? bsearch(&key, w->entries, (size_t)w->n_entries, sizeof key, by_name) : NULL;
    return t ? &t->t : NULL;
}

int weights_index(const struct weights *w, const struct tensor *t)
{
    const char *e = (const char *)t - offsetof(struct entry, t);
    return (int)((e - (const char *)w->entries) / (ptrdiff_t)sizeof *w->entries);
}

const char *weights_path(const struct weights *w) { return w->path; }

const char *weights_metadata(const struct weights *w, const char *key)
{
    return json_string(json_get(json_get(w->metadata, "__metadata__"), key));
}

void weights_drop(const struct weights *w, const struct tensor *t)
{
    const unsigned char *p = t->data;
    for (int i = 0; i < w->n_shards; i++) {
        const struct file_map *m = &w->shards[i].map;
        if (p && p >= m->data && p < m->data + m->size)
            file_map_drop(m, (size_t)(p - m->data), tensor_len(t) * dtype_size(t->dtype));
    }
}
