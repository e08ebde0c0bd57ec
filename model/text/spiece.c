/* spiece.model → struct tokenizer, by the form that the reference's converter gives it (transformers,
 * convert_slow_tokenizer.py: SpmConverter, T5Converter), so that ids are those of the tokenizer.json
 * of the same model: SentencePiece's own search differs on repeated spaces, byte pieces written out
 * as text, added tokens and letters with marks. What that form cannot express is refused.
 *
 * tokenizer_config.json and added_tokens.json beside it say how many sentinels follow the pieces,
 * which class reads them, and which tokens are cut out of the text. All of it is hostile. */
#include "model/text/tokenizer.h"

#include "model/base/file_map.h"
#include "model/text/proto.h"
#include "model/text/unicode.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_MODEL ((size_t)64 << 20) /* umt5-xxl's has 4.5 MB */
#define MAX_CONFIG ((size_t)4 << 20)

enum { MAX_SENTINELS = 100000, T5_SENTINELS = 100 /* T5Tokenizer's default of extra_ids */ };

enum piece_type { PIECE_NORMAL = 1, PIECE_UNKNOWN, PIECE_CONTROL, PIECE_USER, PIECE_UNUSED };

struct spec { /* of the model, with sentencepiece_model.proto's defaults */
    struct proto charsmap, eos_piece;
    int model_type, unk_id;
    bool byte_fallback, suffix, dummy_prefix, escape;
    int n_pieces;
};

static void read_trainer(struct spec *s, struct proto m)
{
    for (struct proto_field f; proto_next(&m, &f);) {
        if (f.number == 3) s->model_type = (int)f.value;
        if (f.number == 24) s->suffix = f.value != 0;
        if (f.number == 35) s->byte_fallback = f.value != 0;
        if (f.number == 40) s->unk_id = (int)f.value;
        if (f.number == 47) s->eos_piece = f.bytes;
    }
}

static void read_normalizer(struct spec *s, struct proto m)
{
    for (struct proto_field f; proto_next(&m, &f);) {
        if (f.number == 2) s->charsmap = f.bytes;
        if (f.number == 3) s->dummy_prefix = f.value != 0;
        if (f.number == 5) s->escape = f.value != 0;
    }
}

static int read_spec(struct spec *s, struct proto m, struct err *e)
{
    static const unsigned char eos[] = "</s>";
    *s = (struct spec){.model_type = 1, .dummy_prefix = true, .escape = true};
    s->eos_piece = (struct proto){eos, eos + 4, false};
    for (struct proto_field f; proto_next(&m, &f);) {
        if (f.number == 1) s->n_pieces++;
        if (f.number == 2) read_trainer(s, f.bytes);
        if (f.number == 3) read_normalizer(s, f.bytes);
    }
    if (m.broken || !s->n_pieces) return err_set(e, ERR_INPUT, "not a SentencePiece model");
    if (s->model_type != 1)
        return err_set(e, ERR_INPUT,
                       "a SentencePiece model of type %d; Wan's text encoders use 1 (unigram)",
                       s->model_type);
    if (s->suffix || !s->dummy_prefix || !s->escape)
        return err_set(e, ERR_INPUT,
                       "a SentencePiece model %s, which only its tokenizer.json could tell how to "
                       "read; put that beside it",
                       s->suffix          ? "whose spaces end the words"
                       : !s->dummy_prefix ? "without a space before the text"
                                          : "whose spaces stay spaces");
    if (s->unk_id < 0 || s->unk_id >= s->n_pieces)
        return err_set(e, ERR_INPUT, "unk_id %d is not one of the %d pieces", s->unk_id,
                       s->n_pieces);
    return 0;
}

/* ---- what stands beside it ---- */

static bool is_sentinel(const char *s) { return s && strncmp(s, "<extra_id_", 10) == 0; }

static bool is_t5(const char *name) { return name && strncmp(name, "T5", 2) == 0; }

/* A token written as text, or as an object with its content. */
static const char *content_of(const struct json *token)
{
    return json_string(token) ? json_string(token) : json_string(json_get(token, "content"));
}

static int count_sentinels(const struct json *list)
{
    int n = 0;
    for (const struct json *x = json_first(list); x; x = json_next(x))
        n += is_sentinel(content_of(x));
    return n;
}

