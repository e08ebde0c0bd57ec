/* spiece.model alone: the ids of the tokenizer.json that the reference's converter makes of it, for
 * every prompt; what the files beside it say; what that form cannot express, refused. */
#include "model/text/text.h"
#include "model/text/tokenizer.h"
#include "text_test.h"
#include "tests/golden/tiny.h"

static int encode(const struct tokenizer *t, int *ids, const char *text, bool *cut)
{
    struct err e = {0};
    int n = 0;
    CHECK_OK(tokenizer_encode(t, ids, 512, &n, cut, text, &e));
    return n;
}

/* The golden folder, as T5 and with the converter's ids. */
static void golden(void)
{
    struct err e = {0};
    struct tokenizer *t;
    CHECK_OK(tokenizer_open(&t, TEST_SOURCE_DIR "/tests/golden/data/text_spiece", NULL, &e));
    if (!t) return;
    struct json *prompts = text_golden("text_prompts.json"),
                *rows = text_golden("text_ids_spiece.json");
    int i = 0;
    CHECK(json_count(prompts) == json_count(rows));
    for (const struct json *p = json_first(prompts), *r = json_first(rows); p && r;
         p = json_next(p), r = json_next(r), i++) {
        int ids[512], k = 0;
        bool cut;
        char show[200];
        int n = encode(t, ids, json_string(p), &cut);
        bool same = n == json_count(r);
        for (const struct json *x = json_first(r); x && same; x = json_next(x), k++) {
            double v;
            same = json_number(x, &v) && (int)v == ids[k];
        }
        CHECK_MSG(same, "prompt %d, \"%s\"", i, text_show(show, sizeof show, json_string(p)));
    }
    CHECK(i > 200);
    json_close(prompts);
    json_close(rows);
    tokenizer_close(t);
}

/* The embedded model's two files. beside: its tokenizer_config.json, or NULL for none. */
static void embedded(const char *beside, const char *class_name)
{
    char dir[256], file[400], from[1024], to[400];
    struct tokenizer *json = NULL, *model = NULL;
    struct err e = {0};
    snprintf(from, sizeof from, "%s/assets/emoji/tokenizer", TEST_SOURCE_DIR);
    snprintf(file, sizeof file, "%.300s/spiece.model", from);
    CHECK_OK(tokenizer_open(&json, from, NULL, &e));
    tiny_temp(dir);
    snprintf(to, sizeof to, "%s/spiece.model", dir);
    if (symlink(file, to) != 0) abort();
    snprintf(to, sizeof to, "%s/tokenizer_config.json", dir);
    if (beside) tiny_write_text(to, beside);
    CHECK_OK(tokenizer_open(&model, dir, class_name, &e));
    if (json && model) {
        struct json *prompts = text_golden("text_prompts.json");
        CHECK(tokenizer_vocab_size(model) == tokenizer_vocab_size(json));
        for (const struct json *p = json_first(prompts); p; p = json_next(p)) {
            int x[512], y[512];
            bool cut, cut_too;
            char show[200];
            int n = encode(json, x, json_string(p), &cut),
                m = encode(model, y, json_string(p), &cut_too);
            CHECK_MSG(n == m && cut == cut_too && memcmp(x, y, (size_t)n * sizeof *x) == 0,
                      "\"%s\" differs", text_show(show, sizeof show, json_string(p)));
        }
        json_close(prompts);
        int size = tokenizer_vocab_size(model);
        for (int i = 0; i < size; i++)
            CHECK_STR(tokenizer_piece(model, i), tokenizer_piece(json, i));
        CHECK(!tokenizer_piece(model, size) && !tokenizer_piece(model, -1));
    }
    tokenizer_close(json);
    tokenizer_close(model);
    tiny_remove(dir);
}

/* ---- models written here ---- */

struct writer {
    unsigned char at[4096];
    size_t n;
};

static void put_bytes(struct writer *w, int number, const void *bytes, size_t n)
{
    w->at[w->n++] = (unsigned char)(number << 3 | 2);
    w->at[w->n++] = (unsigned char)n;
    memcpy(w->at + w->n, bytes, n);
    w->n += n;
}

