/* Text to token ids, by what a tokenizer.json says (wan.md 1.3): added tokens, normalizers,
 * pre-tokenizers, Unigram search, template. */
#include "model/text/tokenizer.h"

#include "model/text/unicode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_TEXT ((size_t)8 << 20) /* bytes of one text; a prompt_clean() result is below it */

int tokenizer_open(struct tokenizer **out, const char *dir, const char *class_name, struct err *e)
{
    char path[4096], model[4096];
    *out = NULL;
    if ((size_t)snprintf(path, sizeof path, "%s/tokenizer.json", dir) >= sizeof path ||
        (size_t)snprintf(model, sizeof model, "%s/spiece.model", dir) >= sizeof model)
        return err_set(e, ERR_INPUT, "%.200s...: the path is too long", dir);
    struct tokenizer *t = calloc(1, sizeof *t);
    if (!t) return err_set(e, ERR_RESOURCE, "no memory for a tokenizer");
    int status = access(path, F_OK) != 0 && access(model, F_OK) == 0
                     ? spiece_read(t, dir, class_name, e)
                     : tokenizer_read(t, path, e);
    if (status < 0) {
        tokenizer_close(t);
        return -1;
    }
    *out = t;
    return 0;
}

void tokenizer_close(struct tokenizer *t)
{
    if (!t) return;
    unigram_fini(&t->model);
    pieces_free(&t->raw);
    pieces_free(&t->normalized);
    for (int i = 0; i < t->n_added; i++) {
        free(t->added[i].content);
        if (t->normalized_text) free(t->normalized_text[i]);
    }
    for (int i = 0; i < t->n_norm; i++) {
        charsmap_close(&t->norm[i].map);
        free(t->norm[i].content);
    }
    free(t->normalized_text);
    free(t->added);
    free(t->piece);
    free(t->pool);
    free(t);
}

int tokenizer_vocab_size(const struct tokenizer *t) { return t->n_ids; }

const char *tokenizer_piece(const struct tokenizer *t, int id)
{
    return id >= 0 && id < t->n_ids ? t->piece[id] : NULL;
}

/* What one encode needs at hand. */
struct encoding {
    const struct tokenizer *t;
    struct ids ids;
    struct unigram_scratch scratch;
    struct err *e;
};

/* A piece of text on its way through the pre-tokenizers; at_start: its first rune is the text's. */
struct span {
    const char *s;
    size_t n;
    bool at_start;
};

static int pre_tokenize(struct encoding *r, struct span x, int step);

static int metaspace(struct encoding *r, struct span x, int step)
{
    const struct pre_step *p = &r->t->pre[step];
    size_t mark = strlen(p->mark);
    struct bytes b = {0};
    bool begins = (x.n >= mark && memcmp(x.s, p->mark, mark) == 0) || x.s[0] == ' ';
    bool want = p->prepend == PREPEND_ALWAYS || (p->prepend == PREPEND_FIRST && x.at_start);
    int status = !begins && want ? bytes_add(&b, p->mark, mark, r->e) : 0;
    for (size_t i = 0; i < x.n && status == 0; i++)
        status =
            x.s[i] == ' ' ? bytes_add(&b, p->mark, mark, r->e) : bytes_add(&b, x.s + i, 1, r->e);
    for (size_t i = 0, end; i < b.len && status == 0; i = end) { /* each mark begins a piece */
        for (end = i + 1; end < b.len; end++)
            if (p->split && b.len - end >= mark && memcmp(b.at + end, p->mark, mark) == 0) break;
        status = pre_tokenize(r, (struct span){b.at + i, end - i, x.at_start && i == 0}, step + 1);
    }
    bytes_free(&b);
    return status;
}

/* Cuts at white space, which goes, or at matches, which stay on their own; match: bytes of the one
 * that begins at each byte, or NULL. */
static int cut_at(struct encoding *r, struct span x, int step, const uint32_t *match)
{
    size_t first = 0;
    for (size_t i = 0; i <= x.n;) {
        size_t k = 0;
        uint32_t c = 0;
        if (i < x.n) {
            k = utf8_read(&c, x.s + i, x.n - i);
            size_t hit = match ? match[i] : rune_is_white_space(c) ? k : 0;
            if (!hit) {
                i += k;
                continue;
            }
            k = hit;
        }
        if (i > first &&
            pre_tokenize(r, (struct span){x.s + first, i - first, x.at_start && first == 0},
                         step + 1) < 0)
            return -1;
        if (k && match &&
            pre_tokenize(r, (struct span){x.s + i, k, x.at_start && i == 0}, step + 1) < 0)
            return -1;
        i += k;
        first = i;
        if (!k) break;
    }
    return 0;
}

static int cut(struct encoding *r, struct span x, int step)
{
    const struct pre_step *p = &r->t->pre[step];
    if (p->type == PRE_WHITESPACE) return cut_at(r, x, step, NULL);
    uint32_t *match = malloc(x.n * sizeof *match);
    if (!match) return err_set(r->e, ERR_RESOURCE, "no memory for a text of %zu bytes", x.n);
    int status = pattern_matches(&p->pattern, match, x.s, x.n, r->e);
    if (status == 0) status = cut_at(r, x, step, match);
    free(match);
    return status;
}

