/* Medians: rows as a share of the card's copy rate, products in TFLOP/s, and the launches of a whole
 * block, recorded once and replayed, at the embedded model's size and at 1.3B's. */
#include "tests/bench/ops/check_ops.h"

#include "attention/kernels/cuda/attn_cuda.h"
#include "model/ops/cuda/blas.h"
#include "model/ops/cuda/rows_cuda.h"

#define RUNS 15

typedef int work(void *ctx, void *stream, struct err *e);
static cudaStream_t stream;
static cudaEvent_t begun, ended;

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Median milliseconds of one of `each` runs that follow one another. */
static double median(work *f, void *ctx, int each)
{
    float ms[RUNS];
    struct err e = {0};
    for (int i = -3; i < RUNS; i++) {
        GPU(cudaEventRecord(begun, stream));
        for (int k = 0; k < each; k++)
            if (f(ctx, stream, &e) < 0) {
                fprintf(stderr, "%s\n", e.msg);
                exit(e.code);
            }
        GPU(cudaEventRecord(ended, stream));
        GPU(cudaEventSynchronize(ended));
        if (i >= 0) GPU(cudaEventElapsedTime(&ms[i], begun, ended));
    }
    qsort(ms, RUNS, sizeof *ms, by_size);
    return (double)ms[RUNS / 2] / each;
}

struct copy {
    void *to, *from;
    size_t bytes;
};
static int do_copy(void *ctx, void *s, struct err *e)
{
    struct copy *c = ctx;
    (void)e;
    GPU(cudaMemcpyAsync(c->to, c->from, c->bytes, cudaMemcpyDeviceToDevice, s));
    return 0;
}
static int do_norm(void *ctx, void *s, struct err *e) { return cuda_norm(ctx, s, e); }
static int do_rope(void *ctx, void *s, struct err *e) { return cuda_rope(ctx, s, e); }
static int do_map(void *ctx, void *s, struct err *e) { return cuda_map(ctx, s, e); }

struct product {
    struct cuda_matmul *m;
    void *y, *x, *w, *bias, *room, *q;
    float *xs, *ws;
    int rows, in;
    bool coded; /* x is bf16 and coded first */
};
static int do_product(void *ctx, void *s, struct err *e)
{
    struct product *p = ctx;
    if (p->coded &&
        cuda_codes(p->q, p->xs, NULL, p->x, DTYPE_BF16, p->rows, p->in, false, s, e) < 0)
        return -1;
    return cuda_matmul_run(p->m, p->y, p->coded ? p->q : p->x, p->w, p->bias, p->xs, p->ws, p->room,
                           s, e);
}

static double copy_rate; /* bytes read and written, a second */

static void say_rows(const char *what, int rows, int cols, double ms, double passes)
{
    double rate = passes * rows * cols * 2 / (ms * 1e-3);
    printf("%-40s %9.4f ms %8.0f GB/s %5.2f of the copy rate\n", what, ms, rate * 1e-9,
           rate / copy_rate);
}

/* A place of 1.0 everywhere, as bf16 or fp32 alike finite */
static void *ones(size_t bytes)
{
    void *p = gpu_new(bytes);
    GPU(cudaMemset(p, 0x3c, bytes)); /* bf16 0.0115, fp32 0.0115 */
    return p;
}

static void time_rows(int rows, int cols, int dim, int each)
{
    size_t n = (size_t)rows * (size_t)cols;
    char *x = ones(n * 2), *y = ones(n * 2), *z = ones(n * 2);
    float *v = ones((size_t)cols * 16), *t = ones((size_t)rows * (size_t)dim * 2);
    char name[64];
    struct cuda_norm p = {.rows = rows,
                          .features = cols,
                          .type = DTYPE_BF16,
                          .y_type = DTYPE_BF16,
                          .add_type = DTYPE_BF16,
                          .x = x,
                          .y = y,
                          .x_row = cols,
                          .add_row = cols,
                          .y_row = cols,
                          .eps = 1e-6f,
                          .scale = v,
                          .shift = v,
                          .mods = 1};
    snprintf(name, sizeof name, "norm + modulate [%d, %d]", rows, cols);
    say_rows(name, rows, cols, median(do_norm, &p, each), 2);
    p.add = z, p.gate = v;
    snprintf(name, sizeof name, "gated sum + norm [%d, %d]", rows, cols);
    say_rows(name, rows, cols, median(do_norm, &p, each), 4);
    struct cuda_rope q = {.rows = rows,
                          .features = cols,
                          .type = DTYPE_BF16,
                          .n_parts = 2,
                          .eps = 1e-6f,
                          .cos_t = t,
                          .sin_t = t,
                          .tokens = rows,
                          .turns = 1,
                          .head_dim = dim};
    q.part[0].x = x, q.part[0].y = x, q.part[1].x = y, q.part[1].y = y;
    for (int i = 0; i < 2; i++)
        q.part[i].weight = v, q.part[i].x_row = q.part[i].y_row = cols, q.part[i].y_head = dim,
        q.part[i].turn = true;
    snprintf(name, sizeof name, "norm + positions, q and k [%d, %d]", rows, cols);
    say_rows(name, rows, cols, median(do_rope, &q, each), 4);
    struct cuda_map m = {.x = x,
                         .y = y,
                         .from = DTYPE_BF16,
                         .to = DTYPE_BF16,
                         .n = n,
                         .act = ACT_GELU_TANH,
                         .times = 1};
    snprintf(name, sizeof name, "gelu [%d, %d]", rows, cols);
    say_rows(name, rows, cols, median(do_map, &m, each), 2);
    gpu_free(x), gpu_free(y), gpu_free(z), gpu_free(v), gpu_free(t);
}

