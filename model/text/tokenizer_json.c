/* tokenizer.json → struct tokenizer. The file is hostile: types, ranges, lengths and encodings are
 * all checked here, so that tokenizer.c may trust what it finds. */
#include "model/text/tokenizer.h"

#include "model/base/file_map.h"
#include "model/base/json.h"
#include "model/text/unicode.h"

#include <stdlib.h>
#include <string.h>

#define MAX_FILE ((size_t)256 << 20) /* the umt5-xxl one has 17 MB */

static int read_id(const struct json *n, int limit, int *id)
{
    double d;
    if (!json_number(n, &d) || d < 0 || d >= limit || d != (double)(int)d) return -1;
    *id = (int)d;
    return 0;
}

/* ---- model ---- */

/* One pass to measure, one to fill: pieces are copied into one pool. */
static int read_vocab(struct tokenizer *t, const struct json *vocab, struct piece *items,
                      double *score, struct err *e)
{
    size_t bytes = 0;
    int i = 0;
    for (const struct json *p = json_first(vocab); p; p = json_next(p), i++) {
        const struct json *s = json_first(p);
        const char *text = json_string(s);
        if (!json_is_array(p) || json_count(p) != 2 || !text ||
            !json_number(json_next(s), &score[i]))
            return err_set(e, ERR_INPUT, "model.vocab[%d] is not [\"piece\", score]", i);
        size_t n = strlen(text);
        if (n > MAX_PIECE)
            return err_set(e, ERR_INPUT, "model.vocab[%d] has %zu bytes; at most %d are taken", i,
                           n, MAX_PIECE);
        bytes += n + 1;
    }
    t->pool = malloc(bytes);
    if (!t->pool) return err_set(e, ERR_RESOURCE, "no memory for %zu bytes of vocabulary", bytes);
    char *at = t->pool;
    i = 0;
    for (const struct json *p = json_first(vocab); p; p = json_next(p), i++) {
        const char *text = json_string(json_first(p));
        size_t n = strlen(text);
        memcpy(at, text, n + 1);
        items[i] = (struct piece){.text = at, .len = (uint32_t)n, .id = i};
        t->piece[i] = at;
        at += n + 1;
    }
    return 0;
}

static int read_model(struct tokenizer *t, const struct json *model, int n_added, struct err *e)
{
    const struct json *vocab = json_get(model, "vocab"), *unk = json_get(model, "unk_id");
    const char *type = tokenizer_type(model);
    bool bytes;
    int unk_id = -1;
    if (strcmp(type, "Unigram") != 0)
        return err_set(e, ERR_INPUT, "model.type is \"%.40s\"; Wan's text encoders use Unigram",
                       type);
    int n = json_is_array(vocab) ? json_count(vocab) : 0;
    if (n < 1 || n > MAX_VOCAB - n_added)
        return err_set(e, ERR_INPUT, "model.vocab has %d pieces, wanted 1 to %d", n,
                       MAX_VOCAB - n_added);
    if (!json_is_null(unk) && read_id(unk, n, &unk_id) < 0)
        return err_set(e, ERR_INPUT, "model.unk_id is not one of the %d ids", n);
    if (tokenizer_flag(model, "byte_fallback", false, &bytes, e) < 0) return -1;

    struct piece *items = malloc((size_t)n * sizeof *items);
    double *score = calloc((size_t)n, sizeof *score);
    t->piece = calloc((size_t)n + (size_t)n_added, sizeof *t->piece);
    t->n_ids = n;
    if (!items || !score || !t->piece) {
        err_set(e, ERR_RESOURCE, "no memory for a vocabulary of %d pieces", n);
        goto fail;
    }
    if (read_vocab(t, vocab, items, score, e) < 0) goto fail;
    unigram_init(&t->model, items, score, n, unk_id, bytes);
    return 0;
fail:
    free(items);
    free(score);
    return -1;
}

/* ---- added tokens ---- */