static int pre_tokenize(struct encoding *r, struct span x, int step)
{
    if (!x.n || r->ids.n > (size_t)r->ids.max) return 0; /* what follows is cut off anyway */
    if (step == r->t->n_pre)
        return unigram_encode(&r->t->model, &r->ids, x.s, x.n, &r->scratch, r->e);
    return r->t->pre[step].type == PRE_METASPACE ? metaspace(r, x, step) : cut(r, x, step);
}

static bool ends_in_word(const char *s, size_t n)
{
    uint32_t c;
    size_t i = n;
    if (!n) return false;
    do
        i--;
    while (i > 0 && ((unsigned char)s[i] & 0xC0) == 0x80);
    utf8_read(&c, s + i, n - i);
    return rune_is_word(c);
}

static bool begins_with_word(const char *s, size_t n)
{
    uint32_t c;
    if (!n) return false;
    utf8_read(&c, s, n);
    return rune_is_word(c);
}

/* White space just before s[at], but not before `floor`. */
static size_t space_before(const char *s, size_t at, size_t floor)
{
    while (at > floor) {
        uint32_t c;
        size_t i = at;
        do
            i--;
        while (i > 0 && ((unsigned char)s[i] & 0xC0) == 0x80);
        utf8_read(&c, s + i, at - i);
        if (!rune_is_white_space(c) || i < floor) break;
        at = i;
    }
    return at;
}

static size_t space_after(const char *s, size_t at, size_t n)
{
    while (at < n) {
        uint32_t c;
        size_t k = utf8_read(&c, s + at, n - at);
        if (!rune_is_white_space(c)) break;
        at += k;
    }
    return at;
}

/* Text between added tokens goes to `rest`, the tokens to the ids. Leftmost, then longest. */
static int split_added(struct encoding *r, const struct pieces *set, struct span x,
                       int (*rest)(struct encoding *, struct span))
{
    size_t done = 0;
    for (size_t i = 0; i < x.n && set->n;) {
        size_t len = 0;
        int index = pieces_longest(set, x.s + i, x.n - i, &len);
        if (index < 0) {
            i++;
            continue;
        }
        const struct added_token *a = &r->t->added[index];
        size_t start = i, end = i + len;
        i = end;
        if (a->single_word && (ends_in_word(x.s, start) || begins_with_word(x.s + end, x.n - end)))
            continue;
        if (a->lstrip) start = space_before(x.s, start, done);
        if (a->rstrip) end = space_after(x.s, end, x.n);
        if (start > done &&
            rest(r, (struct span){x.s + done, start - done, x.at_start && done == 0}) < 0)
            return -1;
        ids_add(&r->ids, a->id);
        done = end;
        if (i < end) i = end;
    }
    if (done == x.n) return 0;
    return rest(r, (struct span){x.s + done, x.n - done, x.at_start && done == 0});
}

static int words(struct encoding *r, struct span x) { return pre_tokenize(r, x, 0); }

static int normalized(struct encoding *r, struct span x)
{
    struct bytes b = {0};
    bool shifted = false;
    int status = bytes_add(&b, x.s, x.n, r->e);
    if (status == 0) status = tokenizer_normalize(r->t, &b, &shifted, r->e);
    if (status == 0 && b.len)
        status = split_added(r, &r->t->normalized,
                             (struct span){b.at, b.len, x.at_start && !shifted}, words);
    bytes_free(&b);
    return status;
}

/* Invalid UTF-8 → U+FFFD, so that all that follows may rely on it. */
static int valid_copy(struct bytes *out, const char *text, struct err *e)
{
    size_t n = strlen(text);
    if (n > MAX_TEXT)
        return err_set(e, ERR_USAGE, "the text has %zu bytes; at most %zu are taken", n, MAX_TEXT);
    for (size_t i = 0; i < n;) {
        uint32_t c;
        i += utf8_read(&c, text + i, n - i);
        if (bytes_add_rune(out, c, e) < 0) return -1;
    }
    return 0;
}

int tokenizer_encode(const struct tokenizer *t, int *ids, int max, int *n, bool *truncated,
                     const char *text, struct err *e)
{
    *n = 0;
    *truncated = false;
    int room = max - t->n_before - t->n_after;
    if (room < 0) return err_set(e, ERR_BUG, "%d ids cannot hold the tokenizer's template", max);
    struct encoding r = {.t = t, .ids = {ids + t->n_before, room, 0}, .e = e};
    struct bytes b = {0};
    int status = valid_copy(&b, text, e);
    if (status == 0)
        status = split_added(&r, &t->raw, (struct span){b.at, b.len, true}, normalized);
    bytes_free(&b);
    free(r.scratch.at);
    if (status < 0) return -1;

    *truncated = r.ids.n > (size_t)room;
    int content = *truncated ? room : (int)r.ids.n;
    for (int i = 0; i < t->n_before; i++)
        ids[i] = t->before[i];
    for (int i = 0; i < t->n_after; i++)
        ids[t->n_before + content + i] = t->after[i];
    *n = t->n_before + content + t->n_after;
    return 0;
}
