/* Latents, timestep and text → velocity: WanTransformer3DModel. wan.md section 3.
 *
 * Owner: open → close; one arena a model, placed by dit_prepare(); nothing is allocated by
 * dit_velocity(). Threads: one call at a time. Errors: ERR_INPUT, ERR_RESOURCE, ERR_USAGE. */
#ifndef DITGEN_DIT_DIT_H
#define DITGEN_DIT_DIT_H

#include "attention/attention.h"
#include "model/base/dtype.h"
#include "model/base/log.h"

#include <stdbool.h>

struct dit_config {
    int n_heads, head_dim, in_channels, out_channels, text_dim, freq_dim, ffn_dim, n_layers;
    int patch_t, patch_h, patch_w;
    bool cross_attn_norm;
    double eps;
    int image_dim; /* 0: no image branch */
    int added_kv_proj_dim; /* 0: none */
    int pos_embed_seq_len; /* 0: none */
    int rope_max_seq_len;
};
/* Reads transformer/config.json; missing keys are the T2V-14B column (wan.md 0.1, 8.1); refuses wrong
 * classes, unsupported values and hostile sizes. */
int dit_config_read(struct dit_config *c, const char *path, struct err *e);

struct dit_grid { /* latent size; tokens = frames * (height/2) * (width/2) */
    int frames, height, width;
};
int dit_tokens(const struct dit_config *c, const struct dit_grid *g);

struct dit;
int dit_open(struct dit **d, const char *dir, enum precision precision, const struct log *log,
             struct err *e);
/* The same, with a low-rank adapter (peft and diffusers key names, wan.md 8.3) merged into the weights:
 * W += strength * alpha / rank * B A. lora_file NULL: none. Modules the model lacks are an error. */
int dit_open_lora(struct dit **d, const char *dir, const char *lora_file, double strength,
                  enum precision precision, const struct log *log, struct err *e);
void dit_close(struct dit *d); /* takes NULL */
/* The same for an attention stack whose methods read tensors of the checkpoint's own, beside those
 * that every such transformer has: blocks.N.attn1.NAME. attention NULL: dense. */
int dit_open_for(struct dit **d, const char *attention, const char *dir, const char *lora_file,
                 double strength, enum precision precision, const struct log *log, struct err *e);
/* The same on a device, which outlives it and holds weights and scratch; NULL: the host. */
int dit_open_on(struct dit **d, struct device *device, const char *attention, const char *dir,
                const char *lora_file, double strength, enum precision precision,
                const struct log *log, struct err *e);
struct dit_params {
    struct device *device; /* outlives it, holds weights and scratch; NULL: the host */
    const char *attention; /* NULL: dense */
    const char *dir;
    const char *lora_file; /* NULL: none */
    double lora_strength;
    enum precision precision;
    /* Of a device: so many blocks do not stay there but lie in pinned memory of the host, and come a
     * block ahead of use. Same velocities. */
    int streamed;
    const struct log *log;
};
int dit_open_with(struct dit **d, const struct dit_params *p, struct err *e);
/* The same in two: between them, with `send`, weights that a device takes as the file has them go up by a
 * thread of their own (where all blocks stay and no adapter is merged), while the device does other work.
 * What p points to lives until the end, which fails as opening does; then, or in its place, dit_close(). */
int dit_open_begin(struct dit **d, const struct dit_params *p, bool send, struct err *e);
int dit_open_end(struct dit *d, struct err *e);
int dit_streamed(const struct dit *d);
size_t dit_held_bytes(const struct dit *d); /* of weights, in the device's memory */
/* Refuses what dit_open_for would, by config and headers: no weight is read. */
int dit_check(const char *dir, const char *lora_file, const char *attention, struct err *e);
const struct dit_config *dit_config_of(const struct dit *d);

/* --- step caches: whole steps left out, what the blocks added in an earlier one added again ------- */

