/* Latents kept and read back: the tensor "latents" of a .safetensors file (--save-latents, states,
 * or the reference's).
 *
 * Checkpoints are the model room's. Owner: latents_read → latents_fini.
 * Hostile files are refused with ERR_INPUT, the path and what was seen. */
#ifndef DITGEN_APP_WRITERS_LATENTS_H
#define DITGEN_APP_WRITERS_LATENTS_H

#include "model/base/err.h"
#include "model/base/tensor.h"

#include <stdbool.h>

#define LATENTS_BLOCKS 8
#define LATENTS_KEPT 3
struct latents {
    int n_dims;
    int64_t shape[TENSOR_MAX_DIMS];
    size_t n; /* elements, at least 1 */
    float *values;
    /* further tensors "history.0", "history.1" ... of as many elements */
    int n_blocks;
    float *blocks[LATENTS_BLOCKS];
    /* further tensors "kept.0", "kept.1" of any length */
    int n_kept;
    float *kept[LATENTS_KEPT];
    size_t kept_len[LATENTS_KEPT];
    struct json *header; /* for latents_note() */
};

int latents_read(struct latents *l, const char *path, struct err *e);
/* A file in memory; path is for messages. */
int latents_parse(struct latents *l, const uint8_t *data, size_t size, const char *path,
                  struct err *e);
void latents_fini(struct latents *l);
/* A text of the file's metadata, or NULL; lives with l. */
const char *latents_note(const struct latents *l, const char *key);

/* Beside the latents: texts in the file's metadata, and further fp32 tensors of one axis. */
#define LATENTS_SETTINGS "ditgen" /* the key of the settings that a clip would carry */
struct latents_note {
    const char *key, *text;
};
struct latents_block {
    const char *name;
    const float *values;
    size_t n;
};
struct latents_file { /* all borrowed */
    const float *latents; /* [shape] */
    int shape[4]; /* channels, frames, height, width */
    const struct latents_note *notes;
    const struct latents_block *blocks;
    int n_notes, n_blocks;
};
/* Written aside and put in place as a whole; aside_check_file() is the caller's, before any work.
 * what: for messages, "latents". */
int latents_write(const struct latents_file *f, const char *path, const char *what, bool overwrite,
                  struct err *e);

#endif
