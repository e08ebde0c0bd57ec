/* Attention of the room on this machine's GPU, by its own table: pick, put, run, against sums in double.
 *
 *   check_plans [PROBLEMS [SEED [WHICH]]]     (60, 1, all)
 *
 * WHICH: every; best, which is whatever matrix units take in bf16; a kernel's name (sm90, sm80, tf32); or all, every, tf32 and best.
 *
 * The problems, the answers and the tolerances are those of the host's kernels (tests/kernels): every field
 * of a plan and a job, ragged sizes, blocks of one token and of none, outputs poisoned. Each run is done twice
 * for the same bytes, the second time from a recording; memory around what is written is looked at. */
#include "attention/device.h"
#include "tests/kernels/attention_checks.h"

#define EDGE 256 /* bytes before and after each piece of the device's memory */

static struct device *device;
static const char *only; /* kernel asked for, or NULL */
static const struct attn_device_kernel *picked;
static char said[512]; /* of a pick that was refused */
static long launches;

/* --- memory of the device, with edges --- */

struct piece {
    char *base;
    size_t bytes;
};
static struct piece pieces[24];
static int n_pieces;

static void *piece_new(size_t bytes, const void *from)
{
    struct err e = {0};
    void *base = NULL;
    char *dirty = must(malloc(bytes + 2 * EDGE));
    memset(dirty, 0xff, bytes + 2 * EDGE);
    if (from && bytes) memcpy(dirty + EDGE, from, bytes);
    CHECK_OK(device_alloc(device, &base, bytes + 2 * EDGE, &e));
    if (!base) exit(5);
    CHECK_OK(device_upload(device, base, dirty, bytes + 2 * EDGE, &e));
    free(dirty);
    pieces[n_pieces++] = (struct piece){base, bytes};
    return (char *)base + EDGE;
}

static void pieces_free(const char *what)
{
    struct err e = {0};
    int touched = 0;
    for (int i = 0; i < n_pieces; i++) {
        unsigned char edges[2 * EDGE];
        CHECK_OK(device_download(device, edges, pieces[i].base, EDGE, &e));
        CHECK_OK(device_download(device, edges + EDGE, pieces[i].base + EDGE + pieces[i].bytes,
                                 EDGE, &e));
        for (int k = 0; k < 2 * EDGE; k++)
            touched += edges[k] != 0xff;
        device_free(device, pieces[i].base);
    }
    n_pieces = 0;
    CHECK_MSG(!touched, "%s wrote %d bytes outside its memory", what, touched);
}

/* --- a job of the host on the device --- */

static uint16_t *narrowed(const float *x, size_t n)
{
    uint16_t *y = must(malloc(n * sizeof *y + 1));
    for (size_t i = 0; i < n; i++)
        y[i] = f32_to_bf16(x[i]);
    return y;
}

/* The same tensor there: bf16 where numbers are. */
static struct heads up(const struct heads *h, bool bf16)
{
    struct heads t = *h;
    size_t n = heads_count(h);
    if (!h->at) return t;
    t.where = device_place(device);
    if (h->type == DTYPE_BF16 || !bf16) {
        t.at = piece_new(n * dtype_size(h->type), h->at);
        return t;
    }
    uint16_t *narrow = narrowed(h->at, n);
    t.type = DTYPE_BF16;
    t.at = piece_new(n * sizeof *narrow, narrow);
    free(narrow);
    return t;
}

static void down(const struct heads *to, const struct heads *from)
{
    struct err e = {0};
    size_t n = heads_count(to);
    if (to->type == from->type) {
        CHECK_OK(device_download(device, to->at, from->at, n * dtype_size(to->type), &e));
        return;
    }
    uint16_t *narrow = must(malloc(n * sizeof *narrow));
    CHECK_OK(device_download(device, narrow, from->at, n * sizeof *narrow, &e));
    for (size_t i = 0; i < n; i++)
        ((float *)to->at)[i] = bf16_to_f32(narrow[i]);
    free(narrow);
}

