/* What the files of model/dit share: the opened model, one run's memory, and who does which part.
 *
 * Shape letters: L tokens, D width (n_heads * head_dim), F ffn_dim, T time rows (1, or one a latent
 * frame). All activations are fp32 in the run's arena. Only files of this room include this. */
#ifndef DITGEN_DIT_INTERNAL_H
#define DITGEN_DIT_INTERNAL_H

#include "model/dit/cache.h"
#include "model/dit/dit.h"
#include "model/ops/linear.h"
#include "model/weights/weights.h"

/* --- The model: layers.c --- */

struct dit_block {
    struct linear *q, *k, *v, *o; /* self-attention */
    struct linear *xq, *xk, *xv, *xo; /* cross-attention to text */
    struct linear *ik, *iv; /* keys and values of image rows, or NULL */
    struct linear *up, *down; /* feed-forward; up ends in GELU */
    float *norm_q, *norm_k; /* [D] RMS weights */
    float *xnorm_q, *xnorm_k, *inorm_k; /* [D] */
    float *norm2_w, *norm2_b; /* [D] LayerNorm before cross-attention, or NULL */
    float *table; /* [6, D] added to the time embedding */
};

struct dit_top { /* all that is outside the blocks */
    struct linear *patch, *time_1, *time_2, *time_proj, *text_1, *text_2, *image_1, *image_2, *head;
    float *image_norm1_w, *image_norm1_b; /* [image_dim] */
    float *image_norm2_w, *image_norm2_b; /* [D] */
    float *pos_embed; /* [pos_embed_seq_len, image_dim], or NULL */
    float *table; /* [2, D] of the head */
};

/* How many rows a layer is run with: what prepares it and what its input is. ROWS_CHAIN: tokens, in
 * a chain with the next row of the table, or the one before. */
enum row_kind { ROWS_TOKENS, ROWS_CHAIN, ROWS_TIME, ROWS_TEXT, ROWS_IMAGE };

/* One linear layer: its name in the file (one %d in blocks), its place and its shape. */
struct layer_row {
    const char *name;
    size_t offset; /* of the struct linear * in dit_block or dit_top */
    int out, in;
    enum activation act;
    enum row_kind kind;
    bool fp32; /* fp32 whatever the precision: wan.md 3.2 */
    bool patch; /* stored as [out, channels, pt, ph, pw] */
    bool sums; /* whoever reads the result rounds it: a pass less in bf16 runs */
};

/* One vector or table that is kept as fp32. */
struct vector_row {
    const char *name;
    size_t offset; /* of the float * */
    int n_dims;
    int64_t shape[3];
    bool narrow; /* the reference holds it in the model dtype */
};

#define DIT_MAX_ROWS 16
int dit_block_layers(const struct dit_config *c, struct layer_row rows[DIT_MAX_ROWS]);
int dit_top_layers(const struct dit_config *c, struct layer_row rows[DIT_MAX_ROWS]);
int dit_block_vectors(const struct dit_config *c, struct vector_row rows[DIT_MAX_ROWS]);
int dit_top_vectors(const struct dit_config *c, struct vector_row rows[DIT_MAX_ROWS]);
struct linear_params dit_linear_params(const struct layer_row *r, enum precision p);
size_t dit_weight_bytes(const struct dit_config *c, enum precision p);
size_t dit_opening_bytes(const struct dit_config *c, enum precision p);

/* Attention tensors that the stack `attention` asks for (NULL: dense), where the file has them: own.c.
 * check: only binds. */
#define DIT_MAX_OWN 16
struct dit_own;
int dit_own_open(struct dit_own **own, struct weights *file, const char *attention, int n_layers,
                 bool check, struct err *e);
void dit_own_close(struct dit_own *own); /* takes NULL */
const struct tensor *dit_own_tensor(void *own, int layer,
                                    const char *name); /* attn_params.tensor */

/* --- Step caches: cache_words.c, step_cache.c --- */

struct step_cache { /* of a run */
    const struct dit_cache *kind; /* NULL: none */
    struct dit_cache_knobs knobs; /* without texts */
    double poly[DIT_POLY];
    int first, last; /* steps that are always computed: below, from on */
    size_t kept_len, own_len;
    bool *held; /* [branch] kept is there */
    float *kept; /* [branch, kept_len] */
    float *own; /* the cache's */
    float *head; /* what the first block added to branch 0 */
    double numbers[DIT_CACHE_NUMBERS];
    int step, expert; /* of the last decision; -1: none */
    bool skip; /* that decision */
    bool whole; /* the streams are what the blocks would have made of them */
    int computed, reused;
};
int step_cache_parse(const struct dit_cache **kind, struct dit_cache_knobs *k, const char *text,
                     struct err *e); /* texts of *k are heap */
/* Coefficients of a cache that wants them; refuses one whose calibration is missing. */
int step_cache_poly(double poly[DIT_POLY], const struct dit_cache *c,
                    const struct dit_cache_knobs *k, const struct dit_cache_params *p,
                    const struct dit_config *config, int tokens_a_frame, struct err *e);
