/* Between the files of the UMT5 encoder: what is open, and the memory of a call. */
#ifndef DITGEN_MODEL_TEXT_UMT5_INTERNAL_H
#define DITGEN_MODEL_TEXT_UMT5_INTERNAL_H

#include "model/base/arena.h"
#include "model/ops/ops.h"
#include "model/ops/text.h"
#include "model/text/text.h"
#include "model/text/umt5.h"
#include "model/weights/weights.h"

#define UMT5_MAX_TOKENS (1 << 16)

enum { LINEAR_Q, LINEAR_K, LINEAR_V, LINEAR_O, LINEAR_GATE, LINEAR_UP, LINEAR_DOWN, LINEAR_COUNT };
enum { SHAPE_QKV, SHAPE_O, SHAPE_GATE, SHAPE_UP, SHAPE_DOWN, SHAPE_COUNT };
extern const int umt5_shape_of[LINEAR_COUNT];

struct umt5_layer {
    struct tensor norm1, bias, norm2, matrix[LINEAR_COUNT];
    /* where memory is away and has the room: up there for as long as the encoder is open */
    struct op_linear *held[LINEAR_COUNT];
};

struct umt5 {
    struct umt5_config c;
    struct device *device; /* NULL: the host */
    const struct ops *ops;
    enum precision precision;
    enum dtype type; /* of activations */
    bool away; /* memory is not the host's */
    bool held, up; /* all matrices stay there; they went up, at the first encode() */
    const struct log *log;
    struct weights *file;
    struct {
        struct tensor shared, tokens, norm; /* shared and tokens are the same, or one is absent */
    } top;
    struct umt5_layer *layers;
    struct arena matrices; /* away: where they lie, all of them or one a shape */
    struct op_linear *shape[SHAPE_COUNT]; /* one a shape, pointed at each layer's matrix in turn */
};

/* Memory of one call. n tokens, D d_model, I heads * d_kv, F d_ff. */
struct umt5_work {
    struct rows x, norm; /* [n, D] */
    struct rows q, k, v; /* [n, I]; q takes the attention's output too */
    struct rows gate, up; /* [n, F] */
    struct rows wide; /* away: [n, D] fp32, for what comes and goes */
    float *weight; /* [max(D, buckets * heads)]: a norm, or a bias table */
    float *bias; /* [heads, 2n - 1] */
    int *bucket; /* [2n - 1] */
    void *attn; /* of attend() */
    void *scratch; /* of the linear layers */
    float *host; /* as `weight`, where that is away */
};

/* --- umt5.c --- */

static inline bool umt5_rounds(const struct umt5 *u) { return u->precision != PRECISION_FP32; }
/* Numbers of the largest small weight: a norm, or a table of biases. */
size_t umt5_most_weights(const struct umt5_config *c);
/* Places (or measures) the memory of n tokens; scratch: bytes of the linear layers. */
void umt5_carve(struct umt5_work *w, struct arena *a, const struct umt5 *u, int n, size_t scratch);
/* All of them or none. */
int umt5_open_matrices(struct umt5 *u, struct err *e);

#endif
