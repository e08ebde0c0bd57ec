/* The loop: order of questions, guidance, cancelling, failures, and no allocation inside. */
#include "model/base/dtype.h"
#include "sched/sched.h"
#include "tests/check.h"

static size_t allocations;
/* Counts calls where malloc may be replaced: glibc, and not under a sanitizer that does so itself.
 */
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)
#define COUNTS_ALLOCATIONS 1
void *__libc_malloc(size_t size);
void *malloc(size_t size)
{
    allocations++;
    return __libc_malloc(size);
}
#else
#define COUNTS_ALLOCATIONS 0
#endif

enum { N = 37 };

struct fake {
    int calls, last_step, branches, fail_at, nan_at, steps_seen, cancel_after;
    const struct schedule *schedule;
    float target[2]; /* x0 that a branch predicts everywhere */
    float boundary; /* of two experts; 0: one */
    const float *frame_noise; /* [2], or NULL */
};

static int fake_velocity(void *ctx, const struct denoise_ask *a, struct err *e)
{
    struct fake *f = ctx;
    CHECK(a->step == f->last_step + 1 && a->num_steps == f->schedule->num_steps);
    CHECK(a->timestep == f->schedule->timestep[a->step]);
    CHECK(a->sigma == f->schedule->sigma[a->step]);
    CHECK(a->expert == (a->timestep < f->boundary));
    CHECK((a->frame_timesteps != NULL) == (f->frame_noise != NULL));
    if (f->frame_noise) {
        CHECK(a->n_frames == 2 && a->frame_timesteps[0] == 0);
        CHECK(a->frame_timesteps[1] == a->timestep);
    }
    f->last_step = a->step;
    f->branches += a->n_branches;
    if (f->calls++ == f->fail_at) return err_set(e, ERR_DEVICE, "the model broke");
    for (int b = 0; b < a->n_branches; b++)
        for (int i = 0; i < N; i++)
            a->velocity[b][i] = (a->latents[i] - f->target[b]) / a->sigma;
    CHECK(a->n_branches == 2 || !a->velocity[1]);
    if (f->calls - 1 == f->nan_at) a->velocity[a->n_branches - 1][N - 1] = NAN;
    return 0;
}

static int fake_after(void *ctx, int step, int num_steps, const float *latents)
{
    struct fake *f = ctx;
    CHECK(step == f->steps_seen && num_steps == f->schedule->num_steps && latents != NULL);
    f->steps_seen++;
    return f->steps_seen == f->cancel_after;
}

static int run_two(const struct solver *s, float scale, float low_scale, struct fake *f, float *x,
                   struct err *e)
{
    static struct schedule schedule;
    struct noise_rng r;
    bool guided = scale > 1 || low_scale > 1;
    size_t bytes = denoise_bytes(s, N, guided);
    char *scratch = malloc(bytes + 3);
    CHECK(s->schedule(&schedule, 6, 3, COMPAT_DIFFUSERS_037, e) == 0);
    f->schedule = &schedule;
    f->last_step = -1;
    noise_seed(&r, 1);
    noise_randn(&r, x, N);
    memset(scratch, 0xff, bytes + 3);
    struct denoise_params p = {
        .solver = s,
        .schedule = &schedule,
        .guidance_scale = {scale, low_scale},
        .boundary = f->boundary,
        .frame_noise = f->frame_noise,
        .n_frames = f->frame_noise ? 2 : 0,
        .n = N,
        .after_step = fake_after,
        .ctx = f,
    };
    struct denoise_model m = {.ctx = f, .velocity = fake_velocity};
    size_t before = allocations;
    int rc = denoise(x, &p, &m, scratch + 3, e); /* any alignment */
    CHECK(allocations == before);
    free(scratch);
    return rc;
}

static int run(const struct solver *s, float scale, struct fake *f, float *x, struct err *e)
{
    return run_two(s, scale, scale, f, x, e);
}

