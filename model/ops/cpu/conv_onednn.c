/* conv.h by oneDNN's convolution primitive: channels last, weights in the layout it likes best for
 * this picture, reordered once. */
#include "model/ops/conv.h"

#include "model/base/threads.h"
#include "model/ops/cpu/onednn.h"
#include "model/ops/linear.h"

#include <stdlib.h>

struct conv3d {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t prim;
    dnnl_memory_t x, weight, y, pad; /* pad: scratch, or NULL */
    int threads; /* that the library saw when it was made */
    void *own; /* packed weights that did not fit the caller's room */
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

struct descs {
    mem_desc x, weight, plain, y; /* weight: as the library likes it; plain: as it comes */
};

static void descs_free(struct descs *d)
{
    desc_free(&d->x), desc_free(&d->weight), desc_free(&d->plain), desc_free(&d->y);
}

static dnnl_status_t describe(dnnl_primitive_desc_t *pd, struct descs *m,
                              const struct conv3d_params *p, dnnl_engine_t engine)
{
    bool deep = p->kt > 1; /* pictures alone are 4-D, which more kernels know */
    int n = deep ? 5 : 4, ho = p->h / p->stride, wo = p->w / p->stride;
    int pad = p->side == 3, left = p->stride == 1 ? pad : 0;
    dnnl_data_type_t type = p->bf16 ? dnnl_bf16 : dnnl_f32;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_dims_t sd = {1, p->in, p->kt, p->h, p->w}, dd = {1, p->out, 1, ho, wo};
    dnnl_dims_t wd = {p->out, p->in, p->kt, p->side, p->side};
    dnnl_dims_t step = {1, p->stride, p->stride}, before = {0, left, left}, after = {0, pad, pad};
    int skip = deep ? 0 : 1; /* drops the axis of time */
    for (int i = 2; i < 4 && skip; i++)
        sd[i] = sd[i + 1], dd[i] = dd[i + 1], wd[i] = wd[i + 1];
    dnnl_status_t r = desc_make(&m->x, n, sd, type, deep ? dnnl_acdeb : dnnl_acdb);
    if (!r) r = desc_make(&m->weight, n, wd, type, dnnl_format_tag_any);
    if (!r) r = desc_make(&m->plain, n, wd, type, deep ? dnnl_abcde : dnnl_abcd);
    if (!r) r = desc_make(&m->y, n, dd, dnnl_f32, deep ? dnnl_acdeb : dnnl_acdb);
    if (!r) r = dnnl_primitive_attr_create(&attr);
    if (!r) r = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (!r)
        r = conv_make(pd, dnnl_convolution_direct, m->x, m->weight, m->y, step + skip,
                      before + skip, after + skip, attr, engine);
    if (attr) dnnl_primitive_attr_destroy(attr);
    return r;
}

static size_t scratch_of(const_dnnl_primitive_desc_t pd)
{
    mem_desc_ref d = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    return d ? round_up(dnnl_memory_desc_get_size(d), 64) : 0;
}

size_t conv3d_scratch_bytes(const struct conv3d_params *p)
{
    struct descs m = {NO_DESC, NO_DESC, NO_DESC, NO_DESC};
    dnnl_primitive_desc_t pd = NULL;
    dnnl_engine_t engine;
    size_t bytes = 0;
    onednn_ready();
    if (!conv3d_available(p->bf16) || dnnl_engine_create(&engine, dnnl_cpu, 0)) return 0;
    int threads = onednn_threads(threads_count());
    if (!describe(&pd, &m, p, engine)) bytes = scratch_of(pd);
    onednn_threads(threads);
    if (pd) dnnl_primitive_desc_destroy(pd);
    descs_free(&m);
    dnnl_engine_destroy(engine);
    return bytes;
}

int conv3d_open(struct conv3d **out, const struct conv3d_params *p, const void *weight,
                void *packed, struct err *e)
{
    *out = NULL;
    if (!conv3d_available(p->bf16))
        return err_set(e, ERR_DEVICE, "this processor does not multiply bf16");
    struct conv3d *c = calloc(1, sizeof *c);
    if (!c) return err_set(e, ERR_RESOURCE, "no memory for a convolution");
    struct descs m = {NO_DESC, NO_DESC, NO_DESC, NO_DESC};
    dnnl_primitive_desc_t pd = NULL;
    onednn_ready();
    c->threads = threads_for_openmp(threads_count());
    if (c->threads > 1) threads_as_openmp(true); /* until it is closed: its threads are OpenMP's */
    int threads = onednn_threads(c->threads);
    dnnl_status_t r = onednn_room();
    if (!r) r = dnnl_engine_create(&c->engine, dnnl_cpu, 0);
    if (!r) r = dnnl_stream_create(&c->stream, c->engine, dnnl_stream_default_flags);
    if (!r) r = describe(&pd, &m, p, c->engine);
    if (!r)
        r = pack(c, REF(m.plain), dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0),
                 weight, packed, conv3d_packed_bytes(p));
    if (!r) r = dnnl_primitive_create(&c->prim, pd);
    if (!r) r = dnnl_memory_create(&c->x, REF(m.x), c->engine, DNNL_MEMORY_NONE);
    if (!r) r = dnnl_memory_create(&c->y, REF(m.y), c->engine, DNNL_MEMORY_NONE);
    if (!r && scratch_of(pd))
        r = dnnl_memory_create(&c->pad,
                               dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0),
                               c->engine, DNNL_MEMORY_NONE);
    if (pd) dnnl_primitive_desc_destroy(pd);
    descs_free(&m);
    onednn_threads(threads);
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
    if (c->threads > 1) threads_as_openmp(false);
    if (c->prim) dnnl_primitive_destroy(c->prim);
    if (c->x) dnnl_memory_destroy(c->x);
    if (c->weight) dnnl_memory_destroy(c->weight);
    if (c->y) dnnl_memory_destroy(c->y);
    if (c->pad) dnnl_memory_destroy(c->pad);
    if (c->stream) dnnl_stream_destroy(c->stream);
    if (c->engine) dnnl_engine_destroy(c->engine);
    free(c->own);
    free(c);
}

int conv3d_run(struct conv3d *c, float *y, const void *x, void *scratch, struct err *e)
{
    dnnl_exec_arg_t args[4] = {
        {DNNL_ARG_SRC, c->x}, {DNNL_ARG_WEIGHTS, c->weight}, {DNNL_ARG_DST, c->y}};
    int n = 3;
    dnnl_status_t r = dnnl_memory_set_data_handle(c->x, (void *)(uintptr_t)x);
    if (!r) r = dnnl_memory_set_data_handle(c->y, y);
    if (!r && c->pad) {
        r = dnnl_memory_set_data_handle(c->pad, scratch);
        args[n++] = (dnnl_exec_arg_t){DNNL_ARG_SCRATCHPAD, c->pad};
    }
    int threads = onednn_threads(c->threads);
    if (!r) r = dnnl_primitive_execute(c->prim, c->stream, n, args);
    if (!r) r = dnnl_stream_wait(c->stream);
    onednn_threads(threads);
    return r ? onednn_fail(e, "a convolution", r) : 0;
}