/* How many <extra_id_N> follow the pieces. */
static int read_sentinels(int *n, const struct json *config, bool t5, struct err *e)
{
    const struct json *stated = json_get(config, "extra_ids");
    double d;
    *n = count_sentinels(json_get(config, "additional_special_tokens"));
    if (!*n) *n = count_sentinels(json_get(config, "extra_special_tokens"));
    if (!*n) *n = count_sentinels(json_get(config, "added_tokens_decoder"));
    if (!json_is_null(stated)) {
        if (!json_number(stated, &d) || d < 0 || d > MAX_SENTINELS || d != floor(d))
            return err_set(e, ERR_INPUT,
                           "tokenizer_config.json: extra_ids is no number from 0 to %d",
                           MAX_SENTINELS);
        *n = (int)d;
    } else if (!*n && t5) {
        *n = T5_SENTINELS;
    }
    if (*n > MAX_SENTINELS)
        return err_set(e, ERR_INPUT,
                       "tokenizer_config.json: names %d sentinels, at most %d are "
                       "taken",
                       *n, MAX_SENTINELS);
    return 0;
}

/* ---- vocabulary ---- */

static int read_piece(struct proto m, struct proto *text, float *score, enum piece_type *type,
                      int i, struct err *e)
{
    *text = (struct proto){0};
    *score = 0;
    *type = PIECE_NORMAL;
    for (struct proto_field f; proto_next(&m, &f);) {
        if (f.number == 1) *text = f.bytes;
        if (f.number == 2) *score = proto_float(&f);
        if (f.number == 3) *type = (enum piece_type)f.value;
    }
    size_t n = proto_len(text);
    if (m.broken || !n || n > MAX_PIECE || !isfinite(*score) || memchr(text->at, 0, n) ||
        !utf8_valid((const char *)text->at, n))
        return err_set(e, ERR_INPUT, "piece %d is not UTF-8 of 1 to %d bytes with a finite score",
                       i, MAX_PIECE);
    return 0;
}

struct fill { /* both of [n] while a vocabulary is read */
    struct piece *items;
    double *score;
};

static char *put_piece(struct tokenizer *t, struct fill *f, int id, char *at, const void *text,
                       size_t n, double score)
{
    memcpy(at, text, n);
    at[n] = 0;
    f->items[id] = (struct piece){.text = at, .len = (uint32_t)n, .id = id};
    f->score[id] = score;
    t->piece[id] = at;
    return at + n + 1;
}

static int add_token(struct tokenizer *t, const char *content, int id, struct err *e)
{
    struct added_token *a = &t->added[t->n_added];
    a->content = tokenizer_copy(content);
    if (!a->content) return err_set(e, ERR_RESOURCE, "no memory for an added token");
    a->id = id;
    t->n_added++;
    return 0;
}

/* Pieces, then sentinels from the highest down, and the ones among them that are cut out of the
 * text: controls, the unknown, what the trainer's user defined, sentinels. */
static int fill_vocab(struct tokenizer *t, struct fill *f, struct proto m, int n_pieces,
                      int n_sentinels, struct err *e)
{
    struct proto text;
    enum piece_type type;
    float score;
    char *at = t->pool;
    int id = 0;
    for (struct proto_field x; proto_next(&m, &x);) {
        if (x.number != 1) continue;
        if (read_piece(x.bytes, &text, &score, &type, id, e) < 0) return -1;
        at = put_piece(t, f, id, at, text.at, proto_len(&text), (double)score);
        if (type == PIECE_UNKNOWN || type == PIECE_CONTROL || type == PIECE_USER)
            if (add_token(t, t->piece[id], id, e) < 0) return -1;
        id++;
    }
    for (int i = 0; i < n_sentinels; i++, id++) {
        char name[32];
        int n = snprintf(name, sizeof name, "<extra_id_%d>", n_sentinels - 1 - i);
        at = put_piece(t, f, n_pieces + i, at, name, (size_t)n, 0);
        if (add_token(t, name, id, e) < 0) return -1;
    }
    return 0;
}

