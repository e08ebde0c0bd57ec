/* Inside of a tokenizer, between the file that reads it and the file that runs it. */
#ifndef DITGEN_TEXT_TOKENIZER_H
#define DITGEN_TEXT_TOKENIZER_H

#include "model/base/json.h"
#include "model/text/charsmap.h"
#include "model/text/pattern.h"
#include "model/text/text.h"
#include "model/text/unigram.h"

enum {
    MAX_VOCAB = 1 << 22,
    MAX_PIECE = 1024, /* bytes of a piece or an added token */
    MAX_STEPS = 16, /* normalizers, pre-tokenizers */
    MAX_SPECIAL = 16, /* template tokens on one side */
};

struct added_token {
    char *content; /* heap */
    int id;
    bool single_word, lstrip, rstrip, normalized;
};

struct norm_step {
    enum { NORM_CHARSMAP, NORM_STRIP, NORM_REPLACE, NORM_PREPEND, NORM_NFC } type;
    struct charsmap map;
    bool left, right;
    struct pattern pattern;
    char *content; /* heap: of REPLACE and PREPEND */
};

struct pre_step {
    enum { PRE_METASPACE, PRE_WHITESPACE, PRE_ISOLATE } type;
    char mark[5]; /* METASPACE: the replacement, UTF-8 */
    enum { PREPEND_ALWAYS, PREPEND_FIRST, PREPEND_NEVER } prepend;
    bool split;
    struct pattern pattern; /* ISOLATE: each match becomes a piece of its own */
};

struct tokenizer {
    struct unigram model;
    char *pool; /* all vocabulary strings, each NUL-terminated */
    char **piece; /* [n_ids] borrowed from pool or added; NULL where there is no such id */
    int n_ids;
    struct added_token *added;
    int n_added;
    struct pieces raw,
        normalized; /* added tokens to look for before and after normalizing; id = index */
    char **normalized_text; /* [n_added] heap: contents after normalizing, or NULL */
    struct norm_step norm[MAX_STEPS];
    int n_norm;
    struct pre_step pre[MAX_STEPS];
    int n_pre;
    int before[MAX_SPECIAL], after[MAX_SPECIAL], n_before, n_after; /* the template */
};

/* Fills t from a tokenizer.json. On failure t is half-built; tokenizer_close() takes it. */
int tokenizer_read(struct tokenizer *t, const char *path, struct err *e);
int tokenizer_parse(struct tokenizer *t, const char *text, size_t len, const char *path,
                    struct err *e);
/* The same from a spiece.model, and from its bytes with what stands beside it (parsed JSON or NULL):
 * tokenizer_config.json, added_tokens.json, the class that model_index.json names. */
int spiece_read(struct tokenizer *t, const char *dir, const char *class_name, struct err *e);
int spiece_parse(struct tokenizer *t, const void *bytes, size_t len, const struct json *config,
                 const struct json *added, const char *class_name, struct err *e);
/* The sets of added tokens to search for, once the normalizers are known. */
int tokenizer_index_added(struct tokenizer *t, struct err *e);
/* Appends the steps of one node, a Sequence's included. */
int tokenizer_read_normalizer(struct tokenizer *t, const struct json *o, struct err *e);
int tokenizer_read_pre_tokenizer(struct tokenizer *t, const struct json *o, struct err *e);
/* o's "type", "(none)" without one; a flag that may be absent; a heap copy, NULL without memory. */
const char *tokenizer_type(const struct json *o);
int tokenizer_flag(const struct json *o, const char *key, bool fallback, bool *v, struct err *e);
char *tokenizer_copy(const char *s);
/* All normalizers in turn; *b is replaced. *shifted: the first rune kept is not the text's first.
 */
int tokenizer_normalize(const struct tokenizer *t, struct bytes *b, bool *shifted, struct err *e);

#endif
