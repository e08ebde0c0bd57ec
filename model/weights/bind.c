/* Binds tensor names to struct fields by table, and tells what is missing, misshapen or left over.
 */
#include "model/weights/weights_internal.h"

#include <stdio.h>
#include <stdlib.h>

static bool is_float(enum dtype t)
{
    return t == DTYPE_F32 || t == DTYPE_BF16 || t == DTYPE_F16 || t == DTYPE_F64;
}

/* name with its one %d (if any) replaced by the layer. */
static void name_of(char *buf, size_t n, const char *name, int layer)
{
    const char *d = strstr(name, "%d");
    if (d)
        snprintf(buf, n, "%.*s%d%s", (int)(d - name), name, layer, d + 2);
    else
        snprintf(buf, n, "%s", name);
}

int weights_bind(struct weights *w, void *target, const struct bind_row *rows, int n_rows,
                 int layer, struct err *e)
{
    for (int i = 0; i < n_rows; i++) {
        const struct bind_row *r = &rows[i];
        struct tensor *out = (struct tensor *)(void *)((char *)target + r->offset);
        char name[256], want[128], seen[128];
        name_of(name, sizeof name, r->name, layer);
        const struct tensor *t = weights_find(w, name);
        if (!t && r->optional) {
            memset(out, 0, sizeof *out);
            continue;
        }
        tensor_shape_text(want, sizeof want, r->n_dims, r->shape);
        if (!t)
            return err_set(e, ERR_INPUT,
                           "%s: %s %s is missing; is this the checkpoint its config.json "
                           "describes?",
                           w->path, name, want);
        bool same = t->n_dims == r->n_dims;
        for (int d = 0; same && d < r->n_dims; d++)
            same = t->shape[d] == r->shape[d];
        if (!same) {
            tensor_shape_text(seen, sizeof seen, t->n_dims, t->shape);
            return err_set(e, ERR_INPUT, "%s: %s is %s, the config wants %s", w->path, name, seen,
                           want);
        }
        if (!is_float(t->dtype))
            return err_set(e, ERR_INPUT, "%s: %s has type %s, wanted F32, BF16, F16 or F64",
                           w->path, name, dtype_name(t->dtype));
        *out = *t;
        ((struct entry *)(void *)((char *)(uintptr_t)t - offsetof(struct entry, t)))->used = true;
    }
    return 0;
}

int weights_all_used(const struct weights *w, const char *const *ignore, struct err *e)
{
    char list[300] = "";
    int n = 0;
    for (int i = 0; i < w->n_entries; i++) {
        if (w->entries[i].used) continue;
        bool skip = false;
        for (const char *const *p = ignore; p && *p && !skip; p++)
            skip = strncmp(w->entries[i].name, *p, strlen(*p)) == 0;
        if (skip) continue;
        if (n < 3) {
            size_t at = strlen(list);
            snprintf(list + at, sizeof list - at, "%s%.80s", n ? ", " : "", w->entries[i].name);
        }
        n++;
    }
    if (!n) return 0;
    return err_set(e, ERR_INPUT,
                   "%s: %d tensors that the config has no place for (%s%s); the config and "
                   "the weights are of different models",
                   w->path, n, list, n > 3 ? ", ..." : "");
}
