/* The value of --attention as text that can be asked and changed; recipe.c reads it. */
#include "attention/attention.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct piece { /* of the text, not terminated */
    const char *at;
    size_t n;
};

static bool piece_is(const struct piece *p, const char *word)
{
    return strlen(word) == p->n && memcmp(p->at, word, p->n) == 0;
}

/* Cuts the piece before the first of `ends` off *text, which moves behind it; NULL at the end. */
static struct piece cut(const char **text, size_t *left, char end)
{
    struct piece p = {*text, *left};
    const char *found = memchr(*text, end, *left);
    if (found) p.n = (size_t)(found - *text);
    *left -= p.n + (found ? 1 : 0);
    *text = found ? found + 1 : NULL;
    return p;
}

/* --- asked and changed -------------------------------------------------------------------------- */

/* The part that names the method: its name in *name, its options in *options (at NULL: none). */
static bool find_method(const char *text, const char *method, struct piece *name,
                        struct piece *options)
{
    size_t left = strlen(text);
    while (text) {
        struct piece part = cut(&text, &left, '+');
        const char *rest = part.at;
        size_t n = part.n;
        *name = cut(&rest, &n, ':');
        *options = (struct piece){rest, rest ? n : 0};
        if (piece_is(name, method)) return true;
    }
    return false;
}

/* "tiles=8" or "causal" */
static bool find_option(const struct piece *options, const char *option, struct piece *word)
{
    const char *text = options->at;
    size_t left = options->n;
    while (text) {
        *word = cut(&text, &left, ',');
        struct piece name = *word;
        const char *equal = memchr(word->at, '=', word->n);
        if (equal) name.n = (size_t)(equal - word->at);
        if (piece_is(&name, option)) return true;
    }
    return false;
}

enum attn_words_has attn_words_has(const char *text, const char *method, const char *option)
{
    struct piece name, options, word;
    if (!find_method(text, method, &name, &options)) return ATTN_WORDS_NO_METHOD;
    return find_option(&options, option, &word) ? ATTN_WORDS_OPTION : ATTN_WORDS_METHOD;
}

char *attn_words_get(const char *text, const char *method, const char *option)
{
    struct piece name, options, word;
    if (!find_method(text, method, &name, &options)) return NULL;
    if (!find_option(&options, option, &word)) return NULL;
    const char *equal = memchr(word.at, '=', word.n);
    if (!equal) return strdup("true");
    return strndup(equal + 1, word.n - (size_t)(equal + 1 - word.at));
}

int attn_words_set(char **out, const char *text, const char *method, const char *option,
                   const char *value, struct err *e)
{
    struct piece name, options, word = {0};
    *out = NULL;
    if (strpbrk(value, ",+:"))
        return err_set(e, ERR_USAGE, "%s-%s is '%.100s', wanted a value without , + :", method,
                       option, value);
    if (!find_method(text, method, &name, &options))
        return err_set(e, ERR_BUG, "attention '%.100s' has no part %s", text, method);
    /* before: what stays in front; after: behind */
    const char *before = options.at ? options.at + options.n : name.at + name.n, *after = before,
               *join = !options.at ? ":"
                       : options.n ? ","
                                   : "";
    if (options.at && find_option(&options, option, &word))
        before = word.at, after = word.at + word.n, join = "";
    int n =
        snprintf(NULL, 0, "%.*s%s%s=%s%s", (int)(before - text), text, join, option, value, after);
    if (n < 0 || !(*out = malloc((size_t)n + 1)))
        return err_set(e, ERR_RESOURCE, "no memory for the attention method's text");
    snprintf(*out, (size_t)n + 1, "%.*s%s%s=%s%s", (int)(before - text), text, join, option, value,
             after);
    return 0;
}

int attn_words_check(const char *text, struct err *e) { return attn_stack_check(text, NULL, 0, e); }
