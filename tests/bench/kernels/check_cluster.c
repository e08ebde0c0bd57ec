/* k-means on the device: every label the nearest centroid, the order stable, centroids the means of their tokens. */
#include "tests/bench/kernels/bench_sage.h"

#include "attention/kernels/cuda/cluster_cuda.h"
#include "model/base/dtype.h"

struct clusters {
    struct cluster_call call; /* device arrays */
    uint16_t *x;
    float *before, *after; /* [N, n, D] */
    int32_t *label, *order, *offset;
};

static double half_distance(const struct clusters *c, int head, int token, int k)
{
    const struct cluster_call *j = &c->call;
    double s = 0;
    for (int i = 0; i < j->head_dim; i++) {
        double y =
            (double)c->before[((size_t)head * (size_t)j->n + (size_t)k) * (size_t)j->head_dim +
                              (size_t)i];
        s += y * y / 2 - (double)bf16_to_f32(c->x[token * j->x.token + head * j->x.head + i]) * y;
    }
    return s;
}

static void check_head(const struct clusters *c, int head)
{
    const struct cluster_call *j = &c->call;
    const int32_t *label = c->label + (size_t)head * (size_t)j->len,
                  *order = c->order + (size_t)head * (size_t)j->len,
                  *offset = c->offset + (size_t)head * (size_t)(j->n + 1);
    int far = 0, misplaced = 0, off = 0;
    for (int t = 0; t < j->len; t += 7) {
        double least = (double)INFINITY, mine = least;
        if (label[t] >= 0 && label[t] < j->n) mine = half_distance(c, head, t, label[t]);
        for (int k = 0; k < j->n; k++)
            least = fmin(least, half_distance(c, head, t, k));
        far += !(mine <= least + 1e-3 * (1 + fabs(least)));
    }
    CHECK_MSG(!far,
              "k-means: %d tokens are not with their nearest centroid: %d tokens, %d clusters x %d",
              far, j->len, j->n, j->head_dim);
    misplaced += offset[0] != 0 || offset[j->n] != j->len;
    for (int i = 0; i < j->len; i++) {
        int at = order[i], before = i ? order[i - 1] : -1;
        if (at < 0 || at >= j->len) {
            misplaced++;
            continue;
        }
        if (i && before >= 0 && before < j->len)
            misplaced += label[at] < label[before] || (label[at] == label[before] && at <= before);
        misplaced += i < offset[label[at]] || i >= offset[label[at] + 1];
    }
    CHECK_MSG(!misplaced, "k-means: %d places of the order are wrong: %d tokens, %d clusters",
              misplaced, j->len, j->n);
    for (int k = 0; k < j->n && !misplaced; k++)
        for (int i = 0; i < j->head_dim; i++) {
            size_t at = ((size_t)head * (size_t)j->n + (size_t)k) * (size_t)j->head_dim + (size_t)i;
            double sum = 0;
            for (int p = offset[k]; p < offset[k + 1]; p++)
                sum += (double)bf16_to_f32(c->x[order[p] * j->x.token + head * j->x.head + i]);
            int n = offset[k + 1] - offset[k];
            double want = n ? sum / n : (double)c->before[at];
            off += !(fabs((double)c->after[at] - want) <= 1e-4);
        }
    CHECK_MSG(!off, "k-means: %d channels of centroids are not means: %d tokens, %d clusters", off,
              j->len, j->n);
}

