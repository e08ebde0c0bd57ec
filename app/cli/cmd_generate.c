/* generate: a prompt becomes a clip. The verb that needs not be said. */
#include "app/cli/cmd.h"
#include "app/cli/generate.h"
#include "app/cli/help.h"

int cmd_generate(int argc, char **argv, struct err *e)
{
    struct cli c;
    int rc = cli_parse(&c, argc, argv, CLI_PROMPT, e);
    if (rc == 0 && c.help)
        help_generate(stdout);
    else if (rc == 0 && c.version)
        help_version(stdout);
    else if (rc == 0 && (rc = prompt_read(&c, e)) == 0)
        rc = generate_run(&c, NULL, NULL, e);
    cli_fini(&c);
    return rc;
}
