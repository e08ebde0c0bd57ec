/* What the files of the GPU's table share: what is kept with a device, and layers. */
#ifndef DITGEN_OPS_CUDA_TABLE_H
#define DITGEN_OPS_CUDA_TABLE_H

#include "model/base/device_table.h"
#include "model/ops/cuda/blas.h"
#include "model/ops/cuda/ops_cuda.h"

/* Kept with the device. */
struct cuda_table {
    struct cuda_blas *blas;
    struct cuda_plan *plans; /* of products, by shape: layers of one shape share theirs */
    int *found; /* [1] of the device: the label of what was not finite */
    int *brought; /* [1] pinned: what `found` was some time ago */
    double *sums; /* [2] of the device: errors of fp8 products that were watched, and how many */
    bool watching;
};
int cuda_table_of(struct cuda_table **t, struct device *d, struct err *e);
/* The plan of this product, made at its first use. */
int cuda_table_plan(struct cuda_matmul **m, struct cuda_table *t, const struct cuda_product *p,
                    struct err *e);

/* --- layers: layers.c --- */

int cuda_linear_open(struct op_linear **l, struct device *d, const struct linear_params *p,
                     const struct tensor *weight, const struct tensor *bias,
                     struct linear_stage *stage, struct err *e);
void cuda_linear_close(struct op_linear *l);
int cuda_linear_rebind(struct op_linear *l, const struct tensor *weight, const struct tensor *bias,
                       struct err *e);
bool cuda_linear_as_is(const struct linear_params *p, enum dtype weight);
size_t cuda_linear_bytes(const struct linear_params *p);
int cuda_linear_prepare(struct op_linear *l, int rows, size_t *scratch, struct err *e);
size_t cuda_linear_scratch(const struct linear_params *p, int rows);
int cuda_linear(struct op_linear *l, const struct rows *y, const struct rows *x, void *scratch,
                struct err *e);
int cuda_linear_several(struct op_linear *const *l, const struct rows *y, int n,
                        const struct rows *x, void *scratch, struct err *e);
int cuda_ffn_prepare(struct op_linear *up, struct op_linear *down, int rows, size_t *scratch,
                     struct err *e);
size_t cuda_ffn_scratch(const struct linear_params *up, const struct linear_params *down, int rows);
int cuda_ffn(struct op_linear *up, struct op_linear *down, const struct rows *y,
             const struct rows *x, void *scratch, struct err *e);

#endif
