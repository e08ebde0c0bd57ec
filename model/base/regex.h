/* Regular expressions that files carry (peft's patterns), matched in time pattern * text whatever
 * they say: all ways are followed at once, none is gone back on.
 *
 * Read: characters, . \d \w \s and their capitals, \. and other escaped marks, [sets], (groups),
 * (?:groups), |, * + ? {n,m} and their lazy forms, ^ and $. Anything else is refused by name, as are
 * patterns outside ASCII. Owner: open → close. Threads: read-only after open. Errors: ERR_INPUT. */
#ifndef DITGEN_BASE_REGEX_H
#define DITGEN_BASE_REGEX_H

#include "model/base/err.h"

#include <stdbool.h>

struct regex;

int regex_open(struct regex **r, const char *pattern, struct err *e);
void regex_close(struct regex *r); /* takes NULL */
/* The pattern is all of text, or all of what follows one of its dots: Python's
 * re.match(rf"(.*\.)?({pattern})$", text). text longer than 1,000 bytes: false. */
bool regex_is_tail(const struct regex *r, const char *text);

#endif
