/* Dot products by AVX2 and FMA. */
#if !defined(__AVX2__) || !defined(__FMA__)
#error "compile with -mavx2 -mfma"
#endif
#include "attention/policy/dots.h"

#define DOTS dots_avx2
#define LANES 8
#include "attention/policy/dots_body.h"
