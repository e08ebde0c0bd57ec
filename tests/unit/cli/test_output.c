/* What a clip is called, its rate as a fraction, small text. */
#include "app/cli/output.h"
#include "app/cli/progress.h"
#include "tests/check.h"

#include <unistd.h>

static void names(void)
{
    char name[256], dir[64] = "/tmp/ditgen-test-XXXXXX", here[4096];
    CHECK(mkdtemp(dir) && getcwd(here, sizeof here) && chdir(dir) == 0);
    output_name(name, sizeof name, "A rocket, flies UP!", 42, "y4m");
    CHECK_STR(name, "a-rocket-flies-up-42.y4m");
    fclose(fopen(name, "w"));
    output_name(name, sizeof name, "a rocket flies up", 42, "y4m");
    CHECK_STR(name, "a-rocket-flies-up-42-2.y4m");
    unlink("a-rocket-flies-up-42.y4m");
    output_name(name, sizeof name, "\xe7\x81\xab /../", 1, "png");
    CHECK_STR(name, "clip-1.png");
    output_name(name, sizeof name, "", 0, "y4m");
    CHECK_STR(name, "clip-0.y4m");
    output_name(name, sizeof name, "an extraordinarily long prompt that goes on and on for ever", 1,
                "y4m");
    CHECK_STR(name, "an-extraordinarily-long-prompt-that-goes-on-and-1.y4m");
    CHECK(chdir(here) == 0 && rmdir(dir) == 0);
}

static void rates(void)
{
    static const struct {
        double fps;
        int num, den;
    } rows[] = {
        {16, 16, 1}, {29.97, 30000, 1001}, {23.976, 24000, 1001}, {12.5, 25, 2}, {0.5, 1, 2}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        int num, den;
        output_fps(rows[i].fps, &num, &den);
        CHECK_MSG(num == rows[i].num && den == rows[i].den, "%g is %d/%d", rows[i].fps, num, den);
    }
    char text[40];
    seconds_text(text, sizeof text, 4.25);
    CHECK_STR(text, "4.2 s");
    seconds_text(text, sizeof text, 200);
    CHECK_STR(text, "3 min 20 s");
    bytes_text(text, sizeof text, 1.5 * 1024 * 1024 * 1024);
    CHECK_STR(text, "1.5 GiB");
}

int main(void)
{
    names();
    rates();
    return TEST_RESULT();
}
