/* Settings as text: `key = value` lines under [sections]: profiles, --config and --dump-config, what
 * clips carry, ditgen.ini beside a model. One reader for all, in every build: iniparser, which read
 * the first two once, stops at lines of 1,023 bytes and at the first quote inside a value.
 *
 * Lines are blank, `# comment`, `; comment`, `[section]` or `key = value`, of any length. A value
 * runs to the end of the line or to a comment behind a blank, or stands in "double" or 'single'
 * quotes; everywhere \\ \n \t and \xHH are single bytes (a quote is \x22, as other readers of .ini
 * files end a value at the first quote). A byte order mark in front is taken away. Anything else is
 * an error with its line. Errors: ERR_INPUT, ERR_RESOURCE. */
#ifndef DITGEN_APP_INI_H
#define DITGEN_APP_INI_H

#include "model/base/err.h"

#include <stdbool.h>
#include <stddef.h>

/* section is "" before the first one, whose line has key and value NULL, as that of each. -1 with *e filled stops; "name:line: " is put in front. */
typedef int (*ini_sink)(void *ctx, const char *section, const char *key, const char *value,
                        struct err *e);
/* text need not be NUL-terminated. */
int ini_parse(const char *text, size_t len, const char *name, ini_sink sink, void *ctx,
              struct err *e);

/* Bytes of value as ini_parse() reads them back, quoted; at most n - 1, returns the length needed.
 */
int ini_quote(char *buf, size_t n, const char *value);
/* Undoes the escapes in place; false when one is unknown. */
bool ini_unescape(char *value);

#endif
