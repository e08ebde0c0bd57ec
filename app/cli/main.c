/* argv → command → exit code; the one place that prints an error. */
#include <stdio.h>
#include <string.h>

#include "app/cli/bus.h"
#include "app/cli/cmd.h"
#include "app/cli/streams.h"
#include "app/cli/terminate.h"
#include "model/base/err.h"

static const struct verb {
    const char *name;
    int (*run)(int argc, char **argv, struct err *e);
} verbs[] = {
    {"generate", cmd_generate}, {"list", cmd_list},       {"inspect", cmd_inspect},
    {"bench", cmd_bench},       {"compare", cmd_compare}, {"rerun", cmd_rerun},
    {"resume", cmd_resume},     {"decode", cmd_decode},   {"calibrate", cmd_calibrate},
    {"tune", cmd_tune},
};

int main(int argc, char **argv)
{
    struct err e = {0};
    int (*run)(int, char **, struct err *) = cmd_generate;
    streams_prepare();
    bus_watch();
    terminate_watch();
    for (size_t i = 0; argc > 1 && i < ARRAY_LEN(verbs); i++) {
        if (strcmp(argv[1], verbs[i].name) != 0) continue;
        run = verbs[i].run;
        argc--, argv++;
        break;
    }
    int rc = run(argc, argv, &e);
    if (rc == 0) rc = streams_finish(&e);
    if (rc < 0) {
        fprintf(stderr, "ditgen: %s\n", e.msg);
        return e.code ? (int)e.code : (int)ERR_BUG;
    }
    return (int)e.code; /* a command may have said all itself: --plan that does not fit */
}
