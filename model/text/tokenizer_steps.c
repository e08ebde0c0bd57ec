/* The "normalizer" and "pre_tokenizer" parts of a tokenizer.json, and small reads that its other
 * parts share. Hostile input, as tokenizer_json.c says. */
#include "model/text/tokenizer.h"

#include "model/text/unicode.h"

#include <stdlib.h>
#include <string.h>

const char *tokenizer_type(const struct json *o)
{
    const char *s = json_string(json_get(o, "type"));
    return s ? s : "(none)";
}

int tokenizer_flag(const struct json *o, const char *key, bool fallback, bool *v, struct err *e)
{
    const struct json *n = json_get(o, key);
    *v = fallback;
    if (json_is_null(n) || json_bool(n, v)) return 0;
    return err_set(e, ERR_INPUT, "%s is not true or false", key);
}

char *tokenizer_copy(const char *s)
{
    size_t n = strlen(s) + 1;
    char *p = malloc(n);
    return p ? memcpy(p, s, n) : NULL;
}

/* ---- normalizers ---- */

/* "pattern": {"String": ...} or {"Regex": ...} */
static int read_pattern(struct pattern *p, const struct json *o, struct err *e)
{
    const struct json *n = json_get(o, "pattern");
    const char *literal = json_string(json_get(n, "String")),
               *regex = json_string(json_get(n, "Regex"));
    if (literal) return pattern_string(p, literal, e);
    if (regex) return pattern_regex(p, regex, e);
    return err_set(e, ERR_INPUT, "pattern is neither {\"String\": ...} nor {\"Regex\": ...}");
}

static int read_content(struct norm_step *s, const struct json *o, const char *key, struct err *e)
{
    const char *text = json_string(json_get(o, key));
    if (!text || strlen(text) > MAX_PIECE)
        return err_set(e, ERR_INPUT, "%s is not a string of at most %d bytes", key, MAX_PIECE);
    s->content = tokenizer_copy(text);
    return s->content ? 0 : err_set(e, ERR_RESOURCE, "no memory for a normalizer");
}

static int read_norm_step(struct norm_step *s, const struct json *o, const char *type,
                          struct err *e)
{
    if (strcmp(type, "Precompiled") == 0) {
        const char *map = json_string(json_get(o, "precompiled_charsmap"));
        s->type = NORM_CHARSMAP;
        if (!map) return err_set(e, ERR_INPUT, "precompiled_charsmap is not a string");
        return charsmap_open(&s->map, map, e);
    }
    if (strcmp(type, "Strip") == 0) {
        s->type = NORM_STRIP;
        if (tokenizer_flag(o, "strip_left", true, &s->left, e) < 0) return -1;
        return tokenizer_flag(o, "strip_right", true, &s->right, e);
    }
    if (strcmp(type, "Replace") == 0) {
        s->type = NORM_REPLACE;
        if (read_content(s, o, "content", e) < 0) return -1;
        return read_pattern(&s->pattern, o, e);
    }
    if (strcmp(type, "Prepend") == 0) {
        s->type = NORM_PREPEND;
        return read_content(s, o, "prepend", e);
    }
    if (strcmp(type, "NFC") == 0) {
        s->type = NORM_NFC;
        return 0;
    }
    return err_set(e, ERR_INPUT,
                   "normalizer \"%.40s\" is not one that ditgen knows (Precompiled, Strip, "
                   "Replace, Prepend, NFC, Sequence)",
                   type);
}

/* A step or a Sequence of them, possibly nested; depth is bounded by the parser. */
int tokenizer_read_normalizer(struct tokenizer *t, const struct json *o, struct err *e)
{
    if (json_is_null(o)) return 0;
    const char *type = tokenizer_type(o);
    if (strcmp(type, "Sequence") == 0) {
        const struct json *list = json_get(o, "normalizers");
        if (!json_is_array(list)) return err_set(e, ERR_INPUT, "normalizers is not an array");
        for (const struct json *x = json_first(list); x; x = json_next(x))
            if (tokenizer_read_normalizer(t, x, e) < 0) return -1;
        return 0;
    }
    if (t->n_norm == MAX_STEPS) return err_set(e, ERR_INPUT, "more than %d normalizers", MAX_STEPS);
    return read_norm_step(&t->norm[t->n_norm++], o, type, e);
}

