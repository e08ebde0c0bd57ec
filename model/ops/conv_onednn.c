/* conv.h by oneDNN's convolution primitive: channels last, weights in the layout it likes best for
 * this picture, reordered once. */
#include "model/ops/conv.h"
#include "model/ops/ops.h"

#include "model/ops/onednn.h"

#include <stdlib.h>

#ifdef DITGEN_HAVE_ONEDNN
struct conv3d {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t prim;
    dnnl_memory_t x, weight, y;
    void *own; /* packed weights that did not fit the caller's room */
    char kernel[48];
};

bool conv3d_available(bool bf16) { return !bf16 || ops_has_bf16(); }

static size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

size_t conv3d_packed_bytes(const struct conv3d_params *p)
{
    /* blocks of up to 64 outputs by 32 inputs */
    return round_up((size_t)p->out, 64) * round_up((size_t)p->in, 32) * (size_t)p->kt *
           (size_t)(p->side * p->side) * (p->bf16 ? 2 : 4);
}

static dnnl_status_t pack(struct conv3d *c, mem_desc_ref plain, mem_desc_ref want,
                          const void *weight, void *packed, size_t room)
{
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_t reorder = NULL;
    dnnl_memory_t from = NULL;
    size_t bytes = dnnl_memory_desc_get_size(want);
    if (bytes > room) {
        packed = c->own = aligned_alloc(64, round_up(bytes, 64));
        if (!packed) return dnnl_out_of_memory;
    }
    dnnl_status_t r = dnnl_memory_create(&c->weight, want, c->engine, packed);
    if (!r) r = dnnl_memory_create(&from, plain, c->engine, (void *)(uintptr_t)weight);
    if (!r) r = reorder_make(&pd, plain, want, c->engine);
    if (!r) r = dnnl_primitive_create(&reorder, pd);
    if (!r)
        r = dnnl_primitive_execute(
            reorder, c->stream, 2,
            (dnnl_exec_arg_t[]){{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, c->weight}});
    if (!r) r = dnnl_stream_wait(c->stream);
    if (reorder) dnnl_primitive_destroy(reorder);
    if (pd) dnnl_primitive_desc_destroy(pd);
    if (from) dnnl_memory_destroy(from);
    return r;
}

int conv3d_open(struct conv3d **out, const struct conv3d_params *p, const void *weight,
                void *packed, struct err *e)
{
    *out = NULL;
    if (!conv3d_available(p->bf16))
        return err_set(e, ERR_DEVICE, "this processor does not multiply bf16");
    struct conv3d *c = calloc(1, sizeof *c);
    if (!c) return err_set(e, ERR_RESOURCE, "no memory for a convolution");
    bool deep = p->kt > 1; /* pictures alone are 4-D, which more kernels know */
    int n = deep ? 5 : 4, ho = p->h / p->stride, wo = p->w / p->stride;
    int pad = p->side == 3, left = p->stride == 1 ? pad : 0;
    dnnl_data_type_t type = p->bf16 ? dnnl_bf16 : dnnl_f32;
    mem_desc s = NO_DESC, w = NO_DESC, plain = NO_DESC, d = NO_DESC;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_dims_t sd = {1, p->in, p->kt, p->h, p->w}, dd = {1, p->out, 1, ho, wo};
    dnnl_dims_t wd = {p->out, p->in, p->kt, p->side, p->side};
    dnnl_dims_t step = {1, p->stride, p->stride}, before = {0, left, left}, after = {0, pad, pad};
    int skip = deep ? 0 : 1; /* drops the axis of time */
    for (int i = 2; i < 4 && skip; i++)
        sd[i] = sd[i + 1], dd[i] = dd[i + 1], wd[i] = wd[i + 1];
    dnnl_status_t r = dnnl_engine_create(&c->engine, dnnl_cpu, 0);
    if (!r) r = dnnl_stream_create(&c->stream, c->engine, dnnl_stream_default_flags);
    if (!r) r = desc_make(&s, n, sd, type, deep ? dnnl_acdeb : dnnl_acdb);
    if (!r) r = desc_make(&w, n, wd, type, dnnl_format_tag_any);
    if (!r) r = desc_make(&plain, n, wd, type, deep ? dnnl_abcde : dnnl_abcd);
    if (!r) r = desc_make(&d, n, dd, dnnl_f32, deep ? dnnl_acdeb : dnnl_acdb);
    if (!r)
        r = conv_make(&pd, dnnl_convolution_direct, s, w, d, step + skip, before + skip,
                      after + skip, c->engine);
    if (!r)
        r = pack(c, REF(plain), dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0), weight,
                 packed, conv3d_packed_bytes(p));
    if (!r) r = dnnl_primitive_create(&c->prim, pd);
    if (!r) r = dnnl_memory_create(&c->x, REF(s), c->engine, DNNL_MEMORY_NONE);
    if (!r) r = dnnl_memory_create(&c->y, REF(d), c->engine, DNNL_MEMORY_NONE);
    const char *name = NULL;
    if (!r && !dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name) && name)
        for (size_t i = 0; name[i] && i + 1 < sizeof c->kernel; i++)
            c->kernel[i] = name[i];
    if (pd) dnnl_primitive_desc_destroy(pd);
    desc_free(&s), desc_free(&w), desc_free(&plain), desc_free(&d);
    if (r) {
        conv3d_close(c);
        return onednn_fail(e, "preparing a convolution", r);
    }
    *out = c;
    return 0;
}

void conv3d_close(struct conv3d *c)
{
    if (!c) return;
    if (c->prim) dnnl_primitive_destroy(c->prim);
    if (c->x) dnnl_memory_destroy(c->x);
    if (c->weight) dnnl_memory_destroy(c->weight);
    if (c->y) dnnl_memory_destroy(c->y);
    if (c->stream) dnnl_stream_destroy(c->stream);
    if (c->engine) dnnl_engine_destroy(c->engine);
    free(c->own);
    free(c);
}

int conv3d_run(struct conv3d *c, float *y, const void *x, struct err *e)
{
    dnnl_status_t r = dnnl_memory_set_data_handle(c->x, (void *)(uintptr_t)x);
    if (!r) r = dnnl_memory_set_data_handle(c->y, y);
    if (!r)
        r = dnnl_primitive_execute(c->prim, c->stream, 3,
                                   (dnnl_exec_arg_t[]){{DNNL_ARG_SRC, c->x},
                                                       {DNNL_ARG_WEIGHTS, c->weight},
                                                       {DNNL_ARG_DST, c->y}});
    if (!r) r = dnnl_stream_wait(c->stream);
    return r ? onednn_fail(e, "a convolution", r) : 0;
}

const char *conv3d_kernel(const struct conv3d *c) { return c->kernel; }
#else
bool conv3d_available(bool bf16) { return (void)bf16, false; }

size_t conv3d_packed_bytes(const struct conv3d_params *p) { return (void)p, (size_t)0; }

int conv3d_open(struct conv3d **c, const struct conv3d_params *p, const void *weight, void *packed,
                struct err *e)
{
    (void)p, (void)weight, (void)packed;
    *c = NULL;
    return err_set(e, ERR_DEVICE, "this build has no oneDNN convolutions");
}

void conv3d_close(struct conv3d *c) { (void)c; }

int conv3d_run(struct conv3d *c, float *y, const void *x, struct err *e)
{
    (void)c, (void)y, (void)x;
    return err_set(e, ERR_BUG, "a convolution that was never opened");
}

const char *conv3d_kernel(const struct conv3d *c) { return (void)c, "none"; }
#endif