static int most_columns(const struct attn_plan *p)
{
    uint32_t most = 0;
    for (size_t r = 0; p->column_ptr && r < (size_t)attn_plans(p) * (size_t)p->q.n; r++)
        if (p->column_ptr[r + 1] - p->column_ptr[r] > most)
            most = p->column_ptr[r + 1] - p->column_ptr[r];
    return (int)most;
}

static struct attn_size size_of(const struct attn_job *j)
{
    struct attn_size s = *j->size;
    s.needs = attn_job_needs(j);
    s.columns = most_columns(j->plan);
    s.block_q = j->plan->q.size, s.block_k = j->plan->k.size;
    return s;
}

/* Launched once, or written down and replayed: the same bytes. */
static void launch(const struct attn_job *j, const void *at)
{
    static int turn;
    struct err e = {0};
    struct device_steps *steps = NULL;
    bool record = turn++ % 2 && device_can_record(device);
    launches++;
    if (record) CHECK_OK(device_record(device, &e));
    CHECK_OK(picked->run(device, j, at, &e));
    if (record) {
        CHECK_OK(device_recorded(device, &steps, &e));
        CHECK_OK(device_replay(device, steps, &e));
    }
    CHECK_OK(device_wait(device, &e));
    if (steps) device_steps_close(device, steps);
}

/* Plans that say no more than dense: nothing is put (attention/device.h). */
static bool is_dense(const struct attn_plan *p)
{
    return p->all && !p->q_order.token && !p->k_order.token && p->q.size && p->k.size &&
           p->rule == ATTN_COMPUTE && p->sol_tau == 0;
}

static void run(const struct attn_job *host)
{
    struct attn_job j = *host;
    struct attn_plan plan = *host->plan;
    struct attn_size s = size_of(host);
    struct err e = {0};
    bool bf16 = s.precision != PRECISION_FP32;
    if (bf16) s.needs |= ATTN_NEED_BF16;
    size_t tiles = (size_t)s.n_heads * (size_t)plan.q.n;
    size_t parts[] = {(size_t)s.n_heads * (size_t)s.len_q, tiles * (size_t)plan.k.n,
                      tiles * (size_t)attn_words(plan.k.n)};
    plan.where = device_place(device);
    j.plan = &plan;
    j.size = &s;
    j.q = up(&host->q, bf16), j.k = up(&host->k, bf16), j.v = up(&host->v, bf16);
    j.o = up(&host->o, bf16), j.residual = up(&host->residual, false);
    j.k_mean = up(&host->k_mean, bf16), j.v_mean = up(&host->v_mean, bf16);
    j.v_sum = up(&host->v_sum, bf16);
    if (plan.key_bias)
        plan.key_bias = piece_new((size_t)plan.k.len * sizeof(float), host->plan->key_bias);
    if (host->lse) j.lse = piece_new(parts[0] * 4, host->lse);
    if (host->mass) j.mass = piece_new(parts[1] * 4, host->mass);
    if (host->alive) j.alive = piece_new(parts[2] * 4, host->alive);
    j.scratch = piece_new(picked->scratch(&s), NULL);
    void *at = NULL;
    if (!is_dense(host->plan) && picked->put) {
        at = piece_new(picked->plan_bytes(&s, plan.n_heads, attn_plans(&plan)), NULL);
        CHECK_OK(picked->put(device, at, host->plan, &s, &e));
    }
    launch(&j, at);
    if (host->o.at) down(&host->o, &j.o);
    if (host->residual.at) down(&host->residual, &j.residual);
    if (host->lse) CHECK_OK(device_download(device, host->lse, j.lse, parts[0] * 4, &e));
    if (host->mass) CHECK_OK(device_download(device, host->mass, j.mass, parts[1] * 4, &e));
    if (host->alive) CHECK_OK(device_download(device, host->alive, j.alive, parts[2] * 4, &e));
    pieces_free(picked->name);
}

static bool fits(const struct attn_size *s)
{
    (void)s;
    return true;
}
static size_t scratch(const struct attn_size *s)
{
    (void)s;
    return 64;
}