/* ---- pre-tokenizers ---- */

static int read_metaspace(struct pre_step *s, const struct json *o, struct err *e)
{
    const struct json *mark = json_get(o, "replacement");
    const char *text = mark ? json_string(mark) : "\u2581",
               *scheme = json_string(json_get(o, "prepend_scheme"));
    bool prefix;
    uint32_t c;
    size_t n = text ? strlen(text) : 0;
    s->type = PRE_METASPACE;
    if (n < 1 || n > 4 || utf8_read(&c, text, n) != n)
        return err_set(e, ERR_INPUT, "Metaspace: replacement is not one character");
    memcpy(s->mark, text, n + 1);
    if (tokenizer_flag(o, "add_prefix_space", true, &prefix, e) < 0) return -1;
    if (tokenizer_flag(o, "split", true, &s->split, e) < 0) return -1;
    s->prepend = PREPEND_ALWAYS;
    if (scheme && strcmp(scheme, "first") == 0)
        s->prepend = PREPEND_FIRST;
    else if (scheme && strcmp(scheme, "never") == 0)
        s->prepend = PREPEND_NEVER;
    else if (scheme && strcmp(scheme, "always") != 0)
        return err_set(e, ERR_INPUT,
                       "Metaspace: prepend_scheme is \"%.20s\", wanted always, first or never",
                       scheme);
    if (!prefix && scheme && s->prepend != PREPEND_NEVER)
        return err_set(e, ERR_INPUT,
                       "Metaspace: add_prefix_space is false, yet prepend_scheme is \"%s\"",
                       scheme);
    if (!prefix) s->prepend = PREPEND_NEVER;
    return 0;
}

static int read_pre_step(struct pre_step *s, const struct json *o, const char *type, struct err *e)
{
    if (strcmp(type, "Metaspace") == 0) return read_metaspace(s, o, e);
    if (strcmp(type, "WhitespaceSplit") == 0) {
        s->type = PRE_WHITESPACE;
        return 0;
    }
    if (strcmp(type, "Split") == 0) {
        const char *how = json_string(json_get(o, "behavior"));
        bool invert;
        s->type = PRE_ISOLATE;
        if (tokenizer_flag(o, "invert", false, &invert, e) < 0) return -1;
        if (!how || strcmp(how, "Isolated") != 0 || invert)
            return err_set(e, ERR_INPUT,
                           "Split: only behavior \"Isolated\", not inverted, is known");
        return read_pattern(&s->pattern, o, e);
    }
    return err_set(e, ERR_INPUT,
                   "pre_tokenizer \"%.40s\" is not one that ditgen knows (Metaspace, "
                   "WhitespaceSplit, Split, Sequence)",
                   type);
}

int tokenizer_read_pre_tokenizer(struct tokenizer *t, const struct json *o, struct err *e)
{
    if (json_is_null(o)) return 0;
    const char *type = tokenizer_type(o);
    if (strcmp(type, "Sequence") == 0) {
        const struct json *list = json_get(o, "pretokenizers");
        if (!json_is_array(list)) return err_set(e, ERR_INPUT, "pretokenizers is not an array");
        for (const struct json *x = json_first(list); x; x = json_next(x))
            if (tokenizer_read_pre_tokenizer(t, x, e) < 0) return -1;
        return 0;
    }
    if (t->n_pre == MAX_STEPS)
        return err_set(e, ERR_INPUT, "more than %d pre-tokenizers", MAX_STEPS);
    return read_pre_step(&t->pre[t->n_pre++], o, type, e);
}
