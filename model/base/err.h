/* What went wrong, in one sentence and one exit code.
 *
 * Whoever knows the facts writes the sentence (what, seen, wanted, next); whoever knows more (file,
 * layer, flag) puts it in front with err_wrap(); only app/cli/main.c prints it. Lives on the caller's
 * stack: failing allocates nothing. Threads: one struct a thread. */
#ifndef DITGEN_BASE_ERR_H
#define DITGEN_BASE_ERR_H

#include <stddef.h>
#include <stdint.h>

#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

enum err_code { /* = exit code of the program */
                ERR_NONE = 0,
                ERR_USAGE = 2, /* flags, sizes, settings */
                ERR_INPUT = 3, /* a file that is missing, broken or of the wrong kind */
                ERR_RESOURCE = 4, /* memory, disk, output that cannot be written */
                ERR_DEVICE = 5, /* a processor or GPU that cannot do what was asked */
                ERR_CANCELLED = 6, /* Ctrl-C */
                ERR_BUG = 70, /* ours */
};

struct err {
    enum err_code code;
    char msg[512];
};

/* Both return -1, so that a failure is one statement. err_wrap() puts "fmt: " before msg; a message
 * that grows past 511 bytes loses its tail. e may not be NULL. */
int err_set(struct err *e, enum err_code code, const char *fmt, ...) PRINTF_LIKE(3, 4);
int err_wrap(struct err *e, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
