/* The room's attention on a GPU; see device_cuda.h. */
#include "attention/kernels/cuda/device_cuda.h"

#include "attention/kernels/cuda/every_cuda.h"
#include "attention/kernels/cuda/sage_cuda.h"
#include "attention/kernels/cuda/tiles_cuda.h"
#include "model/base/cuda/launch.h"

#include <cuda_runtime_api.h>
#include <string.h>

/* All but products over codes. */
#define EVERY (((1u << ATTN_NEEDS) - 1) & ~(unsigned)(ATTN_NEED_PREC | ATTN_NEED_LOW))

static const struct row {
    struct attn_device_kernel kernel;
    int least, most; /* architectures */
    bool fp32; /* runs */
    int dim; /* heads of 1 to so many channels; 0: 64 or 128 */
    bool (*takes)(const struct attn_size *s, const char **why); /* plans cut like this; NULL: any */
    int whole; /* heads are of a multiple of so many channels; 0: any */
} rows[] = {
    {{"sm90", "wgmma kernels of Hopper", TILES_CAN_SM90, tiles_scratch, tiles_plan_bytes, tiles_put,
      tiles_run_sm90, NULL, &tiles_planner},
     90,
     90,
     false,
     0,
     tiles_take_sm90,
     0},
    {{"sage", "codes of 8 or 4 bits on Hopper, what has none as sm90", TILES_CAN_SAGE,
      tiles_scratch, tiles_plan_bytes, tiles_put, tiles_run_sage, sage_pays, &tiles_planner},
     90,
     90,
     false,
     0,
     tiles_take_sage,
     0},
    {{"sm80", "mma.sync kernels of every card since Ampere", TILES_CAN_SM80, tiles_scratch,
      tiles_plan_bytes, tiles_put, tiles_run_sm80, NULL, &tiles_planner},
     80,
     1000,
     false,
     0,
     tiles_take_sm80,
     0},
    {{"tf32", "fp32 by three products of matrix units, any card since Ampere", TILES_CAN_TF32,
      tiles_scratch, tiles_plan_bytes, tiles_put, tiles_run_tf32, NULL, &tiles_planner},
     80,
     1000,
     true,
     128,
     tiles_take_simt,
     4},
    {{"simt", "fp32 throughout, any card", TILES_CAN_SIMT, tiles_scratch, tiles_plan_bytes,
      tiles_put, tiles_run_simt, NULL, &tiles_planner},
     80,
     1000,
     true,
     128,
     tiles_take_simt,
     0},
    {{"every", "fp32 throughout, any card, any plan", EVERY, every_scratch, every_plan_bytes,
      every_put, every_run, NULL, NULL},
     80,
     1000,
     true,
     EVERY_MOST_DIM,
     NULL,
     0},
};

/* Why not; 0 when it is the one. */
static int row_takes(const struct row *r, int arch, const struct attn_size *s, struct err *e)
{
    const char *name = r->kernel.name;
    const char *why = NULL;
    char text[200];
    if (r->kernel.can & ATTN_NEED_LOW && s->needs & ATTN_NEED_PREC)
        return err_set(e, ERR_DEVICE,
                       "attention kernel %s multiplies codes of q and k with values of 8 bits "
                       "alone: name pv=fp8 or pv=int8, or qk=run",
                       name);
    if (arch < r->least || arch > r->most)
        return err_set(e, ERR_DEVICE, "attention kernel %s is not for this card (sm_%d)", name,
                       arch);
    if (!r->fp32 && s->precision == PRECISION_FP32)
        return err_set(e, ERR_DEVICE, "attention kernel %s takes bf16 alone; use --precision bf16",
                       name);
    if (!(r->kernel.can & ATTN_NEED_BF16) && s->precision != PRECISION_FP32)
        return err_set(e, ERR_DEVICE, "attention kernel %s takes fp32 alone, not bf16", name);
    if (!r->dim && s->head_dim != 64 && s->head_dim != 128)
        return err_set(e, ERR_USAGE,
                       "attention kernel %s takes heads of 64 or 128 channels, not %d", name,
                       s->head_dim);
    if (r->dim && (s->head_dim < 1 || s->head_dim > r->dim))
        return err_set(e, ERR_USAGE, "attention kernel %s takes heads of 1 to %d channels, not %d",
                       name, r->dim, s->head_dim);
    if (r->whole && s->head_dim % r->whole)
        return err_set(e, ERR_USAGE,
                       "attention kernel %s takes heads of a multiple of %d channels, not %d", name,
                       r->whole, s->head_dim);
    if (s->needs & ~r->kernel.can)
        return err_set(e, ERR_DEVICE, "attention kernel %s cannot do %s", name,
                       attn_needs_text(s->needs & ~r->kernel.can, text, sizeof text));
    if (r->takes && !r->takes(s, &why))
        return err_set(e, ERR_USAGE, "attention kernel %s takes %s, not %d x %d", name, why,
                       s->block_q, s->block_k);
    return 0;
}

const struct attn_device_kernel *attn_cuda_pick(int arch, const struct attn_size *s,
                                                const char *only, struct err *e)
{
    struct err why = {
        0}; /* of the last row, the one that takes most; where codes are wanted, theirs */
    bool codes = s->needs & (ATTN_NEED_LOW | ATTN_NEED_PREC);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct err no;
        if (only && strcmp(only, rows[i].kernel.name) != 0) continue;
        if (row_takes(&rows[i], arch, s, &no) == 0) return &rows[i].kernel;
        if (only || !codes || rows[i].kernel.can & ATTN_NEED_LOW) why = no;
    }
    if (why.code == ERR_NONE)
        err_set(&why, ERR_USAGE,
                "there is no attention kernel %s on a GPU; there are sm90, sage, sm80, tf32, simt, "
                "every",
                only);
    *e = why;
    return NULL;
}

static const struct attn_device_kernel *pick(struct device *d, const struct attn_size *s,
                                             const char *only, struct err *e)
{
    int device = 0, major = 0, minor = 0;
    (void)d; /* the one that is current */
    if (cuda_said(e, (int)cudaGetDevice(&device), "which GPU") < 0 ||
        cuda_said(e, (int)cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
                  "what the GPU is") < 0 ||
        cuda_said(e, (int)cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device),
                  "what the GPU is") < 0)
        return NULL;
    return attn_cuda_pick(10 * major + minor, s, only, e);
}

const struct attn_device attn_device_cuda = {pick};
