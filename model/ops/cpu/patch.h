/* Latents cut into tokens, and back; ops.h says the orders. Several threads. */
#ifndef DITGEN_OPS_PATCH_H
#define DITGEN_OPS_PATCH_H

#include "model/ops/ops.h"

void latents_to_patches(float *cols, const float *latents, const struct patch_grid *g);
void patches_to_latents(float *latents, const float *cols, const struct patch_grid *g);

#endif
