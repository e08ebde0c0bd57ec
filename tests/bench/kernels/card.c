#include "tests/bench/kernels/card.h"

#include <cuda_runtime.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#define SM_CLOCK 1 /* NVML_CLOCK_SM */

struct seen {
    double mhz, watt;
    int times;
};

struct card {
    void *library, *device;
    int (*clock)(void *device, int type, unsigned *mhz);
    int (*power)(void *device, unsigned *milliwatt);
    int (*shut)(void);
    pthread_t thread;
    atomic_int now;
    atomic_bool end;
    struct seen *seen;
};

static void *ask(void *arg)
{
    struct card *c = arg;
    while (!c->end) {
        int who = c->now;
        unsigned mhz, milliwatt;
        bool told =
            c->clock(c->device, SM_CLOCK, &mhz) == 0 && c->power(c->device, &milliwatt) == 0;
        if (told && who >= 0 && who == c->now) {
            c->seen[who].mhz += mhz;
            c->seen[who].watt += milliwatt / 1000.0;
            c->seen[who].times++;
        }
        usleep(1000);
    }
    return NULL;
}

struct card *card_open(int contenders)
{
    struct card *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->now = -1;
    c->library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    if (!c->library) goto fail;
    int (*start)(void), (*device)(const char *, void **);
    char bus[32] = "";
    cudaDeviceGetPCIBusId(bus, sizeof bus, 0); /* the driver's numbers may be others */
    *(void **)&start = dlsym(c->library, "nvmlInit_v2");
    *(void **)&device = dlsym(c->library, "nvmlDeviceGetHandleByPciBusId_v2");
    *(void **)&c->clock = dlsym(c->library, "nvmlDeviceGetClockInfo");
    *(void **)&c->power = dlsym(c->library, "nvmlDeviceGetPowerUsage");
    *(void **)&c->shut = dlsym(c->library, "nvmlShutdown");
    c->seen = calloc((size_t)contenders, sizeof *c->seen);
    if (!start || !device || !c->clock || !c->power || !c->shut || !c->seen || start()) goto fail;
    if (device(bus, &c->device) || pthread_create(&c->thread, NULL, ask, c)) {
        c->shut();
        goto fail;
    }
    return c;
fail:
    if (c->library) dlclose(c->library);
    free(c->seen);
    free(c);
    return NULL;
}

void card_now(struct card *c, int contender)
{
    if (c) c->now = contender;
}

void card_load(struct card *c, int contender, double *mhz, double *watt)
{
    *mhz = *watt = 0;
    if (!c || !c->seen[contender].times) return;
    *mhz = c->seen[contender].mhz / c->seen[contender].times;
    *watt = c->seen[contender].watt / c->seen[contender].times;
}

void card_close(struct card *c)
{
    if (!c) return;
    c->end = true;
    pthread_join(c->thread, NULL);
    c->shut();
    dlclose(c->library);
    free(c->seen);
    free(c);
}
