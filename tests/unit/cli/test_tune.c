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
    return TEST_RESULT();
}
