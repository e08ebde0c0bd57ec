/* Dot products for any processor, and which of them to take. */
#include "attention/policy/dots.h"

#define DOTS dots_ref
#define LANES 4
#include "attention/policy/dots_body.h"

dots_fn *dots_pick(enum cpu_level level)
{
#ifdef ATTENTION_X86
    if (level >= CPU_AVX2) return dots_avx2;
#endif
    (void)level;
    return dots_ref;
}
