/* What this processor can do, asked once. All fields are facts of the machine and the kernel (AVX
 * state enabled, AMX permission granted); a cap narrows them for tests: "avx2", "avx512", ... */
#ifndef DITGEN_BASE_CPU_H
#define DITGEN_BASE_CPU_H

#include "model/base/err.h"

#include <stdbool.h>

enum cpu_level { /* each includes those before it */
                 CPU_REF,
                 CPU_AVX2, /* AVX2 + FMA */
                 CPU_AVX512, /* F, BW, DQ, VL */
                 CPU_AVX512_BF16, /* + BF16 */
                 CPU_AMX, /* + AMX-TILE, AMX-BF16, permission granted */
};

struct cpu {
    enum cpu_level level;
    int threads; /* logical processors this process may run on */
    int cores; /* distinct physical cores among them, as far as the system says */
    char name[64];
};

/* Never fails: what cannot be learnt is the smallest. */
void cpu_detect(struct cpu *c);
const char *cpu_level_name(enum cpu_level l); /* "ref", "avx2", "avx512", "avx512bf16", "amx" */
/* Lowers c->level to the named one; ERR_USAGE for an unknown name, ERR_DEVICE for one above it. */
int cpu_cap(struct cpu *c, const char *name, struct err *e);

#endif
