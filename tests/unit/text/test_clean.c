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

static void refused(const char *in, const char *says)
{
    for (int fix = 0; fix < 2; fix++) {
        struct err e = {0};
        char *out;
        CHECK_MSG(prompt_clean(&out, in, fix, &e) < 0 && !out && e.code == ERR_USAGE &&
                      strstr(e.msg, "not UTF-8") && strstr(e.msg, says),
                  "\"%s\", wanted \"%s\"", e.msg, says);
    }
}

static void invalid(void)
{
    refused("a\xFF\x62", "0xFF at character 2 (byte 2)");
    refused("caf\xE9 noir", "0xE9 at character 4 (byte 4)"); /* ISO-8859-1 */
    refused("\xC3\xA9\xC3\xA9 a\xC3", "0xC3 at character 5 (byte 7)");
    refused("a\nb\n\xE4\xBD x", "0xE4 at line 3, character 1 (byte 5)"); /* a cut sequence */
    refused("\xC0\x80", "0xC0"); /* overlong NUL */
    refused("\xF4\x90\x80\x80", "0xF4");
    refused("x\xED\xA0\xBDy", "0xED at character 2"); /* lone surrogate */
    refused("\xED\xB2\xA9\xED\xA0\xBD", "0xED");
    for (int fix = 0; fix < 2; fix++) {
        expect("\xED\xA0\xBD\xED\xB2\xA9", fix, "\xF0\x9F\x92\xA9"); /* CESU-8 pair */
        expect("\xEF\xBF\xBD", fix, "\xEF\xBF\xBD"); /* written as such */
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