/* first: among contents, each with how far from the end of the list it stands, for the earliest */
static int read_added_token(struct tokenizer *t, const struct json *o, const struct pieces *first,
                            int n, int *next, struct err *e)
{
    struct added_token *a = &t->added[t->n_added];
    const char *content = json_string(json_get(o, "content"));
    int id;
    bool special;
    if (!content || !*content || strlen(content) > MAX_PIECE)
        return err_set(e, ERR_INPUT, "content is missing, empty or longer than %d bytes",
                       MAX_PIECE);
    if (read_id(json_get(o, "id"), MAX_VOCAB, &id) < 0)
        return err_set(e, ERR_INPUT, "\"%.40s\" has no id from 0 to %d", content, MAX_VOCAB - 1);
    if (tokenizer_flag(o, "special", false, &special, e) < 0 ||
        tokenizer_flag(o, "single_word", false, &a->single_word, e) < 0 ||
        tokenizer_flag(o, "lstrip", false, &a->lstrip, e) < 0 ||
        tokenizer_flag(o, "rstrip", false, &a->rstrip, e) < 0 ||
        tokenizer_flag(o, "normalized", !special, &a->normalized, e) < 0)
        return -1;
    /* the id follows from the content; the reference warns when the file says otherwise */
    a->id = pieces_find(&t->model.pieces, content, strlen(content));
    int earliest = n - 1 - pieces_find(first, content, strlen(content));
    if (a->id < 0 && earliest < t->n_added) a->id = t->added[earliest].id;
    if (a->id < 0) a->id = (*next)++;
    if (a->id != id)
        return err_set(e, ERR_INPUT, "\"%.40s\" claims id %d, where the vocabulary gives it %d",
                       content, id, a->id);
    a->content = tokenizer_copy(content);
    if (!a->content) return err_set(e, ERR_RESOURCE, "no memory for an added token");
    t->n_added++;
    if (id >= t->n_ids) t->n_ids = id + 1;
    t->piece[id] = a->content;
    return 0;
}

static int read_added(struct tokenizer *t, const struct json *list, struct err *e)
{
    int n = json_count(list), next = t->n_ids, i = 0, kept = 0, status = 0;
    if (!n) return 0;
    struct pieces first = {0};
    struct piece *items = malloc((size_t)n * sizeof *items);
    t->added = calloc((size_t)n, sizeof *t->added);
    if (!items || !t->added) {
        free(items);
        return err_set(e, ERR_RESOURCE, "no memory for %d added tokens", n);
    }
    for (const struct json *o = json_first(list); o; o = json_next(o), i++) {
        const char *content = json_string(json_get(o, "content"));
        size_t len = content ? strlen(content) : 0;
        if (len && len <= MAX_PIECE)
            items[kept++] = (struct piece){.text = content, .len = (uint32_t)len, .id = n - 1 - i};
    }
    pieces_build(&first, items, kept);
    i = 0;
    for (const struct json *o = json_first(list); o && status == 0; o = json_next(o), i++)
        if (read_added_token(t, o, &first, n, &next, e) < 0)
            status = err_wrap(e, "added_tokens[%d]", i);
    pieces_free(&first);
    return status;
}

int tokenizer_index_added(struct tokenizer *t, struct err *e)
{
    size_t n = (size_t)t->n_added;
    if (!n) return 0;
    struct piece *raw = malloc(n * sizeof *raw), *norm = malloc(n * sizeof *norm);
    int n_raw = 0, n_norm = 0, status = 0;
    t->normalized_text = calloc(n, sizeof *t->normalized_text);
    if (!raw || !norm || !t->normalized_text)
        status = err_set(e, ERR_RESOURCE, "no memory for %zu added tokens", n);
    for (int i = 0; i < t->n_added && status == 0; i++) {
        const struct added_token *a = &t->added[i];
        size_t len = strlen(a->content);
        if (!a->normalized) {
            raw[n_raw++] = (struct piece){.text = a->content, .len = (uint32_t)len, .id = i};
            continue;
        }
        struct bytes b = {0};
        bool shifted = false;
        status = bytes_add(&b, a->content, len, e);
        if (status == 0) status = tokenizer_normalize(t, &b, &shifted, e);
        if (status == 0 && b.len > (size_t)MAX_PIECE * 4)
            status = err_set(e, ERR_INPUT, "\"%.40s\" becomes %zu bytes when normalized",
                             a->content, b.len);
        t->normalized_text[i] = b.at;
        if (status == 0 && b.len)
            norm[n_norm++] = (struct piece){.text = b.at, .len = (uint32_t)b.len, .id = i};
    }
    if (status < 0) {
        free(raw);
        free(norm);
        return -1;
    }
    pieces_build(&t->raw, raw, n_raw);
    pieces_build(&t->normalized, norm, n_norm);
    return 0;
}