static void loops(void)
{
    struct err e;
    float x[N];
    for (int i = 0; i < solver_count(); i++) {
        const struct solver *s = solver_at(i);
        /* a model that always names the same x0 is followed there */
        struct fake f = {.fail_at = -1, .nan_at = -1, .target = {0.5f, -3}};
        CHECK_OK(run(s, 1, &f, x, &e));
        CHECK(f.calls == 6 && f.branches == 6 && f.steps_seen == 6);
        for (int k = 0; k < N; k++)
            CHECK_MSG(fabsf(x[k] - 0.5f) < 1e-4f, "%s: %g", s->name, (double)x[k]);
        /* negative + 4 * (conditional - negative), also in x0 */
        f = (struct fake){.fail_at = -1, .nan_at = -1, .target = {0.5f, 0.25f}};
        CHECK_OK(run(s, 4, &f, x, &e));
        CHECK(f.calls == 6 && f.branches == 12);
        for (int k = 0; k < N; k++)
            CHECK_MSG(fabsf(x[k] - 1.25f) < 1e-4f, "%s: %g", s->name, (double)x[k]);
        f = (struct fake){.fail_at = 3, .nan_at = -1};
        CHECK(run(s, 4, &f, x, &e) < 0 && e.code == ERR_DEVICE);
        CHECK(f.calls == 4 && f.steps_seen == 3);
        f = (struct fake){.fail_at = -1, .nan_at = 3};
        CHECK(run(s, 1, &f, x, &e) < 0 && e.code == ERR_INPUT);
        CHECK(strstr(e.msg, "step 4 of 6") != NULL);
        f = (struct fake){.fail_at = -1, .nan_at = -1, .cancel_after = 2};
        CHECK(run(s, 1, &f, x, &e) < 0 && e.code == ERR_CANCELLED);
        CHECK(f.steps_seen == 2 && f.calls == 2);
    }
}

/* Two experts with scales of their own: each answers its own steps, and a scale of 1 asks one
 * branch only. A given frame stands at timestep 0. */
static void experts(void)
{
    static const float noise[2] = {0, 1};
    const struct solver *s = solver_find("euler");
    struct err e;
    float x[N];
    struct fake f = {.fail_at = -1, .nan_at = -1, .boundary = 800, .frame_noise = noise};
    CHECK_OK(run_two(s, 1, 4, &f, x, &e));
    int low = 0;
    for (int i = 0; i < 6; i++)
        low += f.schedule->timestep[i] < 800;
    CHECK(low > 0 && low < 6 && f.calls == 6 && f.branches == 6 + low);
    f = (struct fake){.fail_at = -1, .nan_at = -1}; /* one expert: the second's scale is unused */
    CHECK_OK(run_two(s, 1, 4, &f, x, &e));
    CHECK(f.branches == 6);
}

/* A place that answers a step late, as a device does that is never waited for. */
struct late {
    int sent, here, waits, traced;
    bool sound; /* the latents that trace got */
    struct fake f;
};

static int late_run(void *ctx, float *const *x, const struct lincomb *l, size_t n, bool bf16,
                    struct err *e)
{
    (void)ctx;
    return lincomb_host.run(NULL, x, l, n, bf16, e);
}

static int late_note(void *ctx, const float *x, size_t n, int label, struct err *e)
{
    struct late *p = ctx;
    int first;
    p->here = p->sent; /* what was sent before is here by now */
    CHECK(lincomb_host.finite(NULL, x, n, label, &first, e) == 0);
    if (first && !p->sent) p->sent = first;
    return 0;
}

static int late_finite(void *ctx, const float *x, size_t n, int label, int *first, struct err *e)
{
    struct late *p = ctx;
    p->waits++;
    CHECK(late_note(p, x, n, label, e) == 0);
    *first = p->sent;
    p->sent = p->here = 0; /* it forgets */
    return 0;
}

static int late_noted(void *ctx) { return ((struct late *)ctx)->here; }

static int late_velocity(void *ctx, const struct denoise_ask *a, struct err *e)
{
    return fake_velocity(&((struct late *)ctx)->f, a, e);
}

