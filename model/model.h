/* A pipeline folder, opened: text and latents → velocity; latents → frames. The door of the room.
 *
 * Holds transformer, text encoder, VAE and their configs; keeps only what a phase needs in memory.
 * Owner: model_open → model_close. Threads: one call at a time. Errors: INPUT, RESOURCE, DEVICE. */
#ifndef DITGEN_MODEL_MODEL_H
#define DITGEN_MODEL_MODEL_H

#include "attention/attention.h"
#include "model/base/lincomb.h"
#include "model/base/log.h"
#include "model/dit/dit.h"
#include "model/text/text.h"
#include "model/vae/vae.h"

#include <stdbool.h>

struct model_info { /* all from the folder's configs */
    char dir[4096];
    char class_name[64]; /* "WanPipeline" */
    char tokenizer_class[64]; /* "T5TokenizerFast"; empty: not named */
    struct dit_config dit;
    struct umt5_config text;
    struct vae_config vae;
    double boundary_ratio; /* 0: none */
    bool expand_timesteps;
    size_t weight_bytes[3]; /* text encoder, transformer, vae: on disk */
    bool has_turbo; /* transformer_turbo/ has few-step weights: */
    bool turbo_whole; /* a transformer of its own, not pytorch_lora_weights.safetensors */
};
/* rows of text the family's transformers are trained on (wan.md 1.4) */
#define MODEL_TEXT_LEN 512
/* Reads the configs of a folder, no weights. Refuses classes that are not text-to-video Wan. */
int model_info_read(struct model_info *m, const char *dir, struct err *e);

/* "oneDNN 2.6.3", or plain C: what multiplies matrices. Static storage. */
const char *model_backend(void);
/* The same of a device: "cuBLASLt". NULL: the host. */
const char *model_backend_on(const struct device *d);
/* Offset of the first byte of text that is no UTF-8, which prompts must be; its length: there is none. */
size_t model_text_fault(const char *text);
bool model_is_slow(void); /* by plain C: many times slower than this processor can */
/* This build and processor multiply bf16 natively: what --precision auto asks. */
bool model_has_bf16(void);

/* Refuses fp8 where the device has no such products. */
int model_check_precision(const struct device *d, enum precision precision, struct err *e);

/* Nearest legal values at or below and at or above v, both the least or both the most where v is
 * beyond; both equal v when it is legal. Width and height differ where patches are not square. */
void model_width_near(const struct model_info *m, int v, int *below, int *above);
void model_height_near(const struct model_info *m, int v, int *below, int *above);
void model_frames_near(const struct model_info *m, int v, int *below, int *above); /* 4k + 1 */

/* Parts that stay opened on a device from one run to the next, so that weights go up once. Zero it
 * first; model_store_close() before the device is closed. */
struct model_store {
    struct dit *dit;
    struct vae *vae; /* its decoder */
    char *of, *vae_of; /* what they were opened from, heap */
};
void model_store_close(struct model_store *s);

struct model_params {
    enum precision precision;
    struct device
        *device; /* where the transformer computes; it outlives the model. NULL: the host */
    struct model_store *store; /* NULL: each phase closes what it opened */
    int threads;
    struct attn_params attn;
    struct dit_cache_params cache; /* borrowed */
    bool collapse_pads; /* exact shortcut of the identical pad rows; false: the long form */
    bool fix_text; /* ftfy's cleaning of prompts */
    bool
        turbo; /* the transformer of transformer_turbo/ (info's turbo_whole) in the other's place */
    /* Of the device: blocks of the transformer that do not stay there (model_take_plan() sets it), and
     * bytes that the caller takes of it while denoising (latents, solver). */
    int streamed;
    size_t beside;
    const char *lora; /* adapter merged into the transformer's weights, or NULL */
    double lora_strength;
    const struct log *log;
};
struct model_clip { /* what one run makes */
    int width, height, frames, num_steps;
    bool guided; /* two branches */
};

/* --- Before a run: nothing here reads a weight; c must be legal (model_*_near). work.c --- */

/* Latents of the clip, and what its transformer is prepared for with text of text_rows tokens at
 * most; attn points into p. */
struct dit_grid model_grid(const struct model_info *m, const struct model_clip *c);
struct dit_run_params model_run_params(const struct model_info *m, const struct model_params *p,
                                       const struct model_clip *c, int text_rows);
/* What attention will compute; refuses methods and options that cannot be or do not fit the clip,
 * and a kernel that does not exist or cannot run here. */
int model_check_attention(struct attn_forecast *f, const struct model_info *m,
                          const struct model_params *p, const struct model_clip *c, struct err *e);
/* What a step cache will compute and keep; refuses one that is not calibrated. */
int model_check_cache(struct dit_cache_forecast *f, const struct model_info *m,
                      const struct model_params *p, const struct model_clip *c, struct err *e);
/* Seconds of a call that makes plans, all heads of it; 0 when none does. Tries one head. */
int model_time_planning(double *seconds, const struct attn_forecast *f, const struct model_info *m,
                        const struct model_params *p, const struct model_clip *c, struct err *e);
/* Peak bytes of each phase (text, denoise, decode), of the device's memory, for text of text_rows tokens (MODEL_TEXT_LEN: the
 * most). Mapped weights do not count: each tensor's pages are given back when it was read. Refuses
 * what no process can address. */
int model_plan_bytes(const struct model_info *m, const struct model_params *p,
                     const struct model_clip *c, int text_rows, size_t bytes[3], struct err *e);
/* Of a run on a device: what it holds of the card's memory in each phase at most, device_beside() counted
 * in, and what stays there. */
