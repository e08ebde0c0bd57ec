/* Parts that stay on a device from one run to the next (model.h, struct model_store): what is there is
 * used again when it is of the same files and settings, else it goes before the new one is opened. */
#ifndef DITGEN_MODEL_STORE_H
#define DITGEN_MODEL_STORE_H

#include "model/model.h"

/* Of a run's transformer; path: room for its folder. */
void store_dit_params(struct dit_params *dp, char *path, size_t n, const struct model_info *m,
                      const struct model_params *p);
/* The stored transformer when it is this one, streaming no fewer blocks than p->streamed; else NULL. */
struct dit *store_has_dit(const struct model_store *s, const struct dit_params *p);
/* *begun: one of the same, begun (dit_open_begin), or NULL; taken over when it is used. */
int store_dit(struct dit **dit, struct model_store *s, const struct dit_params *p,
              struct dit **begun, struct err *e);
int store_vae(struct vae **vae, struct model_store *s, const char *path,
              const struct model_params *p, struct err *e);
void store_drop_dit(struct model_store *s);
void store_drop_vae(struct model_store *s);

#endif
