/* The small strict .ini reader; see ini.h. */
#include "app/lib/ini.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/base/option.h"
bool ini_unescape(char *value)
{
    char *to = value;
    for (const char *p = value; *p; p++) {
        if (*p != '\\') {
            *to++ = *p;
            continue;
        }
        p++;
        int hi, lo;
        if (*p == '\\') {
            *to++ = '\\';
        } else if (*p == 'n') {
            *to++ = '\n';
        } else if (*p == 't') {
            *to++ = '\t';
        } else if (*p == 'x' && (hi = hex_digit(p[1])) >= 0 && (lo = hex_digit(p[2])) >= 0 &&
                   (hi || lo)) {
            *to++ = (char)(hi * 16 + lo);
            p += 2;
        } else {
            return false;
        }
    }
    *to = 0;
    return true;
}

static void put(char *buf, size_t n, size_t *len, const char *piece)
{
    for (; *piece; piece++, (*len)++)
        if (*len + 1 < n) buf[*len] = *piece;
}

int ini_quote(char *buf, size_t n, const char *value)
{
    size_t len = 0;
    put(buf, n, &len, "\"");
    for (const char *p = value; *p; p++) {
        char piece[8] = {*p};
        if (*p == '\\')
            strcpy(piece, "\\\\");
        else if (*p == '\n')
            strcpy(piece, "\\n");
        else if (*p == '\t')
            strcpy(piece, "\\t");
        else if (*p == '"' || (unsigned char)*p < 32 || *p == 127)
            snprintf(piece, sizeof piece, "\\x%02x", (unsigned char)*p);
        put(buf, n, &len, piece);
    }
    put(buf, n, &len, "\"");
    if (n) buf[len < n ? len : n - 1] = 0;
    return (int)len;
}

static char *trim(char *s)
{
    while (*s == ' ' || *s == '\t' || *s == '\r')
        s++;
    size_t n = strlen(s);
    while (n && (s[n - 1] == ' ' || s[n - 1] == '\t' || s[n - 1] == '\r'))
        s[--n] = 0;
    return s;
}

/* The value's text without quotes or trailing comment; NULL with *why when it is malformed. */
static char *value_text(char *s, const char **why)
{
    if (*s == '"' || *s == '\'') {
        char *end = strchr(s + 1, *s);
        if (!end) return *why = "the quote is not closed", NULL;
        char *rest = trim(end + 1);
        if (*rest && *rest != '#' && *rest != ';')
            return *why = "text after the closing quote (a quote inside is \\x22)", NULL;
        *end = 0;
        s++;
    } else {
        for (char *p = s; *p; p++)
            if ((*p == '#' || *p == ';') && (p == s || p[-1] == ' ' || p[-1] == '\t')) {
                *p = 0;
                break;
            }
        s = trim(s);
    }
    if (!ini_unescape(s)) return *why = "unknown escape (there are \\\\ \\n \\t \\xHH)", NULL;
    return s;
}

static bool is_name(const char *s)
{
    if (!*s) return false;
    for (; *s; s++)
        if (!isalnum((unsigned char)*s) && *s != '-' && *s != '_' && *s != '.') return false;
    return true;
}

static int parse_line(char *line, char *section, int number, const char *name, ini_sink sink,
                      void *ctx, struct err *e)
{
    char *s = trim(line);
    if (!*s || *s == '#' || *s == ';') return 0;
    if (*s == '[') {
        char *end = strchr(s, ']');
        if (!end || *trim(end + 1))
            return err_set(e, ERR_INPUT, "%s:%d: wanted [section] alone on its line", name, number);
        *end = 0;
        s = trim(s + 1);
        if (!is_name(s) || strlen(s) > 63)
            return err_set(e, ERR_INPUT, "%s:%d: a section's name has letters, digits, - _ . only",
                           name, number);
        strcpy(section, s);
        if (sink(ctx, section, NULL, NULL, e) == 0) return 0;
        return err_wrap(e, "%s:%d", name, number);
    }
    char *equal = strchr(s, '=');
    if (!equal)
        return err_set(e, ERR_INPUT, "%s:%d: wanted [section] or key = value", name, number);
    *equal = 0;
    char *key = trim(s);
    if (!is_name(key))
        return err_set(e, ERR_INPUT, "%s:%d: a key has letters, digits, - _ . only", name, number);
    const char *why = NULL;
    char *value = value_text(trim(equal + 1), &why);
    if (!value) return err_set(e, ERR_INPUT, "%s:%d: %s: %s", name, number, key, why);
    if (sink(ctx, section, key, value, e) == 0) return 0;
    return err_wrap(e, "%s:%d", name, number);
}

int ini_parse(const char *text, size_t len, const char *name, ini_sink sink, void *ctx,
              struct err *e)
{
    char section[64] = "";
    int number = 1, rc = 0;
    if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) text += 3, len -= 3;
    char *copy = malloc(len + 1), *line = copy;
    if (!copy) return err_set(e, ERR_RESOURCE, "no memory to read %s (%zu bytes)", name, len);
    memcpy(copy, text, len);
    copy[len] = 0;
    while (len > 0 && rc == 0) {
        char *end = memchr(line, '\n', len);
        size_t n = end ? (size_t)(end - line) : len;
        line[n] = 0;
        if (strlen(line) < n)
            rc = err_set(e, ERR_INPUT, "%s:%d: a NUL byte: this is no text file", name, number);
        else
            rc = parse_line(line, section, number, name, sink, ctx, e);
        if (end) n++;
        line += n, len -= n, number++;
    }
    free(copy);
    return rc ? -1 : 0;
}
