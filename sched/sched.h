/* When the model is asked, and what is made of its answer: the door of the scheduling room.
 *
 * x = (1 - sigma) * x0 + sigma * noise; the model predicts velocity = noise - x0. wan.md sections
 * 5, 6. Threads: one generation at a time. */
#ifndef DITGEN_SCHED_SCHED_H
#define DITGEN_SCHED_SCHED_H

#include "model/base/err.h"
#include "model/base/lincomb.h"
#include "model/base/log.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAX_STEPS 1000

/* --- noise: the same numbers as torch.randn on a CPU generator --- */
struct noise_rng { /* mt19937 plus the cached half of a pair, as torch keeps them */
    uint32_t state[624];
    int index;
    bool has_next;
    double next;
};
void noise_seed(struct noise_rng *r, uint64_t seed); /* only the low 32 bits matter, as in torch */
/* n values of torch.randn(n): one call here is one call there. */
void noise_randn(struct noise_rng *r, float *x, size_t n);

/* --- schedule --- */
enum sched_compat { COMPAT_DIFFUSERS_037, COMPAT_DIFFUSERS_036 };

struct sched_config { /* scheduler/scheduler_config.json */
    char class_name[64]; /* "UniPCMultistepScheduler", "FlowMatchEulerDiscreteScheduler", ... */
    const char *solver; /* the solver of that class: "unipc", "euler", "dpmpp" */
    double flow_shift; /* flow_shift, or shift: whichever the folder has */
    int num_train_timesteps;
};
/* Refuses, naming the key, values outside what is implemented (wan.md 5.1). */
int sched_config_read(struct sched_config *c, const char *path, struct err *e);

struct schedule { /* one solver's grid */
    int num_steps;
    float sigma[MAX_STEPS + 1]; /* falling; sigma[num_steps] = 0 */
    float timestep[MAX_STEPS]; /* what the model is conditioned on, 0..1000 */
};

/* The buffers of a run, as its sums (lincomb.h) name them. */
enum { BUFFER_LATENTS, BUFFER_VELOCITY, BUFFER_NEGATIVE, BUFFER_HISTORY };
#define SOLVER_MAX_SUMS 4
#define SOLVER_MAX_HISTORY 8

struct solver { /* plug-in: solvers/NAME.c ends in one constant, solvers.def holds one line */
    const char *name, *summary, *paper;
    int (*schedule)(struct schedule *s, int num_steps, double flow_shift, enum sched_compat compat,
                    struct err *e);
    int history; /* latents-sized fp32 buffers that it keeps, from BUFFER_HISTORY on */
    /* What advances the latents from step to step + 1: sums over buffers, done in this order; the
     * velocity may be used up. Returns how many. */
    int (*step)(struct lincomb sums[SOLVER_MAX_SUMS], const struct schedule *s, int step);
};
int solver_count(void);
const struct solver *solver_at(int i);
const struct solver *solver_find(const char *name); /* NULL: none */

/* --- guidance --- */
/* velocity = negative + scale * (velocity - negative), in two sums. */
void guidance_sums(struct lincomb sums[2], float scale);

/* --- the loop --- */
#define DENOISE_BRANCHES 2 /* 0: the prompt; 1: the negative prompt, only with guidance */

struct denoise_ask { /* one step of one model, all branches at once */
    int step, num_steps;
    int n_branches;
    int expert; /* 0: the model; of two, the one for high noise. 1: that for low noise */
    float sigma, timestep;
    const float *frame_timesteps; /* [n_frames], or NULL: every latent frame is at timestep */
    int n_frames;
    const float *latents; /* [n], where denoise_params.place is */
    float *velocity[DENOISE_BRANCHES]; /* [n] each, to be filled */
};
struct denoise_model { /* what is asked: filled by whoever owns the model */
    void *ctx;
    int (*velocity)(void *ctx, const struct denoise_ask *ask, struct err *e);
    /* Asked when that is not finite: where it comes from, as a failure. NULL: nobody knows. */
    int (*trace)(void *ctx, const struct denoise_ask *ask, struct err *e);
};
struct denoise_params {
    const struct solver *solver;
    const struct schedule *schedule;
    float guidance_scale[2]; /* of each expert; > 1: two branches */
    float boundary; /* timesteps below it are the second expert's; 0: there is one */
    /* of each latent frame: 1 if it is noise, 0 if it is given and so at timestep 0. NULL: all 1 */
    const float *frame_noise;
    int n_frames;
    bool round; /* bf16 runs: guidance rounds as the reference does */
    size_t n; /* latents elements */
    int first_step; /* steps that an earlier run did: latents and history are as it left them */
    /* [n] of the place each, or NULL: where it waits, what the last two steps began with, so that one that is found
     * later to have given no numbers can be asked again */
    float *before[2];
    const struct lincomb_place *place; /* whose memory latents and scratch are; NULL: the host's */
    /* after each step; nonzero cancels with ERR_CANCELLED. May be NULL. */
    int (*after_step)(void *ctx, int step, int num_steps, const float *latents);
    void *ctx;
};
size_t denoise_bytes(const struct solver *s, size_t n, bool guided); /* scratch wanted */
/* What the solver remembers between steps, in such a scratch: buffer i of solver->history, [n], where
 * the latents live. With latents and the number of steps done it is all that a run needs to go on. */
float *denoise_history(const struct solver *s, size_t n, bool guided, void *scratch, int i);
/* latents [n] in: noise; out: denoised. scratch of denoise_bytes(). Allocates nothing. */
int denoise(float *latents, const struct denoise_params *p, const struct denoise_model *m,
            void *scratch, struct err *e);

#endif