/* The device in the clothes of a kernel of the host, which attention_checks.h asks. */
static struct attn_kernel as_kernel(const char *name, bool narrow)
{
    return (struct attn_kernel){
        .name = name,
        .needs = narrow ? CPU_AVX512_BF16 : CPU_AVX2, /* whose tolerances: bf16 weights, or fp32 */
        .can = ~0u,
        .fits = fits,
        .scratch = scratch,
        .run = run,
    };
}

/* --- problems --- */

/* Whether some row, or the one asked for, takes it; it is `picked` then. */
static bool pick(struct problem *x)
{
    static float nothing[1];
    static uint32_t no_bits[1];
    struct attn_plan plan;
    struct err e = {0};
    struct output none = {
        .o = nothing, .residual = nothing, .lse = nothing, .mass = nothing, .alive = no_bits};
    struct attn_job j = problem_job(x, &plan, &none);
    struct attn_size s = size_of(&j);
    if (s.precision != PRECISION_FP32) s.needs |= ATTN_NEED_BF16;
    picked = attn_device_of(device)->pick(device, &s, only, &e);
    if (picked) return true;
    snprintf(said, sizeof said, "%s", e.msg);
    return false;
}

/* What matrix units take: heads of 64 or 128, tiles of 128 or 64 or what goes by runs, residuals of bf16, nothing
 * that `every` alone does. */
static struct problem regular(struct test_rng *r, enum precision precision)
{
    static const int cuts[][2] = {{128, 128}, {128, 128}, {64, 64}, {128, 64}, {64, 128}, {0, 0}};
    for (;;) {
        memcpy(problem_cut, cuts[rng_int(r, 0, (int)ARRAY_LEN(cuts) - 1)], sizeof problem_cut);
        struct problem x = problem_random(r, precision);
        memset(problem_cut, 0, sizeof problem_cut);
        bool dim = x.size.head_dim == 64 || x.size.head_dim == 128;
        bool residual = x.plan.rule == ATTN_COMPUTE || x.residual.type == DTYPE_BF16;
        bool columns = x.plan.column_ptr && (x.plan.mean || rng_int(r, 0, 2));
        x.accumulate = x.mass = false;
        if (rng_int(r, 0, 1)) x.alive = false;
        if (x.density > 1) x.density = 1; /* every tile by a list: not the bytes of dense kernels */
        if (dim && residual && !columns) return x;
        problem_free(&x);
    }
}

static bool units(const char *kernel)
{
    return strcmp(kernel, "every") != 0 && strcmp(kernel, "simt") != 0 &&
           strcmp(kernel, "tf32") != 0;
}

static struct {
    const char *name;
    int times;
} counted[8];
static int n_counted;

static void count(const char *name)
{
    int i = 0;
    while (i < n_counted && strcmp(counted[i].name, name) != 0)
        i++;
    if (i == n_counted) counted[n_counted++].name = name, counted[i].times = 0;
    counted[i].times++;
}

static void all_of(struct test_rng *r, enum precision precision, int problems, const char *name,
                   bool fast)
{
    int before = checks_done, n = 0, left_out = 0;
    problem_worst = 0;
    while (n < problems && left_out < 200 * problems) {
        struct problem x = fast ? regular(r, precision) : problem_random(r, precision);
        if (pick(&x) && (only || units(picked->name))) {
            count(picked->name);
            struct attn_kernel k = as_kernel(picked->name, units(picked->name));
            problem_check(&x, &k);
            n++;
        } else {
            left_out++;
        }
        problem_free(&x);
    }
    CHECK_MSG(n == problems, "%s: %d of %d problems: %s", name, n, problems, said);
    for (int i = 0; i < n_counted; i++)
        printf("%s %d, ", counted[i].name, counted[i].times);
    n_counted = 0;
    printf("%s, %s: %d cases, %d checks, worst difference %.2f of the tolerance\n", name,
           precision_name(precision), n, checks_done - before, problem_worst);
    fflush(stdout);
}

