/* tokenizer.json files that are broken, hostile or beyond what ditgen reads: one clear line each,
 * and a few small ones that are right, where the result can be worked out by hand. */
#include "model/text/text.h"
#include "model/text/tokenizer.h"
#include "text_test.h"
#include "tests/golden/tiny.h"

#define VOCAB                                                                                      \
    "[[\"<unk>\",0],[\"</"                                                                         \
    "s>\",0],[\"\\u2581\",-2],[\"a\",-3],[\"b\",-3],[\"\\u2581a\",-1],[\"ab\",-9]]"
#define MODEL "\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":" VOCAB "}"
#define META "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\\u2581\"}"

static struct tokenizer *parse(const char *text, struct err *e)
{
    struct tokenizer *t = calloc(1, sizeof *t);
    if (!t) abort();
    if (tokenizer_parse(t, text, strlen(text), "t.json", e) == 0) return t;
    tokenizer_close(t);
    return NULL;
}

static void refused(const char *text, const char *says)
{
    struct err e = {0};
    struct tokenizer *t = parse(text, &e);
    CHECK_MSG(!t && e.code == ERR_INPUT && strncmp(e.msg, "t.json", 6) == 0 && strstr(e.msg, says),
              "%.120s: \"%s\", wanted \"%s\"", text, t ? "accepted" : e.msg, says);
    tokenizer_close(t);
}

static void becomes(const char *json, const char *text, int n, const int *want)
{
    int ids[32], got = 0;
    bool cut;
    struct err e = {0};
    struct tokenizer *t = parse(json, &e);
    CHECK_MSG(t != NULL, "%s", e.msg);
    if (!t) return;
    CHECK_OK(tokenizer_encode(t, ids, 32, &got, &cut, text, &e));
    CHECK_MSG(got == n && memcmp(ids, want, (size_t)n * sizeof *ids) == 0,
              "\"%s\": %d ids, the first %d", text, got, ids[0]);
    tokenizer_close(t);
}

static void broken(void)
{
    refused("", "JSON");
    refused("{", "JSON");
    refused("[]", "model");
    refused("{\"model\":7}", "model");
    refused("{\"model\":{\"type\":\"BPE\"}}", "BPE");
    refused("{\"model\":{\"type\":\"Unigram\"}}", "0 pieces");
    refused("{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", "0 pieces");
    refused("{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\"]]}}", "vocab[0]");
    refused("{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",-1],[1,2]]}}", "vocab[1]");
    refused("{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",\"b\"]]}}", "vocab[0]");
    refused("{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",1e999]]}}", "vocab[0]");
    refused("{\"model\":{\"type\":\"Unigram\",\"unk_id\":1,\"vocab\":[[\"a\",-1]]}}", "unk_id");
    refused("{\"model\":{\"type\":\"Unigram\",\"unk_id\":-1,\"vocab\":[[\"a\",-1]]}}", "unk_id");
    refused("{\"model\":{\"type\":\"Unigram\",\"unk_id\":0.5,\"vocab\":[[\"a\",-1]]}}", "unk_id");
    refused("{\"model\":{\"type\":\"Unigram\",\"byte_fallback\":1,\"vocab\":[[\"a\",-1]]}}",
            "byte_fallback");
    refused("{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"\xFF\",-1]]}}", "UTF-8");
}

