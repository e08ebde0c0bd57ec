/* oneDNN's convolutions in the layout of its own choice, products alone: what bench_conv's
 * "library" pays for channels last.
 *
 *   bench_layout [base_dim size threads rounds]     as bench_conv; fp32, and bf16 where it is
 * native
 *
 * Best of the rounds; "Winograd" where this processor has oneDNN's. */
#include "model/base/threads.h"
#include "model/ops/cpu/onednn.h"
#include "model/ops/linear.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define FRAMES 4

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct shape {
    int in, out, kt, side, size;
};

/* A block that the primitive's description of one argument asks for, filled with small numbers. */
static dnnl_status_t block(dnnl_memory_t *m, void **data, dnnl_primitive_desc_t pd,
                           dnnl_query_t what, dnnl_engine_t engine)
{
    mem_desc_ref d = dnnl_primitive_desc_query_md(pd, what, 0);
    size_t bytes = (dnnl_memory_desc_get_size(d) + 63) / 64 * 64;
    *data = aligned_alloc(64, bytes);
    if (!*data) return dnnl_out_of_memory;
    for (size_t i = 0; i < bytes / 2; i++) /* upper halves of fp32, or bf16 */
        ((uint16_t *)*data)[i] = f32_to_bf16((float)(i * 2654435761u >> 8 & 0xff) / 256 - 0.5f);
    return dnnl_memory_create(m, d, engine, *data);
}

static void time_shape(const struct shape *s, bool bf16, dnnl_alg_kind_t alg, int rounds)
{
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_t prim = NULL;
    mem_desc d[3] = {NO_DESC, NO_DESC, NO_DESC};
    dnnl_memory_t m[3] = {NULL};
    void *data[3] = {NULL};
    bool deep = s->kt > 1;
    int n = deep ? 5 : 4, pad = s->side == 3, skip = deep ? 0 : 1;
    dnnl_dims_t dims[3] = {{1, s->in, FRAMES + 2, s->size, s->size},
                           {s->out, s->in, s->kt, s->side, s->side},
                           {1, s->out, FRAMES, s->size, s->size}};
    dnnl_dims_t step = {1, 1, 1}, edge = {0, pad, pad};
    dnnl_data_type_t type = bf16 ? dnnl_bf16 : dnnl_f32;
    for (int i = 0; i < 3 && skip; i++) {
        if (i != 1) dims[i][0] = FRAMES;
        dims[i][2] = dims[i][3], dims[i][3] = dims[i][4];
    }
    dnnl_status_t r = dnnl_engine_create(&engine, dnnl_cpu, 0);
    if (r) return;
    r = dnnl_stream_create(&stream, engine, dnnl_stream_default_flags);
    for (int i = 0; i < 3 && !r; i++)
        r = desc_make(&d[i], n, dims[i], i == 2 ? dnnl_f32 : type, dnnl_format_tag_any);
    if (!r)
        r = conv_make(&pd, alg, d[0], d[1], d[2], step + skip, edge + skip, edge + skip, NULL,
                      engine);
    static const dnnl_query_t queries[] = {dnnl_query_src_md, dnnl_query_weights_md,
                                           dnnl_query_dst_md};
    for (int i = 0; i < 3 && !r; i++)
        r = block(&m[i], &data[i], pd, queries[i], engine);
    if (!r) r = dnnl_primitive_create(&prim, pd);
    dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, m[0]}, {DNNL_ARG_WEIGHTS, m[1]}, {DNNL_ARG_DST, m[2]}};
    double best = 1e9;
    for (int i = -1; i < rounds && !r; i++) {
        double t0 = now();
        r = dnnl_primitive_execute(prim, stream, 3, args);
        if (!r) r = dnnl_stream_wait(stream);
        if (i >= 0 && now() - t0 < best) best = now() - t0;
    }
    const char *name = "", *kind = alg == dnnl_convolution_winograd ? "Winograd" : "plain sums";
    if (!r) dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name);
    double flop = 2.0 * FRAMES * s->size * s->size * s->in * s->out * s->kt * s->side * s->side;
    printf("%3d→%-3d %dx%dx%d %dx%d %s %s: ", s->in, s->out, s->kt, s->side, s->side, s->size,
           s->size, bf16 ? "bf16" : "fp32", kind);
    if (r)
        printf("not here (code %d)\n", (int)r);
    else
        printf("%.2f ms, %.0f GFLOP/s (%s)\n", 1e3 * best, flop / best / 1e9, name);
    if (prim) dnnl_primitive_destroy(prim);
    if (pd) dnnl_primitive_desc_destroy(pd);
    for (int i = 0; i < 3; i++) {
        if (m[i]) dnnl_memory_destroy(m[i]);
        desc_free(&d[i]);
        free(data[i]);
    }
    if (stream) dnnl_stream_destroy(stream);
    dnnl_engine_destroy(engine);
}

int main(int argc, char **argv)
{
    int base = argc > 1 ? atoi(argv[1]) : 24, size = argc > 2 ? atoi(argv[2]) : 256;
    int threads = argc > 3 ? atoi(argv[3]) : threads_probe(), rounds = argc > 4 ? atoi(argv[4]) : 5;
    if (base < 1 || size < 64 || threads < 1 || rounds < 1) {
        fprintf(stderr, "usage: bench_layout [base_dim size threads rounds]\n");
        return 2;
    }
    threads_set(threads);
    struct shape shapes[] = {
        {4 * base, 4 * base, 3, 3, size / 8}, {4 * base, 4 * base, 3, 3, size / 4},
        {2 * base, 2 * base, 3, 3, size / 2}, {base, base, 3, 3, size},
        {4 * base, 2 * base, 1, 3, size / 2}, {4 * base, 4 * base, 3, 1, size / 4},
    };
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
        for (int bf16 = 0; bf16 <= ops_has_bf16(); bf16++) {
            time_shape(&shapes[i], bf16, dnnl_convolution_direct, rounds);
            if (!bf16 && shapes[i].kt == 1)
                time_shape(&shapes[i], false, dnnl_convolution_winograd, rounds);
        }
    return 0;
}
