/* A number that depends on the size of the clip: "3, 5@5184, 7@20000" is 3, from 5184 tokens on 5,
 * from 20000 on 7.
 *
 * The first entry stands for the smallest clips and has no "@"; the others rise. Tokens are what the
 * transformer sees, as --plan tells. Errors: ERR_USAGE. */
#ifndef DITGEN_APP_BY_SIZE_H
#define DITGEN_APP_BY_SIZE_H

#include "model/base/option.h"

#include <stdbool.h>

/* o: type and range of each number. */
int by_size_check(const struct option *o, const char *list, struct err *e);
/* The entry for so many tokens, into *value (int or double, by the type of o); list was checked. */
int by_size_pick(const struct option *o, const char *list, double tokens, void *value,
                 struct err *e);

/* The same of texts, which may hold commas: "dense | resid:every=4@5184 | window@20000". A text without
 * '|' is no such list. */
bool by_size_is_text(const char *text);
int by_size_text_check(const char *name, const char *list,
                       int (*check)(const char *text, struct err *e), struct err *e);
/* Heap. */
int by_size_text_pick(char **text, const char *name, const char *list, double tokens,
                      struct err *e);

#endif
