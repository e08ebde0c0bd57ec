/* What a run will take, before it: floating-point work, seconds, memory.
 *
 * Work and memory are the model's to say (model/work.c). Seconds are "about": the work over the rate of a short attention
 * run (two matrix products and an exponential), with one factor each for linear layers and
 * convolutions. */
#ifndef DITGEN_APP_COST_H
#define DITGEN_APP_COST_H

#include "app/lib/run.h"

/* Tokens of a usual prompt: planning does not read the tokenizer. */
#define TEXT_ROWS 32

/* Floating-point operations a second of the attention kernel that p picks, with the pool's threads
 * (about 20 ms); remembered in d. 0 when it could not be measured. */
double cost_probe(struct ditgen *d, const struct attn_params *p);

int cost_plan(struct ditgen_plan *p, struct ditgen *d, const struct run *r, struct err *e);

#endif
