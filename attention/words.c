/* The value of --attention: NAME[:OPTION=VALUE[,OPTION=VALUE ...]]; see attention.h.
 *
 * Parts joined by '+' are walked, so that text of composed methods can be asked and changed; one
 * method is what runs. */
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

/* --- read --------------------------------------------------------------------------------------- */

static int no_such_method(const struct piece *name, struct err *e)
{
    char all[256] = "";
    for (int i = 0; i < attn_method_count(); i++) {
        size_t n = strlen(all);
        snprintf(all + n, sizeof all - n, "%s%s", i ? ", " : "", attn_method_at(i)->name);
    }
    return err_set(e, ERR_USAGE, "attention is '%.*s', wanted one of %s",
                   (int)(name->n < 100 ? name->n : 100), name->at, all);
}

static int no_such_option(const struct attn_method *m, const char *name, struct err *e)
{
    char all[256] = "";
    for (const struct option *o = m->options; o && o->name; o++) {
        size_t n = strlen(all);
        snprintf(all + n, sizeof all - n, "%s%s", n ? ", " : "; it has ", o->name);
    }
    return err_set(e, ERR_USAGE, "attention %s has no option '%.60s'%s", m->name, name,
                   *all ? all : ": it has none");
}

static int read_option(const struct attn_method *m, void *options, const struct piece *word,
                       struct err *e)
{
    char *text = strndup(word->at, word->n);
    if (!text) return err_set(e, ERR_RESOURCE, "no memory for the options of %s", m->name);
    char *value = strchr(text, '=');
    if (value) *value++ = 0;
    const struct option *o = option_find(m->options, text);
    int rc = o ? option_parse(o, options, value ? value : "true", e) : no_such_option(m, text, e);
    if (rc < 0 && o) err_wrap(e, "attention %s", m->name);
    free(text);
    return rc;
}

int attn_words_read(const struct attn_method **method, void **options, const char *text,
                    struct err *e)
{
    size_t left = strlen(text);
    struct piece part = cut(&text, &left, '+');
    const char *rest = part.at;
    struct piece name = cut(&rest, &part.n, ':');
    const struct attn_method *m = NULL;
    *method = NULL, *options = NULL;
    for (int i = 0; i < attn_method_count(); i++)
        if (piece_is(&name, attn_method_at(i)->name)) m = attn_method_at(i);
    if (!m) return no_such_method(&name, e);
    if (text)
        return err_set(e, ERR_USAGE, "attention has '+%.100s': one method at a time runs", text);
    if (!(*options = calloc(1, m->options_size ? m->options_size : 1)))
        return err_set(e, ERR_RESOURCE, "no memory for the options of %s", m->name);
    *method = m;
    if (option_defaults(m->options, *options, e) < 0) goto fail;
    left = part.n;
    while (rest) {
        struct piece word = cut(&rest, &left, ',');
        if (read_option(m, *options, &word, e) < 0) goto fail;
    }
    return 0;
fail:
    attn_words_free(m, *options);
    *method = NULL, *options = NULL;
    return -1;
}

void attn_words_free(const struct attn_method *method, void *options)
{
    if (method) option_free(method->options, options);
    free(options);
}

int attn_words_check(const char *text, struct err *e)
{
    const struct attn_method *m;
    void *options;
    if (attn_words_read(&m, &options, text, e) < 0) return -1;
    attn_words_free(m, options);
    return 0;
}