static struct product product_new(struct cuda_blas *b, int rows, int in, int out, enum dtype type,
                                  enum activation act, int batch, enum cuda_scales scales,
                                  bool fast, void *room)
{
    size_t w = (size_t)in * (size_t)out * (size_t)batch;
    struct err e = {0};
    struct product p = {.room = room, .rows = rows, .in = in, .coded = type == DTYPE_F8_E4M3};
    enum dtype y_type = type == DTYPE_F32 ? DTYPE_F32 : DTYPE_BF16;
    struct cuda_product c = {.rows = rows,
                             .in = in,
                             .out = out,
                             .type = type,
                             .y_type = y_type,
                             .act = act,
                             .bias = true,
                             .scales = scales,
                             .fast = fast,
                             .batch = batch,
                             .w_batch = (int64_t)in * out,
                             .bias_batch = out,
                             .y_batch = (int64_t)rows * out};
    p.x = ones((size_t)rows * (size_t)in * 4);
    p.w = ones(w * dtype_size(type));
    p.bias = ones((size_t)out * (size_t)batch * 4);
    p.y = ones((size_t)rows * (size_t)out * (size_t)batch * dtype_size(y_type));
    p.q = ones((size_t)rows * (size_t)in);
    p.xs = ones((size_t)rows * 4), p.ws = ones((size_t)out * 4);
    if (cuda_matmul_open(&p.m, b, &c, &e) < 0) {
        fprintf(stderr, "%s\n", e.msg);
        p.m = NULL;
    }
    return p;
}
static void product_free(struct product *p)
{
    cuda_matmul_close(p->m);
    gpu_free(p->x), gpu_free(p->w), gpu_free(p->bias), gpu_free(p->y);
    gpu_free(p->q), gpu_free(p->xs), gpu_free(p->ws);
}

static void time_product(struct cuda_blas *b, void *room, const char *what, int rows, int in,
                         int out, enum dtype type, enum activation act, int batch,
                         enum cuda_scales scales, bool fast, int each)
{
    struct product p = product_new(b, rows, in, out, type, act, batch, scales, fast, room);
    if (p.m) {
        double ms = median(do_product, &p, each), flop = 2.0 * rows * in * out * batch;
        printf("%-18s [%d, %d] -> %d x %d%s: %9.4f ms %7.1f TFLOP/s, %d launches\n", what, rows, in,
               out, batch, act ? " gelu" : "", ms, flop / ms * 1e-9,
               cuda_matmul_launches(p.m) + p.coded);
    }
    product_free(&p);
}

/* --- a block's launches --- */

struct block {
    struct cuda_norm norm, gate_norm, add_norm;
    struct cuda_rope rope, q_norm;
    struct product qkv, o, xq, xo, up, down;
    struct attn_cuda self, cross;
    int heads, branches, layers;
    cudaGraphExec_t graph;
};

