/* What every piece of CUDA code here says when something fails, and how libraries are opened.
 *
 * The CUDA runtime is part of the program and looks for the driver by itself, so that one program
 * starts where there is neither. No CUDA type is seen here. Threads: any. */
#ifndef DITGEN_BASE_CUDA_LAUNCH_H
#define DITGEN_BASE_CUDA_LAUNCH_H

#ifdef __cplusplus
extern "C" {
#endif

#include "model/base/err.h"

#include <stddef.h>

/* code: a cudaError_t. 0 when it is success; else -1 with "what: why; what to do": ERR_RESOURCE for
 * memory, ERR_DEVICE for all else (no driver, no card, no code for it, a lost device). */
int cuda_said(struct err *e, int code, const char *what);
/* The same of the launch before, which "fmt" names: "norm of rows [4608, 320]". */
int cuda_launched(struct err *e, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* A library that is opened at run time and stays open: the first of names (NULL after the last) that
 * is here. NULL with ERR_DEVICE: "what (name) is not here (why); next". */
void *cuda_library(const char *const *names, const char *what, const char *next, struct err *e);
/* Bytes of a card that are free, without a context on it (nvml.c). 0: nobody can tell. */
size_t cuda_free_before(int index);

#ifdef __cplusplus
}
#endif

#endif
