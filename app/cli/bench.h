/* ditgen bench: what cmd_bench.c measures and bench_print.c prints, nobody else. */
#ifndef DITGEN_APP_CLI_BENCH_H
#define DITGEN_APP_CLI_BENCH_H

#include "app/cli/peak.h"
#include "app/cli/progress.h"
#include "app/lib/run.h"

enum row { ROW_TEXT, ROW_LOAD, ROW_STEP, ROW_DENOISE, ROW_DECODE, ROW_ALL, ROWS };

struct samples { /* of one row */
    double *v;
    int n;
};

struct bench {
    int runs;
    bool json, help;
    struct samples rows[ROWS];
    size_t bytes[DITGEN_PHASES]; /* measured in the first run, which finds a fresh heap; 0: not
                                    known */
    size_t most; /* of the process, until the first run ended */
    /* of the run under way */
    const struct ditgen *d;
    struct progress *progress;
    int run;
    size_t vram[DITGEN_PHASES]; /* of a GPU, in the first run; 0: not known */
    bool marks; /* the system starts the memory mark anew on request */
    enum ditgen_phase phase;
    int done;
    double begin, last; /* last: when the row under way began */
    double text, load, denoise;
};

struct report {
    const struct bench *b;
    const struct ditgen_settings *s;
    struct ditgen_plan plan;
    struct peak peak;
    struct cpu cpu;
    double step_flops, decode_flops;
    size_t before; /* resident when the plan was made: what each phase adds to */
};

static inline bool bench_on_device(const struct report *r) { return r->plan.device_bytes > 0; }

/* --- bench_print.c --- */

void bench_print_tables(const struct report *r);
void bench_print_json(const struct report *r); /* one object */

#endif
