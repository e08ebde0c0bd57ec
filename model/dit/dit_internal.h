/* What the files of model/dit share: the opened model, one run's memory, and who does which part.
 *
 * Shape letters: L tokens, D width (n_heads * head_dim), F ffn_dim, T time rows (1, or one a latent
 * frame). Everything is written over the operations of a device (model/ops/ops.h) and lies in its
 * memory: `act` is its type for activations of this precision, other numbers are fp32. Only files of
 * this room include this. */
#ifndef DITGEN_DIT_INTERNAL_H
#define DITGEN_DIT_INTERNAL_H

#include "model/dit/cache.h"
#include "model/dit/dit.h"
#include "model/ops/ops.h"
#include "model/weights/weights.h"

/* --- The model: layers.c --- */

struct dit_block {
    struct op_linear *q, *k, *v, *o; /* self-attention */
    struct op_linear *xq, *xk, *xv, *xo; /* cross-attention to text */
    struct op_linear *ik, *iv; /* keys and values of image rows, or NULL */
    struct op_linear *up, *down; /* feed-forward; up ends in GELU */
    float *norm_q, *norm_k; /* [D] RMS weights */
    float *xnorm_q, *xnorm_k, *inorm_k; /* [D] */
    float *norm2_w, *norm2_b; /* [D] LayerNorm before cross-attention, or NULL */
    float *table; /* [6, D] added to the time embedding */
};