struct dit_cache_info { /* for lists and help */
    const char *name, *summary, *paper; /* paper: arXiv id or NULL */
    const struct option *options;
    size_t options_size;
    bool budgeted; /* wants an error budget, and looks at no threshold */
    bool calibrated; /* wants struct dit_calibration of the model */
};
int dit_caches(void);
struct dit_cache_info dit_cache_info(int i); /* .name NULL: no such */
/* Whether text is "NAME", "NAME:option=value,..." or "none". canonical[n] (may be NULL) gets it with
 * every option written out. ERR_USAGE. */
int dit_cache_check(const char *text, char *canonical, size_t n, struct err *e);
int dit_cache_words_check(const char *text, struct err *e); /* that alone */

#define DIT_POLY 5
struct dit_calibration { /* what was measured of a model; borrowed by a run */
    bool has_poly;
    double poly[2]
               [DIT_POLY]; /* of the modulation, of time: change of the velocity, falling powers */
    int n_steps, n_branches;
    const float *ratio; /* [n_steps, n_branches] sizes of what the blocks add beside the step
                           before; NULL: not known */
};
struct dit_seen { /* of one branch of a computed step; all pointers live for the call */
    int step, n_steps, branch, n_branches;
    const float *added; /* [tokens, width] what the blocks added to the stream */
    int tokens, width;
    const float *velocity; /* [n] */
    size_t n;
    const float *temb, *time6; /* [n_time], [6 * n_time] embeddings of the step's time */
    size_t n_time;
};
struct dit_watch { /* who calibrates */
    void (*seen)(void *ctx, const struct dit_seen *s);
    void *ctx;
};
struct dit_cache_params {
    const char *words; /* NULL: none */
    const struct dit_watch *watch; /* told of every step that is computed; only without words */
    const struct dit_calibration *calibration; /* NULL: none */
    const char *why_not; /* there is none: half a sentence, or NULL */
    const struct budget *budget; /* of caches that are budgeted: one unit; NULL: they are refused */
};

/* Sizes and places all scratch and step state for clips of this grid, max_text_rows rows of text and
 * n_branches (1, or 2 with guidance), and opens the attention method. Call once a run. */
struct dit_run_params {
    struct dit_grid grid;
    int n_steps, n_branches;
    int max_text_rows; /* real rows, <= text_len */
    int text_len; /* rows the reference pads to: 512 */
    int image_rows; /* rows of image tokens, 0: none */
    /* true: n+1 keys with a log-count bias; false: text_len keys (the long form) */
    bool collapse_pads;
    /* method, kernel and the method's options; NULL: dense. Copied; what it points to must outlive
     * the run */
    const struct attn_params *attn;
    struct dit_cache_params cache; /* borrowed as well */
};
int dit_prepare(struct dit *d, const struct dit_run_params *p, struct err *e);
/* Gives the run's memory back; weights stay, for another dit_prepare(). */
void dit_run_end(struct dit *d);
/* Bytes of the weights alone, which reads none of them, with so many blocks streamed; packs: of the
 * host's memory for those. */
size_t dit_kept_bytes(const struct dit_config *c, struct device *device, enum precision precision,
                      int streamed, size_t *packs);
/* What dit_prepare takes of the device's memory, or opening before it, whichever is more; host: what it takes of the
 * host's beside a device (plans that are made here, what of them comes down), 0 on the host; may be NULL. */
int dit_run_bytes(size_t *bytes, size_t *host, const struct dit_config *c, enum precision precision,
                  const struct dit_run_params *p, struct err *e);
/* Most bytes at a time from opening on: packed weights, and with them the memory of dit_prepare or
 * the room that opening converts a weight in. SIZE_MAX: more than can be counted. Reads no weights,
 * refuses what dit_prepare refuses. */
int dit_bytes(size_t *bytes, const struct dit_config *c, enum precision precision,
              const struct dit_run_params *p, struct err *e);
/* What self-attention sees of such a run. */
struct attn_shape dit_attn_shape(const struct dit_config *c, const struct dit_run_params *p);

