/* Files that people name on the command line: a file, or a pipe such as <(...), opened once.
 *
 * Errors: ERR_INPUT with the path and what it is; ERR_RESOURCE. */
#ifndef DITGEN_APP_INPUT_H
#define DITGEN_APP_INPUT_H

#include "model/base/err.h"

#include <stddef.h>

/* A text that people wrote (byte order mark taken away, UTF-16 read as such), to its end; "-" is
 * standard input. NUL-terminated, heap; limit refuses longer ones; it may hold no NUL. */
int input_text(char **text, size_t *len, const char *path, size_t limit, struct err *e);

/* A name under which what `path` gives can be opened as often as one likes: path itself, or, when it
 * is a pipe, that of an unnamed file with all that came out of it. Owner: input_open → input_close,
 * which takes what was never opened. */
struct input {
    char name[64]; /* of the unnamed file */
    const char *path; /* to open */
    const char *given;
    int fd; /* of the unnamed file; -1: none */
};
int input_open(struct input *in, const char *path, struct err *e);
/* Its first bytes, at most n; how many there are. */
size_t input_head(const struct input *in, unsigned char *head, size_t n);
/* Puts the given name where a message about the unnamed file begins with its own; always -1. */
int input_blame(const struct input *in, struct err *e);
void input_close(struct input *in);

#endif
