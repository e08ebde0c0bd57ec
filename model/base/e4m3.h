/* Numbers of eight bits, sign, 4 of exponent, 3 of fraction (F8_E4M3), as NVIDIA's matrix units take them: no
 * infinities, 448 is the largest, 2^-9 the least; 0x7f and 0xff are no numbers.
 *
 * Plain C and bit by bit what the card's own conversion gives: the judge of kernels. Threads: any. */
#ifndef DITGEN_BASE_E4M3_H
#define DITGEN_BASE_E4M3_H

#include <stdint.h>

#define E4M3_MOST 448.0f

uint8_t e4m3_code(float x); /* nearest, ties to even; +-448 at most, infinity too; NaN stays */
float e4m3_value(uint8_t code);

#endif
