/* The device of a command; see device.h. */
#include "app/cli/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool cli_device_pick(char name[16], char note[CLI_DEVICE_NOTE], bool asked,
                     bool (*at)(int i, struct device_info *info))
{
    struct device_info info;
    char why[192];
    *note = 0;
    for (int i = 1; at(i, &info); i++) {
        if (!info.why_not[0]) {
            snprintf(name, 16, "%s", info.name);
            return true;
        }
        if (!*note)
            snprintf(note, CLI_DEVICE_NOTE, "%s: %s; the processor computes", info.name,
                     info.why_not);
    }
    snprintf(name, 16, "cpu");
    if (*note || !asked) return false;
    device_no_gpu(why, sizeof why);
    snprintf(note, CLI_DEVICE_NOTE, "no GPU (%s): the processor computes", why);
    return false;
}

int cli_device(struct cli *c, char note[CLI_DEVICE_NOTE], struct err *e)
{
    const char *name = settings_text(c->settings, SET_DEVICE);
    char picked[16];
    bool asked = name != NULL;
    *note = 0;
    c->device_picked = false;
    if (!name && (name = getenv("DITGEN_DEVICE")) && !device_name_is_known(name))
        return err_set(e, ERR_USAGE,
                       "$DITGEN_DEVICE is '%.60s'; there are auto, cpu, cpu:LEVEL, cuda and cuda:N",
                       name);
    if (!name || strcmp(name, "auto") == 0) {
        c->device_picked = cli_device_pick(picked, note, asked, device_at);
        name = picked;
    }
    /* what is the same everywhere is not written down: dumped settings are for other machines too */
    if (!asked && strcmp(name, "cpu") == 0) return 0;
    return settings_set(c->settings, LAYER_FLAG, "device", name, e);
}

int cli_plan(struct cli *c, struct ditgen *d, struct ditgen_plan *plan, char note[CLI_DEVICE_NOTE],
             struct err *e)
{
    struct ditgen_error de;
    *note = 0;
    if (ditgen_plan(d, c->settings, plan, &de) == 0) return 0;
    if (de.code != DITGEN_DEVICE || !c->device_picked)
        return err_set(e, (enum err_code)de.code, "%s", de.message);
    snprintf(note, CLI_DEVICE_NOTE, "%.320s: the processor computes", de.message);
    c->device_picked = false;
    if (settings_set(c->settings, LAYER_FLAG, "device", "cpu", e) < 0) return -1;
    if (ditgen_plan(d, c->settings, plan, &de) == 0) return 0;
    return err_set(e, (enum err_code)de.code, "%s", de.message);
}