struct model_vram {
    size_t limit; /* what it may take; SIZE_MAX: not known */
    size_t bytes[3]; /* of text, denoise, decode, as chosen; the least possible where over */
    bool over; /* some phase takes more than the limit */
    size_t least; /* the smallest limit that would do */
    int least_phase; /* which wants it */
    int n_blocks,
        streamed; /* of the transformer; streamed: come from pinned memory a block ahead of use */
    size_t pinned; /* bytes of that */
    size_t
        host; /* other memory of the host while denoising: attention's plans, what is brought down for them */
    bool early; /* all weights of the transformer go up while the text is read */
    bool clear_for_text; /* what an earlier run left there goes first */
    bool vae_stays, dit_stays; /* while denoising, if it is there; while decoding */
};
/* As many blocks stay as it takes; the text encoder's matrices
 * do if they find room. Counts what p->store holds. */
int model_plan_vram(struct model_vram *v, const struct model_info *m, const struct model_params *p,
                    const struct model_clip *c, int text_rows, struct err *e);
struct model_work { /* floating-point operations */
    int tokens; /* of the transformer */
    double text; /* one branch */
    double linear, attn; /* one branch of one step: linear layers; attention, all of it exact */
    double self; /* of attn: self-attention, what a method leaves out */
    double
        copied; /* of linear: q, k, v and output layers of self-attention, what a copy leaves out */
    double decode;
};
void model_work(struct model_work *w, const struct model_info *m, const struct model_clip *c,
                int text_rows);

struct model;
int model_open(struct model **m, const struct model_info *info, const struct model_params *p,
               struct err *e);
void model_close(struct model *m);

/* Does as planned from here on, and what an earlier run left makes room for the text; without, all blocks
 * stay, and parts make room when they must. */
void model_take_plan(struct model *m, const struct model_vram *v);
/* Every part by its config and headers, every tensor's name and shape, and the tokenizer, before any
 * of them computes: a missing, cut or wrong part is found here and not when its turn comes. Reads no
 * weights. */
int model_check(struct model *m, struct err *e);

/* Phase 1. Text of a branch (0 prompt, 1 negative): tokens used and whether it was truncated. */
struct model_text {
    int n_tokens;
    bool truncated;
};
typedef int (*model_progress)(void *ctx, int done, int total); /* nonzero cancels */
/* Tokens that model_encode_text() would make of a prompt; opens text encoder and tokenizer. */
int model_count_tokens(struct model *m, const char *prompt, int *n, struct err *e);
int model_encode_text(struct model *m, int branch, const char *prompt, struct model_text *info,
                      model_progress progress, void *ctx, struct err *e);
/* All text is read: its encoder's memory goes, as the next phase would have it go anyway. */
void model_text_done(struct model *m);

/* Phase 2. Opens the transformer for the clip; then velocities; then closes it. */
int model_denoise_begin(struct model *m, const struct model_clip *c, struct err *e);
size_t model_latents_len(const struct model *m, const struct model_clip *c); /* elements */
struct model_ask { /* what a velocity is asked for: sched's denoise_ask, without its memory */
    int step, n_branches;
    int expert; /* 0; 1: the low-noise one of a model that has two */
    float sigma, timestep;
    const float *frame_timesteps; /* one a latent frame, or NULL */
    model_progress progress; /* blocks done of all, both branches; may be NULL */
    void *ctx;
};
/* velocity[b] [n] of branches 0 .. n_branches - 1 ← latents [n], all in the device's memory. */
int model_velocity(struct model *m, float *const *velocity, const float *latents,
                   const struct model_ask *a, struct err *e);
/* Where a velocity that is not finite comes from: -1, with layer and kernel in e. */
int model_trace(struct model *m, float *const *velocity, const float *latents,
                const struct model_ask *a, struct err *e);
/* What of a run a GPU computes, in words; static storage. */
const char *model_on_device(void);
/* Solver sums where velocities are (sched's denoise_params.place). */
struct lincomb_place model_place(const struct model *m);
/* "linear", of a number that device_counts() counts by; static storage. NULL: nothing has it. */
const char *model_op_name(int op);
/* After each step on a device: keeps it at most one step ahead of the host, so that progress is true
 * and the device has always work. Nothing on the host. */
int model_step_done(struct model *m, struct err *e);
/* What self-attention did so far. */
void model_attn_stats(const struct model *m, struct attn_stats *stats);
/* How far fp8 products were from bf16's in the run's first step (dit.h); products 0: none were. Waits. */
int model_fp8_error(const struct model *m, double *error, long *products, struct err *e);
/* What its step cache did so far, and remembers (dit.h); nothing outside of phase 2. */
void model_cache_stats(const struct model *m, struct dit_cache_stats *stats);
void model_cache_kept(struct model *m, struct dit_cache_kept *kept);
int model_cache_fetch(struct model *m, struct err *e);
int model_cache_resume(struct model *m, int step, struct err *e);
/* What self-attention remembers of earlier steps (attention.h); after writing, the check. */
void model_attn_kept(const struct model *m, struct attn_kept *kept);
/* Where it is not in place: kept->at NULL. */
int model_attn_kept_read(const struct model *m, void *to, struct err *e);
int model_attn_kept_write(struct model *m, const void *from, struct err *e);
int model_attn_kept_check(const struct model *m, struct err *e);
void model_denoise_end(struct model *m, struct attn_stats *stats); /* stats may be NULL */

/* Phase 3. */
int model_decode(struct model *m, const float *latents, const struct model_clip *c, vae_sink sink,
                 void *ctx, struct err *e);
/* The same to bytes: to nearest, or truncated (wan.md 7). */
int model_decode_pictures(struct model *m, const float *latents, const struct model_clip *c,
                          bool truncate, vae_byte_sink sink, void *ctx, struct err *e);
int model_encode_frames(struct model *m, float *latents, const float *rgb,
                        const struct model_clip *c, struct err *e);

#endif
