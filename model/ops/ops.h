/* What a device must offer: one table of operations, over which text, transformer and VAE are written
 * once. Attention is not here: it has a room of its own, which runs on the same device.
 *
 * Numbers. An operation takes views (`struct rows`: [n, cols], cols contiguous, `stride` elements from
 * row to row) in the device's own memory; on the host that is fp32 throughout. On a GPU activations of
 * bf16 runs are DTYPE_BF16 and the places that wan.md 3.2 keeps in fp32 are DTYPE_F32; fp32 runs are
 * DTYPE_F32 throughout. ops->type() says which. Whatever the types, arithmetic is fp32 inside an
 * operation and is narrowed once, at the end. `round` (or round_out of a linear layer) says that the
 * reference stores this result in bf16: storing into DTYPE_BF16 does it by itself, into DTYPE_F32 the
 * value is rounded and stays wide. So one piece of model code gives today's bytes on the host and
 * bf16 memory on a GPU. Vectors (norm weights, gates, tables, biases of scores) are fp32 of the device.
 *
 * Time. All enqueue on the device's line of work and return (device.h); nothing here waits, allocates
 * (but open, prepare, close) or reads memory of the host after it returned: parameter structs are
 * copied, so every operation but open, close, rebind, prepare and finite_seen may be recorded. Results
 * do not depend on how the work was cut; the same calls give the same bytes.
 *
 * y may be x unless said otherwise; else they do not overlap. Sizes are the caller's to get right: what
 * does not fit is ERR_BUG with the operation's name. Each call counts once (device_did), under the
 * number beside it. The judges are ref_linear() and the table of the host (ops_cpu). */
#ifndef DITGEN_OPS_OPS_H
#define DITGEN_OPS_OPS_H

#include "model/base/device.h"
#include "model/base/lincomb.h"
#include "model/ops/linear.h"
#include "model/ops/rows.h"

enum op { /* what device_counts() counts; ops_op_name() */
          OP_LINEAR,
          OP_FFN,
          OP_NORM,
          OP_RMS_ROPE,
          OP_GATE,
          OP_ACT,
          OP_CAST,
          OP_PATCH,
          OP_SINUSOID,
          OP_TABLE,
          OP_LINCOMB,
          OP_FINITE,
          OP_DISTANCE,
          OP_TEXT, /* UMT5's own: text.h */
          OP_CONV, /* the VAE's: frames.h */
          OP_FRAMES,
          OP_COUNT,
};
/* "linear", static storage; "attention" for DEVICE_OP_ATTENTION; NULL: none of them. */
const char *op_name(int op);

#define OPS_DISTANCE_ROOM 2050 /* two sums, and two of each of 1,024 parts */

/* A linear layer on a device: weights there. Opaque, each table's own. */
struct op_linear;

/* How latents are cut into tokens: [channels, frames, height, width] and [L, channels * patch]. */
struct patch_grid {
    int channels, frames, height, width; /* of the latents */
    int patch_h, patch_w; /* patch_t is 1 */
};

struct ops {
    enum device_kind kind;
    bool together; /* the branches of a step are best run as one view of all their rows */

    /* Type in which activations of a run of this precision lie. ERR_DEVICE: not on this device. */
    int (*type)(struct device *d, enum precision precision, enum dtype *type, struct err *e);

    /* --- linear layers, OP_LINEAR: y = act(x Wᵀ + b). linear.h says what precision, act and round_out
     * mean; x and y are contiguous on the host. --- */

    /* weight [out, in] and bias [out] (or NULL) are of the host, any float type, and may go when it
     * returns (p->borrow: they must stay). Weights lie in the type that the products take: bf16 or
     * fp32. stage: room for converting, as linear_open_staged(); may be NULL. */
    int (*linear_open)(struct op_linear **l, struct device *d, const struct linear_params *p,
                       const struct tensor *weight, const struct tensor *bias,
                       struct linear_stage *stage, struct err *e);
    void (*linear_close)(struct op_linear *l); /* takes NULL */
    /* borrow, or p->at: another weight of the same shape. On a GPU: goes up while earlier work runs. */
    int (*linear_rebind)(struct op_linear *l, const struct tensor *weight,
                         const struct tensor *bias, struct err *e);
    /* Whether a weight of this type, copied to p->at as it is, is what opening makes of it there; its bias
     * is opening's. NULL: none is. */
    bool (*linear_as_is)(const struct linear_params *p, enum dtype weight);
    /* Of the device, for weight and bias; asks nothing. */
    size_t (*linear_bytes)(const struct linear_params *p);
    /* Makes it ready for calls with this many rows and says what scratch (of the device, 256-byte
     * aligned) they need; linear_scratch: the same without a layer or a device. */
    int (*linear_prepare)(struct op_linear *l, int rows, size_t *scratch, struct err *e);
    size_t (*linear_scratch)(const struct linear_params *p, int rows);
    int (*linear)(struct op_linear *l, const struct rows *y, const struct rows *x, void *scratch,
                  struct err *e);
    /* y[i] = l[i](x), n <= 4 layers of one precision and input, not borrowed. */
    int (*linear_several)(struct op_linear *const *l, const struct rows *y, int n,
                          const struct rows *x, void *scratch, struct err *e);

    /* --- feed-forward, OP_FFN: y = down(up(x)) of two layers; the wide middle lies in scratch, a few
     * rows at a time. --- */
    int (*ffn_prepare)(struct op_linear *up, struct op_linear *down, int rows, size_t *scratch,
                       struct err *e);
    size_t (*ffn_scratch)(const struct linear_params *up, const struct linear_params *down,
                          int rows);
    int (*ffn)(struct op_linear *up, struct op_linear *down, const struct rows *y,
               const struct rows *x, void *scratch, struct err *e);