void step_cache_ends(const struct dit_cache_knobs *k, int n_steps, int *first, int *last);
size_t step_cache_bytes(const struct dit_cache *kind, const struct dit_config *c,
                        const struct dit_run_params *p);

/* --- One run: run.c places it, the others fill it --- */

struct dit_run {
    struct dit_run_params p;
    struct attn_params attn_params; /* copies of what the caller gave */
    struct arena arena;
    struct attn *attn;
    struct step_cache cache;
    int tokens, tokens_a_frame, width; /* L, L / latent frames, D */
    int text_keys; /* rows computed and kept a branch: with pads or their one stand-in */
    int time_rows; /* T of the current call */
    bool round; /* a bf16 precision */

    float *cos_t, *sin_t; /* [L, head_dim / 2] */
    float *text_kv; /* [branch][layer][k, v][text_keys, D] */
    float *image_kv; /* [branch][layer][k, v][image_rows, D] */
    float *key_bias; /* [branch][text_keys] */
    struct {
        bool set, biased;
        int keys;
    } * context; /* [branch] */

    float *freqs; /* [freq_dim / 2] of the sinusoid */
    float *temb; /* [frames, D] */
    float *time6; /* [frames, 6 * D] */
    float *mod; /* [frames, 6 * D]: time6 + a block's table */
    float *streams; /* [branch][L, D]: residual streams */
    float *x, *n; /* [L, D] the stream under way; what a layer reads, and attention's output */
    void *scratch; /* of linear layers and cross-attention */
    size_t scratch_bytes;

    /* The rest shares one piece of memory: views of phases that do not overlap in time. */
    void *work;
    size_t work_bytes;
    float *q, *k, *v; /* [L, D]; q also holds what joins the residual stream */
    float *cols; /* [L, in_channels * patch] */
    float *out_cols; /* [L, patch * out_channels] */
    float *sinus, *time_h; /* [frames, freq_dim], [frames, D] */
    float *text_in, *text_h; /* [text_keys, text_dim], [text_keys, D] */
    float *image_in, *image_h; /* [image_rows, image_dim] each */
    float *text, *image; /* [text_keys, D], [image_rows, D] */
};

struct dit {
    struct dit_config config;
    enum precision precision;
    struct log log;
    struct dit_top top;
    struct dit_block *blocks; /* [n_layers] */
    struct arena vectors; /* what float * of top and blocks point into */
    struct dit_own *own; /* attention's own tensors */
    struct dit_run run; /* arena.base NULL: not prepared */
};

/* The hooks of dit_velocity, in its order; nothing happens without a step cache.
 * velocity: true: velocities are there already. block: before the first block (done 0) and behind it
 * (done 1); r->cache.whole: no further block is wanted. keep: behind the head. */
int step_cache_carve(struct dit_run *r, const struct dit_config *c, struct arena *a, struct err *e);
void step_cache_reset(struct dit_run *r);
bool step_cache_velocity(struct dit *d, float *const *velocity, const float *latents,
                         const struct dit_call *c);
void step_cache_block(struct dit *d, const float *latents, const struct dit_call *c, int done);
void step_cache_keep(struct dit *d, float *const *velocity, const float *latents,
                     const struct dit_call *c);

/* Makes x the stream of branch c->branch + i. */
void dit_stream(struct dit_run *r, int i);
float *dit_text_kv(const struct dit_run *r, int n_layers, int branch, int layer, bool value);
float *dit_image_kv(const struct dit_run *r, int n_layers, int branch, int layer, bool value);

/* --- Embeddings: embed.c, rope.c --- */

/* cos_t, sin_t [L, head_dim / 2] of a grid: wan.md 3.7. */
void rope_tables(float *cos_t, float *sin_t, const struct dit_config *c, int grid_t, int grid_h,
                 int grid_w);
/* freqs [half]: fp32 as the reference computes them; sinus [2 * half]: cosines, then sines. */
void time_freqs(float *freqs, int half);
void time_sinusoid(float *sinus, const float *freqs, int half, float timestep);
/* latents [C, F, H, W] → cols [L, C * patch], channel slowest; and cols [L, patch * C], channel
 * fastest, → latents. wan.md 3.3 */
void patchify(float *cols, const float *latents, const struct dit_config *c,
              const struct dit_grid *g);
void unpatchify(float *latents, const float *cols, const struct dit_config *c,
                const struct dit_grid *g);

/* → x, and copies of it for the other streams */
int dit_embed_latents(struct dit *d, const float *latents, int n_streams, struct err *e);
int dit_embed_time(struct dit *d, const struct dit_call *c, struct err *e); /* → temb, time6 */
int dit_embed_text(struct dit *d, const float *text, int n, struct err *e); /* → text */
int dit_embed_image(struct dit *d, const float *image, struct err *e); /* → image */
int dit_head(struct dit *d, float *velocity, struct err *e); /* x → velocity */

/* --- The block: block.c --- */

/* All branches of c through one block; stream i is that of branch c->branch + i. */
int dit_block_run(struct dit *d, int layer, const struct dit_call *c, struct err *e);
/* dst [rows, 6D or 2D] = m [rows, ...] + table. */
void dit_add_table(float *dst, const float *m, const float *table, int rows, int n);

#endif