static void put_int(struct writer *w, int number, int v)
{
    if (number > 15) { /* the key takes two bytes */
        w->at[w->n++] = (unsigned char)((number << 3 & 127) | 128);
        w->at[w->n++] = (unsigned char)(number >> 4);
    } else {
        w->at[w->n++] = (unsigned char)(number << 3);
    }
    w->at[w->n++] = (unsigned char)v;
}

static void put_piece(struct writer *w, const char *text, float score, int type)
{
    struct writer p = {.n = 0};
    put_bytes(&p, 1, text, strlen(text));
    p.at[p.n++] = 2 << 3 | 5;
    memcpy(p.at + p.n, &score, 4);
    p.n += 4;
    put_int(&p, 3, type);
    put_bytes(w, 1, p.at, p.n);
}

/* <pad> </s> <unk> ▁ a ▁a [USER], with one integer of trainer (2) or normalizer (3) when given */
static struct writer model(int message, int number, int v)
{
    struct writer w = {.n = 0}, m = {.n = 0}, unk = {.n = 0};
    put_piece(&w, "<pad>", 0, 3);
    put_piece(&w, "</s>", 0, 3);
    put_piece(&w, "<unk>", 0, 2);
    put_piece(&w, "\xE2\x96\x81", -2, 1);
    put_piece(&w, "a", -3, 1);
    put_piece(&w,
              "\xE2\x96\x81"
              "a",
              -1, 1);
    put_piece(&w, "[USER]", 0, 4);
    put_int(&unk, 40, 2);
    put_bytes(&w, 2, unk.at, unk.n);
    if (message) put_int(&m, number, v);
    if (message) put_bytes(&w, message, m.at, m.n);
    return w;
}

static struct tokenizer *parse(const struct writer *w, const char *config, const char *added,
                               const char *class_name, struct err *e)
{
    struct tokenizer *t = calloc(1, sizeof *t);
    struct json *c = NULL, *a = NULL;
    if (!t) abort();
    if (config) CHECK(json_parse(&c, config, strlen(config), "c", e) == 0);
    if (added) CHECK(json_parse(&a, added, strlen(added), "a", e) == 0);
    int status = spiece_parse(t, w->at, w->n, c, a, class_name, e);
    json_close(c);
    json_close(a);
    if (status == 0) return t;
    tokenizer_close(t);
    return NULL;
}

static void refused(struct writer w, const char *config, const char *added, const char *says)
{
    struct err e = {0};
    struct tokenizer *t = parse(&w, config, added, NULL, &e);
    CHECK_MSG(!t && e.code == ERR_INPUT && strstr(e.msg, says), "\"%s\", wanted \"%s\"",
              t ? "accepted" : e.msg, says);
    tokenizer_close(t);
}

static void sized(const char *config, const char *added, const char *class_name, int size)
{
    struct err e = {0};
    struct writer w = model(0, 0, 0);
    struct tokenizer *t = parse(&w, config, added, class_name, &e);
    CHECK_MSG(t && tokenizer_vocab_size(t) == size, "%s: %d ids, wanted %d",
              config ? config : "nothing beside it", t ? tokenizer_vocab_size(t) : 0, size);
    tokenizer_close(t);
}

