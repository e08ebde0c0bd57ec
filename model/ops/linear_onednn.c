/* Matrix products by oneDNN's matmul primitive. One primitive a row count, made before the first
 * step and kept; scratch is the caller's, as far as oneDNN says what it wants: each execution also
 * takes a few blocks of at most 300 bytes (its table of arguments), and 2.6's fp32 product for AVX2
 * a packing buffer of about 0.7 MB a thread, which it gives back. The primitive reports 0 bytes of
 * scratchpad for that, and its inner product shares the code: neither can be avoided from here. */
#include "model/ops/backend.h"
#include "model/ops/onednn.h"

#include <stdio.h>
#include <stdlib.h>

#define MAX_ROW_COUNTS 8 /* tokens, text rows, one time row, image rows, and their second forms */

struct shape {
    int rows;
    size_t scratch;
    dnnl_primitive_t prim;
    dnnl_memory_t x, y, pad;
};

struct gemm {
    enum gemm_type type;
    int out, in;
    bool borrow;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_memory_t weight, bias; /* bias NULL: none */
    void *packed;
    struct shape shapes[MAX_ROW_COUNTS];
    int n_shapes, next;
};

static dnnl_data_type_t type_of(enum gemm_type t) { return t == GEMM_BF16 ? dnnl_bf16 : dnnl_f32; }

/* A primitive for `rows`; weights in plain [out, in] when tag is ba, else as it likes. */
static int make_desc(const struct gemm *g, int rows, bool plain, dnnl_primitive_desc_t *pd,
                     struct err *e)
{
    mem_desc s = NO_DESC, w = NO_DESC, b = NO_DESC, d = NO_DESC;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_status_t r = desc_make(&s, 2, (dnnl_dims_t){rows, g->in}, type_of(g->type), dnnl_ab);
    if (!r)
        r = desc_make(&w, 2, (dnnl_dims_t){g->in, g->out}, type_of(g->type),
                      plain ? dnnl_ba : dnnl_format_tag_any);
    if (!r) r = desc_make(&b, 2, (dnnl_dims_t){1, g->out}, dnnl_f32, dnnl_ab);
    if (!r) r = desc_make(&d, 2, (dnnl_dims_t){rows, g->out}, dnnl_f32, dnnl_ab);
    if (!r) r = dnnl_primitive_attr_create(&attr);
    if (!r) r = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (!r) r = matmul_make(pd, s, w, b, g->bias != NULL, d, attr, g->engine);
    if (attr) dnnl_primitive_attr_destroy(attr);
    desc_free(&s), desc_free(&w), desc_free(&b), desc_free(&d);
    return r ? onednn_fail(e, "describing a matrix product", r) : 0;
}

/* Fixes the packed layout by what a product of many rows wants; later row counts must take it. */
static int pack(struct gemm *g, const void *weight, struct err *e)
{
    dnnl_primitive_desc_t pd = NULL, rpd = NULL;
    dnnl_primitive_t reorder = NULL;
    dnnl_memory_t from = NULL;
    mem_desc plain = NO_DESC;
    if (make_desc(g, 512, false, &pd, e) < 0) return -1;
    mem_desc_ref want = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    g->packed = aligned_alloc(64, (dnnl_memory_desc_get_size(want) + 63) / 64 * 64);
    dnnl_status_t r = g->packed ? dnnl_success : dnnl_out_of_memory;
    if (!r) r = desc_make(&plain, 2, (dnnl_dims_t){g->in, g->out}, type_of(g->type), dnnl_ba);
    if (!r) r = dnnl_memory_create(&g->weight, want, g->engine, g->packed);
    if (!r) r = dnnl_memory_create(&from, REF(plain), g->engine, (void *)(uintptr_t)weight);
    if (!r) r = reorder_make(&rpd, REF(plain), want, g->engine);
    if (!r) r = dnnl_primitive_create(&reorder, rpd);
    if (!r)
        r = dnnl_primitive_execute(
            reorder, g->stream, 2,
            (dnnl_exec_arg_t[]){{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, g->weight}});
    if (!r) r = dnnl_stream_wait(g->stream);
    if (reorder) dnnl_primitive_destroy(reorder);
    if (rpd) dnnl_primitive_desc_destroy(rpd);
    if (from) dnnl_memory_destroy(from);
    desc_free(&plain);
    dnnl_primitive_desc_destroy(pd);
    return r ? onednn_fail(e, "packing a weight", r) : 0;
}

