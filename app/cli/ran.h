/* What a clip says of the run that made it: section [run] behind its settings.
 *
 *     [run]
 *     device = "cpu"
 *     kernel = "avx512"
 *     density = 0.385         share of attention that was computed
 *     sampled-error = 0.041   relative L1 of sampled rows; absent where nothing was approximate
 *     copied-error = 0.13     relative L1 of copied outputs against those made next; absent likewise
 *     reused-steps = 12       left out by the step cache; absent where there was none
 *     budget-estimate = 41.2  dB that its error budget came to; absent where there was none
 *     fp8-error = 0.037       relative L2 of fp8 products against bf16's, sampled; absent without fp8
 *
 * It asks for nothing: who reads settings passes over it, rerun says what is different this time.
 * Values, no heap. */
#ifndef DITGEN_APP_RAN_H
#define DITGEN_APP_RAN_H

#include "app/lib/ditgen.h"
#include "model/base/err.h"

#include <stdbool.h>

struct ran {
    bool known; /* the clip has the section */
    char device[32], kernel[32];
    double density, error, copied_error; /* errors: -1: the clip says none */
    double reused_steps; /* 0: none */
    double estimate; /* dB that its error budget came to; 0: it had none */
    double fp8_error; /* 0: none */
};

void ran_of(struct ran *r, const struct ditgen_ran *from);
/* The section of a stored text; r->known false: it has none. Refuses what is no number or too long,
 * passes over keys that it does not know: a later version may say more. */
int ran_read(struct ran *r, const char *text, const char *name, struct err *e);
/* settings and the section behind them; heap, NULL: no memory. */
char *ran_text(const char *settings, const struct ran *r);
/* The section of a stored text, to its end; "" when it has none. */
const char *ran_section(const char *text);
/* "the clip was made by ...; here by ...", in words; buf[n] is "" when nothing differs. */
void ran_compare(char *buf, size_t n, const struct ran *clip, const struct ran *now);

#endif
