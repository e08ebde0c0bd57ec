/* Settings as one word of a y4m header: form encoding, so that no blank, newline or control byte is
 * left.
 *
 * Blank → "+"; "+", "%", bytes below 0x21 and 0x7f → "%XX"; UTF-8 stays as it is. */
#ifndef DITGEN_APP_WRITERS_SETTINGS_TEXT_H
#define DITGEN_APP_WRITERS_SETTINGS_TEXT_H

#include <stddef.h>

/* Heap; NULL without memory. */
char *settings_encode(const char *text);
/* n bytes of word. Heap; NULL without memory, or when an escape is broken or names a zero byte. */
char *settings_decode(const char *word, size_t n);

#endif
