/* Low-rank adapters, merged into weights while a model is opened: W += strength * alpha / rank * B
 * A.
 *
 * Reads the form that peft and diffusers write (wan.md 8.3, first row). Sums stay fp32, whatever
 * dtype W has in the file: the layer rounds to what it computes in, as the reference does, which
 * widens W first in an fp32 run. Owner: lora_open → lora_close. Errors: ERR_INPUT, with file and
 * key. */
#ifndef DITGEN_DIT_LORA_H
#define DITGEN_DIT_LORA_H

#include "model/base/err.h"
#include "model/base/tensor.h"

struct lora;

int lora_open(struct lora **l, const char *path, double strength, struct err *e);
void lora_close(struct lora *l); /* takes NULL */

/* From now on lora_merge() checks names and shapes and merges nothing. */
void lora_check_only(struct lora *l);

/* weight [out, in] (any float dtype) of `module` and its bias, replaced by merged fp32 copies when
 * the file has a pair for it. Copies live until the next merge or close. A NULL l changes nothing.
 */
int lora_merge(struct lora *l, const char *module, struct tensor *weight, struct tensor *bias,
               struct err *e);
/* Error naming the first keys that no module of the model took. */
int lora_all_used(const struct lora *l, struct err *e);
int lora_modules(const struct lora *l); /* merged so far */

#endif
