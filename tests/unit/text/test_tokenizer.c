/* Token ids against the reference's fast tokenizers: tiny ones of every known form, and the
 * embedded model's. Goldens: tests/golden/make_text.py. */
#include "model/text/text.h"
#include "text_test.h"

#define MAX_IDS 512 /* as in make_text.py */

static void compare(const char *which, const struct tokenizer *t, const char *text,
                    const struct json *want)
{
    int ids[MAX_IDS], n = 0, count = json_count(want), at = 0;
    bool cut = false;
    char shown[300];
    struct err e = {0};
    CHECK_OK(tokenizer_encode(t, ids, MAX_IDS, &n, &cut, text, &e));
    bool same = n == count;
    double v = 0;
    for (const struct json *x = json_first(want); x && same; x = json_next(x), at += same)
        same = json_number(x, &v) && at < n && (double)ids[at] == v;
    if (!same && at < n)
        CHECK_MSG(same, "%s: \"%s\" has %d ids, wanted %d; id %d is %d (%s), wanted %g (%s)", which,
                  text_show(shown, sizeof shown, text), n, count, at, ids[at],
                  tokenizer_piece(t, ids[at]), v, tokenizer_piece(t, (int)v));
    else
        CHECK_MSG(same, "%s: \"%s\" has %d ids, wanted %d", which,
                  text_show(shown, sizeof shown, text), n, count);
    CHECK(n > 0 && tokenizer_piece(t, ids[n - 1]) &&
          strcmp(tokenizer_piece(t, ids[n - 1]), "</s>") == 0);
    CHECK(!cut || n == MAX_IDS);
    for (int i = 0; i < n; i++)
        CHECK(ids[i] >= 0 && ids[i] < tokenizer_vocab_size(t));
}

static void against(const char *which, const char *dir, const struct json *prompts,
                    const struct json *ids)
{
    struct tokenizer *t;
    struct err e = {0};
    CHECK_OK(tokenizer_open(&t, dir, NULL, &e));
    if (!t) return;
    const struct json *p = json_first(prompts), *want = json_first(ids);
    CHECK(json_count(prompts) >= 200 && json_count(prompts) == json_count(ids));
    for (; p && want; p = json_next(p), want = json_next(want))
        compare(which, t, json_string(p), want);
    tokenizer_close(t);
}

/* What a cut does: the same ids as without, up to the last place, which is </s>. */
static void truncation(const char *dir)
{
    struct tokenizer *t;
    struct err e = {0};
    int all[64], some[64], n, m;
    bool cut;
    const char *text = "a rocket flies up in outer space and a dog jumps";
    CHECK_OK(tokenizer_open(&t, dir, NULL, &e));
    CHECK_OK(tokenizer_encode(t, all, 64, &n, &cut, text, &e));
    CHECK(!cut && n > 4);
    for (int max = 1; max <= n + 1; max++) {
        memset(some, 0x55, sizeof some);
        CHECK_OK(tokenizer_encode(t, some, max, &m, &cut, text, &e));
        CHECK(m == (max < n ? max : n) && cut == (max < n));
        CHECK(memcmp(some, all, (size_t)(m - 1) * sizeof *all) == 0 && some[m - 1] == all[n - 1]);
        CHECK(some[m] == 0x55555555);
    }
    CHECK(tokenizer_encode(t, some, 0, &m, &cut, text, &e) < 0);
    CHECK(tokenizer_piece(t, -1) == NULL && tokenizer_piece(t, tokenizer_vocab_size(t)) == NULL);
    tokenizer_close(t);
}

/* Bytes that are not UTF-8 are as good as U+FFFD. */
static void invalid(const char *dir)
{
    struct tokenizer *t;
    struct err e = {0};
    int a[32], b[32], n, m;
    bool cut;
    CHECK_OK(tokenizer_open(&t, dir, NULL, &e));
    CHECK_OK(tokenizer_encode(t, a, 32, &n, &cut, "x\xFFy", &e));
    CHECK_OK(tokenizer_encode(t, b, 32, &m, &cut, "x\xEF\xBF\xBDy", &e));
    CHECK(n == m && memcmp(a, b, (size_t)n * sizeof *a) == 0);
    tokenizer_close(t);
}

int main(void)
{
    static const char *const tiny[] = {"old", "new", "bytes", "spm", "odd"};
    char dir[1024];
    struct json *prompts = text_golden("text_prompts.json"), *ids = text_golden("text_ids.json");
    for (size_t i = 0; i < ARRAY_LEN(tiny); i++) {
        snprintf(dir, sizeof dir, "%s/tests/golden/data/text_tok_%s", TEST_SOURCE_DIR, tiny[i]);
        against(tiny[i], dir, prompts, json_get(ids, tiny[i]));
        if (strcmp(tiny[i], "odd") != 0) truncation(dir);
        invalid(dir);
    }
    json_close(ids);
    ids = text_golden("text_ids_emoji.json");
    snprintf(dir, sizeof dir, "%s/assets/emoji/tokenizer", TEST_SOURCE_DIR);
    against("emoji", dir, prompts, ids);
    json_close(ids);
    json_close(prompts);
    return TEST_RESULT();
}
