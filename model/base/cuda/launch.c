/* Failures in words; see launch.h. */
#include "model/base/cuda/launch.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>

int cuda_said(struct err *e, int code, const char *what)
{
    cudaError_t r = (cudaError_t)code;
    if (r == cudaSuccess) return 0;
    (void)cudaGetLastError(); /* what can be forgotten is; a lost device says so again */
    switch (r) {
    case cudaErrorInsufficientDriver:
        return err_set(e, ERR_DEVICE,
                       "%s: there is no NVIDIA driver here, or it is older than CUDA %d.%d wants; "
                       "update it, or use --device cpu",
                       what, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    case cudaErrorNoDevice:
        return err_set(e, ERR_DEVICE,
                       "%s: no NVIDIA GPU is visible (CUDA_VISIBLE_DEVICES?); use --device cpu",
                       what);
    case cudaErrorMemoryAllocation:
        return err_set(e, ERR_RESOURCE,
                       "%s: the GPU is out of memory; free some, choose a smaller size or "
                       "--max-vram, or use --device cpu",
                       what);
    case cudaErrorNoKernelImageForDevice:
        return err_set(e, ERR_DEVICE,
                       "%s: this build has no code for this GPU; build it for its architecture, or "
                       "use --device cpu",
                       what);
    default:
        return err_set(e, ERR_DEVICE,
                       "%s: %s (%s); the GPU may be lost: see the system's log, or use --device "
                       "cpu",
                       what, cudaGetErrorString(r), cudaGetErrorName(r));
    }
}

int cuda_launched(struct err *e, const char *fmt, ...)
{
    char what[160];
    cudaError_t r = cudaGetLastError();
    va_list ap;
    if (r == cudaSuccess) return 0;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return cuda_said(e, (int)r, what);
}

void *cuda_library(const char *const *names, const char *what, const char *next, struct err *e)
{
    const char *first = names[0];
    char why[200] = "";
    for (; *names; names++) {
        /* stays once loaded: it holds threads and device state of its own */
        void *l = dlopen(*names, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
        const char *said = l ? NULL : dlerror();
        if (l) return l;
        if (!why[0] && said) snprintf(why, sizeof why, "%s", said);
    }
    err_set(e, ERR_DEVICE, "%s (%s) is not here (%s); %s", what, first, why, next);
    return NULL;
}
