/* Matrix products by oneDNN's matmul primitive, each on one thread. oneDNN cuts a product by the
 * number of threads it sees, sums over the inner dimension among the cuts, so that numbers would
 * change with the threads; here it always sees one, and linear.c hands out pieces of fixed size.
 *
 * One primitive a kind and row count, shared by all layers of that kind; scratch is the caller's,
 * as far as oneDNN says what it wants: each execution also takes a few blocks of at most 300 bytes
 * (its table of arguments), and 2.6's fp32 product for AVX2 a packing buffer of about 0.7 MB, which
 * it gives back. The primitive reports 0 bytes of scratchpad for that, and its inner product shares
 * the code: neither can be avoided from here. */
#include "model/ops/cpu/gemm.h"
#include "model/ops/cpu/onednn.h"

#include "model/base/cpu.h"
#include "model/base/threads.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ROW_COUNTS 8 /* tokens, text rows, one time row, image rows, and their second forms */
#define PACK_SHARED ((size_t)8 << 20) /* numbers: some 10 ms of one thread */
#define PACK_ROWS 512 /* the packed layout is what a product of so many rows wants */

/* What a worker changes in a call. */
struct hand {
    dnnl_memory_t x, y, pad; /* pad NULL: no scratch */
};

struct shape {
    struct gemm_kind kind;
    int rows;
    size_t scratch;
    dnnl_primitive_t prim;
    struct hand *hands;
    int n_hands;
    struct shape *next;
};

struct gemm {
    struct gemm_kind kind;
    dnnl_memory_t weight, bias; /* bias NULL: none */
    void *packed;
    const struct shape *shapes[MAX_ROW_COUNTS];
    int n_shapes, next;
};

/* For the process, from the first product to the last: engine, a stream a worker, primitives. */
static struct {
    int users;
    dnnl_engine_t engine;
    dnnl_stream_t *streams;
    int n_streams;
    struct shape *shapes;
} lib;

static dnnl_data_type_t type_of(enum gemm_type t) { return t == GEMM_BF16 ? dnnl_bf16 : dnnl_f32; }

static dnnl_status_t plain_weight(mem_desc *d, const struct gemm_kind *k)
{
    return desc_make(d, 2, (dnnl_dims_t){k->in, k->out}, type_of(k->type), dnnl_ba);
}

/* weight: its layout, or NULL: as oneDNN likes it best. */
static dnnl_status_t describe(dnnl_primitive_desc_t *pd, const struct gemm_kind *k, int rows,
                              mem_desc_ref weight)
{
    mem_desc s = NO_DESC, w = NO_DESC, b = NO_DESC, d = NO_DESC;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_status_t r = desc_make(&s, 2, (dnnl_dims_t){rows, k->in}, type_of(k->type), dnnl_ab);
    if (!r)
        r = desc_make(&w, 2, (dnnl_dims_t){k->in, k->out}, type_of(k->type), dnnl_format_tag_any);
    if (!r) r = desc_make(&b, 2, (dnnl_dims_t){1, k->out}, dnnl_f32, dnnl_ab);
    if (!r) r = desc_make(&d, 2, (dnnl_dims_t){rows, k->out}, dnnl_f32, dnnl_ab);
    if (!r) r = dnnl_primitive_attr_create(&attr);
    if (!r) r = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    int threads = onednn_threads(1);
    if (!r)
        r = matmul_make(pd, REF(s), weight ? weight : REF(w), k->bias ? REF(b) : NULL, REF(d), attr,
                        lib.engine);
    onednn_threads(threads);
    if (attr) dnnl_primitive_attr_destroy(attr);
    desc_free(&s), desc_free(&w), desc_free(&b), desc_free(&d);
    return r;
}

/* With the layout that gemm_open() gives a weight of this kind. */
static dnnl_status_t describe_opened(dnnl_primitive_desc_t *pd, const struct gemm_kind *k, int rows)
{
    dnnl_primitive_desc_t like = NULL;
    mem_desc plain = NO_DESC;
    dnnl_status_t r;
    if (k->borrow) {
        r = plain_weight(&plain, k);
        if (!r) r = describe(pd, k, rows, REF(plain));
        desc_free(&plain);
        return r;
    }
    r = describe(&like, k, PACK_ROWS, NULL);
    if (!r) r = describe(pd, k, rows, dnnl_primitive_desc_query_md(like, dnnl_query_weights_md, 0));
    if (like) dnnl_primitive_desc_destroy(like);
    return r;
}

