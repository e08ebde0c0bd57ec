#include "tests/bench/kernels/contest.h"

#include "tests/bench/kernels/card.h"
#include "tests/bench/kernels/gpu.h"

#ifdef DITGEN_CUDNN
#include "attention/kernels/cuda/cudnn.h"
#endif
#include "model/base/dtype.h"

#define HEAD_START_US 60 /* the host's work of a launch, three times over */

const char *const pattern_names[] = {"dense", "random", "banded", "clustered"};

static struct contender *add(struct contest *b, const char *name, const struct kernel_under_test *k)
{
    struct contender *c = &b->c[b->n++];
    *c = (struct contender){.kernel = k, .call = b->call, .density = 1, .asked = 1, .off = -1};
    snprintf(c->name, sizeof c->name, "%s", name);
    return c;
}

void contest_add_list(struct contest *b, const struct kernel_under_test *k, enum pattern pattern,
                      double density)
{
    struct err e = {0};
    struct attn_lists_size s;
    struct attn_tile t;
    int len = b->size.len, heads = b->size.heads;
    attn_sm90_variant(k->variant, &t);
    struct attn_plan *plan = host_new(sizeof *plan);
    uint32_t *kept = bench_plan(plan, len, t.block_q, t.block_k, heads, pattern, density);
    struct contender *c = add(b, k->name, k);
    CHECK_OK(attn_lists_size(&s, plan, &e));
    c->arrays[0] = host_new(s.row_ptr * 4);
    c->arrays[1] = host_new(s.steps * 4);
    c->arrays[2] = host_new(s.order * 4);
    CHECK_OK(attn_lists_fill(&c->host, c->arrays[0], c->arrays[1], c->arrays[2], NULL, plan, &e));
    c->pattern = pattern;
    c->asked = density;
    c->density = attn_plan_density(plan, len);
    c->plan = plan;
    c->arrays[6] = kept;
    c->lists = c->host;
    c->lists.row_ptr = c->arrays[3] = gpu_copy(c->arrays[0], s.row_ptr * 4);
    c->lists.steps = c->arrays[4] = gpu_copy(c->arrays[1], s.steps * 4);
    c->lists.order = c->arrays[5] = gpu_copy(c->arrays[2], s.order * 4);
    c->call.lists = &c->lists;
    tally_up();
}

int contest_launch(struct contest *b, struct contender *c, struct err *e)
{
    if (c->kernel) return c->kernel->run(&c->call, c->kernel->variant, e);
#ifdef DITGEN_CUDNN
    return attn_cudnn_run(b->cudnn, &c->call, b->workspace, e);
#else
    (void)b;
    return err_set(e, ERR_BUG, "built without cuDNN");
#endif
}

/* One row of tiles of every head against the judge. */
void contest_check(struct contest *b, struct contender *c)
{
    struct err e = {0};
    const struct contest_size *s = &b->size;
    size_t row = (size_t)s->heads * (size_t)s->dim, n = (size_t)s->len * row;
    int block = c->call.lists ? c->host.block_q : JUDGE_DENSE;
    int tile = (s->len - 1) / block * 2 / 3;
    bool dense = !c->call.lists;
    float *want = dense && b->dense_want ? b->dense_want : host_new(n * 4);
    uint16_t *got = host_new((size_t)block * row * 2);
    struct attn_plan every = {.n_heads = s->heads, .all = true};
    CHECK_OK(attn_blocks_equal(&every.q, s->len, JUDGE_DENSE, &e));
    CHECK_OK(attn_blocks_equal(&every.k, s->len, JUDGE_DENSE, &e));
    struct attn_job judge = judged(&b->host, dense ? &every : c->plan);
    GPU(cudaMemset(b->o, 0xff, n * 2));
    CHECK_OK(contest_launch(b, c, &e));
    GPU(cudaDeviceSynchronize());
    if (want != b->dense_want)
        CHECK_OK(attn_judge(&judge, &(struct attn_judge){.o = want, .only_row = tile}, &e));
    size_t from = (size_t)(tile * block) * row, all = (size_t)block * row;
    if (all > n - from) all = n - from;
    gpu_read(got, (char *)b->o + from * 2, all * 2);
    double off = 0, sum = 0;
    for (size_t i = 0; i < all; i++) {
        off += fabs((double)bf16_to_f32(got[i]) - (double)want[from + i]);
        sum += fabs((double)want[from + i]);
    }
    c->off = off / sum;
    CHECK_MSG(c->off <= .0035 && c->off > 1e-4, /* rounding o alone costs more than that */
              "%s, %d tokens, %s density %.2f: relative L1 %.3g against the judge", c->name, s->len,
              pattern_names[c->pattern], c->asked, c->off);
    if (dense)
        b->dense_want = want;
    else
        free(want);
    free(got);
    tally_up();
}

/* All contenders once, in another order each round. Returns the time spent, ms. */
static double one_round(struct contest *b, struct test_rng *r, struct card *card, bool keep)
{
    struct err e = {0};
    int order[MOST_CONTENDERS];
    double spent = 0;
    bench_shuffle(order, b->n, r);
    for (int i = 0; i < b->n; i++) {
        struct contender *c = &b->c[order[i]];
        float ms = 0;
        gpu_pause(HEAD_START_US); /* so that the card never waits for the host between events */
        GPU(cudaEventRecord(b->from, NULL));
        CHECK_OK(contest_launch(b, c, &e));
        GPU(cudaEventRecord(b->to, NULL));
        card_now(card, keep ? order[i] : -1);
        GPU(cudaEventSynchronize(b->to));
        card_now(card, -1);
        GPU(cudaEventElapsedTime(&ms, b->from, b->to));
        spent += (double)ms;
        if (keep) c->ms[b->rounds] = (double)ms;
    }
    b->rounds += keep;
    return spent;
}

