/* Where a command computes when nobody said: by what there is, by $DITGEN_DEVICE, and never "auto" from there on. */
#include "app/cli/device.h"
#include "tests/check.h"

#include <stdio.h>
#include <stdlib.h>

static const struct device_info *cards;
static int n_cards;

static bool at(int i, struct device_info *info)
{
    if (i > n_cards) return false;
    *info = i ? cards[i - 1] : (struct device_info){.name = "cpu"};
    return true;
}

static void picked(void)
{
    static const struct device_info old = {.name = "cuda:0", .why_not = "Tesla K80 is too old"},
                                    fine = {.name = "cuda:1"};
    const struct device_info both[] = {old, fine};
    char name[16], note[CLI_DEVICE_NOTE];
    cards = both, n_cards = 0;
    CHECK(!cli_device_pick(name, note, false, at) && !*note); /* most machines: not a word */
    CHECK_STR(name, "cpu");
    CHECK(!cli_device_pick(name, note, true, at));
    CHECK(strncmp(note, "no GPU (", 8) == 0 && strstr(note, "the processor computes"));
    n_cards = 1;
    CHECK(!cli_device_pick(name, note, false, at));
    CHECK_STR(name, "cpu");
    CHECK_STR(note, "cuda:0: Tesla K80 is too old; the processor computes");
    n_cards = 2;
    CHECK(cli_device_pick(name, note, false, at));
    CHECK_STR(name, "cuda:1");
}

static void said(const char *flag, const char *variable, const char *want)
{
    char *argv[] = {"ditgen", "x", "--device", (char *)(uintptr_t)flag, NULL};
    char note[CLI_DEVICE_NOTE];
    struct cli c;
    struct err e = {0};
    if (variable)
        setenv("DITGEN_DEVICE", variable, 1);
    else
        unsetenv("DITGEN_DEVICE");
    CHECK_OK(cli_parse(&c, flag ? 4 : 2, argv, CLI_PROMPT, &e));
    int rc = cli_device(&c, note, &e);
    const char *is = settings_text(c.settings, SET_DEVICE);
    if (!is && !flag) is = "cpu"; /* where nobody said, it is not written down */
    if (want)
        CHECK_MSG(rc == 0 && is && strcmp(is, want) == 0 && !c.device_picked && !*note, "%s: %s",
                  is ? is : "none", e.msg);
    else if (variable)
        CHECK(rc < 0 && e.code == ERR_USAGE && strstr(e.msg, "$DITGEN_DEVICE is 'tpu'"));
    else
        CHECK(rc == 0 && is && strcmp(is, "auto") != 0);
    cli_fini(&c);
}

int main(void)
{
    picked();
    said(NULL, "cpu", "cpu");
    said("cpu", "cuda", "cpu");
    said("cuda:1", "cpu", "cuda:1");
    said(NULL, "tpu", NULL);
    said(NULL, NULL, NULL);
    said("auto", NULL, NULL);
    return TEST_RESULT();
}
