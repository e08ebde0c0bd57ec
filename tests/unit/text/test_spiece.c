/* The embedded model's spiece.model through the sentencepiece library against its tokenizer.json,
 * where both are built to agree. Without the library: the one error. */
#include "model/text/text.h"
#include "text_test.h"
#include "tests/golden/tiny.h"

#ifdef DITGEN_HAVE_SENTENCEPIECE
static void same(const struct tokenizer *a, const struct tokenizer *b, const char *text, int *agree,
                 int *total)
{
    int x[512], y[512], n, m;
    bool cut, cut_too;
    struct err e = {0};
    CHECK_OK(tokenizer_encode(a, x, 512, &n, &cut, text, &e));
    CHECK_OK(tokenizer_encode(b, y, 512, &m, &cut_too, text, &e));
    *agree += n == m && cut == cut_too && memcmp(x, y, (size_t)n * sizeof *x) == 0;
    ++*total;
}

int main(void)
{
    char dir[256], file[400], from[1024], to[400];
    struct tokenizer *json, *model;
    struct err e = {0};
    snprintf(from, sizeof from, "%s/assets/emoji/tokenizer", TEST_SOURCE_DIR);
    snprintf(file, sizeof file, "%.300s/spiece.model", from);
    if (access(file, R_OK) != 0)
        return printf("the embedded model has no spiece.model: nothing to compare\n"), 0;
    CHECK_OK(tokenizer_open(&json, from, &e));
    tiny_temp(dir);
    snprintf(to, sizeof to, "%s/spiece.model", dir);
    if (symlink(file, to) != 0) abort();
    snprintf(to, sizeof to, "%s/tokenizer_config.json", dir);
    tiny_write_text(to, "{\"extra_ids\": 0}");
    CHECK_OK(tokenizer_open(&model, dir, &e));
    if (!json || !model) return 1;

    int agree = 0, total = 0;
    static const char *const plain[] = {
        "",
        "a rocket flies up in outer space",
        "a big shark moves left underwater",
        "a dog moves right and a butterfly circles around in a grassy field",
        "h\xC3\xA9llo",
        "\xEF\xBC\xA1",
        "end</s>",
        "</s>",

        "x1, y2!"};
    for (size_t i = 0; i < ARRAY_LEN(plain); i++) {
        int ok = 0, one = 0;
        same(json, model, plain[i], &ok, &one);
        CHECK_MSG(ok == 1, "\"%s\" differs", plain[i]);
    }
    /* the rest agree but for what the two forms do not share: unknown marks, outer spaces, specials
     */
    struct json *prompts = text_golden("text_prompts.json");
    for (const struct json *p = json_first(prompts); p; p = json_next(p))
        same(json, model, json_string(p), &agree, &total);
    printf("%d of %d prompts agree\n", agree, total);
    CHECK(agree * 10 >= total * 8);
    int size = tokenizer_vocab_size(model);
    CHECK(size > 0 && size <= tokenizer_vocab_size(json));
    for (int i = 0; i < size; i++)
        CHECK_STR(tokenizer_piece(model, i), tokenizer_piece(json, i));
    CHECK(!tokenizer_piece(model, size) && !tokenizer_piece(model, -1));
    json_close(prompts);
    tokenizer_close(json);
    tokenizer_close(model);
    tiny_remove(dir);
    return TEST_RESULT();
}
#else
int main(void)
{
    char dir[256], path[400];
    struct tokenizer *t;
    struct err e = {0};
    tiny_temp(dir);
    snprintf(path, sizeof path, "%s/spiece.model", dir);
    tiny_write_text(path, "any");
    CHECK(tokenizer_open(&t, dir, &e) < 0 && e.code == ERR_INPUT && strstr(e.msg, "sentencepiece"));
    tiny_remove(dir);
    return TEST_RESULT();
}
#endif