/* Until four rounds take as long as the four before to one percent: clocks and heat settled. */
static void warm_up(struct contest *b, struct test_rng *r, double seconds)
{
    double last = 0, now = 0, spent = 0;
    for (int i = 1; spent < 3000 * seconds; i++) {
        double ms = one_round(b, r, NULL, false);
        now += ms;
        spent += ms;
        if (i % 4) continue;
        if (spent >= 1000 * seconds && fabs(now - last) < .01 * now) break;
        last = now;
        now = 0;
    }
    b->warm_s = spent / 1000;
}

void contest_measure(struct contest *b, double seconds, double warm)
{
    struct test_rng r = {3};
    double spent = 0;
    GPU(cudaEventCreate(&b->from));
    GPU(cudaEventCreate(&b->to));
    warm_up(b, &r, warm);
    struct card *card = card_open(b->n);
    while (b->rounds < MOST_ROUNDS && (b->rounds < 7 || spent < 1000 * seconds))
        spent += one_round(b, &r, card, true);
    for (int i = 0; i < b->n; i++) {
        struct contender *c = &b->c[i];
        double sorted[MOST_ROUNDS];
        memcpy(sorted, c->ms, (size_t)b->rounds * sizeof *sorted);
        qsort(sorted, (size_t)b->rounds, sizeof *sorted, bench_ascending);
        c->median = sorted[b->rounds / 2];
        c->fastest = sorted[0];
        c->slowest = sorted[b->rounds - 1];
        c->tenth = sorted[b->rounds / 10];
        c->quarter[0] = sorted[b->rounds / 4];
        c->quarter[1] = sorted[b->rounds * 3 / 4];
        card_load(card, i, &c->mhz, &c->watt);
    }
    card_close(card);
    GPU(cudaEventDestroy(b->from));
    GPU(cudaEventDestroy(b->to));
    tally_up();
}

const struct contender *contest_dense(const struct contest *b, bool cudnn)
{
    const struct contender *best = NULL;
    for (int i = 0; i < b->n; i++)
        if (b->c[i].pattern == DENSE && (!cudnn || !b->c[i].kernel) &&
            (!best || b->c[i].median < best->median))
            best = &b->c[i];
    return best;
}

void contest_close(struct contest *b)
{
    for (int i = 0; i < b->n; i++)
        for (int x = 0; x < 6; x++) {
            if (x < 3)
                free(b->c[i].arrays[x]);
            else
                GPU(cudaFree(b->c[i].arrays[x]));
        }
    for (int i = 0; i < b->n; i++) {
        free(b->c[i].arrays[6]);
        free(b->c[i].plan);
    }
#ifdef DITGEN_CUDNN
    attn_cudnn_close(b->cudnn);
    GPU(cudaFree(b->workspace));
#endif
    free(b->dense_want);
    for (int i = 0; i < 3; i++)
        free(b->data[i]);
    GPU(cudaFree(b->call.q.at));
    GPU(cudaFree(b->call.k.at));
    GPU(cudaFree(b->call.v.at));
    GPU(cudaFree(b->call.scratch));
    GPU(cudaFree(b->o));
    free(b);
}

void contest_add_dense(struct contest *b)
{
#ifdef DITGEN_CUDNN
    struct err e = {0};
    if (attn_cudnn_open(&b->cudnn, &b->call, NULL, &e) == 0) {
        char name[32];
        b->workspace = gpu_new(attn_cudnn_workspace(b->cudnn));
        snprintf(name, sizeof name, "cudnn %d", attn_cudnn_version(b->cudnn));
        add(b, name, NULL);
    } else {
        printf("no cuDNN row: %s\n", e.msg);
    }
#endif
    for (int i = 0; i < kernels_under_test(); i++)
        if (kernel_takes(kernel_under_test(i), &b->call) &&
            (kernel_under_test(i)->row != ATTN_SM80 || b->size.len <= 8192))
            add(b, kernel_under_test(i)->name, kernel_under_test(i));
}

struct contest *contest_open(const struct contest_size *s)
{
    struct contest *b = host_new(sizeof *b);
    size_t bytes = (size_t)s->len * (size_t)s->heads * (size_t)s->dim * 2;
    struct attn_tensor t[4];
    b->size = *s;
    b->flop = 4.0 * s->heads * s->dim * (double)s->len * s->len;
    for (int i = 0; i < 3; i++) {
        b->data[i] = bench_numbers(bytes / 2, (uint64_t)i + 1);
        t[i] =
            (struct attn_tensor){gpu_copy(b->data[i], bytes), (int64_t)s->heads * s->dim, s->dim};
    }
    b->o = gpu_new(bytes);
    t[3] = (struct attn_tensor){b->o, t[0].token, t[0].head};
    b->call = (struct attn_cuda){.q = t[0],
                                 .k = t[1],
                                 .v = t[2],
                                 .o = t[3],
                                 .len_q = s->len,
                                 .len_k = s->len,
                                 .n_heads = s->heads,
                                 .head_dim = s->dim,
                                 .scratch = gpu_new(attn_cuda_scratch())};
    b->host = b->call;
    b->host.q.at = b->data[0];
    b->host.k.at = b->data[1];
    b->host.v.at = b->data[2];
    return b;
}
