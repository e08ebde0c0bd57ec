/* The log of trials: what is written is read back, a line that was cut off is made again, anything else
 * is refused with its line; and which number of fewer steps a row is held against. */
#include "app/cli/bench_growth.h"
#include "app/cli/bench_table.h"
#include "app/cli/trial_log.h"
#include "tests/check.h"
#include "tests/golden/tiny.h"

static void log_of(void)
{
    char dir[256], path[400];
    struct err e;
    struct trials t = {.path = path}, back = {.path = path};
    tiny_temp(dir);
    snprintf(path, sizeof path, "%s/log", dir);
    CHECK_OK(trial_log_open(&t, false, false, &e));
    for (int i = 0; i < 3; i++) {
        struct trial r = {.wall = 1.0 / 3 + i, .psnr = TRIAL_EQUAL, .recall = -1, .error = 1e-9};
        char key[64];
        snprintf(key, sizeof key, "clip \"%d\" \\ of\t%d", i, i);
        CHECK_OK(trial_log_add(&t, key, &r, &e));
    }
    CHECK(trial_log_open(&back, false, false, &e) < 0 && e.code == ERR_USAGE &&
          strstr(e.msg, "--resume"));
    CHECK_OK(trial_log_open(&back, true, false, &e));
    CHECK(back.n_known == 3);
    for (int i = 0; i < back.n_known; i++) {
        CHECK(strcmp(back.known[i].key, t.known[i].key) == 0);
        CHECK(fabs(back.known[i].t.wall - t.known[i].t.wall) < 1e-8 &&
              back.known[i].t.psnr == TRIAL_EQUAL && back.known[i].t.recall == -1);
    }
    trials_close(&back);
    /* cut off in the middle of the last line: it is not there, and what follows is whole */
    FILE *f = fopen(path, "a");
    fputs("{\"key\": \"half", f);
    fclose(f);
    back.path = path;
    CHECK_OK(trial_log_open(&back, true, false, &e));
    CHECK(back.n_known == 3);
    CHECK_OK(trial_log_add(&back, "next", &t.known[0].t, &e));
    trials_close(&back);
    back.path = path;
    CHECK_OK(trial_log_open(&back, true, false, &e));
    CHECK(back.n_known == 4);
    trials_close(&back);
    back.path = path;
    CHECK_OK(trial_log_open(&back, false, true, &e)); /* anew */
    CHECK(back.n_known == 0);
    trials_close(&back);
    trials_close(&t);
    tiny_remove(dir);
}

static void hostile(void)
{
    static const char *const bad[] = {"\n",
                                      "{}\n",
                                      "[1]\n",
                                      "{\"key\": \"a\"}\n",
                                      "{\"key\": \"a\", \"wall\": \"x\"}\n",
                                      "\x01\n",
                                      "{\"key\": \"a\", \"wall\": 1e999}\n"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct trials t = {.path = "some.log"};
        struct err e = {0};
        CHECK_MSG(trial_log_parse(&t, bad[i], strlen(bad[i]), &e) < 0 && e.code == ERR_INPUT &&
                      strstr(e.msg, "some.log: line 1"),
                  "%s", bad[i]);
        trials_close(&t);
    }
}

static void rivals(void)
{
    struct bench_row rows[] = {
        {.kind = ROW_STEPS}, {.kind = ROW_STEPS}, {.kind = ROW_STEPS}, {.kind = ROW_METHOD}};
    struct bench_line lines[] = {{.row = &rows[0], .n = 1, .share = .8, .psnr = 40},
                                 {.row = &rows[1], .n = 1, .share = .5, .psnr = 30},
                                 {.row = &rows[2], .n = 0, .share = .6, .psnr = 35},
                                 {.row = &rows[3], .n = 1, .share = .7, .psnr = 50}};
    struct bench_table b = {.at = lines, .n = 4};
    CHECK(bench_rival(&b, .7) == 40); /* not the one that is not known, nor a method */
    CHECK(bench_rival(&b, .5) == 30 && bench_rival(&b, .3) == 30);
    CHECK(bench_rival(&b, .81) == TRIAL_EQUAL); /* only all steps take as long */
}

static void growth(void)
{
    const double recall[] = {.95, .7, .85}, seconds[] = {4, 1, 2};
    const int tokens[] = {1000, 2000, 4000};
    const double square[] = {3, 12, 48}, some[] = {3, (double)NAN, 24};
    /* half-way between 2 and 4 seconds, by their logarithms */
    CHECK(fabs(bench_at_recall(recall, seconds, 3, .9) - sqrt(8)) < 1e-12);
    CHECK(bench_at_recall(recall, seconds, 3, .7) == 1);
    CHECK(isnan(bench_at_recall(recall, seconds, 3, .96)) &&
          isnan(bench_at_recall(recall, seconds, 3, .6)) &&
          isnan(bench_at_recall(recall, seconds, 0, .9)));
    CHECK(fabs(bench_power(tokens, square, 3) - 2) < 1e-12);
    CHECK(fabs(bench_power(tokens, some, 3) - 1.5) < 1e-12);
    CHECK(isnan(bench_power(tokens, square, 1)));
}

int main(void)
{
    log_of();
    hostile();
    rivals();
    growth();
    return TEST_RESULT();
}