int gemm_open(struct gemm **out, enum gemm_type type, int n, int k, const void *weight,
              const float *bias, bool borrow, struct err *e)
{
    *out = NULL;
    struct gemm *g = calloc(1, sizeof *g);
    if (!g) return err_set(e, ERR_RESOURCE, "no memory for a linear layer");
    g->type = type, g->out = n, g->in = k, g->borrow = borrow;
    mem_desc d = NO_DESC;
    dnnl_status_t r = dnnl_engine_create(&g->engine, dnnl_cpu, 0);
    if (!r) r = dnnl_stream_create(&g->stream, g->engine, dnnl_stream_default_flags);
    if (!r && bias) {
        r = desc_make(&d, 2, (dnnl_dims_t){1, n}, dnnl_f32, dnnl_ab);
        if (!r) r = dnnl_memory_create(&g->bias, REF(d), g->engine, (void *)(uintptr_t)bias);
        desc_free(&d);
    }
    if (!r && borrow) {
        r = desc_make(&d, 2, (dnnl_dims_t){k, n}, type_of(type), dnnl_ba);
        if (!r) r = dnnl_memory_create(&g->weight, REF(d), g->engine, DNNL_MEMORY_NONE);
        desc_free(&d);
        if (!r && weight) r = dnnl_memory_set_data_handle(g->weight, (void *)(uintptr_t)weight);
    }
    if (r) {
        gemm_close(g);
        return onednn_fail(e, "opening a linear layer", r);
    }
    if (!borrow && pack(g, weight, e) < 0) {
        gemm_close(g);
        return -1;
    }
    *out = g;
    return 0;
}

static void shape_fini(struct shape *s)
{
    if (s->prim) dnnl_primitive_destroy(s->prim);
    if (s->x) dnnl_memory_destroy(s->x);
    if (s->y) dnnl_memory_destroy(s->y);
    if (s->pad) dnnl_memory_destroy(s->pad);
    *s = (struct shape){0};
}

void gemm_close(struct gemm *g)
{
    if (!g) return;
    for (int i = 0; i < g->n_shapes; i++)
        shape_fini(&g->shapes[i]);
    if (g->weight) dnnl_memory_destroy(g->weight);
    if (g->bias) dnnl_memory_destroy(g->bias);
    if (g->stream) dnnl_stream_destroy(g->stream);
    if (g->engine) dnnl_engine_destroy(g->engine);
    free(g->packed);
    free(g);
}

void gemm_rebind(struct gemm *g, const void *weight, const float *bias)
{
    dnnl_memory_set_data_handle(g->weight, (void *)(uintptr_t)weight);
    if (g->bias && bias) dnnl_memory_set_data_handle(g->bias, (void *)(uintptr_t)bias);
}

