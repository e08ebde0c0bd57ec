/* 8-bit kernels beside the bf16 ones, every contender once a round in another order, medians. */
#include "tests/bench/kernels/bench_sage.h"

#include "attention/kernels/cuda/resid_cuda.h"
#include "model/base/dtype.h"

#define MOST 48
#define ROUNDS 64

struct row {
    char name[64];
    double share, ms[ROUNDS], median; /* share of dense work; 0: bytes count */
    double bytes;
    const struct attn_lists *lists;
    int kind,
        variant; /* 0 bf16, 1 sage of codes, 2 quantiser alone, 3 residual: variant is which */
    const struct quant_codes *codes;
};

struct bench {
    struct attn_cuda call;
    struct attn_tensor resid;
    struct row row[MOST];
    int n, rounds;
    double flop;
};

static int launch(struct bench *b, struct row *r, struct err *e)
{
    struct attn_cuda w = b->call;
    struct quant_codes c;
    w.lists = r->lists;
    if (r->kind == 0) return r->variant < 0 ? attn_sm90(&w, e) : attn_sm90_as(&w, r->variant, e);
    if (r->kind == 1) return sage_sm90_as(r->codes, &w, r->variant, e);
    if (r->kind == 3) return attn_resid_sm90(&w, &b->resid, (enum attn_out)r->variant, e);
    c = *r->codes;
    return quant_qkv(&c, &w, e);
}

static void add(struct bench *b, const char *name, int kind, int variant, double share,
                const struct attn_lists *l, const struct quant_codes *c, double bytes,
                const char *only)
{
    struct row *r = &b->row[b->n];
    if (b->n == MOST || (only && kind == 1 && !strstr(name, only))) return;
    b->n++;
    *r = (struct row){
        .share = share, .lists = l, .kind = kind, .variant = variant, .codes = c, .bytes = bytes};
    snprintf(r->name, sizeof r->name, "%s", name);
}

static double lists_make(struct attn_lists *l, int len, int heads, int block, double density)
{
    struct err e = {0};
    struct attn_plan plan;
    struct attn_lists_size s;
    uint32_t *kept = bench_plan(&plan, len, block, block, heads, RANDOM, density);
    CHECK_OK(attn_lists_size(&s, &plan, &e));
    uint32_t *a = host_new(s.row_ptr * 4), *b = host_new(s.steps * 4), *c = host_new(s.order * 4);
    CHECK_OK(attn_lists_fill(l, a, b, c, NULL, &plan, &e));
    l->row_ptr = gpu_copy(a, s.row_ptr * 4);
    l->steps = gpu_copy(b, s.steps * 4);
    l->order = gpu_copy(c, s.order * 4);
    free(a);
    free(b);
    free(c);
    double share = attn_plan_density(&plan, len);
    free(kept);
    return share;
}

/* 64 queries, far apart, of the output that is there against the emulation and against the bf16
 * kernel. */
static void spot_check(struct bench *b, struct row *r, struct codes_pair *c, const uint16_t *dense)
{
    size_t row = (size_t)c->host.n_heads * (size_t)c->host.head_dim,
           n = (size_t)c->host.len_q * row;
    uint16_t *got = host_new(n * 2);
    uint32_t *order = host_new((size_t)c->host.k_blocks * 4);
    float o[128];
    double off = 0, all = 0, far = 0, sum = 0;
    struct attn_cuda host = {.len_k = c->host.len_k};
    gpu_read(got, b->call.o.at, n * 2);
    int tiles = tiles_of(order, &host, 0, 0);
    for (int i = 0; i < 64; i++) {
        int query = (int)((int64_t)i * (c->host.len_q - 1) / 63), head = i % c->host.n_heads;
        quant_attend(o, NULL, NULL, &c->host, head, query, order, tiles);
        for (int x = 0; x < c->host.head_dim; x++) {
            size_t at = (size_t)query * row + (size_t)head * (size_t)c->host.head_dim + (size_t)x;
            double g = (double)bf16_to_f32(got[at]);
            off += fabs(g - (double)o[x]);
            all += fabs((double)o[x]);
            far += fabs(g - (double)bf16_to_f32(dense[at]));
            sum += fabs((double)bf16_to_f32(dense[at]));
        }
    }
    CHECK_MSG(off <= 3e-3 * all, "%s, %d tokens: relative L1 %.3g against the emulation", r->name,
              c->host.len_q, off / all);
    printf("  %-22s L1 %.2e off the emulation, %.4f off bf16\n", r->name, off / all, far / sum);
    free(got);
    free(order);
    tally_up();
}

