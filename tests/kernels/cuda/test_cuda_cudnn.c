/* cuDNN plans for a described H100, without a GPU: the shapes of the models and ragged ones build,
 * what it cannot do is refused. Passes with a word where the library is not installed. */
#include "tests/check.h"

#ifdef DITGEN_CUDNN
#include "attention/kernels/cuda/cudnn.h"

#include <stdbool.h>

static const char h100[] =
    "{\"deviceName\":\"NVIDIA H100 80GB HBM3\",\"cudaDeviceId\":0,\"deviceVer\":900,"
    "\"driverVer\":13000,\"isTccDriver\":0,\"l2CacheSize\":52428800,\"maxCtasPerSM\":32,"
    "\"maxRegistersPerSM\":65536,\"maxSharedMemoryPerBlock\":49152,"
    "\"maxSharedMemoryPerBlockOptin\":232448,\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":2048,"
    "\"memClockRateKHz\":2619000,\"multiProcessorCount\":132,\"pciDeviceId\":9008,"
    "\"regsPerBlock\":65536,\"reservedSharedMemoryPerBlock\":1024,\"smClockRateKHz\":1980000,"
    "\"supportCoopLaunch\":1,\"totalGlobalMem\":85000000000,\"warpSize\":32,"
    "\"maxBlockSize\":[1024,1024,64],\"maxGridSize\":[2147483647,65535,65535]}";

int main(void)
{
    static _Alignas(16) char memory[64];
    static const struct {
        int len_q, len_k, heads, dim;
    } shapes[] = {{32760, 32760, 12, 128}, {1000, 512, 24, 64}}; /* seconds to compile, each */
    struct err e = {0};
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        struct attn_tensor x = {memory, (int64_t)shapes[i].heads * shapes[i].dim, shapes[i].dim};
        struct attn_cuda w = {.q = x,
                              .k = x,
                              .v = x,
                              .o = x,
                              .len_q = shapes[i].len_q,
                              .len_k = shapes[i].len_k,
                              .n_heads = shapes[i].heads,
                              .head_dim = shapes[i].dim,
                              .scratch = memory};
        for (int lse = 0; lse < 2; lse++) {
            struct attn_cudnn *c;
            w.lse = lse ? (void *)memory : NULL;
            int r = attn_cudnn_open(&c, &w, h100, &e);
            if (r < 0 && (strstr(e.msg, "is not here") || strstr(e.msg, "too old"))) {
                printf("nothing checked: %s\n", e.msg);
                return 0;
            }
            /* an engine was proposed, and at most its machine code found no driver to load it */
            bool undriven =
                strstr(e.msg, "libcuda == nullptr") || strstr(e.msg, "cuLibraryLoadData");
            CHECK_MSG(r == 0 || undriven, "%d x %d, %d x %d: %s", w.len_q, w.len_k, w.n_heads,
                      w.head_dim, e.msg);
            if (r == 0 && !lse)
                printf("%d x %d, %d x %d: cuDNN %d, %zu bytes of workspace\n", w.len_q, w.len_k,
                       w.n_heads, w.head_dim, attn_cudnn_version(c), attn_cudnn_workspace(c));
            if (r == 0) CHECK(attn_cudnn_run(c, &w, NULL, &e) < 0 && strstr(e.msg, "cannot run"));
            attn_cudnn_close(c);
        }
    }
    return TEST_RESULT();
}
#else
int main(void)
{
    printf("nothing checked: built without cudnn.h\n");
    return 0;
}
#endif