static int enqueue(struct block *b, void *s, struct err *e)
{
    for (int layer = 0; layer < b->layers; layer++) {
        if (cuda_norm(&b->norm, s, e) < 0 || do_product(&b->qkv, s, e) < 0 ||
            cuda_rope(&b->rope, s, e) < 0)
            return -1;
        b->self.stream = b->cross.stream = s;
        for (int i = 0; i < b->branches; i++)
            if (attn_sm90(&b->self, e) < 0) return -1;
        if (do_product(&b->o, s, e) < 0 || cuda_norm(&b->gate_norm, s, e) < 0 ||
            do_product(&b->xq, s, e) < 0 || cuda_rope(&b->q_norm, s, e) < 0)
            return -1;
        for (int i = 0; i < b->branches; i++)
            if (attn_sm80(&b->cross, e) < 0) return -1;
        if (do_product(&b->xo, s, e) < 0 || cuda_norm(&b->add_norm, s, e) < 0 ||
            do_product(&b->up, s, e) < 0 || do_product(&b->down, s, e) < 0)
            return -1;
    }
    return 0;
}
static int do_block(void *ctx, void *s, struct err *e) { return enqueue(ctx, s, e); }
static int do_replay(void *ctx, void *s, struct err *e)
{
    (void)e;
    GPU(cudaGraphLaunch(((struct block *)ctx)->graph, s));
    return 0;
}