static int ascending(const void *a, const void *b) { return bench_ascending(a, b); }

static void one_size(int len, int heads, int dim, double seconds, const char *only)
{
    struct err e = {0};
    struct bench b = {.flop = 4.0 * heads * dim * (double)len * len};
    size_t n = (size_t)len * (size_t)heads * (size_t)dim;
    struct attn_tensor t[4];
    for (int i = 0; i < 3; i++) {
        uint16_t *x = bench_numbers(n, (uint64_t)i + 1);
        t[i] = (struct attn_tensor){gpu_copy(x, n * 2), (int64_t)heads * dim, dim};
        free(x);
    }
    t[3] = (struct attn_tensor){gpu_new(n * 2), t[0].token, t[0].head};
    b.call = (struct attn_cuda){.q = t[0],
                                .k = t[1],
                                .v = t[2],
                                .o = t[3],
                                .len_q = len,
                                .len_k = len,
                                .n_heads = heads,
                                .head_dim = dim,
                                .scratch = gpu_new(attn_cuda_scratch())};
    struct codes_pair c[2];
    for (int v = 0; v < 2; v++) {
        struct quant_codes sizes = {.len_q = len,
                                    .len_k = len,
                                    .n_heads = heads,
                                    .head_dim = dim,
                                    .how = {.bits = 8, .smooth_k = true, .pools = 2}};
        sizes.how.values = v ? QUANT_S8 : QUANT_E4M3;
        codes_make(&c[v], &sizes);
        CHECK_OK(quant_qkv(&c[v].gpu, &b.call, &e));
        GPU(cudaDeviceSynchronize());
        codes_read(&c[v]);
    }
    struct quant_codes rotated = c[0].gpu;
    rotated.how.rotate = true;
    b.resid = (struct attn_tensor){gpu_new(n * 2), t[0].token, t[0].head};
    struct attn_lists l[4]; /* .3 and .1 in tiles of 128, then of 64 */
    double kept[4];
    for (int i = 0; i < 4; i++)
        kept[i] = lists_make(&l[i], len, heads, i < 2 ? 128 : 64, i % 2 ? .1 : .3);
    add(&b, "bf16 dense", 0, -1, 1, NULL, NULL, 0, only);
    for (int i = 0; i < 2; i++)
        add(&b, i ? "bf16 list .1" : "bf16 list .3", 0, -1, kept[i], &l[i], NULL, 0, only);
    add(&b, "make residual, list .1", 3, ATTN_MAKE_RESIDUAL, 1, &l[1], NULL, 0, only);
    add(&b, "add residual, list .1", 3, ATTN_ADD_RESIDUAL, kept[1], &l[1], NULL, 0, only);
    for (int i = 0; attn_sm90_variant(i, NULL); i++)
        for (int k = 2; k < 4; k++) {
            struct attn_cuda w = b.call;
            char name[64];
            w.lists = &l[k];
            if (!attn_sm90_takes(&w, i) || strstr(attn_sm90_variant(i, NULL), "full")) continue;
            snprintf(name, sizeof name, "bf16 %s .%d", attn_sm90_variant(i, NULL), k == 2 ? 3 : 1);
            add(&b, name, 0, i, kept[k], &l[k], NULL, 0, only);
        }
    double bytes = 3 * (double)n * 3; /* each bf16 read once, each code written once */
    add(&b, "quant", 2, 0, 0, NULL, &c[0].gpu, bytes, only);
    for (int i = 0; sage_sm90_variant(i, NULL); i++)
        for (int k = 0; k < 3; k++) {
            const struct quant_codes *codes = NULL;
            struct attn_cuda w = b.call;
            char name[64];
            w.lists = k ? &l[k - 1] : NULL;
            for (int v = 0; v < 2; v++)
                if (sage_sm90_takes(&c[v].gpu, &w, i)) codes = &c[v].gpu;
            if (!codes) continue;
            snprintf(name, sizeof name, "sage %s%s", sage_sm90_variant(i, NULL),
                     k == 0   ? ""
                     : k == 1 ? " .3"
                              : " .1");
            add(&b, name, 1, i, k ? kept[k - 1] : 1, w.lists, codes, 0, only);
        }
    printf("%d tokens x %d heads x %d channels\n", len, heads, dim);
    uint16_t *dense = host_new(n * 2);
    CHECK_OK(launch(&b, &b.row[0], &e));
    GPU(cudaDeviceSynchronize());
    gpu_read(dense, t[3].at, n * 2);
    for (int i = 0; i < b.n; i++) {
        struct row *r = &b.row[i];
        if (r->kind != 1 || r->lists) continue;
        GPU(cudaMemset(t[3].at, 0xff, n * 2));
        CHECK_OK(launch(&b, r, &e));
        GPU(cudaDeviceSynchronize());
        spot_check(&b, r, &c[r->codes == &c[1].gpu], dense);
    }
    free(dense);
    add(&b, "quant rotated", 2, 0, 0, NULL, &rotated, bytes, only);
    cudaEvent_t from, to;
    GPU(cudaEventCreate(&from));
    GPU(cudaEventCreate(&to));
    struct test_rng rng = {3};
    double spent = 0;
    for (int round = -2; b.rounds < ROUNDS && (b.rounds < 5 || spent < 1000 * seconds); round++) {
        int order[MOST];
        bench_shuffle(order, b.n, &rng);
        for (int i = 0; i < b.n; i++) {
            float ms = 0;
            gpu_pause(60);
            GPU(cudaEventRecord(from, NULL));
            CHECK_OK(launch(&b, &b.row[order[i]], &e));
            GPU(cudaEventRecord(to, NULL));
            GPU(cudaEventSynchronize(to));
            GPU(cudaEventElapsedTime(&ms, from, to));
            spent += (double)ms;
            if (round >= 0) b.row[order[i]].ms[b.rounds] = (double)ms;
        }
        b.rounds += round >= 0;
    }
    for (int i = 0; i < b.n; i++) {
        struct row *r = &b.row[i];
        qsort(r->ms, (size_t)b.rounds, sizeof *r->ms, ascending);
        r->median = r->ms[b.rounds / 2];
    }
    double first = b.row[0].median, quant = 0;
    for (int i = 0; i < b.n; i++)
        if (b.row[i].kind == 2 && !quant) quant = b.row[i].median;
    printf("  %-26s %9s %9s %9s %10s   (%d rounds)\n", "", "median ms", "least ms", "TFLOP/s",
           "bf16 dense", b.rounds);
    for (int i = 0; i < b.n; i++) {
        struct row *r = &b.row[i];
        if (r->kind == 2)
            printf("  %-26s %9.3f %9.3f %7.2f TB/s, %.1f %% of bf16 dense\n", r->name, r->median,
                   r->ms[0], r->bytes / r->median / 1e9, 100 * r->median / first);
        else
            printf("  %-26s %9.3f %9.3f %9.0f     x%.3f%s", r->name, r->median, r->ms[0],
                   b.flop * r->share / r->median / 1e9, first * r->share / r->median,
                   r->kind == 1 ? "" : "\n");
        if (r->kind == 1) printf("   with quant x%.3f\n", first * r->share / (r->median + quant));
    }
    for (int i = 0; i < 2; i++)
        codes_free(&c[i]);
    for (int i = 0; i < 4; i++) {
        GPU(cudaFree((void *)(uintptr_t)l[i].row_ptr));
        GPU(cudaFree((void *)(uintptr_t)l[i].steps));
        GPU(cudaFree((void *)(uintptr_t)l[i].order));
    }
    for (int i = 0; i < 4; i++)
        GPU(cudaFree(t[i].at));
    GPU(cudaFree(b.resid.at));
    GPU(cudaFree(b.call.scratch));
    tally_up();
}

void time_sage(double seconds, const char *only)
{
    one_size(32760, 12, 128, seconds / 2, only);
    one_size(32760, 24, 64, seconds / 2, only);
}