static void set_cap(void)
{
    static const dnnl_cpu_isa_t most[] = {[CPU_REF] = dnnl_cpu_isa_sse41,
                                          [CPU_AVX2] = dnnl_cpu_isa_avx2,
                                          [CPU_AVX512] = dnnl_cpu_isa_avx512_core,
                                          [CPU_AVX512_VNNI] = dnnl_cpu_isa_avx512_core_vnni,
                                          [CPU_AVX512_BF16] = dnnl_cpu_isa_avx512_core_bf16,
                                          [CPU_AMX] = dnnl_cpu_isa_avx512_core_amx};
    enum cpu_level level = cpu_level();
    if (cpu_capped()) dnnl_set_max_cpu_isa(most[level]); /* fails only when it was used before us */
}

void onednn_ready(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, set_cap);
}

static void lib_leave(void)
{
    if (--lib.users > 0) return;
    for (struct shape *s = lib.shapes, *next; s; s = next) {
        next = s->next;
        for (int i = 0; i < s->n_hands; i++) {
            if (s->hands[i].x) dnnl_memory_destroy(s->hands[i].x);
            if (s->hands[i].y) dnnl_memory_destroy(s->hands[i].y);
            if (s->hands[i].pad) dnnl_memory_destroy(s->hands[i].pad);
        }
        if (s->prim) dnnl_primitive_destroy(s->prim);
        free(s->hands);
        free(s);
    }
    for (int i = 0; i < lib.n_streams; i++)
        dnnl_stream_destroy(lib.streams[i]);
    free(lib.streams);
    if (lib.engine) dnnl_engine_destroy(lib.engine);
    memset(&lib, 0, sizeof lib);
}

/* Every call is paired with lib_leave(), failed or not. */
static dnnl_status_t lib_enter(void)
{
    onednn_ready();
    return lib.users++ > 0 && lib.engine ? dnnl_success
                                         : dnnl_engine_create(&lib.engine, dnnl_cpu, 0);
}

static dnnl_status_t streams_for(int workers)
{
    if (workers <= lib.n_streams) return dnnl_success;
    dnnl_stream_t *more = realloc(lib.streams, (size_t)workers * sizeof *more);
    if (!more) return dnnl_out_of_memory;
    lib.streams = more;
    for (; lib.n_streams < workers; lib.n_streams++) {
        dnnl_status_t r =
            dnnl_stream_create(&more[lib.n_streams], lib.engine, dnnl_stream_default_flags);
        if (r) return r;
    }
    return dnnl_success;
}

static mem_desc_ref scratch_of(const_dnnl_primitive_desc_t pd, size_t *bytes)
{
    mem_desc_ref d = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    *bytes = d ? (dnnl_memory_desc_get_size(d) + 63) / 64 * 64 : 0;
    return d;
}

static dnnl_status_t hands_for(struct shape *s, int workers)
{
    const_dnnl_primitive_desc_t pd;
    size_t bytes;
    if (workers <= s->n_hands) return dnnl_success;
    struct hand *more = realloc(s->hands, (size_t)workers * sizeof *more);
    if (!more) return dnnl_out_of_memory;
    s->hands = more;
    dnnl_status_t r = dnnl_primitive_get_primitive_desc(s->prim, &pd);
    for (; !r && s->n_hands < workers; s->n_hands++) {
        struct hand *h = &more[s->n_hands];
        *h = (struct hand){0};
        r = dnnl_memory_create(&h->x, dnnl_primitive_desc_query_md(pd, dnnl_query_src_md, 0),
                               lib.engine, DNNL_MEMORY_NONE);
        if (!r)
            r = dnnl_memory_create(&h->y, dnnl_primitive_desc_query_md(pd, dnnl_query_dst_md, 0),
                                   lib.engine, DNNL_MEMORY_NONE);
        if (!r && s->scratch)
            r = dnnl_memory_create(&h->pad, scratch_of(pd, &bytes), lib.engine, DNNL_MEMORY_NONE);
    }
    return r;
}

