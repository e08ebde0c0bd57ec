/* Measuring a model for step caches while it makes exact clips: calibration.h says what is kept.
 *
 * TeaCache's polynomial is fitted, by least squares over all steps, branches and prompts, to how far
 * the velocity moved (relative L1) against how far the embedding of time did. The authors fit what
 * their transformer hands to its head; a clip is made of velocities. MagCache's ratios are means over
 * tokens of the sizes of what the blocks added, beside the step before, and over prompts.
 *
 * Owner: calibrate_open → calibrate_close. Threads: one. Errors: ERR_RESOURCE, ERR_USAGE. */
#ifndef DITGEN_APP_LIB_CALIBRATE_H
#define DITGEN_APP_LIB_CALIBRATE_H

#include "app/lib/calibration.h"

struct calibrate;
int calibrate_open(struct calibrate **c, struct err *e);
void calibrate_close(struct calibrate *c); /* takes NULL */
/* For struct ditgen's watch. Lives with c. */
const struct dit_watch *calibrate_watch(const struct calibrate *c);
/* to: zeroed; path and mark are the caller's. After at least one whole clip. */
int calibrate_result(struct calibration *to, struct calibrate *c, struct err *e);

/* Coefficients of falling power that come nearest to y[n] at x[n]. ERR_USAGE when there are fewer than
 * 6 different x. */
int calibrate_fit(double poly[DIT_POLY], const double *x, const double *y, int n, struct err *e);

#endif
