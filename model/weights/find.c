/* Which file of a folder holds the weights: plain, sharded, or saved as a variant (fp16, bf16, ..)
 * by diffusers and transformers, whose names differ from the plain ones by a word. */
#include "model/weights/weights_internal.h"

#include "model/base/json.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define TAIL ".safetensors"
#define INDEX ".safetensors.index"

static bool there(const char *path) { return access(path, F_OK) == 0; }

/* The length of the variant's word in stem.WORD.safetensors or stem.safetensors.index.WORD.json; 0
 * for other names, shards among them. */
static size_t variant_of(const char *name, const char *stem, bool *index, const char **word)
{
    size_t n = strlen(stem), len = strlen(name);
    if (len < n || strncmp(name, stem, n) != 0) return 0;
    const char *rest = name + n, *tail = ".json";
    *index = strncmp(rest, INDEX ".", strlen(INDEX ".")) == 0;
    *word = *index ? rest + strlen(INDEX ".") : rest + 1;
    if (!*index) tail = TAIL;
    size_t at = strlen(*word), end = strlen(tail);
    if (rest[0] != '.' || at <= end || strcmp(*word + at - end, tail) != 0) return 0;
    at -= end;
    return strcspn(*word, ".") == at && !strstr(*word, "-of-") ? at : 0;
}

int weights_locate(struct weights_place *p, const char *dir, const char *stem, struct err *e)
{
    int n = snprintf(p->path, sizeof p->path, "%s/%s" TAIL, dir, stem), found = 0;
    if (n < 0 || (size_t)n + 300 > sizeof p->path)
        return err_set(e, ERR_INPUT, "%.200s...: the path is too long", dir);
    p->index = false;
    if (there(p->path)) return 0;
    snprintf(p->path, sizeof p->path, "%s/%s" INDEX ".json", dir, stem);
    p->index = true;
    if (there(p->path)) return 0;

    char first[256] = "", other[256] = "";
    DIR *d = opendir(dir);
    if (!d && (errno == ENOMEM || errno == EMFILE || errno == ENFILE))
        return err_set(e, ERR_RESOURCE, "%s: cannot be listed: %s", dir, strerror(errno));
    for (struct dirent *f; d && (f = readdir(d)) != NULL;) {
        const char *word;
        bool index;
        if (!variant_of(f->d_name, stem, &index, &word)) continue;
        snprintf(found++ ? other : first, sizeof first, "%s", f->d_name);
        if (found == 1) p->index = index;
    }
    if (d) closedir(d);
    if (found == 1) {
        snprintf(p->path, sizeof p->path, "%s/%s", dir, first);
        return 0;
    }
    if (found)
        return err_set(e, ERR_INPUT,
                       "%s: holds %s and %s, and no %s" TAIL "; leave the one that is meant", dir,
                       first, other, stem);
    return err_set(e, ERR_INPUT, "%s/%s" TAIL ": no such file, and no %s" INDEX ".json beside it",
                   dir, stem, stem);
}

int weights_index_files(const char *files[MAX_SHARDS], int *n, const struct json *map,
                        const char *path, struct err *e)
{
    *n = 0;
    if (!json_is_object(map)) return err_set(e, ERR_INPUT, "%s: has no weight_map", path);
    for (const struct json *m = json_first(map); m; m = json_next(m)) {
        const char *f = json_string(m);
        if (!f || !*f || strchr(f, '/') || strstr(f, "..") || strlen(f) > NAME_MAX)
            return err_set(e, ERR_INPUT, "%s: %.200s names a file outside the folder", path,
                           json_key(m));
        int i = 0;
        while (i < *n && strcmp(files[i], f) != 0)
            i++;
        if (i < *n) continue;
        if (*n == MAX_SHARDS)
            return err_set(e, ERR_INPUT, "%s: more than %d shards", path, MAX_SHARDS);
        files[(*n)++] = f;
    }
    return 0;
}

static size_t size_of(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) ? (size_t)st.st_size : 0;
}

size_t weights_on_disk(const char *dir, const char *stem)
{
    struct weights_place p;
    struct err e;
    struct json *root;
    const char *files[MAX_SHARDS];
    int n;
    size_t total = 0;
    if (weights_locate(&p, dir, stem, &e) < 0) return 0;
    if (!p.index) return size_of(p.path);
    if (json_open(&root, p.path, &e) < 0) return 0;
    if (weights_index_files(files, &n, json_get(root, "weight_map"), p.path, &e) < 0) n = 0;
    for (int i = 0; i < n; i++) {
        char path[sizeof p.path + NAME_MAX + 2];
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        total += size_of(path);
    }
    json_close(root);
    return total;
}