/* The kernel's own choices, against the judge's: one of the two at a time, and both. */
static void chosen(struct test_rng *r, int problems)
{
    int n = 0, unclear = 0;
    problem_worst = 0;
    for (int i = 0; i < problems; i++) {
        struct problem x = problem_random(r, i % 2 ? PRECISION_FP32 : PRECISION_BF16);
        struct attn_plan *p = &x.plan;
        bool sol = i % 3 != 0, skip = i % 3 != 1;
        size_t tiles = (size_t)x.size.n_heads * (size_t)p->q.n * (size_t)p->k.n;
        if (p->all || p->rule == ATTN_MAKE_RESIDUAL || x.logits == LOGITS_HUGE) {
            problem_free(&x);
            continue;
        }
        if (sol) { /* alone, forced apart */
            p->kept = p->dead = p->mean = NULL;
            p->column_ptr = NULL;
            p->sol_tau = rng_int(r, 0, 1) ? .3f : -.2f;
            x.plan.may_be_empty = true;
        }
        if (skip) p->skip_log2 = -2;
        x.density = 0;
        x.mass = x.accumulate = x.alive = false;
        if (p->rule != ATTN_COMPUTE) p->rule = ATTN_COMPUTE;
        for (size_t c = 0; c < heads_count(&x.k_mean);
             c++) /* of empty blocks too: all are looked at */
            if (isnan(((float *)x.k_mean.at)[c])) ((float *)x.k_mean.at)[c] = .25f;
        struct attn_plan plan = x.plan;
        if (plan.heads) plan.heads = x.heads;
        float *want = must(malloc(heads_count(&x.o) * 4)),
              *got = must(malloc(heads_count(&x.o) * 4)), *margin = must(malloc(tiles * 4)),
              *lse = must(malloc(sizeof *lse * 3 * MAX_LEN)),
              *lse_got = must(malloc(sizeof *lse * 3 * MAX_LEN));
        struct attn_job j = {
            .q = x.q, .k = x.k, .v = x.v, .o = x.o, .plan = &plan, .lse = lse, .size = &x.size};
        j.o.at = want;
        if (plan.mean || sol) j.k_mean = x.k_mean;
        if (plan.mean) j.v_mean = x.v_mean;
        if (sol) j.v_sum = x.v_mean;
        for (size_t c = 0; c < heads_count(&x.o); c++)
            want[c] = got[c] = NAN;
        struct attn_judge out = {.margin = margin, .only_row = -1};
        struct err e = {0};
        CHECK_OK(attn_judge(&j, &out, &e));
        bool clear = true; /* no tile so near the bound that rounding decides */
        for (size_t t = 0; skip && t < tiles; t++)
            clear = clear && !(fabs((double)margin[t] + 2) < 1e-3);
        struct attn_size s = size_of(&j);
        if (s.precision != PRECISION_FP32) s.needs |= ATTN_NEED_BF16;
        picked = attn_device_of(device)->pick(device, &s, only, &e);
        if (!clear || !picked) {
            unclear++;
        } else {
            j.o.at = got, j.lse = lse_got;
            run(&j);
            double worst = 0, bf16 = s.precision != PRECISION_FP32 ? 0x1p-7 : 0;
            for (int t = 0; t < s.len_q; t++)
                for (int h = 0; h < plan.n_heads; h++)
                    for (int c = 0; c < s.head_dim; c++) {
                        size_t at = (size_t)t * (size_t)x.o.token +
                                    (size_t)(attn_head(&plan, h) * s.head_dim + c);
                        double a = (double)want[at], b = (double)got[at];
                        double room = (bf16 + 1e-5) * fmax(fabs(a), fabs(b)) + 1e-4;
                        if (!(fabs(a - b) / room <= worst)) worst = fabs(a - b) / room;
                    }
            if (!(worst <= problem_worst)) problem_worst = worst;
            CHECK_MSG(worst <= 1, "%s, %s%s: off by %.3g x the tolerance: %s", picked->name,
                      sol ? "sol " : "", skip ? "skip" : "", worst, x.what);
            n++;
        }
        free(want), free(got), free(margin), free(lse), free(lse_got);
        problem_free(&x);
    }
    printf(
        "tiles chosen by the kernel: %d cases, %d too near a bound, worst %.2f of the tolerance\n",
        n, unclear, problem_worst);
}

