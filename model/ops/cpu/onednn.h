/* oneDNN's two generations behind one set of names: Debian 12 has 2.6, newer systems 3.x, and their
 * ways to describe memory and primitives differ. For the files of this room that call it. */
#ifndef DITGEN_OPS_ONEDNN_H
#define DITGEN_OPS_ONEDNN_H

#include "model/base/err.h"

#include <dnnl.h>
#include <stdbool.h>
#include <stdlib.h>
#ifdef _OPENMP
#include <omp.h>
#endif

/* Before any other call into the library: tells it the process's cap (model/base/cpu.h), which it takes
 * only then. Any number of times. */
void onednn_ready(void);

/* 2.6 does not look at what it gets when it makes code, and crashes: so memory for that is asked for here
 * before. What is given back is there for it. */
static inline dnnl_status_t onednn_room(void)
{
    void *volatile room = malloc((size_t)1 << 20); /* code of a primitive, many times */
    if (!room) return dnnl_out_of_memory;
    free(room);
    return dnnl_success;
}

/* How many threads the library sees from here on, on this thread; returns how many it saw. */
static inline int onednn_threads(int n)
{
#ifdef _OPENMP
    int before = omp_get_max_threads();
    omp_set_num_threads(n);
    return before;
#else
    return n;
#endif
}

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t mem_desc;
typedef const_dnnl_memory_desc_t mem_desc_ref;
#define REF(d) (d)
static inline dnnl_status_t desc_make(mem_desc *d, int n, const dnnl_dims_t dims,
                                      dnnl_data_type_t t, dnnl_format_tag_t tag)
{
    return dnnl_memory_desc_create_with_tag(d, n, dims, t, tag);
}
static inline void desc_free(mem_desc *d)
{
    if (*d) dnnl_memory_desc_destroy(*d);
    *d = NULL;
}
static inline dnnl_status_t matmul_make(dnnl_primitive_desc_t *pd, mem_desc_ref s, mem_desc_ref w,
                                        mem_desc_ref b, mem_desc_ref d, dnnl_primitive_attr_t attr,
                                        dnnl_engine_t eng)
{
    return dnnl_matmul_primitive_desc_create(pd, eng, s, w, b, d, attr);
}
static inline dnnl_status_t reorder_make(dnnl_primitive_desc_t *pd, mem_desc_ref from,
                                         mem_desc_ref to, dnnl_engine_t eng)
{
    return dnnl_reorder_primitive_desc_create(pd, from, eng, to, eng, NULL);
}
static inline dnnl_status_t conv_make(dnnl_primitive_desc_t *pd, dnnl_alg_kind_t alg, mem_desc s,
                                      mem_desc w, mem_desc d, const dnnl_dims_t strides,
                                      const dnnl_dims_t left, const dnnl_dims_t right,
                                      dnnl_primitive_attr_t attr, dnnl_engine_t eng)
{
    static const dnnl_dims_t dense = {0};
    return dnnl_convolution_forward_primitive_desc_create(
        pd, eng, dnnl_forward_inference, alg, s, w, NULL, d, strides, dense, left, right, attr);
}
#define NO_DESC NULL
#else
typedef dnnl_memory_desc_t mem_desc;
typedef const dnnl_memory_desc_t *mem_desc_ref;
#define REF(d) (&(d))
static inline dnnl_status_t desc_make(mem_desc *d, int n, const dnnl_dims_t dims,
                                      dnnl_data_type_t t, dnnl_format_tag_t tag)
{
    return dnnl_memory_desc_init_by_tag(d, n, dims, t, tag);
}
static inline void desc_free(mem_desc *d) { (void)d; }
static inline dnnl_status_t matmul_make(dnnl_primitive_desc_t *pd, mem_desc_ref s, mem_desc_ref w,
                                        mem_desc_ref b, mem_desc_ref d, dnnl_primitive_attr_t attr,
                                        dnnl_engine_t eng)
{
    dnnl_matmul_desc_t md;
    dnnl_status_t r = dnnl_matmul_desc_init(&md, s, w, b, d);
    return r != dnnl_success ? r : dnnl_primitive_desc_create(pd, &md, attr, eng, NULL);
}
static inline dnnl_status_t reorder_make(dnnl_primitive_desc_t *pd, mem_desc_ref from,
                                         mem_desc_ref to, dnnl_engine_t eng)
{
    return dnnl_reorder_primitive_desc_create(pd, from, eng, to, eng, NULL);
}
static inline dnnl_status_t conv_make(dnnl_primitive_desc_t *pd, dnnl_alg_kind_t alg, mem_desc s,
                                      mem_desc w, mem_desc d, const dnnl_dims_t strides,
                                      const dnnl_dims_t left, const dnnl_dims_t right,
                                      dnnl_primitive_attr_t attr, dnnl_engine_t eng)
{
    dnnl_convolution_desc_t cd;
    dnnl_status_t r = dnnl_convolution_forward_desc_init(&cd, dnnl_forward_inference, alg, &s, &w,
                                                         NULL, &d, strides, left, right);
    return r != dnnl_success ? r : dnnl_primitive_desc_create(pd, &cd, attr, eng, NULL);
}
#define NO_DESC                                                                                    \
    {                                                                                              \
        0                                                                                          \
    }
#endif

static inline int onednn_fail(struct err *e, const char *what, dnnl_status_t r)
{
    return err_set(e, r == dnnl_out_of_memory ? ERR_RESOURCE : ERR_DEVICE,
                   "oneDNN: %s failed (code %d)", what, (int)r);
}

#endif
