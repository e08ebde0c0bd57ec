/* What the system lets this process have: processors and memory, by its control groups (all the way up;
 * version 1 and 2) and resource limits. Facts of now: ask again before each use. */
#ifndef DITGEN_BASE_LIMITS_H
#define DITGEN_BASE_LIMITS_H

#include <stddef.h>

/* Processors' worth of time that control groups pay for: 1.5; 0: no limit known. */
double limit_cpus(void);
/* Bytes that this process could still take: the least of what the machine, each control group, and
 * RLIMIT_AS and RLIMIT_DATA have left; 0: not known. */
size_t limit_memory(void);
/* Bytes that RLIMIT_AS leaves of address space, and RLIMIT_DATA of memory of its own; SIZE_MAX: as many
 * as it likes. */
void limit_room(size_t *space, size_t *data);
/* Resident bytes of this process now; 0: not known. */
size_t limit_resident(void);

#endif
