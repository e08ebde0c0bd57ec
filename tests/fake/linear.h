/* The fake's linear layers, for its table (ops.c). */
#ifndef DITGEN_TESTS_FAKE_LINEAR_H
#define DITGEN_TESTS_FAKE_LINEAR_H

#include "tests/fake/fake.h"

/* What stands beside fp8 is bf16, on every processor. */
enum precision fake_emulated(enum precision p);
int fake_linear_open(struct op_linear **l, struct device *d, const struct linear_params *p,
                     const struct tensor *weight, const struct tensor *bias,
                     struct linear_stage *stage, struct err *e);
void fake_linear_close(struct op_linear *l);
int fake_linear_rebind(struct op_linear *l, const struct tensor *weight, const struct tensor *bias,
                       struct err *e);
bool fake_linear_as_is(const struct linear_params *p, enum dtype weight);
size_t fake_linear_bytes(const struct linear_params *p);
int fake_linear_prepare(struct op_linear *l, int rows, size_t *scratch, struct err *e);
size_t fake_linear_scratch(const struct linear_params *p, int rows);
int fake_linear(struct op_linear *l, const struct rows *y, const struct rows *x, void *scratch,
                struct err *e);
int fake_linear_several(struct op_linear *const *l, const struct rows *y, int n,
                        const struct rows *x, void *scratch, struct err *e);
int fake_ffn_prepare(struct op_linear *up, struct op_linear *down, int rows, size_t *scratch,
                     struct err *e);
size_t fake_ffn_scratch(const struct linear_params *up, const struct linear_params *down, int rows);
int fake_ffn(struct op_linear *up, struct op_linear *down, const struct rows *y,
             const struct rows *x, void *scratch, struct err *e);

#endif
