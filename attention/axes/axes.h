/* The members of the axes that several methods share, and what they are made of. Each is one file;
 * methods name them in their recipes. Private to the room. */
#ifndef DITGEN_ATTENTION_AXES_AXES_H
#define DITGEN_ATTENTION_AXES_AXES_H

#include "attention/method.h"

extern const struct axis_ask ask_copy_step; /* the last output, but at refreshes: knobs every */
extern const struct axis_order order_by_tile; /* tiles of tokens one after another: knobs tile */
extern const struct axis_select keep_band; /* round the row's own block: knobs tiles, density */
extern const struct axis_reuse anew_by_schedule; /* steps known before the run: knobs every */
extern const struct axis_compensate rest_residual; /* exact - kept, of the last refresh */

/* Whether step is one of the refreshes that `every` names in a run whose steps first .. last - 1
 * are not exact: "5", "early" (intervals of 2 2 3 3 4 4 ... from first on), "6/8/10" (steps). NULL:
 * each. schedule_check refuses what is none of these. */
bool schedule_at(const char *every, int first, int last, int step);
int schedule_check(const char *every, struct err *e);

/* "4x4x4" → t, h, w; "raster" or NULL → 0, 0, 0. */
int tile_parse(const char *text, int tile[3], struct err *e);

#endif