/* Projects text once a run and keeps every layer's cross-attention keys and values for `branch`.
 * text [n, text_dim] fp32: the encoder's real rows; the zero rows up to text_len are implied.
 * image [image_rows, image_dim] or NULL. */
int dit_set_context(struct dit *d, int branch, const float *text, int n, const float *image,
                    struct err *e);

/* The same of rows in any memory: fp32 of the host, or the device's, in the type of its activations
 * or fp32. image NULL: none. */
int dit_set_context_rows(struct dit *d, int branch, const struct rows *text,
                         const struct rows *image, struct err *e);

/* Called after each block of each branch: done of total. Nonzero cancels. */
typedef int (*dit_progress)(void *ctx, int done, int total);

/* velocity[i] [out_channels, F, H, W] fp32 of branch + i ← latents [in_channels, F, H, W] fp32, the
 * same for all, at `timestep` (0..1000). Each block is visited once: it runs all branches, in their
 * order, before the next. frame_timesteps: NULL, or one timestep a latent frame (expand_timesteps,
 * wan.md 3.9). step counts from 0 and is what attention methods key their state on.
 * On a device latents and velocities are its memory and the work is under way when this returns; a
 * step of a kind that was computed twice at the same addresses is replayed from then on as it was
 * recorded, without progress of its blocks. */
struct dit_call {
    int step, branch, n_branches; /* branches [branch, branch + n_branches) of those prepared */
    int expert; /* of a model that has two: attention forgets what it kept when it changes */
    float sigma, timestep;
    const float *frame_timesteps;
    dit_progress progress;
    void *progress_ctx;
};
int dit_velocity(struct dit *d, float *const *velocity, const float *latents,
                 const struct dit_call *c, struct err *e);

/* Where the numbers of such a call stop being numbers: always -1, with layer and kernel in e. Computes
 * it again, each part looked at, velocities too. */
int dit_trace(struct dit *d, float *const *velocity, const float *latents, const struct dit_call *c,
              struct err *e);

/* Of a run in PRECISION_FP8, after its first step: how far products were from bf16's in it, by a few numbers of
 * each (relative L2, mean of so many products; 0: none). Waits for the device. */
int dit_fp8_error(const struct dit *d, double *error, long *products, struct err *e);

#define DIT_MOST_STEPS 1024 /* that are foreseen one by one */
struct dit_cache_forecast {
    const char *name; /* NULL: none */
    int least, most; /* steps that will be computed; equal: known before */
    size_t bytes; /* kept over steps */
};
int dit_cache_forecast(struct dit_cache_forecast *f, const struct dit_config *c,
                       const struct dit_run_params *p, struct err *e);
struct dit_cache_stats { /* steps of this run so far */
    int computed, reused;
    bool budgeted; /* by an error budget */
    struct budget_spent spent; /* which came to this */
};
void dit_cache_stats(const struct dit *d, struct dit_cache_stats *s);
/* All that the step cache remembers, as memory of the host: to be read between two steps, behind
 * dit_cache_fetch(), or written before the first, and then dit_cache_resume() says how many were done.
 * On the host in place; on a device these two copy it down (waits) and up. */
struct dit_cache_kept {
    struct {
        float *at;
        size_t n;
    } blocks[2];
    int n_blocks; /* 0: no step cache */
    double *numbers;
    int n_numbers;
};
void dit_cache_kept(struct dit *d, struct dit_cache_kept *k);
int dit_cache_fetch(struct dit *d, struct err *e);
int dit_cache_resume(struct dit *d, int step, struct err *e);

/* What the self-attention of this run did so far; {.density = 1} before dit_prepare. */
void dit_attn_stats(const struct dit *d, struct attn_stats *s);
/* What it remembers of earlier steps, in place: attn_kept(). After writing, the check. */
void dit_attn_kept(const struct dit *d, struct attn_kept *k);
int dit_attn_kept_read(const struct dit *d, void *to, struct err *e);
int dit_attn_kept_write(struct dit *d, const void *from, struct err *e);
int dit_attn_kept_check(const struct dit *d, struct err *e);

#endif