/* Bytes of all pieces with their NULs; *special: those that become added tokens, at most. */
static size_t measure(struct proto m, int *special, bool *has_sentinel)
{
    size_t bytes = 0;
    *special = 0;
    *has_sentinel = false;
    for (struct proto_field x; proto_next(&m, &x);) {
        if (x.number != 1) continue;
        bytes += 1;
        for (struct proto_field y; proto_next(&x.bytes, &y);) {
            if (y.number == 1) bytes += proto_len(&y.bytes);
            if (y.number == 3 && y.value != PIECE_NORMAL) ++*special;
            if (y.number == 1 && proto_len(&y.bytes) > 10 &&
                memcmp(y.bytes.at, "<extra_id_", 10) == 0)
                *has_sentinel = true;
        }
    }
    return bytes;
}

static int read_vocab(struct tokenizer *t, const struct spec *s, struct proto m,
                      const struct json *config, bool t5, int more, struct err *e)
{
    int special, sentinels;
    bool has_sentinel;
    size_t bytes = measure(m, &special, &has_sentinel);
    if (read_sentinels(&sentinels, config, t5, e) < 0) return -1;
    if (has_sentinel) sentinels = 0;
    int n = s->n_pieces + sentinels;
    if (n > MAX_VOCAB - more || more > MAX_VOCAB / 2)
        return err_set(e, ERR_INPUT, "%d pieces and %d added tokens, at most %d are taken", n, more,
                       MAX_VOCAB);
    struct fill f = {malloc((size_t)n * sizeof *f.items), calloc((size_t)n, sizeof *f.score)};
    t->pool = malloc(bytes + 32 * (size_t)sentinels + 1);
    t->piece = calloc((size_t)n + (size_t)more, sizeof *t->piece);
    t->added = calloc((size_t)special + (size_t)sentinels + (size_t)more + 1, sizeof *t->added);
    t->n_ids = n;
    if (!f.items || !f.score || !t->pool || !t->piece || !t->added)
        err_set(e, ERR_RESOURCE, "no memory for a vocabulary of %d pieces", n);
    else if (fill_vocab(t, &f, m, s->n_pieces, sentinels, e) == 0) {
        /* T5's converter leaves bytes to the unknown token, whatever the model says */
        unigram_init(&t->model, f.items, f.score, n, s->unk_id, s->byte_fallback && !t5);
        return 0;
    }
    free(f.items);
    free(f.score);
    return -1;
}

/* ---- tokens that the files beside it add ---- */

static int flag_of(const struct json *o, const char *key, bool *v, struct err *e)
{
    return json_string(o) ? 0 : tokenizer_flag(o, key, *v, v, e);
}

/* One more token, or other flags of one that is there: by_id is the last place of each content. */
static int read_added(struct tokenizer *t, const struct json *o, const char *content, double id,
                      const struct pieces *known, struct err *e)
{
    if (!content || !*content || strlen(content) > MAX_PIECE ||
        !utf8_valid(content, strlen(content)))
        return err_set(e, ERR_INPUT, "an added token is no text of 1 to %d bytes", MAX_PIECE);
    int at = pieces_find(known, content, strlen(content));
    int has = at >= 0 ? t->added[at].id : pieces_find(&t->model.pieces, content, strlen(content));
    if (has < 0 && id == (double)t->n_ids) {
        has = t->n_ids++;
    } else if (has < 0 || id != (double)has) {
        return err_set(e, ERR_INPUT,
                       "\"%.40s\" is to have id %.0f, which spiece.model gives %s; put the model's "
                       "tokenizer.json beside it",
                       content, id, id >= 0 && id < t->n_ids ? "to another piece" : "to none");
    }
    if (at < 0) {
        at = t->n_added;
        if (add_token(t, content, has, e) < 0) return -1;
        if (!t->piece[has]) t->piece[has] = t->added[at].content;
    }
    struct added_token *a = &t->added[at];
    if (flag_of(o, "single_word", &a->single_word, e) < 0 ||
        flag_of(o, "lstrip", &a->lstrip, e) < 0 || flag_of(o, "rstrip", &a->rstrip, e) < 0)
        return -1;
    return flag_of(o, "normalized", &a->normalized, e);
}

