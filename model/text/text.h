/* Prompt → cleaned text → token ids → text_embeds. wan.md sections 1 and 2.
 *
 * Owner: open → close. Threads: read-only after open, except umt5_encode (one call at a time).
 * Errors: ERR_INPUT for files, ERR_RESOURCE for memory. */
#ifndef DITGEN_TEXT_TEXT_H
#define DITGEN_TEXT_TEXT_H

#include "model/base/arena.h"
#include "model/base/dtype.h"
#include "model/base/log.h"

#include <stdbool.h>
#include <stdint.h>

/* Refuses what is not UTF-8, ERR_USAGE, with the place. Surrogate pairs written as two (CESU-8) are
 * taken: prompt_clean() joins them. */
int prompt_check(const char *text, struct err *e);
/* wan.md 1.1: ftfy's fix_text without the mojibake guesser (when fix is true), HTML5 unescape
 * twice, white space squeezed. *out is a heap string the caller frees. Refuses what prompt_check()
 * does. */
int prompt_clean(char **out, const char *text, bool fix, struct err *e);

struct tokenizer;
/* dir/tokenizer.json, else dir/spiece.model, which gives the ids of the tokenizer.json that
 * transformers makes of it. class_name: what model_index.json calls the tokenizer, or NULL; only of
 * use to the latter. */
int tokenizer_open(struct tokenizer **t, const char *dir, const char *class_name, struct err *e);
void tokenizer_close(struct tokenizer *t);
/* text UTF-8, NUL-terminated. ids[max] receives *n <= max ids, </s> last; *truncated tells that the
 * text was longer (the last id is still </s>). */
int tokenizer_encode(const struct tokenizer *t, int *ids, int max, int *n, bool *truncated,
                     const char *text, struct err *e);
int tokenizer_vocab_size(const struct tokenizer *t); /* ids are below it */
const char *tokenizer_piece(const struct tokenizer *t, int id); /* NULL: no such id */

struct umt5_config {
    int vocab_size, d_model, d_ff, d_kv, n_heads, n_layers, buckets, max_distance;
    double eps;
};
/* Reads text_encoder/config.json; refuses wrong classes, activations and hostile sizes. */
int umt5_config_read(struct umt5_config *c, const char *path, struct err *e);

struct umt5;
/* Maps dir/model.safetensors (or shards). device: where it computes, which outlives it; NULL: the host.
 * There weights are streamed layer by layer from the map, so that a model larger than memory runs; a GPU
 * keeps them if it has the room, else they are streamed as well. precision as model/base/dtype.h. */
int umt5_open(struct umt5 **u, struct device *device, const char *dir, enum precision precision,
              const struct log *log, struct err *e);
/* Refuses what umt5_open would, by config and headers: no weight is read. */
int umt5_check(const char *dir, struct err *e);
void umt5_close(struct umt5 *u);
/* embeds [n, d_model] fp32 ← ids [n]; running on the n real tokens only is exact (wan.md 1.4).
 * progress may be NULL; returning nonzero cancels (ERR_CANCELLED). */
int umt5_encode(struct umt5 *u, float *embeds, const int *ids, int n,
                int (*progress)(void *ctx, int layer, int n_layers), void *ctx, struct err *e);
/* Peak bytes of the device (NULL: of the host, beyond the mapped file) for n tokens; reads no weights. 0:
 * it cannot run there. */
size_t umt5_bytes(const struct umt5_config *c, struct device *device, enum precision precision,
                  int n);
/* The same where its device has so much room: 0: no matrix stays there. */
size_t umt5_bytes_within(const struct umt5_config *c, struct device *device,
                         enum precision precision, int n, size_t room);

#endif
