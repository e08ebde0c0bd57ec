/* What is free of a card before this process has a context on it: only NVML can tell, the library of the
 * driver, opened at run time. */
#include "model/base/cuda/launch.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <string.h>

size_t cuda_free_before(int index)
{
    static const char *const files[] = {"libnvidia-ml.so.1", NULL};
    struct { /* nvmlMemory_t */
        unsigned long long total, free, used;
    } memory = {0};
    char bus[32];
    void *card = NULL;
    struct err none;
    int (*init)(void), (*find)(const char *, void **), (*ask)(void *, void *), (*done)(void);
    const struct {
        const char *name;
        void *at;
    } symbols[] = {{"nvmlInit_v2", &init},
                   {"nvmlDeviceGetHandleByPciBusId_v2", &find},
                   {"nvmlDeviceGetMemoryInfo", &ask},
                   {"nvmlShutdown", &done}};
    void *l = cuda_library(files, "NVML", "", &none);
    if (!l) return 0;
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *at = dlsym(l, symbols[i].name);
        if (!at) return 0;
        memcpy(symbols[i].at, &at, sizeof at);
    }
    if (cudaDeviceGetPCIBusId(bus, sizeof bus, index) != cudaSuccess) {
        (void)cudaGetLastError();
        return 0;
    }
    if (init() != 0) return 0;
    if (find(bus, &card) != 0 || ask(card, &memory) != 0) memory.free = 0;
    done();
    return memory.free;
}