static void broken_parts(void)
{
    refused("{" MODEL ",\"added_tokens\":{}}", "added_tokens");
    refused("{" MODEL ",\"added_tokens\":[{\"id\":1}]}", "added_tokens[0]");
    refused("{" MODEL ",\"added_tokens\":[{\"id\":1,\"content\":\"\"}]}", "added_tokens[0]");
    refused("{" MODEL ",\"added_tokens\":[{\"id\":2,\"content\":\"</s>\"}]}", "claims id 2");
    refused("{" MODEL ",\"added_tokens\":[{\"id\":99,\"content\":\"new\"}]}", "gives it 7");
    refused("{" MODEL ",\"added_tokens\":[{\"id\":4294967297,\"content\":\"new\"}]}", "no id");
    refused("{" MODEL ",\"added_tokens\":[{\"id\":7,\"content\":\"new\",\"lstrip\":\"yes\"}]}",
            "lstrip");
    refused("{" MODEL ",\"normalizer\":{\"type\":\"Lowercase\"}}", "Lowercase");
    refused("{" MODEL ",\"normalizer\":{}}", "(none)");
    refused("{" MODEL ",\"normalizer\":{\"type\":\"Sequence\"}}", "normalizers");
    refused("{" MODEL ",\"normalizer\":{\"type\":\"Precompiled\"}}", "precompiled_charsmap");
    refused("{" MODEL
            ",\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"!!!\"}}",
            "base64");
    refused("{" MODEL
            ",\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAA=\"}}",
            "charsmap");
    refused("{" MODEL
            ",\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"/////w==\"}}",
            "claims");
    refused("{" MODEL
            ",\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"BAAAAAAAAAD/\"}}",
            "UTF-8");
    refused("{" MODEL ",\"normalizer\":{\"type\":\"Replace\",\"content\":\"x\"}}", "pattern");
    refused(
        "{" MODEL
        ",\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"x\"}}",
        "replace");
    refused("{" MODEL ",\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"}}}",
            "content");
    for (const char *const *r =
             (const char *const[]){"(a)", "[ab]", "a*", "^a", "a$", ".", "a+?", "a++", "a{2",
                                   "a{3,2}", "a{99999}", "\\\\d", "a|", "\\\\", "\\\\A", "+", NULL};
         *r; r++) {
        char text[1024];
        snprintf(text, sizeof text,
                 "{%s,\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"%s\"},"
                 "\"content\":\"x\"}}",
                 MODEL, *r);
        refused(text, "regular expression");
    }
    refused("{" MODEL ",\"pre_tokenizer\":{\"type\":\"ByteLevel\"}}", "ByteLevel");
    refused("{" MODEL ",\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"xy\"}}",
            "replacement");
    refused("{" MODEL ",\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\"}}",
            "replacement");
    refused("{" MODEL ",\"pre_tokenizer\":{\"type\":\"Metaspace\",\"prepend_scheme\":\"last\"}}",
            "prepend_scheme");
    refused("{" MODEL ",\"pre_tokenizer\":{\"type\":\"Metaspace\",\"add_prefix_space\":false,"
            "\"prepend_scheme\":\"always\"}}",
            "add_prefix_space");
    refused("{" MODEL ",\"post_processor\":{\"type\":\"BertProcessing\"}}", "BertProcessing");
    refused("{" MODEL ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[]}}",
            "no place");
    refused("{" MODEL ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{"
            "\"SpecialToken\":{\"id\":\"x\"}}]}}",
            "\"x\"");
    refused("{" MODEL ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{"
            "\"Sequence\":{\"id\":\"A\"}},"
            "{\"SpecialToken\":{\"id\":\"x\"}}],\"special_tokens\":{\"x\":{\"ids\":[700]}}}}",
            "outside");
}

static void small(void)
{
    /* "ab" as two pieces (-6) beats one of -9; unknowns are fused; ties go to the first found */
    becomes("{" MODEL "," META "}", "ab", 2, (int[]){5, 4});
    becomes("{" MODEL "," META "}", "xyz a", 3, (int[]){2, 0, 5});
    becomes("{" MODEL "," META "}", "", 0, (int[]){0});
    becomes("{" MODEL "}", "</s>ab", 3, (int[]){1, 3, 4});
    becomes("{" MODEL
            ",\"added_tokens\":[{\"id\":6,\"content\":\"ab\"},{\"id\":7,\"content\":\"aba\"}]}",
            "abab", 2, (int[]){7, 4});
    becomes("{" MODEL ",\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"x{2,3}y?|"
            "\\\\Ab+\"},\"content\":\"a\"}}",
            "bbxxxyab", 4, (int[]){3, 3, 3, 4});
    becomes("{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"byte_fallback\":true,\"vocab\":[[\"?"
            "\",0],[\"<0xC3>\",-1],[\"<0xA9>\",-1]]}}",
            "\xC3\xA9", 2, (int[]){1, 2});
    becomes("{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"byte_fallback\":true,\"vocab\":[[\"?"
            "\",0],[\"<0xC3>\",-1]]}}",
            "\xC3\xA9", 1, (int[]){0});
    /* of equal pieces the last counts */
    becomes("{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"?\",0],[\"a\",-1],[\"a\",-"
            "2]]}}",
            "a", 1, (int[]){2});
    struct err e = {0};
    struct tokenizer *t = parse("{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",-1]]}}", &e);
    int id, n;
    bool cut;
    CHECK(t && tokenizer_encode(t, &id, 1, &n, &cut, "\xE2\x82\xAC", &e) < 0 &&
          strstr(e.msg, "U+20AC"));
    tokenizer_close(t);
}

/* A real file cut short at many places, or with one byte changed: a message or a tokenizer, no
 * crash. */
static void damaged(struct test_rng *r)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/tests/golden/data/text_tok_bytes/tokenizer.json",
             TEST_SOURCE_DIR);
    FILE *f = fopen(path, "rb");
    static char text[1 << 17];
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (!n) abort();
    fclose(f);
    text[n] = 0;
    for (int i = 0; i < 100; i++) {
        struct err e = {0};
        char saved;
        size_t at = (size_t)rng_int(r, 0, (int)n - 1);
        bool cut_short = i % 2;
        saved = text[at];
        text[at] = cut_short ? 0 : (char)rng_int(r, 1, 255);
        struct tokenizer *t = parse(text, &e);
        CHECK(cut_short ? !t || at >= n - 2 : t || e.code);
        int ids[64], count;
        bool cut;
        if (t)
            CHECK(tokenizer_encode(t, ids, 64, &count, &cut, "a rocket \xEF\xBC\xA1 e\xCC\x81",
                                   &e) == 0 ||
                  e.code);
        tokenizer_close(t);
        text[at] = saved;
    }
}

static void folders(void)
{
    char dir[256], path[400];
    struct tokenizer *t = NULL;
    struct err e = {0};
    tiny_temp(dir);
    CHECK(tokenizer_open(&t, dir, NULL, &e) < 0 && e.code == ERR_INPUT && !t &&
          strstr(e.msg, "tokenizer.json"));
    snprintf(path, sizeof path, "%s/spiece.model", dir);
    tiny_write_text(path, "this is no model");
    CHECK(tokenizer_open(&t, dir, NULL, &e) < 0 && e.code == ERR_INPUT && !t &&
          strstr(e.msg, "spiece.model"));
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    tiny_write_text(path, "{\"model\": null}");
    CHECK(tokenizer_open(&t, dir, NULL, &e) < 0 && e.code == ERR_INPUT && !t &&
          strstr(e.msg, "model"));
    tiny_remove(dir);
}

int main(int argc, char **argv)
{
    struct test_rng r = test_seed(argc, argv);
    broken();
    broken_parts();
    small();
    damaged(&r);
    folders();
    return TEST_RESULT();
}
