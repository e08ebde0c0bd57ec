/* Form encoding of settings; see settings_text.h. */
#include "app/clips/settings_text.h"

#include "model/base/option.h"
#include <stdlib.h>
#include <string.h>

char *settings_encode(const char *text)
{
    static const char hex[] = "0123456789ABCDEF";
    char *word = malloc(3 * strlen(text) + 1), *o = word;
    if (!word) return NULL;
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p == ' ') {
            *o++ = '+';
        } else if (*p < 0x21 || *p == 0x7f || *p == '+' || *p == '%') {
            *o++ = '%';
            *o++ = hex[*p >> 4];
            *o++ = hex[*p & 15];
        } else {
            *o++ = (char)*p;
        }
    }
    *o = 0;
    return word;
}

char *settings_decode(const char *word, size_t n)
{
    char *text = malloc(n + 1), *o = text;
    if (!text) return NULL;
    for (size_t i = 0; i < n; i++) {
        char c = word[i];
        if (c == '+') {
            c = ' ';
        } else if (c == '%') {
            if (n - i < 3) goto broken;
            int hi = hex_digit(word[i + 1]), lo = hex_digit(word[i + 2]);
            if (hi < 0 || lo < 0 || hi + lo == 0) goto broken;
            c = (char)(hi << 4 | lo);
            i += 2;
        } else if (c == 0) {
            goto broken;
        }
        *o++ = c;
    }
    *o = 0;
    return text;
broken:
    free(text);
    return NULL;
}
