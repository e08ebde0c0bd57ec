/* A file that becomes shorter while it is mapped, or whose disk fails: reading it raises SIGBUS, on
 * whatever thread touches it. One line says which file, and the process ends with exit code 3. */
#ifndef DITGEN_APP_CLI_BUS_H
#define DITGEN_APP_CLI_BUS_H

/* Once, before any model is opened. What is no map of ours ends the process as if nobody had
 * watched. */
void bus_watch(void);

#endif
