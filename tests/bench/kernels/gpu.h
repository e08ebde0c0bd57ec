/* The CUDA runtime in the few words that the checks and timings need: failure prints and exits. */
#ifndef DITGEN_TESTS_BENCH_KERNELS_GPU_H
#define DITGEN_TESTS_BENCH_KERNELS_GPU_H

#include <cuda_runtime.h>

#include <stdio.h>
#include <stdlib.h>

#define GPU(call)                                                                                  \
    do {                                                                                           \
        cudaError_t gpu_r_ = (call);                                                               \
        if (gpu_r_ != cudaSuccess) {                                                               \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call,                          \
                    cudaGetErrorString(gpu_r_));                                                   \
            exit(5);                                                                               \
        }                                                                                          \
    } while (0)

static inline void *gpu_new(size_t bytes)
{
    void *p = NULL;
    GPU(cudaMalloc(&p, bytes ? bytes : 16));
    return p;
}
static inline void *gpu_copy(const void *host, size_t bytes)
{
    void *p = gpu_new(bytes);
    GPU(cudaMemcpy(p, host, bytes, cudaMemcpyHostToDevice));
    return p;
}
static inline void gpu_read(void *host, const void *device, size_t bytes)
{
    GPU(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost));
}
static inline void *host_new(size_t bytes)
{
    void *p = calloc(bytes ? bytes : 1, 1);
    if (!p) {
        fprintf(stderr, "no memory for %zu bytes\n", bytes);
        exit(4);
    }
    return p;
}

#endif
