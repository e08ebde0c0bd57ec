/* What the two bf16 kernels share: q, k and v narrowed to bf16 (exactly, when the caller already
 * rounded), scores and sums in fp32, probabilities narrowed to bf16 for the second product. */
#define FLASH_NR (2 * VLEN)
#define FLASH_P 1
typedef uint16_t packed;
typedef uint16_t packed_v;
#include "attention/kernels/cpu_flash.h"
#include "attention/kernels/cpu_pack.h"
#include "attention/kernels/cpu_bf16_probs.h"

#define FLASH_MAX_PAD ((ATTN_MAX_HEAD_DIM + 31) / 32 * 32)