/* The primitive of this row count takes the packed layout as it is. */
static int make_shape(struct gemm *g, struct shape *s, int rows, struct err *e)
{
    dnnl_primitive_desc_t pd = NULL;
    mem_desc sd = NO_DESC, dd = NO_DESC, bd = NO_DESC;
    dnnl_primitive_attr_t attr = NULL;
    mem_desc_ref wd;
    dnnl_status_t r = dnnl_memory_get_memory_desc(g->weight, &wd);
    if (!r) r = desc_make(&sd, 2, (dnnl_dims_t){rows, g->in}, type_of(g->type), dnnl_ab);
    if (!r) r = desc_make(&dd, 2, (dnnl_dims_t){rows, g->out}, dnnl_f32, dnnl_ab);
    if (!r) r = desc_make(&bd, 2, (dnnl_dims_t){1, g->out}, dnnl_f32, dnnl_ab);
    if (!r) r = dnnl_primitive_attr_create(&attr);
    if (!r) r = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
#if DNNL_VERSION_MAJOR >= 3
    if (!r)
        r = dnnl_matmul_primitive_desc_create(&pd, g->engine, sd, wd, g->bias ? bd : NULL, dd,
                                              attr);
#else
    if (!r) r = matmul_make(&pd, sd, *wd, bd, g->bias != NULL, dd, attr, g->engine);
#endif
    if (!r) {
        mem_desc_ref pad = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
        s->scratch = pad ? (dnnl_memory_desc_get_size(pad) + 63) / 64 * 64 : 0;
        if (s->scratch) r = dnnl_memory_create(&s->pad, pad, g->engine, DNNL_MEMORY_NONE);
    }
    if (!r) r = dnnl_primitive_create(&s->prim, pd);
    if (!r) r = dnnl_memory_create(&s->x, REF(sd), g->engine, DNNL_MEMORY_NONE);
    if (!r) r = dnnl_memory_create(&s->y, REF(dd), g->engine, DNNL_MEMORY_NONE);
    s->rows = rows;
    if (pd) dnnl_primitive_desc_destroy(pd);
    if (attr) dnnl_primitive_attr_destroy(attr);
    desc_free(&sd), desc_free(&dd), desc_free(&bd);
    if (r) shape_fini(s);
    return r ? onednn_fail(e, "preparing a matrix product", r) : 0;
}

static struct shape *find_shape(struct gemm *g, int rows)
{
    for (int i = 0; i < g->n_shapes; i++)
        if (g->shapes[i].rows == rows) return &g->shapes[i];
    return NULL;
}

int gemm_prepare(struct gemm *g, int rows, size_t *scratch, struct err *e)
{
    struct shape *s = find_shape(g, rows);
    if (!s) {
        if (g->n_shapes < MAX_ROW_COUNTS) {
            s = &g->shapes[g->n_shapes];
        } else { /* the oldest goes */
            s = &g->shapes[g->next];
            g->next = (g->next + 1) % MAX_ROW_COUNTS;
            shape_fini(s);
        }
        if (make_shape(g, s, rows, e) < 0) return -1;
        if (s == &g->shapes[g->n_shapes]) g->n_shapes++;
    }
    *scratch = s->scratch;
    return 0;
}

int gemm_run(struct gemm *g, float *y, const void *x, int rows, void *scratch, struct err *e)
{
    struct shape *s = find_shape(g, rows);
    if (!s) return err_set(e, ERR_BUG, "a matrix product of %d rows was not prepared", rows);
    dnnl_status_t r = dnnl_memory_set_data_handle(s->x, (void *)(uintptr_t)x);
    if (!r) r = dnnl_memory_set_data_handle(s->y, y);
    dnnl_exec_arg_t args[5] = {
        {DNNL_ARG_SRC, s->x}, {DNNL_ARG_WEIGHTS, g->weight}, {DNNL_ARG_DST, s->y}};
    int n = 3;
    if (g->bias) args[n++] = (dnnl_exec_arg_t){DNNL_ARG_BIAS, g->bias};
    if (!r && s->pad) {
        r = dnnl_memory_set_data_handle(s->pad, scratch);
        args[n++] = (dnnl_exec_arg_t){DNNL_ARG_SCRATCHPAD, s->pad};
    }
    if (!r) r = dnnl_primitive_execute(s->prim, g->stream, n, args);
    if (!r) r = dnnl_stream_wait(g->stream);
    return r ? onednn_fail(e, "a matrix product", r) : 0;
}

const char *gemm_backend(void)
{
    static char text[64]; /* written once with constant content */
    const dnnl_version_t *v = dnnl_version();
    snprintf(text, sizeof text, "oneDNN %d.%d.%d", v->major, v->minor, v->patch);
    return text;
}

bool gemm_has_bf16(void)
{
    /* exact flags by value: 2.x and 3.x agree on names, later levels are larger sets */
    dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();
    unsigned bits = (unsigned)isa, want = (unsigned)dnnl_cpu_isa_avx512_core_bf16;
    return (bits & want) == want;
}
