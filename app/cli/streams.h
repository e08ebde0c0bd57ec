/* Standard streams made safe before anything else is opened, whatever state the caller left them in.
 *
 * A closed one would give its number to the next file, and talk would go into a clip; one that does
 * not block would lose lines. Errors: streams_finish() only. */
#ifndef DITGEN_APP_CLI_STREAMS_H
#define DITGEN_APP_CLI_STREAMS_H

#include "model/base/err.h"

/* First call of main(). Also turns SIGPIPE and SIGXFSZ into write errors with a sentence. */
void streams_prepare(void);
/* Last: was everything that was printed also written? ERR_RESOURCE. */
int streams_finish(struct err *e);

#endif