static void time_block(struct cuda_blas *blas, void *room, const char *what, int tokens, int heads,
                       int dim, int ffn, int keys, int layers, int of_layers, int each)
{
    int D = heads * dim, branches = 2, rows = branches * tokens;
    size_t n = (size_t)rows * (size_t)D;
    struct block b = {.heads = heads, .branches = branches, .layers = layers};
    void *x = ones(n * 2), *y = ones(n * 2), *kv = ones((size_t)keys * (size_t)D * 4),
         *scratch = ones(attn_cuda_scratch());
    float *v = ones((size_t)D * 4), *t = ones((size_t)tokens * (size_t)dim * 2);
    b.qkv = product_new(blas, rows, D, D, DTYPE_BF16, ACT_NONE, 3, CUDA_NO_SCALES, false, room);
    b.o = product_new(blas, rows, D, D, DTYPE_BF16, ACT_NONE, 1, CUDA_NO_SCALES, false, room);
    b.xq = b.o, b.xo = b.o;
    b.up =
        product_new(blas, rows, D, ffn, DTYPE_BF16, ACT_GELU_TANH, 1, CUDA_NO_SCALES, false, room);
    b.down = product_new(blas, rows, ffn, D, DTYPE_BF16, ACT_NONE, 1, CUDA_NO_SCALES, false, room);
    if (!b.qkv.m || !b.o.m || !b.up.m || !b.down.m) goto done;
    b.norm = (struct cuda_norm){.rows = rows,
                                .features = D,
                                .type = DTYPE_BF16,
                                .y_type = DTYPE_BF16,
                                .x = x,
                                .y = b.qkv.x,
                                .x_row = D,
                                .add_row = D,
                                .y_row = D,
                                .eps = 1e-6f,
                                .scale = v,
                                .shift = v,
                                .mods = 1};
    b.norm.add_type = DTYPE_BF16;
    b.gate_norm = b.norm, b.gate_norm.add = b.o.y, b.gate_norm.gate = v, b.gate_norm.y = b.o.x;
    b.add_norm = b.gate_norm, b.add_norm.gate = NULL;
    char *q = b.qkv.y;
    b.rope = (struct cuda_rope){.rows = rows,
                                .features = D,
                                .type = DTYPE_BF16,
                                .n_parts = 2,
                                .eps = 1e-6f,
                                .cos_t = t,
                                .sin_t = t,
                                .tokens = tokens,
                                .turns = 1,
                                .head_dim = dim};
    for (int i = 0; i < 2; i++) {
        b.rope.part[i].x = b.rope.part[i].y = q + (size_t)i * n * 2;
        b.rope.part[i].weight = v, b.rope.part[i].turn = true;
        b.rope.part[i].x_row = b.rope.part[i].y_row = D, b.rope.part[i].y_head = dim;
    }
    b.q_norm = b.rope, b.q_norm.n_parts = 1, b.q_norm.part[0].turn = false,
    b.q_norm.part[0].x = b.q_norm.part[0].y = b.o.y;
    b.self = (struct attn_cuda){.q = {q, D, dim},
                                .k = {q + n * 2, D, dim},
                                .v = {q + n * 4, D, dim},
                                .o = {y, D, dim},
                                .len_q = tokens,
                                .len_k = tokens,
                                .n_heads = heads,
                                .head_dim = dim,
                                .scratch = scratch};
    b.cross = b.self;
    b.cross.k.at = kv, b.cross.v.at = kv, b.cross.len_k = keys;
    cudaGraph_t graph;
    size_t nodes = 0;
    struct err e = {0};
    GPU(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    if (enqueue(&b, stream, &e) < 0) {
        printf("%s: %s\n", what, e.msg);
        cudaStreamEndCapture(stream, &graph);
        goto done;
    }
    GPU(cudaStreamEndCapture(stream, &graph));
    GPU(cudaGraphGetNodes(graph, NULL, &nodes));
    GPU(cudaGraphInstantiate(&b.graph, graph, 0));
    double loose = median(do_block, &b, each), replayed = median(do_replay, &b, each);
    printf("%s, %d layers, 2 branches, %zu nodes: %.3f ms launched, %.3f ms replayed; a step of %d "
           "layers %.3f ms\n",
           what, layers, nodes, loose, replayed, of_layers, replayed * of_layers / layers);
    struct attn_cuda self = b.self;
    (void)self;
    GPU(cudaGraphExecDestroy(b.graph));
    GPU(cudaGraphDestroy(graph));
done:
    b.xq.m = b.xo.m = NULL;
    product_free(&b.qkv), product_free(&b.o), product_free(&b.up), product_free(&b.down);
    gpu_free(x), gpu_free(y), gpu_free(kv), gpu_free(scratch), gpu_free(v), gpu_free(t);
}

int time_ops(void)
{
    struct cuda_blas *b;
    struct err e = {0};
    GPU(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    GPU(cudaEventCreate(&begun));
    GPU(cudaEventCreate(&ended));
    struct copy c = {.bytes = (size_t)512 << 20};
    c.to = ones(c.bytes), c.from = ones(c.bytes);
    copy_rate = 2.0 * (double)c.bytes / (median(do_copy, &c, 2) * 1e-3);
    printf("copying 512 MiB on the card: %.0f GB/s read and written\n", copy_rate * 1e-9);
    gpu_free(c.to), gpu_free(c.from);
    time_rows(4608, 320, 64, 20);
    time_rows(32760, 1536, 128, 4);
    time_rows(75600, 5120, 128, 1);
    if (cuda_blas_open(&b, &e) < 0) {
        fprintf(stderr, "%s\n", e.msg);
        return e.code;
    }
    void *room = gpu_new(CUDA_BLAS_ROOM);
    static const int shapes[][5] = {
        /* rows, in, out, batch, gelu */
        {4608, 320, 320, 1, 0},    {4608, 320, 320, 3, 0},    {4608, 320, 1280, 1, 1},
        {4608, 1280, 320, 1, 0},   {32760, 1536, 1536, 1, 0}, {32760, 1536, 1536, 3, 0},
        {32760, 1536, 8960, 1, 0}, {32760, 1536, 8960, 1, 1}, {32760, 8960, 1536, 1, 0},
        {8192, 1536, 8960, 1, 1},  {8192, 8960, 1536, 1, 0},  {75600, 5120, 5120, 1, 0},
        {8192, 5120, 13824, 1, 1}, {8192, 13824, 5120, 1, 0}, {8192, 8192, 8192, 1, 0}};
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        const int *s = shapes[i];
        time_product(b, room, "bf16", s[0], s[1], s[2], DTYPE_BF16, s[4] ? ACT_GELU_TANH : ACT_NONE,
                     s[3], CUDA_NO_SCALES, false, s[0] < 5000 ? 20 : 2);
    }
    time_product(b, room, "fp32", 32760, 1536, 1536, DTYPE_F32, ACT_NONE, 1, CUDA_NO_SCALES, false,
                 1);
    for (int kind = 0; kind < 4; kind++)
        for (int i = 0; i < 3; i++) {
            static const int f8[][3] = {
                {32760, 1536, 1536}, {32760, 1536, 8960}, {32760, 8960, 1536}};
            time_product(b, room,
                         kind == 0   ? "fp8 one"
                         : kind == 1 ? "fp8 one fast"
                         : kind == 2 ? "fp8 rows"
                                     : "fp8 rows fast",
                         f8[i][0], f8[i][1], f8[i][2], DTYPE_F8_E4M3,
                         i == 1 ? ACT_GELU_TANH : ACT_NONE, 1,
                         kind < 2 ? CUDA_ONE_SCALE : CUDA_ROW_SCALES, kind & 1, 2);
        }
    time_block(b, room, "embedded model", 2304, 5, 64, 1280, 34, 8, 8, 5);
    time_block(b, room, "1.3B, 832x480x81, 64 keys", 32760, 12, 128, 8960, 64, 1, 30, 1);
    time_block(b, room, "1.3B, 832x480x81, 512 keys", 32760, 12, 128, 8960, 512, 1, 30, 1);
    gpu_free(room);
    cuda_blas_close(b);
    return 0;
}