struct dit_top { /* all that is outside the blocks */
    struct op_linear *patch, *time_1, *time_2, *time_proj, *text_1, *text_2, *image_1, *image_2;
    struct op_linear *head;
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
    size_t offset; /* of the struct op_linear * in dit_block or dit_top */
    int out, in;
    enum activation act;
    enum row_kind kind;
    bool fp32; /* fp32 whatever the precision: wan.md 3.2 */
    bool patch; /* stored as [out, channels, pt, ph, pw] */
    bool sums; /* whoever reads the result rounds it: a pass less in bf16 runs */
    bool large; /* what fp8 is for: products of all tokens inside the blocks */
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
/* Places (or counts, with top and blocks NULL) all vectors. */
void dit_carve_vectors(struct dit_top *top, struct dit_block *blocks, const struct dit_config *c,
                       struct arena *a);
/* Of the device's memory, with so many blocks streamed. */
size_t dit_weight_bytes(const struct dit_config *c, struct device *device, enum precision p,
                        int streamed);
/* The most that opening takes besides for a while: of a weight of a bf16 file on the host its pages in
 * the map and it as fp32, on a device one of any file as it comes. */
size_t dit_opening_bytes(const struct dit_config *c, enum precision p, bool host);

/* --- Blocks whose weights do not stay on the device: stream.c --- */

#define DIT_SLOTS 2 /* one is used while the other is filled */

struct dit_slot { /* of the device: one block's weights at a time */
    char *at;
    struct dit_block block; /* layers over that memory; no vectors */
    struct device_mark *empty, *full;
};

struct dit_pack { /* a block's weights as the device has them, in memory of the host */
    char *at;
    bool pinned;
};

struct dit_stream {
    int n, n_slots; /* blocks that are streamed; 0: none */
    int *index; /* [n_layers] which of them a layer is, in their order; -1: it stays */
    struct dit_pack *pack; /* [n] what steps use, then what only the text's pass does */
    size_t step, context; /* bytes of those */
    bool pinned; /* all packs are: a step can be recorded */
    struct dit_slot slot[DIT_SLOTS];
    bool text; /* of the pass under way: keys and values of text, else a step */
    int begun, joined, end; /* copies, in the order of index; those of the pass end before `end` */
};

/* Of the device for slots, of the host for packs. */
void dit_stream_bytes(const struct dit_config *c, const struct ops *o, enum precision p,
                      int streamed, size_t *slots, size_t *packs);
bool dit_row_is_text(const struct layer_row *r); /* of a block: only the text's pass runs it */
/* Opening: slots are carved from weights; then of each block its layers are opened over its slot (else
 * *slot is NULL) at their places, part by part, and each part is kept; last, blocks get the layers of
 * their slots. */
int dit_stream_open(struct dit *d, int streamed, struct arena *weights, struct err *e);
struct dit_block *dit_stream_block(struct dit *d, int layer, struct dit_slot **slot);
void *dit_stream_place(const struct dit *d, struct dit_slot *slot, const struct layer_row *r);
int dit_stream_keep(struct dit *d, int layer, bool text, struct err *e);
void dit_stream_lend(struct dit *d);
void dit_stream_close(struct dit *d);
bool dit_is_streamed(const struct dit *d, int layer);
/* A pass over blocks [from, to) in their order: begin, then each is taken before it runs and left behind it, end
 * (also where a pass ends early or fails with rc, which it returns: nothing stays under way). Nothing of them waits or does anything where no block is streamed. */
int dit_stream_begin(struct dit *d, int from, int to, bool text, struct err *e);
int dit_stream_take(struct dit *d, int layer, struct err *e);
int dit_stream_leave(struct dit *d, int layer, struct err *e);
int dit_stream_end(struct dit *d, int rc, struct err *e);

/* Attention tensors that the stack `attention` asks for (NULL: dense), where the file has them: own.c.
 * check: only binds. */
#define DIT_MAX_OWN 16
struct dit_own;
int dit_own_open(struct dit_own **own, struct weights *file, const char *attention, int n_layers,
                 bool check, struct err *e);
void dit_own_close(struct dit_own *own); /* takes NULL */
const struct tensor *dit_own_tensor(void *own, int layer,
                                    const char *name); /* attn_params.tensor */

/* --- Weights that go up beside other work: sender.c --- */

struct dit_sent { /* one weight, as the file has it */
    void *to;
    struct tensor from;
};
struct dit_sender;
/* A thread that sends items (heap, taken over) and lets go of their pages of the file, which nobody else
 * uses until it was joined. */
int dit_sender_start(struct dit_sender **s, struct device *d, struct weights *file,
                     struct dit_sent *items, int n, struct err *e);
int dit_sender_join(struct dit_sender *s, struct err *e); /* all are there; NULL: there are none */
/* Whether the weight that belongs here is; asked in the order of items. */
bool dit_sender_has(struct dit_sender *s, const void *at);
int dit_sender_count(const struct dit_sender *s); /* how many it had */
void dit_sender_close(struct dit_sender *s); /* stops; takes NULL */

/* --- Step caches: cache_words.c, step_cache.c --- */

struct step_cache { /* of a run */
    const struct dit_cache *kind; /* NULL: none */
    struct dit_cache_knobs knobs; /* without texts */
    double poly[DIT_POLY];
    int first, last; /* steps that are always computed: below, from on */
    enum dtype type; /* of kept: activations', of a velocity fp32 */
    size_t kept_len, own_len;
    bool *held; /* [branch] kept is there; the host's */
    char *kept; /* [branch, kept_len] of type */
    float *own; /* the cache's */
    float *head; /* [L, D] what the first block added to branch 0 */
    float *minus; /* [D] of -1: subtracts */
    double *room; /* of a distance */
    float *
        mirror; /* [branch, kept_len], then own, of the host: what a state holds; on the host NULL */
    float *seen; /* of the host, for who watches a device: added, velocity, temb, time6 */
    double numbers[DIT_CACHE_NUMBERS];
    int step, expert; /* of the last decision; -1: none */
    bool skip; /* that decision */
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
                        const struct dit_run_params *p, enum dtype act);

/* --- One run: run.c places it, the others fill it --- */

/* What is recorded as one: all of a step, or with a step cache what it decides by, then the rest of a
 * computed step or of one that is left out. */
enum { STEP_WHOLE, STEP_FRONT, STEP_COMPUTED, STEP_LEFT_OUT, STEP_PARTS };
#define DIT_KINDS (4 * STEP_PARTS) /* exact or not, one timestep or one a frame */

struct dit_recorded { /* a step that was recorded; steps NULL: none was */
    struct device_steps *steps;
    bool ran; /* done once before: what a first call loads cannot be recorded */
    int branch, n_branches, time_rows;
    const void *latents, *velocity[2]; /* addresses that stand in it */
    long launched; /* attention's plans that do: attn_step_kind() */
    struct attn_sums before, after; /* what attention counted while it was recorded */
};

struct dit_run {
    struct dit_run_params p;
    struct attn_params attn_params; /* copies of what the caller gave */
    struct device *device;
    const struct ops *ops;
    enum dtype act; /* of activations */
    struct arena arena; /* of the device */
    struct arena host; /* what the host alone reads; on the host both are one arena, `arena` */
    struct attn *attn;
    struct step_cache cache;
    int tokens, tokens_a_frame, width; /* L, L / latent frames, D */
    int text_keys; /* rows computed and kept a branch: with pads or their one stand-in */
    int time_rows; /* T of the current call */
    int together; /* branches that go through a block as one view of all their rows */
    bool round; /* a bf16 precision */
    bool fp8;
    bool watched; /* fp8: a step was held against bf16 */
    bool watching; /* that step is under way: norms write activations */

