/* prompt_clean against ftfy and html.unescape of the reference (tests/golden/make_text.py), and
 * what a JSON golden cannot hold: bytes that are not UTF-8, surrogates, sizes. */
#include "model/text/text.h"
#include "text_test.h"

static void expect(const char *in, bool fix, const char *want)
{
    char *got = NULL, a[400], b[400], c[400];
    struct err e = {0};
    int status = prompt_clean(&got, in, fix, &e);
    CHECK_MSG(status == 0, "%s", e.msg);
    CHECK_MSG(status == 0 && strcmp(got, want) == 0, "\"%s\" (fix %d) is \"%s\", wanted \"%s\"",
              text_show(a, sizeof a, in), fix, got ? text_show(b, sizeof b, got) : "(null)",
              text_show(c, sizeof c, want));
    free(got);
}

static void goldens(void)
{
    struct json *rows = text_golden("text_clean.json");
    CHECK(json_count(rows) >= 100);
    for (const struct json *r = json_first(rows); r; r = json_next(r)) {
        expect(json_string(json_at(r, 0)), true, json_string(json_at(r, 1)));
        expect(json_string(json_at(r, 0)), false, json_string(json_at(r, 2)));
    }
    json_close(rows);
}

static void invalid(void)
{
    for (int fix = 0; fix < 2; fix++) {
        expect("a\xFF\x62", fix,
               "a\xEF\xBF\xBD"
               "b");
        expect("a\xC3", fix, "a\xEF\xBF\xBD");
        expect("\xE4\xBD"
               "x",
               fix, "\xEF\xBF\xBDx"); /* one for a cut sequence */
        expect("\xC0\x80", fix, "\xEF\xBF\xBD\xEF\xBF\xBD"); /* overlong NUL */
        expect("\xF4\x90\x80\x80", fix, "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
        expect("\xED\xA0\xBD\xED\xB2\xA9", fix, "\xF0\x9F\x92\xA9"); /* CESU-8 pair */
        expect("x\xED\xA0\xBDy", fix, "x\xEF\xBF\xBDy"); /* lone surrogate */
        expect("\xED\xB2\xA9\xED\xA0\xBD", fix, "\xEF\xBF\xBD\xEF\xBF\xBD");
    }
}

static void sizes(void)
{
    struct err e = {0};
    char *got = NULL;
    size_t n = ((size_t)1 << 20) + 1;
    char *big = malloc(n + 1);
    if (!big) abort();
    memset(big, 'a', n);
    big[n] = 0;
    CHECK(prompt_clean(&got, big, true, &e) < 0 && e.code == ERR_USAGE && !got);
    big[n - 1] = 0;
    CHECK(prompt_clean(&got, big, true, &e) == 0 && got && strlen(got) == n - 1);
    free(got);
    /* a megabyte of marks to put in order, and of layers to undo, must not take forever */
    for (size_t i = 0; i + 4 < n; i += 4)
        memcpy(big + i, i % 8 ? "\xCC\x81\xCC\xA7" : "\xCC\xA7\xCC\x81", 4);
    CHECK(prompt_clean(&got, big, true, &e) == 0);
    free(got);
    memset(big, 0, n);
    big[0] = '&';
    for (size_t i = 1; i + 4 < n / 16; i += 4)
        memcpy(big + i, "amp;", 4);
    CHECK(prompt_clean(&got, big, true, &e) == 0);
    free(got);
    free(big);
}

int main(void)
{
    goldens();
    invalid();
    sizes();
    return TEST_RESULT();
}
