/* A checkpoint's own attention tensors (a learned projection, gates): read by the names that the
 * attention stack asks for, handed to its methods, used by nobody else. */
#include "model/dit/dit_internal.h"

#include <stdio.h>
#include <stdlib.h>

struct dit_own {
    int n_names, n_layers;
    const char *names[DIT_MAX_OWN]; /* constants of methods */
    struct tensor *tensors; /* [layer][name], fp32; data NULL: the checkpoint has none */
};

void dit_own_close(struct dit_own *o)
{
    if (!o) return;
    for (int i = 0; o->tensors && i < o->n_layers * o->n_names; i++)
        free((void *)(uintptr_t)o->tensors[i].data);
    free(o->tensors);
    free(o);
}

/* Binds by the shape that it has: what it should be is the method's to say. */
static int read_one(struct tensor *to, struct weights *file, const char *name, int layer,
                    bool check, struct err *e)
{
    char full[160];
    if (snprintf(full, sizeof full, "blocks.%d.attn1.%s", layer, name) >= (int)sizeof full)
        return err_set(e, ERR_BUG, "the name of an attention tensor is too long: %.60s", name);
    const struct tensor *seen = weights_find(file, full);
    if (!seen) return 0;
    struct bind_row row = {full, 0, seen->n_dims, {0}, false};
    memcpy(row.shape, seen->shape, sizeof row.shape);
    struct tensor t;
    if (weights_bind(file, &t, &row, 1, layer, e) < 0) return -1;
    if (check) return 0;
    size_t n = tensor_len(&t);
    if (n > SIZE_MAX / sizeof(float)) return err_set(e, ERR_RESOURCE, "%s is too large", full);
    float *data = malloc((n ? n : 1) * sizeof *data);
    if (!data) return err_set(e, ERR_RESOURCE, "no memory for %s (%zu numbers)", full, n);
    dtype_to_f32(data, t.data, t.dtype, n);
    *to = t;
    to->data = data;
    to->dtype = DTYPE_F32;
    return 0;
}

int dit_own_open(struct dit_own **out, struct weights *file, const char *attention, int n_layers,
                 bool check, struct err *e)
{
    *out = NULL;
    struct dit_own *o = calloc(1, sizeof *o);
    if (!o) return err_set(e, ERR_RESOURCE, "no memory for attention's own tensors");
    o->n_layers = n_layers;
    if (attn_tensor_names(attention, o->names, DIT_MAX_OWN, e) < 0) goto fail;
    while (o->names[o->n_names])
        o->n_names++;
    o->tensors = calloc((size_t)n_layers * (size_t)o->n_names + 1, sizeof *o->tensors);
    if (!o->tensors) {
        err_set(e, ERR_RESOURCE, "no memory for attention's own tensors");
        goto fail;
    }
    for (int layer = 0; layer < n_layers; layer++)
        for (int i = 0; i < o->n_names; i++)
            if (read_one(&o->tensors[layer * o->n_names + i], file, o->names[i], layer, check, e) <
                0)
                goto fail;
    *out = o;
    return 0;
fail:
    dit_own_close(o);
    return -1;
}

const struct tensor *dit_own_tensor(void *own, int layer, const char *name)
{
    const struct dit_own *o = own;
    for (int i = 0; o && layer >= 0 && layer < o->n_layers && i < o->n_names; i++) {
        const struct tensor *t = &o->tensors[layer * o->n_names + i];
        if (strcmp(o->names[i], name) == 0) return t->data ? t : NULL;
    }
    return NULL;
}
