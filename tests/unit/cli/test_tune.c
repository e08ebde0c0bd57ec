/* What tune makes of a table: the frontier against its definition, what is chosen, what is looked at
 * next; and a profile that reads back as the settings that it is of. */
#include "app/cli/profile.h"
#include "app/cli/tune.h"
#include "tests/check.h"

#define N 40

static void front(struct test_rng *r)
{
    struct bench_row rows[N] = {{0}};
    struct bench_line lines[N] = {{0}};
    struct bench_table b = {.at = lines, .n = N};
    bool on[N];
    for (int i = 0; i < N; i++) {
        rows[i].kind = i % 9 ? ROW_METHOD : i % 2 ? ROW_STEPS : ROW_KERNEL;
        lines[i] = (struct bench_line){.row = &rows[i],
                                       .n = i % 7 ? 2 : i % 2,
                                       .share = rng_int(r, 1, 12) / 10.0,
                                       .psnr = rng_int(r, 20, 30),
                                       .ssim = 0.9};
    }
    tune_front(on, &b, 2);
    for (int i = 0; i < N; i++) {
        bool counts = lines[i].n >= 2 && rows[i].kind != ROW_KERNEL, beaten = false, twin = false;
        for (int k = 0; k < N; k++) {
            const struct bench_line *o = &lines[k];
            if (k == i || o->n < 2 || rows[k].kind == ROW_KERNEL) continue;
            bool equal = o->share == lines[i].share && o->psnr == lines[i].psnr;
            beaten = beaten || (!equal && o->share <= lines[i].share && o->psnr >= lines[i].psnr);
            twin = twin || (equal && on[k]);
        }
        CHECK_MSG(on[i] == (counts && !beaten && !twin), "line %d: %g, %g dB", i, lines[i].share,
                  lines[i].psnr);
    }
    const struct tune_target faithful = {.db = 25}, fast = {.share = 0.5}, none = {.db = 80};
    int a = tune_choose(&b, &faithful, 2), c = tune_choose(&b, &fast, 2);
    for (int i = 0; i < N; i++) {
        if (lines[i].n < 2 || rows[i].kind == ROW_KERNEL || lines[i].share >= 1) continue;
        if (lines[i].psnr >= 25) CHECK(a >= 0 && lines[a].share <= lines[i].share);
        if (lines[i].share <= 0.5) CHECK(c >= 0 && lines[c].psnr >= lines[i].psnr);
    }
    if (a >= 0) CHECK(lines[a].psnr >= 25);
    if (c >= 0) CHECK(lines[c].share <= 0.5);
    CHECK(tune_choose(&b, &none, 2) == -1);
    /* what meets the target is worth more than what does not, and the chosen one most of all */
    for (int i = 0; a >= 0 && i < N; i++)
        if (lines[i].n >= 2 && rows[i].kind != ROW_KERNEL && lines[i].share < 1)
            CHECK(tune_worth(&lines[a], &faithful, false) >=
                  tune_worth(&lines[i], &faithful, false));
}

/* Sizes in any order become lists by tokens; what nobody changes is not said. */
static void sizes(void)
{
    struct tune t = {0};
    struct err e = {0};
    char *text = NULL;
    size_t n;
    CHECK_OK(tune_sizes_parse(&t, "384x384x33,256x256x33,128x128x9", &e));
    CHECK(t.n_sizes == 3 && t.sizes[0].height == 384 && t.sizes[2].frames == 9);
    const int tokens[] = {5184, 2304, 192};
    const char *const rows[] = {"attention=resid:every=3,density=.03;steps=25",
                                "step-cache=magcache;error-budget=40dB", ""};
    for (int i = 0; i < 3; i++) {
        t.sizes[i].tokens = tokens[i], t.sizes[i].steps = 30, t.sizes[i].verified = true;
        snprintf(t.sizes[i].row, sizeof t.sizes[i].row, "%s", rows[i]);
    }
    FILE *f = open_memstream(&text, &n);
    tune_sizes_profile(f, &t);
    fclose(f);
    CHECK(strstr(text, "attention = \"dense | resid:every=3,density=.03@5184\"\n"));
    CHECK(strstr(text, "error-budget = \"none | 40dB@2304 | none@5184\"\n"));
    CHECK(strstr(text, "step-cache = \"none | magcache@2304 | none@5184\"\n"));
    CHECK(strstr(text, "steps = \"30, 25@5184\"\n"));
    CHECK(strstr(text, "128x128, 9 frames: exact, as nothing met the target"));
    struct ditgen_settings *s;
    CHECK_OK(settings_open(&s, &e));
    CHECK_OK(profile_from_clip(s, LAYER_CONFIG, text, "sizes.ini", &e));
    settings_close(s);
    free(text);
    static const char *const bad[] = {"",
                                      "32x32",
                                      "32x32x5,",
                                      "32x32x5x7",
                                      "0x32x5",
                                      "32x32x5;1x1x1",
                                      "1x1x1,1x1x1,1x1x1,1x1x1,1x1x1,1x1x1,1x1x1,1x1x1,1x1x1"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct tune other = {0};
        CHECK_MSG(tune_sizes_parse(&other, bad[i], &e) < 0 && strstr(e.msg, "--sizes"), "%s",
                  bad[i]);
    }
}

