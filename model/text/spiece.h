/* Folders that hold a spiece.model and no tokenizer.json, through the sentencepiece library when
 * ditgen was built with it. Without it spiece_open() is one clear error.
 *
 * Differs from tokenizer.json of the same model on repeated and outer spaces, unknown characters
 * and rare combining sequences (wan.md 1.3). Owner: spiece_open → spiece_close. */
#ifndef DITGEN_TEXT_SPIECE_H
#define DITGEN_TEXT_SPIECE_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "model/base/err.h"

int spiece_open(void **sp, const char *path, struct err *e);
void spiece_close(void *sp); /* takes NULL */
int spiece_size(const void *sp);
const char *spiece_piece(const void *sp, int id); /* NULL: no such id */
/* As tokenizer_encode(): </s> last, counted in max. */
int spiece_encode(const void *sp, int *ids, int max, int *n, bool *truncated, const char *text,
                  struct err *e);

#ifdef __cplusplus
}
#endif

#endif
