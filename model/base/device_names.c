/* Devices by name: which there are, why there is none, opening one. */
#include "model/base/device_table.h"

#include "model/base/cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- names --- */

/* "cuda" or "cuda:N" with N of at most three digits. -1: neither. */
static int cuda_index(const char *name)
{
    if (strcmp(name, "cuda") == 0) return 0;
    if (strncmp(name, "cuda:", 5) != 0) return -1;
    size_t n = strspn(name + 5, "0123456789");
    if (n < 1 || n > 3 || name[5 + n]) return -1;
    return atoi(name + 5);
}

static bool is_cpu(const char *name)
{
    if (strcmp(name, "cpu") == 0) return true;
    if (strncmp(name, "cpu:", 4) != 0) return false;
    for (int l = CPU_REF; l <= CPU_AMX; l++)
        if (strcmp(name + 4, cpu_level_name((enum cpu_level)l)) == 0) return true;
    return false;
}

bool device_name_is_known(const char *name)
{
    return strcmp(name, "auto") == 0 || is_cpu(name) || cuda_index(name) >= 0;
}

#ifndef DITGEN_HAVE_CUDA
int device_open_cuda(struct device **d, int index, struct err *e)
{
    (void)index;
    *d = NULL;
    return err_set(e, ERR_DEVICE, "this build has no CUDA; use --device cpu");
}

bool device_cuda_at(int i, struct device_info *info) { return (void)i, (void)info, false; }

void device_cuda_no_gpu(char *why, size_t n) { snprintf(why, n, "this build has no CUDA"); }

void *device_stream(const struct device *d) { return (void)d, NULL; }
#endif

bool device_at(int i, struct device_info *info)
{
    if (i > 0) return device_cuda_at(i - 1, info);
    device_about(NULL, info);
    return i == 0;
}

void device_no_gpu(char *why, size_t n)
{
    struct device_info info;
    if (n) *why = 0;
    for (int i = 0; device_cuda_at(i, &info); i++) {
        if (!info.why_not[0]) return;
        if (i == 0) snprintf(why, n, "%.15s: %.159s", info.name, info.why_not);
    }
    if (n && !*why) device_cuda_no_gpu(why, n);
}

int device_open(struct device **d, const char *name, struct err *e)
{
    *d = NULL;
    int index = cuda_index(name);
    if (index >= 0) return device_open_cuda(d, index, e);
    if (strcmp(name, "auto") == 0) {
        struct device_info info;
        for (int i = 0; device_cuda_at(i, &info); i++)
            if (!info.why_not[0]) return device_open_cuda(d, i, e);
        name = "cpu";
    }
    if (!is_cpu(name))
        return err_set(
            e, ERR_USAGE,
            "there is no device '%.60s'; there are auto, cpu, cpu:LEVEL, cuda and cuda:N", name);
    if (strcmp(name, "cpu") != 0 && cpu_cap(name, e) < 0) return -1;
    return device_make(d, &device_table_cpu, NULL, "cpu", e);
}