static bool same_kind(const struct gemm_kind *a, const struct gemm_kind *b)
{
    return a->type == b->type && a->out == b->out && a->in == b->in && a->bias == b->bias &&
           a->borrow == b->borrow;
}

/* The process's shape of this kind and row count, made where there is none. */
static dnnl_status_t shape_get(struct shape **out, const struct gemm_kind *k, int rows)
{
    for (struct shape *s = lib.shapes; s; s = s->next)
        if (s->rows == rows && same_kind(&s->kind, k)) {
            *out = s;
            return dnnl_success;
        }
    dnnl_primitive_desc_t pd = NULL;
    struct shape *s = calloc(1, sizeof *s);
    if (!s) return dnnl_out_of_memory;
    *s = (struct shape){.kind = *k, .rows = rows};
    dnnl_status_t r = onednn_room();
    if (!r) r = describe_opened(&pd, k, rows);
    if (!r) {
        scratch_of(pd, &s->scratch);
        r = dnnl_primitive_create(&s->prim, pd);
    }
    if (pd) dnnl_primitive_desc_destroy(pd);
    if (r) {
        free(s);
        return r;
    }
    s->next = lib.shapes;
    *out = lib.shapes = s;
    return dnnl_success;
}

static dnnl_status_t pack(struct gemm *g, const void *weight)
{
    dnnl_primitive_desc_t pd = NULL, rpd = NULL;
    dnnl_primitive_t reorder = NULL;
    dnnl_memory_t from = NULL;
    mem_desc plain = NO_DESC;
    dnnl_status_t r = onednn_room();
    if (!r) r = describe(&pd, &g->kind, PACK_ROWS, NULL);
    if (r) return r;
    /* Moves numbers: nothing is summed. Before the reorder is made, which remembers how many. OpenMP's
     * threads wait by spinning, which a busy machine pays dearly: small weights do without them. */
    bool shared = (size_t)g->kind.in * (size_t)g->kind.out >= PACK_SHARED;
    int threads = onednn_threads(shared ? threads_for_openmp(threads_count()) : 1);
    mem_desc_ref want = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    g->packed = aligned_alloc(64, (dnnl_memory_desc_get_size(want) + 63) / 64 * 64);
    r = g->packed ? plain_weight(&plain, &g->kind) : dnnl_out_of_memory;
    if (!r) r = dnnl_memory_create(&g->weight, want, lib.engine, g->packed);
    if (!r) r = dnnl_memory_create(&from, REF(plain), lib.engine, (void *)(uintptr_t)weight);
    if (!r) r = reorder_make(&rpd, REF(plain), want, lib.engine);
    if (!r) r = dnnl_primitive_create(&reorder, rpd);
    if (!r)
        r = dnnl_primitive_execute(
            reorder, lib.streams[0], 2,
            (dnnl_exec_arg_t[]){{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, g->weight}});
    onednn_threads(threads);
    if (!r) r = dnnl_stream_wait(lib.streams[0]);
    if (reorder) dnnl_primitive_destroy(reorder);
    if (rpd) dnnl_primitive_desc_destroy(rpd);
    if (from) dnnl_memory_destroy(from);
    desc_free(&plain);
    dnnl_primitive_desc_destroy(pd);
    return r;
}

int gemm_open(struct gemm **out, const struct gemm_kind *k, const void *weight, const float *bias,
              struct err *e)
{
    mem_desc d = NO_DESC;
    *out = NULL;
    struct gemm *g = calloc(1, sizeof *g);
    if (!g) return err_set(e, ERR_RESOURCE, "no memory for a linear layer");
    g->kind = *k;
    dnnl_status_t r = lib_enter();
    if (!r) r = streams_for(1);
    if (!r && k->bias) {
        r = desc_make(&d, 2, (dnnl_dims_t){1, k->out}, dnnl_f32, dnnl_ab);
        if (!r) r = dnnl_memory_create(&g->bias, REF(d), lib.engine, (void *)(uintptr_t)bias);
        desc_free(&d);
    }
    if (!r && k->borrow) {
        r = plain_weight(&d, k);
        if (!r) r = dnnl_memory_create(&g->weight, REF(d), lib.engine, DNNL_MEMORY_NONE);
        desc_free(&d);
        if (!r && weight) r = dnnl_memory_set_data_handle(g->weight, (void *)(uintptr_t)weight);
    } else if (!r) {
        r = pack(g, weight);
    }
    if (r) {
        gemm_close(g);
        return onednn_fail(e, "opening a linear layer", r);
    }
    *out = g;
    return 0;
}