/* The rival of a clip is its own, and what an error budget promised is counted. */
static void check_lines(void)
{
    const struct tune_clip clips[] = {{"a duck", 9001, .5, 41, .99, 40.5, 35},
                                      {"a shark", 9002, .6, 38.5, .98, 40, 36}};
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    tune_check_print(f, clips, 2, 40);
    fclose(f);
    CHECK(strstr(text, "| \"a shark\", seed 9002 | 0.60 | 38.5 | 40.0 | 0.980 | 36.0 | +2.5 |"));
    CHECK(strstr(text, "| mean | 0.55 | 39.8 | | | 35.5 | +4.2 |"));
    CHECK(strstr(text, "| worst | | 38.5 | | | 35.0 | +3.5 |"));
    CHECK_MSG(strstr(text,
                     "error budget 40 dB: held by 1 of 2 clips, worst 38.5 dB; clips are -0.5 dB "
                     "from their estimates in the mean, 1.1 dB root mean square"),
              "%s", text);
    free(text);
}

static void profile(void)
{
    struct bench_row row = {.text =
                                "step-cache=easycache:threshold=0.1;attention=resid:every=6/8/10,"
                                "density=.03+tile;steps=25"};
    struct bench_line line = {
        .row = &row, .n = 2, .share = .5, .psnr = 41, .worst = 39, .ssim = .98, .rival = 33};
    struct bench_table table = {.at = &line, .n = 1, .width = 64, .height = 48, .frames = 9};
    struct prompts lists[2] = {{.line = {(char[]){"one # prompt"}}, .n = 1},
                               {.line = {(char[]){"[ditgen] other"}}, .n = 1}};
    struct tune_target target = {.db = 40};
    struct tune_found found = {.search = &table,
                               .verify = &table,
                               .line = &line,
                               .target = &target,
                               .lists = {&lists[0], &lists[1]},
                               .n_lists = {1, 1},
                               .model = "m",
                               .command = "ditgen tune"};
    struct ditgen_settings *base, *s;
    struct err e;
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    CHECK_OK(settings_open(&base, &e));
    CHECK_OK(settings_open(&s, &e));
    CHECK_OK(settings_set(base, LAYER_FLAG, "solver", "euler", &e));
    CHECK(tune_profile(f, &found, base) == 0);
    fclose(f);
    CHECK(strstr(text, "41.0 dB") && strstr(text, "one # prompt") && strstr(text, "33.0 dB"));
    CHECK_OK(profile_from_clip(s, LAYER_PROFILE, text, "tuned.ini", &e));
    CHECK(settings_int(s, SET_STEPS) == 25);
    CHECK(strcmp(settings_text(s, SET_STEP_CACHE), "easycache:threshold=0.1") == 0);
    CHECK(strcmp(settings_text(s, SET_ATTENTION), "resid:every=6/8/10,density=.03+tile") == 0);
    free(text);
    settings_close(base);
    settings_close(s);
}

int main(int argc, char **argv)
{
    struct test_rng r = test_seed(argc, argv);
    for (int i = 0; i < 200; i++)
        front(&r);
    profile();
    sizes();
    check_lines();
    return TEST_RESULT();
}
