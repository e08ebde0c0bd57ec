/* Latents read back: the tensor "latents" of a .safetensors file (--save-latents, or the
 * reference's).
 *
 * Only this one tensor: checkpoints are the model room's. Owner: latents_read → latents_fini.
 * Hostile files are refused with ERR_INPUT, the path and what was seen. */
#ifndef DITGEN_APP_WRITERS_LATENTS_H
#define DITGEN_APP_WRITERS_LATENTS_H

#include "model/base/err.h"
#include "model/base/tensor.h"

struct latents {
    int n_dims;
    int64_t shape[TENSOR_MAX_DIMS];
    size_t n; /* elements, at least 1 */
    float *values;
};

int latents_read(struct latents *l, const char *path, struct err *e);
/* A file in memory; path is for messages. */
int latents_parse(struct latents *l, const uint8_t *data, size_t size, const char *path,
                  struct err *e);
void latents_fini(struct latents *l);

#endif