/* decoder: {"id": {"content": .., flags}}; legacy: {"content": id} */
static int read_all_added(struct tokenizer *t, const struct json *decoder,
                          const struct json *legacy, struct err *e)
{
    struct pieces known = {0};
    struct piece *items = malloc(((size_t)t->n_added + 1) * sizeof *items);
    int status = 0;
    if (!items) return err_set(e, ERR_RESOURCE, "no memory for added tokens");
    for (int i = 0; i < t->n_added; i++)
        items[i] = (struct piece){
            .text = t->added[i].content, .len = (uint32_t)strlen(t->added[i].content), .id = i};
    pieces_build(&known, items, t->n_added);
    for (const struct json *x = json_first(decoder); x && status == 0; x = json_next(x)) {
        char *end;
        double id = strtod(json_key(x) ? json_key(x) : "", &end);
        status = *end || !json_is_object(x)
                     ? err_set(e, ERR_INPUT, "added_tokens_decoder is no table of ids")
                     : read_added(t, x, content_of(x), id, &known, e);
    }
    for (const struct json *x = json_first(legacy); x && status == 0; x = json_next(x)) {
        double id;
        status = !json_number(x, &id) ? err_set(e, ERR_INPUT, "added_tokens.json holds no ids")
                                      : read_added(t, NULL, json_key(x), id, &known, e);
    }
    pieces_free(&known);
    return status;
}

/* ---- the whole ---- */

static int add_steps(struct tokenizer *t, const struct spec *s, struct err *e)
{
    if (proto_len(&s->charsmap)) {
        struct norm_step *map = &t->norm[t->n_norm++];
        map->type = NORM_CHARSMAP;
        if (charsmap_copy(&map->map, s->charsmap.at, proto_len(&s->charsmap), e) < 0) return -1;
    }
    t->norm[t->n_norm++] = (struct norm_step){.type = NORM_STRIP, .right = true};
    struct norm_step *spaces = &t->norm[t->n_norm++];
    spaces->type = NORM_REPLACE;
    spaces->content = tokenizer_copy("\u2581");
    if (!spaces->content) return err_set(e, ERR_RESOURCE, "no memory for a normalizer");
    if (pattern_regex(&spaces->pattern, " {2,}", e) < 0) return -1;
    t->pre[t->n_pre++] = (struct pre_step){
        .type = PRE_METASPACE, .mark = "\u2581", .prepend = PREPEND_ALWAYS, .split = true};
    int end =
        pieces_find(&t->model.pieces, (const char *)s->eos_piece.at, proto_len(&s->eos_piece));
    if (end < 0) return err_set(e, ERR_INPUT, "the model has no end-of-text piece");
    t->after[t->n_after++] = end;
    return 0;
}

int spiece_parse(struct tokenizer *t, const void *bytes, size_t len, const struct json *config,
                 const struct json *added, const char *class_name, struct err *e)
{
    struct proto m = {bytes, (const unsigned char *)bytes + len, false};
    struct spec s;
    const struct json *decoder = json_get(config, "added_tokens_decoder");
    bool t5 = is_t5(class_name ? class_name : json_string(json_get(config, "tokenizer_class")));
    if (read_spec(&s, m, e) < 0) return -1;
    int more = json_count(decoder) + json_count(added);
    if (read_vocab(t, &s, m, config, t5, more, e) < 0) return -1;
    if (read_all_added(t, decoder, added, e) < 0) return -1;
    if (add_steps(t, &s, e) < 0) return -1;
    return tokenizer_index_added(t, e);
}

/* dir/name when it is there; NULL in *root else. */
static int open_beside(struct json **root, const char *dir, const char *name, struct err *e)
{
    char path[4352], *text;
    size_t len;
    *root = NULL;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (access(path, F_OK) != 0) return 0;
    if (text_read(&text, &len, path, MAX_CONFIG, e) < 0) return -1;
    int status = json_parse(root, text, len, path, e);
    free(text);
    return status;
}

int spiece_read(struct tokenizer *t, const char *dir, const char *class_name, struct err *e)
{
    char path[4352], *bytes = NULL;
    size_t len = 0;
    struct json *config = NULL, *added = NULL;
    int status = -1;
    snprintf(path, sizeof path, "%s/spiece.model", dir);
    if (file_read(&bytes, &len, path, MAX_MODEL, e) < 0) return -1;
    if (open_beside(&config, dir, "tokenizer_config.json", e) == 0 &&
        open_beside(&added, dir, "added_tokens.json", e) == 0) {
        status = spiece_parse(t, bytes, len, config, added, class_name, e);
        if (status < 0) err_wrap(e, "%s", path);
    }
    json_close(config);
    json_close(added);
    free(bytes);
    return status;
}