    /* --- fp8: layers of PRECISION_FP8 (fp8.h), whose x may be codes: norm and gate_norm write them where y is
     * F8_E4M3, of just what they would have written as activations. Other x become codes first. NULL: not on
     * this device. --- */

    /* on: forgets, and from here on each such layer whose x is not codes holds a few of its numbers against
     * products of what became codes. Not while recording. */
    int (*fp8_watch)(struct device *d, bool on, struct err *e);
    /* Waits. *error: relative L2, mean over *calls (0: none). */
    int (*fp8_watched)(struct device *d, double *error, long *calls, struct err *e);

    /* --- each row by itself; rows.h says what the parameters mean, whose pointers are the device's --- */

    /* OP_NORM: y = LN(x) * (1 + scale) + shift. */
    int (*norm)(struct device *d, const struct rows *y, const struct rows *x,
                const struct norm_params *p, struct err *e);
    /* OP_RMS_ROPE, in place, of n <= 4 views, each with parameters of its own. */
    int (*rms_rope)(struct device *d, const struct rows *x, const struct rms_rope_params *p, int n,
                    struct err *e);
    /* OP_GATE: x = x + y * gate. */
    int (*gate)(struct device *d, const struct rows *x, const struct rows *y,
                const struct gate_params *p, struct err *e);
    /* OP_GATE, then OP_NORM of the new x into n, in one pass where the device can: same result. */
    int (*gate_norm)(struct device *d, const struct rows *x, const struct rows *y,
                     const struct gate_params *gp, const struct rows *n,
                     const struct norm_params *np, struct err *e);
    /* OP_ACT: y = act(x), x rounded first when round (wan.md 12, trap 10), the result too. */
    int (*act)(struct device *d, const struct rows *y, const struct rows *x, enum activation act,
               bool round, struct err *e);
    /* OP_CAST: y = x, of any two of F32, BF16 and F16; round: to bf16 values. Same types: a copy. */
    int (*cast)(struct device *d, const struct rows *y, const struct rows *x, bool round,
                struct err *e);

    /* --- ends of the transformer --- */

    /* OP_PATCH: latents F32 → cols, channel slowest; cols, channel fastest → latents F32. wan.md 3.3 */
    int (*patchify)(struct device *d, const struct rows *cols, const float *latents,
                    const struct patch_grid *g, struct err *e);
    int (*unpatchify)(struct device *d, float *latents, const struct rows *cols,
                      const struct patch_grid *g, struct err *e);
    /* OP_SINUSOID: y F32 [T, 2 half]: cosines, then sines, of timesteps[t] * freqs[i] rounded to fp32;
     * cos and sin of that in double, narrowed. timesteps [T], freqs [half] F32. */
    int (*sinusoid)(struct device *d, const struct rows *y, const float *timesteps,
                    const float *freqs, struct err *e);
    /* OP_TABLE: y F32 [n, cols] = table[cols] + x. */
    int (*add_table)(struct device *d, const struct rows *y, const struct rows *x,
                     const float *table, struct err *e);

    /* --- latents --- */

    /* OP_LINCOMB: lincomb.h's run, over buffers of n fp32 numbers of the device; its order and rounding
     * to the bit (no contraction). */
    int (*lincomb)(struct device *d, float *const *x, const struct lincomb *l, size_t n, bool bf16,
                   struct err *e);
    /* OP_FINITE: if some number of x is infinite or NaN and nothing was noted since the last
     * finite_seen(), notes `label` (above 0). d is not NULL here. */
    int (*finite)(struct device *d, const struct rows *x, int label, struct err *e);
    /* Waits; *label: what was noted, 0: nothing. Forgets it. */
    int (*finite_seen)(struct device *d, int *label, struct err *e);

    /* OP_DISTANCE: room[0] = sum |a - b|, room[1] = sum |b| over views of one shape without gaps, F32 or
     * BF16 each; b NULL: sum |a|, and 0. In double, in an order that the shape alone says. room:
     * OPS_DISTANCE_ROOM doubles of the device; what lies behind the first two is scratch. */
    int (*distance)(struct device *d, double *room, const struct rows *a, const struct rows *b,
                    struct err *e);

    /* For one that does not wait: what was noted so far on its way to the host, behind the work up to here (not while
     * recording); and what such a call brought whose work somebody waited for. Forgets nothing. */
    int (*finite_bring)(struct device *d, struct err *e);
    int (*finite_brought)(struct device *d);

    const struct text_ops *text; /* UMT5's: text.h; NULL: not on this device */
    const struct frame_ops *frames; /* the VAE's: frames.h; NULL: not on this device */
};

extern const struct ops ops_cpu;
/* The table of a device; NULL: the host's. ERR_DEVICE in builds without CUDA's. */
const struct ops *ops_of(const struct device *d);

/* Solver sums where a device's memory is: lincomb.h's place, for sched. */
struct lincomb_place ops_place(struct device *d);

/* --- views --- */

/* [n, cols] of contiguous rows at `at`, in d's memory. */
struct rows rows_of(const struct device *d, void *at, enum dtype type, int64_t n, int64_t cols);
/* Rows first .. first + n - 1; columns first .. first + cols - 1. */
struct rows rows_part(const struct rows *r, int64_t first, int64_t n);
struct rows rows_cols(const struct rows *r, int64_t first, int64_t cols);
struct heads rows_heads(const struct rows *r, int n_heads); /* [n, n_heads, cols / n_heads] */

#endif
