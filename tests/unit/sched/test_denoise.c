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
    int calls, last_step, last_branch, fail_at, nan_at, steps_seen, cancel_after;
    const struct schedule *schedule;
    float target[2]; /* x0 that a branch predicts everywhere */
};

static int fake_velocity(void *ctx, float *velocity, const float *latents, int step, int branch,
                         float timestep, struct err *e)
{
    struct fake *f = ctx;
    CHECK(timestep == f->schedule->timestep[step]);
    CHECK((branch == 0 && step == f->last_step + 1) || (branch == 1 && step == f->last_step));
    CHECK(branch == 0 || f->last_branch == 0);
    f->last_step = step;
    f->last_branch = branch;
    if (f->calls++ == f->fail_at) return err_set(e, ERR_DEVICE, "the model broke");
    for (int i = 0; i < N; i++)
        velocity[i] = (latents[i] - f->target[branch]) / f->schedule->sigma[step];
    if (f->calls - 1 == f->nan_at) velocity[N - 1] = NAN;
    return 0;
}

static int fake_after(void *ctx, int step, int num_steps, const float *latents)
{
    struct fake *f = ctx;
    CHECK(step == f->steps_seen && num_steps == f->schedule->num_steps && latents != NULL);
    f->steps_seen++;
    return f->steps_seen == f->cancel_after;
}

static int run(const struct solver *s, float scale, struct fake *f, float *x, struct err *e)
{
    static struct schedule schedule;
    struct noise_rng r;
    bool guided = scale > 1;
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
        .guidance_scale = scale,
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

static void loops(void)
{
    struct err e;
    float x[N];
    for (int i = 0; i < solver_count(); i++) {
        const struct solver *s = solver_at(i);
        /* a model that always names the same x0 is followed there */
        struct fake f = {.fail_at = -1, .nan_at = -1, .target = {0.5f, -3}};
        CHECK_OK(run(s, 1, &f, x, &e));
        CHECK(f.calls == 6 && f.steps_seen == 6);
        for (int k = 0; k < N; k++)
            CHECK_MSG(fabsf(x[k] - 0.5f) < 1e-4f, "%s: %g", s->name, (double)x[k]);
        /* negative + 4 * (conditional - negative), also in x0 */
        f = (struct fake){.fail_at = -1, .nan_at = -1, .target = {0.5f, 0.25f}};
        CHECK_OK(run(s, 4, &f, x, &e));
        CHECK(f.calls == 12);
        for (int k = 0; k < N; k++)
            CHECK_MSG(fabsf(x[k] - 1.25f) < 1e-4f, "%s: %g", s->name, (double)x[k]);
        f = (struct fake){.fail_at = 7, .nan_at = -1};
        CHECK(run(s, 4, &f, x, &e) < 0 && e.code == ERR_DEVICE);
        CHECK(f.calls == 8 && f.steps_seen == 3);
        f = (struct fake){.fail_at = -1, .nan_at = 3};
        CHECK(run(s, 1, &f, x, &e) < 0 && e.code == ERR_INPUT);
        CHECK(strstr(e.msg, "step 4 of 6") != NULL);
        f = (struct fake){.fail_at = -1, .nan_at = -1, .cancel_after = 2};
        CHECK(run(s, 1, &f, x, &e) < 0 && e.code == ERR_CANCELLED);
        CHECK(f.steps_seen == 2 && f.calls == 2);
    }
}

static void guidance(void)
{
    float c[3] = {1, 0.10009765625f, -3}, u[3] = {0.5f, 0.0999755859375f, -3}, v[3];
    memcpy(v, c, sizeof v);
    guidance_apply(v, u, 5, 3, false);
    CHECK(v[0] == 3 && v[1] == u[1] + 5 * (c[1] - u[1]) && v[2] == -3);
    struct test_rng r = {9};
    for (int i = 0; i < 1000; i++) {
        float a = bf16_round(rng_normal(&r)), b = bf16_round(rng_normal(&r)), x = a;
        guidance_apply(&x, &b, 4.3f, 1, true);
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
    guidance();
    return TEST_RESULT();
}