static void one(struct test_rng *r, int len, int n, int dim, int heads)
{
    struct err e = {0};
    size_t count = (size_t)len * (size_t)heads * (size_t)dim, means = (size_t)(heads * n * dim) * 4;
    struct clusters c = {.x = host_new(count * 2),
                         .before = host_new(means),
                         .after = host_new(means),
                         .label = host_new((size_t)(heads * len) * 4),
                         .order = host_new((size_t)(heads * len) * 4),
                         .offset = host_new((size_t)(heads * (n + 1)) * 4)};
    for (size_t i = 0; i < count; i++)
        c.x[i] = f32_to_bf16(rng_normal(r));
    struct cluster_call *j = &c.call;
    *j = (struct cluster_call){.x = {gpu_copy(c.x, count * 2), (int64_t)heads * dim, dim},
                               .len = len,
                               .n_heads = heads,
                               .head_dim = dim,
                               .n = n,
                               .iterations = 1,
                               .centroid = gpu_new(means),
                               .label = gpu_new((size_t)(heads * len) * 4),
                               .order = gpu_new((size_t)(heads * len) * 4),
                               .offset = gpu_new((size_t)(heads * (n + 1)) * 4)};
    j->scratch = gpu_new(cluster_cuda_scratch(j));
    CHECK_OK(cluster_cuda_seed(j, &e));
    for (int i = 0; i < 3; i++) {
        gpu_read(c.before, j->centroid, means);
        CHECK_OK(cluster_cuda(j, &e));
        GPU(cudaDeviceSynchronize());
        gpu_read(c.after, j->centroid, means);
        gpu_read(c.label, j->label, (size_t)(heads * len) * 4);
        gpu_read(c.order, j->order, (size_t)(heads * len) * 4);
        gpu_read(c.offset, j->offset, (size_t)(heads * (n + 1)) * 4);
        for (int h = 0; h < heads; h++)
            check_head(&c, h);
    }
    void *mine[] = {j->x.at, j->centroid, j->label, j->order, j->offset, j->scratch};
    for (size_t i = 0; i < ARRAY_LEN(mine); i++)
        GPU(cudaFree(mine[i]));
    void *host[] = {c.x, c.before, c.after, c.label, c.order, c.offset};
    for (size_t i = 0; i < ARRAY_LEN(host); i++)
        free(host[i]);
    tally_up();
}

void check_cluster(uint64_t seed)
{
    struct test_rng r = {seed};
    one(&r, 1, 1, 64, 1);
    one(&r, 255, 255, 128, 1);
    for (int i = 0; i < 6; i++)
        one(&r, rng_int(&r, 300, 3000), rng_int(&r, 1, 300), i % 2 ? 64 : 128, rng_int(&r, 1, 3));
    one(&r, 2500, 1200, 64, 1);
}

/* Two iterations from warm centroids, as a step does it: 200 clusters of queries, 1,000 of keys. */
void time_cluster(void)
{
    enum { LEN = 32760, HEADS = 12, DIM = 128, ROUNDS = 9 };
    static const int clusters[] = {200, 1000};
    struct err e = {0};
    size_t count = (size_t)LEN * HEADS * DIM;
    uint16_t *x = bench_numbers(count, 5);
    struct cluster_call j = {.x = {gpu_copy(x, count * 2), HEADS * DIM, DIM},
                             .len = LEN,
                             .n_heads = HEADS,
                             .head_dim = DIM,
                             .n = clusters[1],
                             .iterations = 2};
    cudaEvent_t from, to;
    free(x);
    j.centroid = gpu_new((size_t)HEADS * (size_t)j.n * DIM * 4);
    j.label = gpu_new((size_t)HEADS * LEN * 4);
    j.order = gpu_new((size_t)HEADS * LEN * 4);
    j.offset = gpu_new((size_t)HEADS * (size_t)(j.n + 1) * 4);
    j.scratch = gpu_new(cluster_cuda_scratch(&j));
    GPU(cudaEventCreate(&from));
    GPU(cudaEventCreate(&to));
    for (size_t k = 0; k < ARRAY_LEN(clusters); k++) {
        double ms[ROUNDS];
        j.n = clusters[k];
        CHECK_OK(cluster_cuda_seed(&j, &e));
        for (int i = -1; i < ROUNDS; i++) {
            float m;
            gpu_pause(60);
            GPU(cudaEventRecord(from, NULL));
            CHECK_OK(cluster_cuda(&j, &e));
            GPU(cudaEventRecord(to, NULL));
            GPU(cudaEventSynchronize(to));
            GPU(cudaEventElapsedTime(&m, from, to));
            if (i >= 0) ms[i] = (double)m;
        }
        qsort(ms, ROUNDS, sizeof *ms, bench_ascending);
        printf("k-means of %d tokens x %d heads x %d, %d clusters, 2 iterations: %.3f ms\n", LEN,
               HEADS, DIM, j.n, ms[ROUNDS / 2]);
    }
    void *mine[] = {j.x.at, j.centroid, j.label, j.order, j.offset, j.scratch};
    for (size_t i = 0; i < ARRAY_LEN(mine); i++)
        GPU(cudaFree(mine[i]));
    tally_up();
}