    float *cos_t, *sin_t; /* [L, head_dim / 2] */
    char *text_kv; /* [branch][layer][k, v][text_keys, D] act */
    char *image_kv; /* [branch][layer][k, v][image_rows, D] act */
    float *key_bias; /* [branch][text_keys] */
    struct {
        bool set, biased;
        int keys;
    } * context; /* [branch], host */

    float *freqs; /* [freq_dim / 2] of the sinusoid */
    float *timesteps; /* [frames] */
    struct rows temb; /* [frames, D] fp32 */
    struct rows time6; /* [frames, 6 * D] act */
    struct rows mod; /* [frames, 6 * D] fp32: time6 + a block's table */
    struct rows streams; /* [branch * L, D] act: residual streams */
    struct rows x,
        n; /* [L a branch, D] the streams under way; what a layer reads, attention's output */
    struct rows codes; /* fp8: n's memory as what the layers behind a norm read */
    void *scratch; /* of linear layers and cross-attention */
    size_t scratch_bytes;

    /* The rest shares one piece of memory: views of phases that do not overlap in time. Types are act
     * but for sinus, time_h and staging. */
    void *work;
    size_t work_bytes;
    struct rows q, k, v; /* [L a branch, D]; q also holds what joins the residual stream */
    struct rows cols; /* [L, in_channels * patch] */
    struct rows out_cols; /* [L a branch, patch * out_channels] */
    struct rows sinus, time_h; /* [frames, freq_dim], [frames, D] fp32 */
    struct rows time_a; /* [frames, D] act: SiLU of temb */
    struct rows text_in, text_h; /* [text_keys, text_dim], [text_keys, D] */
    struct rows image_in, image_h; /* [image_rows, image_dim] each */
    struct rows text, image; /* [text_keys, D], [image_rows, D] */
    struct rows staging; /* fp32 of the host on its way up; [rows, dim] of text or image */

