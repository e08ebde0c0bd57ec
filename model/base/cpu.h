/* What this processor can do, asked in one place. Facts of the machine and the kernel (AVX state
 * enabled, AMX permission granted), and below them one cap for the whole process: `--device cpu:avx2`
 * makes it a processor that ends there, for every choice of code, that of libraries included. */
#ifndef DITGEN_BASE_CPU_H
#define DITGEN_BASE_CPU_H

#include "model/base/err.h"

#include <stdbool.h>

enum cpu_level { /* each includes those before it */
                 CPU_REF,
                 CPU_AVX2, /* AVX2 + FMA */
                 CPU_AVX512, /* F, BW, DQ, VL */
                 CPU_AVX512_VNNI, /* + VNNI */
                 CPU_AVX512_BF16, /* + BF16 */
                 CPU_AMX, /* + AMX-TILE, AMX-BF16, AMX-INT8, permission granted */
};

struct cpu {
    enum cpu_level level;
    int threads; /* logical processors this process may run on */
    int cores; /* distinct physical cores among them, as far as the system says */
    char name[64];
};

/* Never fails: what cannot be learnt is the smallest. From the first call on, the cap stands. Any
 * thread. */
void cpu_detect(struct cpu *c);
enum cpu_level cpu_level(void); /* the same level, without the rest */
const char *cpu_level_name(enum cpu_level l); /* "ref", "avx2", "avx512", "avx512vnni", ... */

/* Caps the process: "cpu" (all that it can) or "cpu:LEVEL". Before anything asked what the processor
 * is, and so before the first model is opened; later only the cap that stands is accepted.
 * ERR_USAGE for other names and when it is too late, ERR_DEVICE for a level above the processor's.
 * Main thread. */
int cpu_cap(const char *device, struct err *e);
bool cpu_capped(void); /* false: libraries may use all that they find */

#endif