/* ---- template ---- */

static int add_special(struct tokenizer *t, const struct json *tokens, const char *name, bool seen,
                       struct err *e)
{
    const struct json *ids = json_get(json_get(tokens, name ? name : ""), "ids");
    int *to = seen ? t->after : t->before, *n = seen ? &t->n_after : &t->n_before;
    if (!name || !json_is_array(ids) || !json_count(ids))
        return err_set(e, ERR_INPUT,
                       "the template names \"%.40s\", which special_tokens gives no ids",
                       name ? name : "(nothing)");
    for (const struct json *x = json_first(ids); x; x = json_next(x)) {
        if (*n == MAX_SPECIAL)
            return err_set(e, ERR_INPUT, "a template of more than %d tokens", MAX_SPECIAL);
        if (read_id(x, t->n_ids, &to[(*n)++]) < 0)
            return err_set(e, ERR_INPUT, "\"%.40s\" has an id outside the vocabulary of %d", name,
                           t->n_ids);
    }
    return 0;
}

static int read_template(struct tokenizer *t, const struct json *o, struct err *e)
{
    if (json_is_null(o)) return 0;
    const char *type = tokenizer_type(o);
    const struct json *tokens = json_get(o, "special_tokens"), *list = json_get(o, "single");
    bool seen = false; /* the text's own place */
    if (strcmp(type, "TemplateProcessing") != 0)
        return err_set(e, ERR_INPUT,
                       "\"%.40s\" is not TemplateProcessing, the one kind that ditgen knows", type);
    for (const struct json *x = json_first(list); x; x = json_next(x)) {
        const char *text = json_string(json_get(json_get(x, "Sequence"), "id"));
        const struct json *special = json_get(x, "SpecialToken");
        if (special) {
            if (add_special(t, tokens, json_string(json_get(special, "id")), seen, e) < 0)
                return -1;
        } else if (text && strcmp(text, "A") == 0 && !seen) {
            seen = true;
        } else {
            return err_set(e, ERR_INPUT, "single is not one sequence A among special tokens");
        }
    }
    return seen ? 0 : err_set(e, ERR_INPUT, "single has no place for the text");
}

/* ---- the file ---- */

static int read_root(struct tokenizer *t, const struct json *root, struct err *e)
{
    const struct json *added = json_get(root, "added_tokens");
    if (!json_is_object(json_get(root, "model")))
        return err_set(e, ERR_INPUT, "no \"model\" inside: not a tokenizer.json");
    if (!json_is_null(added) && !json_is_array(added))
        return err_set(e, ERR_INPUT, "added_tokens is not an array");
    if (json_count(added) > MAX_VOCAB / 2)
        return err_set(e, ERR_INPUT, "%d added tokens; at most %d are taken", json_count(added),
                       MAX_VOCAB / 2);
    if (read_model(t, json_get(root, "model"), json_count(added), e) < 0) return -1;
    if (read_added(t, added, e) < 0) return -1;
    if (tokenizer_read_normalizer(t, json_get(root, "normalizer"), e) < 0)
        return err_wrap(e, "normalizer");
    if (tokenizer_read_pre_tokenizer(t, json_get(root, "pre_tokenizer"), e) < 0)
        return err_wrap(e, "pre_tokenizer");
    if (read_template(t, json_get(root, "post_processor"), e) < 0)
        return err_wrap(e, "post_processor");
    return tokenizer_index_added(t, e);
}

int tokenizer_parse(struct tokenizer *t, const char *text, size_t len, const char *path,
                    struct err *e)
{
    struct json *root;
    if (!utf8_valid(text, len)) return err_set(e, ERR_INPUT, "%s: not valid UTF-8", path);
    if (json_parse(&root, text, len, path, e) < 0) return -1;
    int status = read_root(t, root, e);
    json_close(root);
    return status < 0 ? err_wrap(e, "%s", path) : 0;
}

int tokenizer_read(struct tokenizer *t, const char *path, struct err *e)
{
    char *text;
    size_t len;
    if (text_read(&text, &len, path, MAX_FILE, e) < 0) return -1;
    int status = tokenizer_parse(t, text, len, path, e);
    free(text);
    return status;
}