/* Heads that are left out and copied; a bf16 slot, a repeated row. */
static void filled(struct test_rng *r)
{
    for (int i = 0; i < 12; i++) {
        struct err e = {0};
        uint8_t heads[3] = {2, 0, 1};
        int len = rng_int(r, 1, 200), dim = rng_int(r, 1, 130);
        bool copy = i % 2, narrow_from = i & 2, narrow_to = i & 4, repeat = i % 3 == 1;
        struct heads from = random_heads(r, len, 3, dim, 8, 1, narrow_from),
                     o = random_heads(r, len, 3, dim, 0, 1, narrow_to);
        struct attn_size s = {.len_q = len,
                              .len_k = len,
                              .n_heads = 3,
                              .head_dim = dim,
                              .precision = PRECISION_FP32,
                              .needs = ATTN_NEED_HEADS | ATTN_NEED_ZERO | ATTN_NEED_COPY};
        struct attn_plan plan = {.heads = heads,
                                 .n_heads = 2,
                                 .all = true,
                                 .rule = copy ? ATTN_COPY : ATTN_ZERO,
                                 .where = device_place(device)};
        CHECK_OK(attn_blocks_equal(&plan.q, len, len, &e));
        CHECK_OK(attn_blocks_equal(&plan.k, len, len, &e));
        picked = attn_device_of(device)->pick(device, &s, only, &e);
        if (!picked) continue;
        float *got = must(malloc(heads_count(&o) * 4));
        struct heads to = o;
        struct attn_job j = {.o = up(&o, narrow_to), .plan = &plan, .size = &s};
        to.at = got;
        if (copy) j.residual = up(&from, narrow_from);
        if (repeat) j.residual.token = 0;
        CHECK_OK(picked->run(device, &j, NULL, &e));
        down(&to, &j.o);
        int wrong = 0;
        for (int t = 0; t < len; t++)
            for (int h = 0; h < 3; h++)
                for (int c = 0; c < dim; c++) {
                    size_t at = (size_t)(t * 3 + h) * (size_t)dim + (size_t)c;
                    const float *x = heads_at(&from, repeat ? 0 : t, h);
                    float want = h == 1 ? ((float *)o.at)[at] : copy ? x[c] : 0;
                    if (h != 1 && narrow_to) want = bf16_round(want);
                    wrong += got[at] != want;
                }
        CHECK_MSG(!wrong, "%s: %d numbers of heads that are %s", picked->name, wrong,
                  copy ? "copied" : "left out");
        pieces_free(picked->name);
        free(from.at), free(o.at), free(got);
    }
}

int main(int argc, char **argv)
{
    struct err e = {0};
    int problems = argc > 1 ? atoi(argv[1]) : 60;
    struct test_rng r = {argc > 2 ? (uint64_t)atoi(argv[2]) : 1};
    const char *name = argc > 3 ? argv[3] : "all";
    const char *on = getenv("DITGEN_TEST_DEVICE");
    if (device_open(&device, on ? on : "cuda", &e) < 0) {
        fprintf(stderr, "%s\n", e.msg);
        return (int)e.code;
    }
    static const enum precision precisions[] = {PRECISION_FP32, PRECISION_BF16};
    bool every = strcmp(name, "every") == 0, all = strcmp(name, "all") == 0;
    only = "every";
    for (int i = 0; (every || all) && i < 2; i++)
        all_of(&r, precisions[i], problems, "every", false);
    if (every || all) {
        chosen(&r, problems);
        filled(&r);
    }
    bool fp32 = strcmp(name, "tf32") == 0;
    only = "tf32";
    if (fp32 || all) all_of(&r, PRECISION_FP32, problems, only, true);
    only = all || strcmp(name, "best") == 0 ? NULL : name;
    if (!every && !fp32) all_of(&r, PRECISION_BF16, 2 * problems, name, true);
    device_close(device);
    printf("%ld launches, %d checks, %d failed\n", launches, checks_done, checks_failed);
    return checks_failed ? 1 : 0;
}
