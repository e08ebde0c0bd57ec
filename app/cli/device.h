/* Where a command computes when nobody said: on a GPU that can be used and can do what is asked, else on the
 * processor, with a sentence where that may surprise.
 *
 * $DITGEN_DEVICE stands for --device where there is none: tests pin the processor by it. From here on the setting
 * names a device or nothing, which is "cpu", and never "auto". Owner: nothing. Errors: ERR_USAGE. */
#ifndef DITGEN_APP_CLI_DEVICE_H
#define DITGEN_APP_CLI_DEVICE_H

#include "app/cli/cli.h"
#include "app/lib/ditgen.h"
#include "model/base/device.h"

#define CLI_DEVICE_NOTE 400

/* What of `at` (device_at) "auto" is, into name; true: a GPU. note: a GPU is there and cannot be used; or, `asked` for
 * by that word, that there is none. Else "". */
bool cli_device_pick(char name[16], char note[CLI_DEVICE_NOTE], bool asked,
                     bool (*at)(int i, struct device_info *info));
int cli_device(struct cli *c, char note[CLI_DEVICE_NOTE], struct err *e);
/* ditgen_plan(); what the GPU that was picked cannot do is planned for the processor, and note says why. */
int cli_plan(struct cli *c, struct ditgen *d, struct ditgen_plan *plan, char note[CLI_DEVICE_NOTE],
             struct err *e);

#endif