void gemm_close(struct gemm *g)
{
    if (!g) return;
    if (g->weight) dnnl_memory_destroy(g->weight);
    if (g->bias) dnnl_memory_destroy(g->bias);
    free(g->packed);
    free(g);
    lib_leave();
}

void gemm_rebind(struct gemm *g, const void *weight, const float *bias)
{
    dnnl_memory_set_data_handle(g->weight, (void *)(uintptr_t)weight);
    if (g->bias && bias) dnnl_memory_set_data_handle(g->bias, (void *)(uintptr_t)bias);
}

size_t gemm_scratch(const struct gemm_kind *k, int rows)
{
    dnnl_primitive_desc_t pd = NULL;
    size_t bytes = 0;
    dnnl_status_t r = lib_enter();
    if (!r) r = describe_opened(&pd, k, rows);
    if (!r) scratch_of(pd, &bytes);
    if (pd) dnnl_primitive_desc_destroy(pd);
    lib_leave();
    return bytes;
}

static const struct shape *shape_of(const struct gemm *g, int rows)
{
    for (int i = 0; i < g->n_shapes; i++)
        if (g->shapes[i]->rows == rows) return g->shapes[i];
    return NULL;
}

int gemm_prepare(struct gemm *g, int rows, size_t *scratch, struct err *e)
{
    int workers = threads_count();
    const struct shape *known = shape_of(g, rows);
    struct shape *s = NULL;
    if (known && known->n_hands >= workers) {
        *scratch = known->scratch;
        return 0;
    }
    dnnl_status_t r = streams_for(workers);
    if (!r) r = shape_get(&s, &g->kind, rows);
    if (!r) r = hands_for(s, workers);
    if (r) return onednn_fail(e, "preparing a matrix product", r);
    *scratch = s->scratch;
    if (known) return 0;
    if (g->n_shapes < MAX_ROW_COUNTS) {
        g->shapes[g->n_shapes++] = s;
    } else { /* the oldest goes */
        g->shapes[g->next] = s;
        g->next = (g->next + 1) % MAX_ROW_COUNTS;
    }
    return 0;
}

int gemm_run(const struct gemm *g, float *y, const void *x, int rows, void *scratch, int worker)
{
    const struct shape *s = shape_of(g, rows);
    if (!s || worker >= s->n_hands) return dnnl_invalid_arguments; /* not prepared */
    const struct hand *h = &s->hands[worker];
    dnnl_status_t r = dnnl_memory_set_data_handle(h->x, (void *)(uintptr_t)x);
    if (!r) r = dnnl_memory_set_data_handle(h->y, y);
    dnnl_exec_arg_t args[5] = {
        {DNNL_ARG_SRC, h->x}, {DNNL_ARG_WEIGHTS, g->weight}, {DNNL_ARG_DST, h->y}};
    int n = 3;
    if (g->bias) args[n++] = (dnnl_exec_arg_t){DNNL_ARG_BIAS, g->bias};
    if (!r && h->pad) {
        r = dnnl_memory_set_data_handle(h->pad, scratch);
        args[n++] = (dnnl_exec_arg_t){DNNL_ARG_SCRATCHPAD, h->pad};
    }
    if (!r) r = dnnl_primitive_execute(s->prim, lib.streams[worker], n, args);
    if (!r) r = dnnl_stream_wait(lib.streams[worker]);
    return (int)r;
}

int gemm_fail(int code, struct err *e)
{
    return onednn_fail(e, "a matrix product", (dnnl_status_t)code);
}

const char *gemm_backend(void)
{
    static char text[64]; /* written once with constant content */
    const dnnl_version_t *v = dnnl_version();
    snprintf(text, sizeof text, "oneDNN %d.%d.%d", v->major, v->minor, v->patch);
    return text;
}

bool gemm_is_slow(void) { return false; }

bool gemm_has_bf16(void)
{
    /* exact flags by value: 2.x and 3.x agree on names, later levels are larger sets */
    onednn_ready();
    dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();
    unsigned bits = (unsigned)isa, want = (unsigned)dnnl_cpu_isa_avx512_core_bf16;
    return (bits & want) == want;
}
