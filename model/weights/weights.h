/* Checkpoints on disk: safetensors, single or sharded, memory-mapped, every byte of the header
 * checked (format: wan.md 8.2), and tables that bind names to struct fields.
 *
 * Owner: weights_open → weights_close; tensors borrow the map. Threads: read-only after open.
 * Errors: ERR_INPUT, with file, tensor, what was seen and what was wanted. */
#ifndef DITGEN_WEIGHTS_WEIGHTS_H
#define DITGEN_WEIGHTS_WEIGHTS_H

#include "model/base/err.h"
#include "model/base/tensor.h"

#include <stdbool.h>

struct weights; /* one checkpoint: one file, or an index and its shards */

/* dir/stem.safetensors, else dir/stem.safetensors.index.json with its shards, else the same as the
 * one variant that is there (stem.fp16.safetensors, stem.safetensors.index.fp16.json). */
int weights_open(struct weights **w, const char *dir, const char *stem, struct err *e);
/* Bytes of those files; 0 when weights_open() would not find them. Opens none of them. */
size_t weights_on_disk(const char *dir, const char *stem);
/* One file by path. */
int weights_open_file(struct weights **w, const char *path, struct err *e);
void weights_close(struct weights *w); /* takes NULL */

int weights_count(const struct weights *w);
/* Sorted by name. name may be NULL. */
const struct tensor *weights_at(const struct weights *w, int i, const char **name);
const struct tensor *weights_find(const struct weights *w, const char *name); /* NULL: none */
int weights_index(const struct weights *w, const struct tensor *t); /* of a tensor of w */
const char *weights_path(const struct weights *w); /* for messages */
/* The value of a key of __metadata__ (first file), or NULL. */
const char *weights_metadata(const struct weights *w, const char *key);
/* Tells the system the tensor's pages will not be needed soon. */
void weights_drop(const struct weights *w, const struct tensor *t);

/* A row of a bind table: printf name with one %d for the layer, where the view goes, its shape. */
struct bind_row {
    const char *name;
    size_t offset; /* of a `struct tensor` in the target */
    int n_dims;
    int64_t shape[TENSOR_MAX_DIMS]; /* exact */
    bool optional; /* a miss leaves n_dims = 0, data = NULL */
};
/* Binds rows of one layer (layer is put into %d; ignored by names without). Marks tensors as used.
 * Wrong or missing → "PATH: NAME is [a, b], CONFIG wants [c, d]". Integer dtypes are refused. */
int weights_bind(struct weights *w, void *target, const struct bind_row *rows, int n_rows,
                 int layer, struct err *e);
/* After all binds: error naming the first tensors that nothing used, except those that match one of
 * the NULL-terminated `ignore` prefixes. Surplus tensors mean the wrong checkpoint. */
int weights_all_used(const struct weights *w, const char *const *ignore, struct err *e);

#endif
