/* Promise: any bytes as scheduler_config.json give a message, or a solver that exists and a shift in
 * range. */
#include "sched/sched.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sched_config c;
    struct err e;
    char path[64];
    int fd = memfd_create("scheduler_config.json", 0);
    if (fd < 0 || (size && write(fd, data, size) != (ssize_t)size)) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (sched_config_read(&c, path, &e) < 0) {
        if (e.code != ERR_INPUT || !e.msg[0]) abort();
    } else if (!solver_find(c.solver) || !(c.flow_shift > 0 && c.flow_shift <= 1000)) {
        abort();
    }
    close(fd);
    return 0;
}
