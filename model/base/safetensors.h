/* A safetensors file in memory: its header, read as hostile input, and what one entry says.
 *
 * Format: wan.md 8.2. What tensors there must be, and that they fill the file, is for whoever asks
 * (model/weights, clips/latents). Owner: safetensors_open → safetensors_close; bytes are the
 * caller's and outlive it. path is for messages. Errors: ERR_INPUT, ERR_RESOURCE. */
#ifndef DITGEN_BASE_SAFETENSORS_H
#define DITGEN_BASE_SAFETENSORS_H

#include "model/base/err.h"
#include "model/base/json.h"
#include "model/base/tensor.h"

#include <stddef.h>
#include <stdint.h>

struct safetensors {
    struct json *root; /* names → entries, and perhaps "__metadata__" */
    const uint8_t *data; /* behind the header */
    size_t data_len, data_at; /* its bytes, and where it begins in the file */
};
int safetensors_open(struct safetensors *s, const uint8_t *bytes, size_t size, const char *path,
                     struct err *e);
void safetensors_close(struct safetensors *s); /* takes what is zeroed */

struct safetensors_entry {
    struct tensor t; /* t.data inside the data */
    size_t begin, end; /* in the data */
};
/* Type, shape and offsets of one child of root, which agree with each other and with the data. */
int safetensors_read(struct safetensors_entry *entry, const struct safetensors *s,
                     const struct json *node, const char *path, struct err *e);

#endif
