/* Plain C: whatever vectors the compiler's baseline has (SSE2 on x86-64). */
#define GEMM_LANES 4
#define LANES 4
#define ROWS_1 8
#define ROWS_2 6
#define ROWS_3 4 /* 12 of 16 registers hold sums */
#define KERNEL_TABLE vae_kernels_ref
#define KERNEL_NAME "ref"
#define KERNEL_NEEDS CPU_REF
#include "model/ops/cpu/frames/kernels/lanes.h"