static void made(void)
{
    struct writer w = model(0, 0, 0);
    sized(NULL, NULL, NULL, 7);
    sized("{}", NULL, NULL, 7);
    sized("{\"tokenizer_class\": \"T5Tokenizer\"}", NULL, NULL, 107);
    sized("{\"tokenizer_class\": \"T5Tokenizer\", \"extra_ids\": 0}", NULL, NULL, 7);
    sized("{\"extra_ids\": 3}", NULL, NULL, 10);
    sized(NULL, NULL, "T5TokenizerFast", 107);
    sized("{\"additional_special_tokens\": [\"<extra_id_0>\", {\"content\": \"<extra_id_1>\"}, "
          "\"x\"]}",
          NULL, "T5TokenizerFast", 9);
    sized(
        "{\"added_tokens_decoder\": {\"7\": {\"content\": \"new\"}, \"8\": {\"content\": \"b\"}}}",
        NULL, NULL, 9);
    sized(NULL, "{\"a\": 4, \"new\": 7}", NULL, 8);
    refused(w, "{\"extra_ids\": -1}", NULL, "extra_ids");
    refused(w, "{\"extra_ids\": NaN}", NULL, "extra_ids");
    refused(w, "{\"added_tokens_decoder\": {\"9\": {\"content\": \"new\"}}}", NULL,
            "tokenizer.json");
    refused(w, "{\"added_tokens_decoder\": {\"x\": {\"content\": \"new\"}}}", NULL, "no table");
    refused(w, "{\"added_tokens_decoder\": {\"4\": {\"content\": \"new\"}}}", NULL,
            "another piece");
    refused(w, "{\"added_tokens_decoder\": {\"4\": {\"content\": \"a\", \"lstrip\": 3}}}", NULL,
            "lstrip");
    refused(w, NULL, "{\"a\": 5}", "another piece");
    refused(model(2, 3, 2), NULL, NULL, "type 2");
    refused(model(2, 24, 1), NULL, NULL, "end the words");
    refused(model(2, 40, 99), NULL, NULL, "unk_id");
    refused(model(3, 3, 0), NULL, NULL, "space before");
    refused(model(3, 5, 0), NULL, NULL, "stay spaces");
    put_piece(&w, "\xFF", 0, 1);
    refused(w, NULL, NULL, "piece 7");
    w = model(0, 0, 0);
    put_piece(&w, "", 0, 1);
    refused(w, NULL, NULL, "piece 7");
    w = model(0, 0, 0);
    put_piece(&w, "x", NAN, 1);
    refused(w, NULL, NULL, "finite");
    w = model(0, 0, 0);
    w.n -= 3;
    refused(w, NULL, NULL, "not a SentencePiece model");
    w.n = 0;
    refused(w, NULL, NULL, "not a SentencePiece model");

    /* what the user defined is cut out of words, whatever flags the config gives it */
    struct err e = {0};
    int ids[512];
    bool cut;
    w = model(0, 0, 0);
    struct tokenizer *t = parse(&w, NULL, NULL, NULL, &e);
    if (!t) abort();
    CHECK(encode(t, ids, "a[USER]a", &cut) == 4 && ids[0] == 5 && ids[1] == 6 && ids[2] == 5 &&
          ids[3] == 1);
    tokenizer_close(t);
    t = parse(
        &w, "{\"added_tokens_decoder\": {\"6\": {\"content\": \"[USER]\", \"single_word\": true}}}",
        NULL, NULL, &e);
    if (!t) abort();
    CHECK(encode(t, ids, "a [USER]a", &cut) == 5 && ids[1] == 3 && ids[2] == 6 && ids[3] == 4);
    tokenizer_close(t);
}

/* A device in its place is not read without end. */
static void endless(void)
{
    char dir[256], to[400];
    struct tokenizer *t;
    struct err e = {0};
    tiny_temp(dir);
    snprintf(to, sizeof to, "%s/spiece.model", dir);
    if (symlink("/dev/zero", to) != 0) abort();
    CHECK(tokenizer_open(&t, dir, NULL, &e) < 0 && e.code == ERR_INPUT &&
          strstr(e.msg, "a device"));
    unlink(to);
    FILE *f = fopen(to, "wb");
    if (!f || fseek(f, 1L << 32, SEEK_SET) != 0 || fputc(0, f) == EOF || fclose(f) != 0) abort();
    CHECK(tokenizer_open(&t, dir, NULL, &e) < 0 && e.code == ERR_INPUT && strstr(e.msg, "larger"));
    tiny_remove(dir);
}

int main(void)
{
    golden();
    embedded(NULL, NULL);
    embedded("{\"tokenizer_class\": \"PreTrainedTokenizerFast\"}", "PreTrainedTokenizerFast");
    embedded("\xEF\xBB\xBF{\"extra_ids\": 0, \"tokenizer_class\": null}", NULL);
    made();
    endless();
    return TEST_RESULT();
}
