/* What a run will take, before it: floating-point work, seconds, memory.
 *
 * Work and memory are the model's to say (model/work.c), the latents and what the solver remembers are
 * ours. Seconds are "about": the work over the rate of a short attention
 * run (two matrix products and an exponential), with one factor each for linear layers and
 * convolutions. */
#ifndef DITGEN_APP_COST_H
#define DITGEN_APP_COST_H

#include "app/lib/run.h"

/* Tokens of a usual prompt, where there is none yet. */
#define TEXT_ROWS 32

/* Floating-point operations a second of the attention kernel that p picks, with the pool's threads
 * (about 20 ms); remembered in d. 0 when it could not be measured. */
double cost_probe(struct ditgen *d, const struct attn_params *p);

/* Tokens of the texts that a run encodes: the longest, and all branches together. */
struct cost_text {
    int most, all;
};
int cost_text(struct cost_text *t, struct model *m, const struct run *r, struct err *e);

int cost_plan(struct ditgen_plan *p, struct ditgen *d, const struct run *r,
              const struct cost_text *t, struct err *e);
/* Of the run's device, where that is not the host: what each phase holds of it, and what is streamed. */
int cost_device(struct model_vram *v, const struct ditgen *d, const struct run *r,
                const struct cost_text *t, struct err *e);
/* ERR_RESOURCE where that does not fit it or --max-vram, or the host has no memory to stream from; with
 * the smallest that would do. Before a weight is read. v gets the plan (n_blocks 0: on the host). */
int cost_check_device(struct model_vram *v, const struct ditgen *d, const struct run *r,
                      const struct cost_text *t, struct err *e);
/* Bytes of latents and the solver's memory, where they are denoised. */
size_t cost_beside(const struct ditgen *d, const struct run *r);
/* ERR_RESOURCE where resource limits of this process (ulimit -v, -d) would end the run midway. Makes
 * the pool's threads where there are limits. */
int cost_check_limits(const struct ditgen *d, const struct run *r, const struct cost_text *t,
                      struct err *e);

#endif
