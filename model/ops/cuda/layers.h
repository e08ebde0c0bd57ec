/* A linear layer on a GPU, for the files that make and run them: layers.c, layers_fp8.c. */
#ifndef DITGEN_OPS_CUDA_LAYERS_H
#define DITGEN_OPS_CUDA_LAYERS_H

#include "model/ops/cuda/table.h"

struct cuda_layer { /* what struct op_linear is here */
    struct device *d;
    struct linear_params p;
    enum dtype type; /* of the weight */
    void
        *weight; /* [out, in], then the bias in fp32, then in bf16; then, of codes, the two below */
    float *bias;
    void *bias_bf16;
    float *scale; /* [out] of codes, else NULL */
    void *some; /* [CUDA_SAMPLE_OUTS, in] bf16: rows of the weight as it was, or NULL */
    bool biased;
};

#define CUDA_ALIGN(bytes) (((bytes) + 255) / 256 * 256)

/* --- fp8: layers_fp8.c --- */

/* Of a weight's scales and sample. */
size_t cuda_fp8_bytes(const struct linear_params *p);
/* The weight of n numbers, of the host, becomes codes; between: of the device, cuda_fp8_between() bytes. */
size_t cuda_fp8_between(const struct cuda_layer *l, const struct tensor *weight);
int cuda_fp8_fill(struct cuda_layer *l, const struct tensor *weight, void *between, struct err *e);
/* *coded: x itself when it is codes, else codes of act(x), made at `at` of cuda_codes_bytes(). */
int cuda_fp8_codes(struct rows *coded, struct device *d, const struct rows *x, enum activation act,
                   void *at, struct err *e);
/* Makes the plan of the next for so many rows and results in bf16. */
int cuda_fp8_prepare(struct cuda_layer *l, int rows, bool act, struct err *e);
/* y = W x + b, then the layer's own activation when asked for; x: codes. room: cuBLASLt's. */
int cuda_fp8_product(struct cuda_layer *l, const struct rows *y, const struct rows *x, bool act,
                     void *room, struct err *e);
/* While watched: y, which came of act(x) without an activation behind, into the sums. x of codes: nothing. */
int cuda_fp8_look(const struct cuda_layer *l, const struct rows *y, const struct rows *x,
                  enum activation act, struct err *e);
int cuda_fp8_watch(struct device *d, bool on, struct err *e);
int cuda_fp8_watched(struct device *d, double *error, long *calls, struct err *e);

#endif
