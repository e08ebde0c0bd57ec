/* `ditgen bench attention`: every method, and what a user would do instead. argv[0] is "attention". */
#ifndef DITGEN_APP_CLI_BENCH_ATTENTION_H
#define DITGEN_APP_CLI_BENCH_ATTENTION_H

#include "model/base/err.h"

int bench_attention(int argc, char **argv, struct err *e);

#endif