    struct dit_recorded recorded[DIT_KINDS];
    bool tracing; /* dit_trace(): each part is looked at */
};

/* While tracing: notes the first part whose numbers are none. label: of enum dit_part. */
enum dit_part { PART_TIME = 1, PART_LATENTS, PART_HEAD, PART_BLOCKS };
enum { PART_SELF, PART_CROSS, PART_FFN, PARTS }; /* PART_BLOCKS + PARTS * layer + ... */
int dit_look(struct dit_run *r, const struct rows *x, int label, struct err *e);

struct dit {
    struct dit_config config;
    enum precision precision;
    struct device *device;
    struct device *own_device; /* the host, where the caller gave none */
    const struct ops *ops;
    struct log log;
    struct dit_top top;
    struct dit_block *blocks; /* [n_layers] */
    struct arena weights; /* what float * of top and blocks point into; on a device layers too */
    struct dit_stream stream;
    struct dit_opening *opening; /* open.c: begun and not ended */
    struct dit_own *own; /* attention's own tensors */
    struct dit_run run; /* arena.base NULL: not prepared */
};

/* The hooks of dit_velocity, in its order, where the run has a step cache. begin, decide and done run in
 * every step and are never recorded; the others enqueue, and may be. */
int step_cache_carve(struct dit_run *r, const struct dit_config *c, struct arena *a,
                     struct arena *host, struct err *e);
extern const struct dit_cache step_cache_watched; /* computes all and shows it */
struct rows step_cache_kept(const struct dit_run *r, int branch); /* of caches that keep streams */
int step_cache_fill(struct dit_run *r, struct err *e); /* once it is placed */
int step_cache_begin(struct dit_run *r, const struct dit_call *c, struct err *e);
bool step_cache_wants_block(const struct dit_run *r); /* decides behind the first block */
int step_cache_head(struct dit_run *r, int done, struct err *e); /* before and behind that block */
/* *skip: the step is left out. */
int step_cache_decide(struct dit *d, bool *skip, const float *latents, const struct dit_call *c,
                      struct err *e);
/* Velocities without a block, of caches that keep them; else the kept residual into all streams. */
bool step_cache_of_velocity(const struct dit_run *r);
int step_cache_add_velocity(struct dit *d, float *const *velocity, const float *latents,
                            const struct dit_call *c, struct err *e);
int step_cache_add(struct dit_run *r, const struct dit_call *c, struct err *e);
/* The streams kept until the blocks are through, then what these added; the streams are gone. */
int step_cache_split(struct dit_run *r, const struct dit_call *c, struct err *e);
int step_cache_keep(struct dit *d, float *const *velocity, const float *latents,
                    const struct dit_call *c, struct err *e);
/* Behind a computed step. tell: whoever watches, what it made. */
int step_cache_tell(struct dit *d, const struct dit_call *c, int i, const float *velocity,
                    struct err *e);
int step_cache_done(struct dit *d, float *const *velocity, const float *latents,
                    const struct dit_call *c, struct err *e);

/* Makes x the streams of branches c->branch + i and the n - 1 after it. */
void dit_stream(struct dit_run *r, int i, int n);
/* Where a norm writes for the layers behind it: n, or its codes. */
struct rows *dit_normed(struct dit_run *r);
/* Keys or values of a layer, [text_keys, D] or [image_rows, D]. */
struct rows dit_text_kv(const struct dit_run *r, int n_layers, int branch, int layer, bool value);
struct rows dit_image_kv(const struct dit_run *r, int n_layers, int branch, int layer, bool value);

void dit_run_close(struct dit_run *r); /* all zero is closed */

/* --- Embeddings: embed.c, rope.c --- */

/* cos_t, sin_t [L, head_dim / 2] of a grid: wan.md 3.7. */
void rope_tables(float *cos_t, float *sin_t, const struct dit_config *c, int grid_t, int grid_h,
                 int grid_w);
/* freqs [half]: fp32 as the reference computes them. */
void time_freqs(float *freqs, int half);

/* → x, and copies of it for the other streams */
int dit_embed_latents(struct dit *d, const float *latents, int n_streams, struct err *e);
int dit_set_time(struct dit *d, const struct dit_call *c, struct err *e); /* → timesteps */
int dit_embed_time(struct dit *d, struct err *e); /* timesteps → temb, time6 */
int dit_embed_text(struct dit *d, const struct rows *text, struct err *e); /* → text */
int dit_embed_image(struct dit *d, const struct rows *image, struct err *e); /* → image */
/* Streams [first, first + n) → velocity[first ...] */
int dit_head(struct dit *d, float *const *velocity, int first, int n, struct err *e);

/* --- The block: block.c --- */

/* All branches of c through one block; stream i is that of branch c->branch + i. */
int dit_block_run(struct dit *d, int layer, const struct dit_call *c, struct err *e);

#endif
