/* The handler of SIGBUS; see bus.h. It calls nothing but write() and _exit(): matrix code may have
 * borrowed the stack register (stop.h), so nothing may be unwound or cleaned up here. */
#include "app/cli/bus.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "model/base/err.h"
#include "model/base/file_map.h"

static void say(const char *text)
{
    ssize_t n = write(STDERR_FILENO, text, strlen(text));
    (void)n; /* there is nobody else to tell */
}

static void on_bus(int number, siginfo_t *info, void *context)
{
    const char *path = file_map_at(info->si_addr);
    (void)context;
    if (!path) {
        signal(number, SIG_DFL); /* and the same instruction again */
        return;
    }
    say("ditgen: ");
    say(path);
    say(": became shorter while it was in use, or its disk cannot be read\n");
    _exit(ERR_INPUT);
}

void bus_watch(void)
{
    struct sigaction act = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO};
    sigemptyset(&act.sa_mask);
    sigaction(SIGBUS, &act, NULL);
}
