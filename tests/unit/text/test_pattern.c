/* Patterns: the matches that a plain backtracking search finds, and time that grows with the text
 * only, whatever the pattern; long lists of added tokens likewise. */
#include "model/text/pattern.h"
#include "model/text/text.h"
#include "model/text/tokenizer.h"
#include "tests/check.h"

#include <time.h>

static double cpu_seconds(void) { return (double)clock() / CLOCKS_PER_SEC; }

/* ---- against backtracking ---- */

struct atom {
    char c; /* 'a', 'b', or 's': \s */
    int min, max;
};

static bool takes(char c, char s) { return c == 's' ? s == ' ' || s == '\t' : s == c; }

static int judge(const struct atom *a, int n, const char *s)
{
    if (!n) return 0;
    int times = 0;
    while ((a->max < 0 || times < a->max) && s[times] && takes(a->c, s[times]))
        times++;
    for (; times >= a->min; times--) {
        int r = judge(a + 1, n - 1, s + times);
        if (r >= 0) return times + r;
    }
    return -1;
}

static void random_patterns(struct test_rng *r)
{
    for (int round = 0; round < 3000; round++) {
        struct atom atoms[2][4];
        int n[2];
        char regex[200] = "", text[40];
        for (int k = 0, least; k < 2; k++) {
            do {
                least = 0;
                n[k] = rng_int(r, 1, 4);
                for (int i = 0; i < n[k]; i++) {
                    struct atom *a = &atoms[k][i];
                    a->c = "abs"[rng_int(r, 0, 2)];
                    a->min = rng_int(r, 0, 2);
                    a->max = rng_int(r, 0, 2) ? a->min + rng_int(r, 0, 2) : -1;
                    least += a->min;
                }
            } while (!least);
            if (k) strcat(regex, "|");
            for (int i = 0; i < n[k]; i++) {
                const struct atom *a = &atoms[k][i];
                char part[32];
                snprintf(part, sizeof part, a->max < 0 ? "%s{%d,}" : "%s{%d,%d}",
                         a->c == 's'   ? "\\s"
                         : a->c == 'a' ? "a"
                                       : "b",
                         a->min, a->max);
                strcat(regex, part);
            }
        }
        int len = rng_int(r, 0, 30);
        for (int i = 0; i < len; i++)
            text[i] = "ab \t"[rng_int(r, 0, 3)];
        text[len] = 0;
        struct pattern p;
        struct err e = {0};
        uint32_t got[40];
        CHECK_OK(pattern_regex(&p, regex, &e));
        CHECK_OK(pattern_matches(&p, got, text, (size_t)len, &e));
        for (int i = 0; i < len; i++) {
            int want = judge(atoms[0], n[0], text + i);
            if (want <= 0) want = judge(atoms[1], n[1], text + i);
            CHECK_MSG((int)got[i] == (want < 0 ? 0 : want), "%s at %d of \"%s\": %u, wanted %d",
                      regex, i, text, got[i], want);
        }
    }
}

static void runes(void)
{
    struct pattern p;
    struct err e = {0};
    uint32_t len[16];
    static const char text[] = "\xC3\xA9\xC3\xA9 \xE2\x96\x81x"; /* é é space ▁ x */
    CHECK_OK(pattern_regex(&p, "\xC3\xA9+|\\A | \xE2\x96\x81\\z|x\\z", &e));
    CHECK_OK(pattern_matches(&p, len, text, sizeof text - 1, &e));
    CHECK(len[0] == 4 && len[1] == 0 && len[2] == 2 && len[4] == 0 && len[5] == 0 && len[8] == 1);
    CHECK_OK(pattern_regex(&p, "a{255}", &e));
    CHECK(pattern_regex(&p, "a{256}", &e) < 0 && pattern_regex(&p, "a{200}b{1,90}", &e) < 0 &&
          strstr(e.msg, "255"));
    CHECK_OK(pattern_regex(&p, "a{255}", &e));
    CHECK(pattern_matches(&p, len, text, (size_t)1 << 30, &e) < 0 && strstr(e.msg, "minutes"));
}

/* ---- time ---- */

#define MODEL                                                                                      \
    "\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"<unk>\",0],[\"a\",-1],[\"b\",-1]]" \
    "}"

static struct tokenizer *parse(const char *json, size_t n)
{
    struct err e = {0};
    struct tokenizer *t = calloc(1, sizeof *t);
    if (!t) abort();
    CHECK_MSG(tokenizer_parse(t, json, n, "t.json", &e) == 0, "%s", e.msg);
    return t;
}

static void hostile_patterns(void)
{
    static const char *const patterns[] = {"a*a*a*a*a*a*a*a*a*b", "a?a?a?a?a?a?a?a?aaaaaaaaab",
                                           "a+\\\\z", "\\\\s*\\\\s*\\\\s*a*b",
                                           "a{1,90}b|a{1,90}\\\\z"};
    size_t n = 400000;
    char *text = malloc(n + 1);
    if (!text) abort();
    memset(text, 'a', n);
    text[n / 2] = ' ';
    text[n - 1] = 'c';
    text[n] = 0;
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        for (int split = 0; split < 2; split++) {
            char json[1024];
            int len =
                snprintf(json, sizeof json,
                         split ? "{" MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":"
                                 "{\"Regex\":\"%s\"},\"behavior\":\"Isolated\"}}"
                               : "{" MODEL ",\"normalizer\":{\"type\":\"Replace\",\"pattern\":"
                                 "{\"Regex\":\"%s\"},\"content\":\"b\"}}",
                         patterns[i]);
            struct tokenizer *t = parse(json, (size_t)len);
            struct err e = {0};
            int ids[8], got;
            bool cut;
            double start = cpu_seconds();
            CHECK_OK(tokenizer_encode(t, ids, 8, &got, &cut, text, &e));
            double took = cpu_seconds() - start;
            CHECK_MSG(took < 10, "%s took %.1f s", patterns[i], took); /* 0.1 to 0.6 s */
            tokenizer_close(t);
        }
    }
    free(text);
}

static void many_added(void)
{
    int n = 200000;
    /* ids: two new ones of every three, the third as the second */
    char *fixed = malloc((size_t)n * 60 + 1000);
    if (!fixed) abort();
    size_t end = (size_t)sprintf(fixed, "{" MODEL ",\"added_tokens\":[");
    for (int i = 0; i < n; i++) {
        int same = i % 3 == 2 ? i - 1 : i, id = 3 + same / 3 * 2 + same % 3;
        end += (size_t)sprintf(fixed + end, "%s{\"id\":%d,\"content\":\"<%d>\"}", i ? "," : "", id,
                               same);
    }
    end += (size_t)sprintf(fixed + end, "]}");
    double start = cpu_seconds();
    struct tokenizer *t = parse(fixed, end);
    double took = cpu_seconds() - start;
    CHECK_MSG(took < 10, "%d added tokens took %.1f s", n, took); /* 0.3 s; 100 s when quadratic */
    struct err e = {0};
    int ids[8], got;
    bool cut;
    CHECK_OK(tokenizer_encode(t, ids, 8, &got, &cut, "<4>a<199998>", &e));
    CHECK(got == 3 && ids[0] == 3 + 4 / 3 * 2 + 1 && ids[1] == 1 && ids[2] == 3 + 199998 / 3 * 2);
    tokenizer_close(t);
    free(fixed);
}

int main(int argc, char **argv)
{
    struct test_rng r = test_seed(argc, argv);
    random_patterns(&r);
    runes();
    hostile_patterns();
    many_added();
    return TEST_RESULT();
}
