/* What bench attention and tune measure: rows of trial.h made from the registries, so that a method or
 * a step cache is measured by its being there. Owner: bench_rows_make → bench_rows_free. */
#ifndef DITGEN_APP_CLI_BENCH_ROWS_H
#define DITGEN_APP_CLI_BENCH_ROWS_H

#include "app/cli/trial.h"

enum row_kind { ROW_METHOD, ROW_CACHE, ROW_STEPS, ROW_KERNEL };
struct bench_row {
    enum row_kind kind;
    int setting; /* 0 mild, 1, 2 strong */
    char group[64]; /* method, cache, "steps" ...: of whose settings */
    char text[256]; /* of trial.h */
};
struct bench_rows {
    struct bench_row *at;
    int n, room;
};
/* Methods at three settings (quick: the middle one), step caches likewise where they are calibrated,
 * fewer steps of `steps`, and dense by another kernel than the one that is picked, if there is one. */
int bench_rows_make(struct bench_rows *r, struct trials *t, const char *prompt, bool quick,
                    struct err *e);
int bench_rows_add(struct bench_rows *r, enum row_kind kind, int setting, const char *group,
                   const char *text, struct err *e);
void bench_rows_free(struct bench_rows *r);

#endif