static int late_trace(void *ctx, const struct denoise_ask *a, struct err *e)
{
    struct late *p = ctx;
    p->traced = a->step + 1;
    p->sound = true;
    for (int i = 0; i < N; i++)
        p->sound = p->sound && isfinite((double)a->latents[i]);
    return err_set(e, ERR_INPUT, "block 7");
}

/* Every step is looked at, though only the first and the last are waited for; what is found a step late is asked again
 * as it was. */
static void late(void)
{
    const struct solver *s = solver_find("euler");
    struct schedule schedule;
    struct err e;
    size_t bytes = denoise_bytes(s, N, true);
    void *scratch = malloc(bytes);
    float x[N], before[2][N];
    CHECK(s->schedule(&schedule, 6, 3, COMPAT_DIFFUSERS_037, &e) == 0);
    for (int bad = -1; bad < 6; bad++)
        for (int kept = 0; kept < 2; kept++) {
            struct late p = {
                .f = {.fail_at = -1, .nan_at = bad, .last_step = -1, .schedule = &schedule}};
            struct lincomb_place place = {.ctx = &p,
                                          .run = late_run,
                                          .waits = true,
                                          .finite = late_finite,
                                          .note = late_note,
                                          .noted = late_noted};
            struct denoise_params params = {.solver = s,
                                            .schedule = &schedule,
                                            .guidance_scale = {4},
                                            .n = N,
                                            .place = &place,
                                            .ctx = &p};
            struct denoise_model m = {.ctx = &p, .velocity = late_velocity, .trace = late_trace};
            char step[32];
            if (kept) params.before[0] = before[0], params.before[1] = before[1];
            for (int i = 0; i < N; i++)
                x[i] = (float)i;
            e = (struct err){0};
            int rc = denoise(x, &params, &m, scratch, &e);
            CHECK((rc == 0) == (bad < 0) && p.waits <= 4);
            if (bad < 0) continue;
            snprintf(step, sizeof step, "step %d of 6", bad + 1);
            CHECK_MSG(e.code == ERR_INPUT && strstr(e.msg, step), "%s: %s", step, e.msg);
            CHECK(p.f.calls <= bad + 2); /* no more than a step for nothing */
            bool asked = kept || bad == 0 || bad == 5; /* waited for at once */
            CHECK((p.traced == bad + 1) == asked && (strstr(e.msg, "block 7") != NULL) == asked);
            CHECK(!asked || p.sound);
        }
    free(scratch);
}

/* velocity of one element by guidance */
static float guided(float velocity, float negative, float scale, bool bf16)
{
    struct lincomb sums[2];
    struct err e;
    float latents = 0, *x[] = {&latents, &velocity, &negative};
    guidance_sums(sums, scale);
    for (int i = 0; i < 2; i++)
        CHECK_OK(lincomb_host.run(NULL, x, &sums[i], 1, bf16, &e));
    return velocity;
}

static void guidance(void)
{
    float c[3] = {1, 0.10009765625f, -3}, u[3] = {0.5f, 0.0999755859375f, -3};
    CHECK(guided(c[0], u[0], 5, false) == 3 && guided(c[2], u[2], 5, false) == -3);
    CHECK(guided(c[1], u[1], 5, false) == u[1] + 5 * (c[1] - u[1]));
    struct test_rng r = {9};
    for (int i = 0; i < 1000; i++) {
        float a = bf16_round(rng_normal(&r)), b = bf16_round(rng_normal(&r));
        float x = guided(a, b, 4.3f, true);
        CHECK(x == bf16_round(x));
        CHECK(x == bf16_round(b + bf16_round(4.3f * bf16_round(a - b))));
        CHECK(fabsf(x - (b + 4.3f * (a - b))) <= 0.02f * (fabsf(b) + 4.3f * fabsf(a - b)));
    }
}

int main(void)
{
#if COUNTS_ALLOCATIONS
    size_t before = allocations;
    free(malloc(1));
    CHECK(allocations == before + 1);
#endif
    loops();
    experts();
    late();
    guidance();
    return TEST_RESULT();
}
