/* The rows that are checked and timed: every instance of every kernel that this card can run. */
#ifndef DITGEN_TESTS_BENCH_KERNELS_KERNELS_UNDER_TEST_H
#define DITGEN_TESTS_BENCH_KERNELS_KERNELS_UNDER_TEST_H

#include "attention/kernels/cuda/attn_cuda.h"

struct kernel_under_test {
    char name[64];
    enum attn_cuda_row row;
    int variant;
    int (*run)(const struct attn_cuda *w, int variant, struct err *e);
};
void kernels_find(int capability, const char *words); /* 80, 90 ...; of names */
int kernels_under_test(void);
bool kernels_have(enum attn_cuda_row row);
const struct kernel_under_test *kernel_under_test(int i);
bool kernel_takes(const struct kernel_under_test *k, const struct attn_cuda *w);

/* 1 when something failed. */
int check_kernels(int problems, int repeats, uint64_t seed);
/* For about so many seconds of kernel time; figures in full to FOLDER/musts.csv, unless NULL. */
int time_musts(double seconds, const char *out_folder);
/* The same, to FOLDER/growth.csv.
 * sizes, densities: lists as of the command line, NULL: those of the models. */
int time_kernels(double seconds, const char *out_folder, const char *sizes, const char *densities);
int time_extras(int len); /* lse, recording, means, ragged, mass, lists on the device */
int once_kernels(int len);

#endif
