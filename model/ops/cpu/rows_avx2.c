/* Row steps for AVX2 + FMA; see rows_simd.h. */
#ifndef __AVX2__
#error "build this file with -mavx2 -mfma"
#endif
#define ROWS_TABLE row_ops_avx2
#include "model/ops/cpu/rows_simd.h"
