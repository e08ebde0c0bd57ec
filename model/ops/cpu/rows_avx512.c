/* Row steps for AVX-512 (F, BW, DQ, VL); see rows_simd.h. */
#ifndef __AVX512F__
#error "build this file with -mavx512f -mavx512bw -mavx512dq -mavx512vl"
#endif
#define ROWS_TABLE row_ops_avx512
#include "model/ops/cpu/rows_simd.h"
