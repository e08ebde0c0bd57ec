/* What an adapter's file says of itself: lora_adapter_metadata, the config of peft that diffusers puts
 * into the header. It decides alpha and rank of each module; whatever would change the sum and is not
 * done here is refused by name.
 *
 * alpha_pattern and rank_pattern are regular expressions that must match a module's whole name or
 * what follows one of its dots; the first that does counts (peft, get_pattern_key). Owner: open →
 * close. Errors: ERR_INPUT, ERR_RESOURCE. */
#ifndef DITGEN_DIT_LORA_META_H
#define DITGEN_DIT_LORA_META_H

#include "model/base/err.h"

struct lora_meta;

int lora_meta_open(struct lora_meta **m, const char *text, const char *path, struct err *e);
void lora_meta_close(struct lora_meta *m); /* takes NULL */
/* alpha / rank of a module ("blocks.0.attn1.to_q"), or alpha / sqrt(rank); refuses a rank of tensors
 * that is not the one said. */
int lora_meta_scale(const struct lora_meta *m, const char *module, int rank, double *scale,
                    struct err *e);

#endif
