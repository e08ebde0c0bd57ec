/* An exception that nobody catches, of a library in C++ (oneDNN's books, codecs): without memory it would
 * end the process by SIGABRT. One line and exit code 4 instead. */
#ifndef DITGEN_APP_CLI_TERMINATE_H
#define DITGEN_APP_CLI_TERMINATE_H

/* Once, before any library works. Without C++'s runtime in the process: nothing. Other exceptions are
 * named, and abort as before. */
void terminate_watch(void);

#endif
