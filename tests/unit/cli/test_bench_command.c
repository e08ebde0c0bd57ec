/* The bench command on the embedded model, as small as it goes: every figure is there and adds up.
 */
#include "tests/unit/clips/test_clips.h"

#include "app/cli/cmd.h"
#include "model/base/json.h"

#include <fcntl.h>

static int bench(char **out, struct err *e, int argc, const char *const *args)
{
    char *argv[24] = {(char *)"bench"};
    for (int i = 0; i < argc; i++)
        argv[i + 1] = (char *)args[i];
    memset(e, 0, sizeof *e);
    fflush(stdout);
    int saved = dup(1), fd = open("stdout.txt", O_CREAT | O_TRUNC | O_WRONLY, 0666);
    dup2(fd, 1);
    close(fd);
    int rc = cmd_bench(argc + 1, argv, e);
    fflush(stdout);
    dup2(saved, 1);
    close(saved);
    *out = read_bytes("stdout.txt").data;
    unlink("stdout.txt");
    return rc;
}

static double number(const struct json *root, const char *group, const char *key)
{
    double v = -1;
    const struct json *o = group ? json_get(root, group) : root;
    CHECK_MSG(json_number(json_get(o, key), &v), "no number %s", key);
    return v;
}

static double seconds(const struct json *root, const char *row, const char *key)
{
    double v = -1;
    CHECK_MSG(json_number(json_get(json_get(json_get(root, "seconds"), row), key), &v),
              "no %s of %s", key, row);
    return v;
}

int main(void)
{
    static const char *const small[] = {"--size", "32x32", "--frames", "1",      "--steps", "2",
                                        "-t",     "1",     "--runs=2", "--json", "-q"};
    static const char *const bad_runs[] = {"--runs", "many"}, *const no_runs[] = {"--runs"};
    static const char *const foreign[] = {"-o", "x.mp4"}, *const unknown[] = {"--frobnicate"};
    struct err e = {0};
    struct json *root = NULL;
    char *out;
    enter_folder();
    CHECK_OK(bench(&out, &e, ARRAY_LEN(small), small));
    CHECK_OK(json_parse(&root, out, strlen(out), "stdout", &e));
    if (root) {
        CHECK(number(root, NULL, "steps") == 2 && number(root, NULL, "runs") == 2);
        CHECK(number(root, NULL, "peak_fp32_gflops") > 0.01 &&
              number(root, NULL, "step_gflop") > 0);
        CHECK(seconds(root, "step", "n") == 4 && seconds(root, "all", "n") == 2);
        static const char *const rows[] = {"text", "open", "step", "denoise", "decode", "all"};
        for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
            double low = seconds(root, rows[i], "fastest"),
                   high = seconds(root, rows[i], "slowest");
            double mid = seconds(root, rows[i], "median");
            CHECK_MSG(low > 0 && low <= mid && mid <= high, "%s: %g %g %g", rows[i], low, mid,
                      high);
        }
        /* parts of a run are no more than the whole, and the whole has no hole */
        double parts = 0;
        static const char *const parts_of[] = {"text", "open", "denoise", "decode"};
        for (size_t i = 0; i < ARRAY_LEN(parts_of); i++)
            parts += seconds(root, parts_of[i], "median");
        double all = seconds(root, "all", "median");
        CHECK_MSG(fabs(parts - all) < 0.02 * all + 0.005, "%g of %g s", parts, all);
        CHECK(number(root, "measured_bytes", "peak") > 1e6 &&
              number(root, "predicted_bytes", "peak") > 1e6);
    }
    json_close(root);
    free(out);
    CHECK(bench(&out, &e, 2, bad_runs) < 0 && e.code == ERR_USAGE && strstr(e.msg, "wanted 1 to"));
    free(out);
    CHECK(bench(&out, &e, 1, no_runs) < 0 && e.code == ERR_USAGE);
    free(out);
    CHECK(bench(&out, &e, 2, foreign) < 0 && strstr(e.msg, "-o"));
    free(out);
    CHECK(bench(&out, &e, 1, unknown) < 0 && e.code == ERR_USAGE);
    free(out);
    CHECK(count_entries(".") == 0);
    leave_folder();
    return TEST_RESULT();
}
