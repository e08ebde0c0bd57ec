/* Subcommands: one file a verb. argv[0] is the verb's own name ("compare"), flags follow.
 *
 * Return 0, or -1 with *e filled: main.c prints it and exits with e->code. A command may return 0
 * and set e->code (with an empty message) when it has said all there is to say: --plan does,
 * with 4. */
#ifndef DITGEN_APP_CMD_H
#define DITGEN_APP_CMD_H

#include "model/base/err.h"

int cmd_generate(int argc, char **argv, struct err *e);
int cmd_list(int argc, char **argv, struct err *e);
int cmd_inspect(int argc, char **argv, struct err *e);
int cmd_bench(int argc, char **argv, struct err *e);
int cmd_calibrate(int argc, char **argv, struct err *e);
int cmd_tune(int argc, char **argv, struct err *e);
int cmd_compare(int argc, char **argv, struct err *e);
int cmd_rerun(int argc, char **argv, struct err *e);
int cmd_resume(int argc, char **argv, struct err *e);
int cmd_decode(int argc, char **argv, struct err *e);

#endif
