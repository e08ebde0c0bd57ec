/* fp8 layers of the fake device: the judge of model/ops/fp8.h on memory of the host. */
#ifndef DITGEN_TESTS_FAKE_FP8_H
#define DITGEN_TESTS_FAKE_FP8_H

#include "model/ops/ops.h"

struct fake_fp8; /* a layer: codes, and the weight as it was for the sample */
int fake_fp8_open(struct fake_fp8 **l, const struct linear_params *p, const struct tensor *weight,
                  const struct tensor *bias, struct err *e);
void fake_fp8_close(struct fake_fp8 *l); /* takes NULL */
size_t fake_fp8_bytes(const struct linear_params *p);
int fake_fp8_out(const struct fake_fp8 *l);
/* x, y: fp32 of the host, or x its codes */
int fake_fp8_run(const struct fake_fp8 *l, const struct rows *y, const struct rows *x,
                 struct err *e);
/* Codes of x [n, cols] fp32 into a view of F8_E4M3. */
void fake_fp8_codes(const struct rows *q, const float *x);
void fake_fp8_watch(bool on);
void fake_fp8_watched(double *error, long *calls);

#endif
