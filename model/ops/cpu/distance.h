/* How far two long rows of numbers are apart. */
#ifndef DITGEN_OPS_CPU_DISTANCE_H
#define DITGEN_OPS_CPU_DISTANCE_H

#include <stddef.h>

/* to[0] = sum |a - b|, to[1] = sum |b|; b NULL: sum |a|, and 0. In double; the same for any number of
 * threads. */
void sum_distance(double to[2], const float *a, const float *b, size_t n);

#endif
