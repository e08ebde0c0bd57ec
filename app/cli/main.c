/* argv → command → exit code; the one place that prints an error. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "app/cli/cmd.h"
#include "model/base/err.h"

static const struct verb {
    const char *name;
    int (*run)(int argc, char **argv, struct err *e);
} verbs[] = {
    {"generate", cmd_generate}, {"list", cmd_list},       {"inspect", cmd_inspect},
    {"bench", cmd_bench},       {"compare", cmd_compare}, {"rerun", cmd_rerun},
};

int main(int argc, char **argv)
{
    struct err e = {0};
    int (*run)(int, char **, struct err *) = cmd_generate;
    signal(SIGPIPE, SIG_IGN); /* a reader that went away is a write error with a sentence */
    for (size_t i = 0; argc > 1 && i < ARRAY_LEN(verbs); i++) {
        if (strcmp(argv[1], verbs[i].name) != 0) continue;
        run = verbs[i].run;
        argc--, argv++;
        break;
    }
    if (run(argc, argv, &e) < 0) {
        fprintf(stderr, "ditgen: %s\n", e.msg);
        return e.code ? (int)e.code : (int)ERR_BUG;
    }
    return (int)e.code; /* a command may have said all itself: --plan that does not fit */
}
