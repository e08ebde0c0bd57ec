/* Every solver: its grid and whole trajectories against the reference, its order on an ODE with a
 * known answer, its limits. */
#include "sched/sched.h"
#include "tests/check.h"
#include "tests/golden/golden.h"
#include "tests/golden/tiny.h"

enum { WIDTH = 16, MAX_BUFFERS = BUFFER_HISTORY + SOLVER_MAX_HISTORY };

struct column {
    const char *name, *solver;
    enum sched_compat compat;
};
static const struct column columns[] = {
    {"unipc", "unipc", COMPAT_DIFFUSERS_037},
    {"unipc036", "unipc", COMPAT_DIFFUSERS_036},
    {"euler", "euler", COMPAT_DIFFUSERS_037},
    {"dpmpp", "dpmpp", COMPAT_DIFFUSERS_037},
    {"euler-simple", "euler-simple", COMPAT_DIFFUSERS_037},
};
static const double shifts[] = {1, 3, 5, 12};

/* The model of make_sched.py, rounding for rounding. */
static void velocity(float *v, const float *x, float timestep)
{
    for (int i = 0; i < WIDTH; i++) {
        float after = x[(i + 1) % WIDTH];
        float a = 0.8f * x[i] - 0.1f * after;
        a = a + 0.3f * (timestep * 0.001f);
        v[i] = a + (0.05f * x[i]) * after;
    }
}

static const float *find(const struct golden *g, const char *what, const char *name, double shift,
                         size_t *n)
{
    char key[64];
    snprintf(key, sizeof key, "%s.%s.%g", what, name, shift);
    return golden_f32(g, key, n);
}

static void advance(const struct solver *solver, float *const *x, const struct schedule *s,
                    int step, size_t width)
{
    struct lincomb sums[SOLVER_MAX_SUMS];
    struct err e;
    int n = solver->step(sums, s, step);
    CHECK(n >= 1 && n <= SOLVER_MAX_SUMS);
    for (int i = 0; i < n; i++)
        CHECK_OK(lincomb_host.run(NULL, x, &sums[i], width, false, &e));
}

/* From the latents that make_sched.py starts from. path [num_steps, WIDTH] may be NULL. */
static void run(const struct solver *solver, const struct schedule *s, const float *start,
                float *end, float *path)
{
    static float buffers[MAX_BUFFERS][WIDTH];
    float *x[MAX_BUFFERS] = {end};
    CHECK(BUFFER_HISTORY + solver->history <= MAX_BUFFERS);
    for (int i = 1; i < MAX_BUFFERS; i++)
        x[i] = buffers[i];
    memset(buffers, 0xff, sizeof buffers); /* NaN: nothing may be read before it is written */
    memcpy(end, start, WIDTH * sizeof *end);
    for (int i = 0; i < s->num_steps; i++) {
        velocity(x[BUFFER_VELOCITY], end, s->timestep[i]);
        advance(solver, x, s, i, WIDTH);
        if (path) memcpy(path + (size_t)i * WIDTH, end, WIDTH * sizeof *end);
    }
}

static void check_column(const struct golden *g, const struct column *c, double shift,
                         const float *start, double *worst)
{
    static struct schedule s;
    static float path[50 * WIDTH];
    const struct solver *solver = solver_find(c->solver);
    size_t n_steps, n, at_sigma = 0, at_step = 0;
    const int32_t *steps = golden_i32(g, "steps", &n_steps);
    const float *sigma = find(g, "sigma", c->name, shift, &n);
    const float *timestep = find(g, "timestep", c->name, shift, &n);
    const float *want = find(g, "path", c->name, shift, &n);
    char what[64];
    struct err e;
    for (size_t k = 0; k < n_steps; k++) {
        size_t count = (size_t)steps[k];
        snprintf(what, sizeof what, "%s, %d steps, shift %g", c->name, steps[k], shift);
        CHECK_OK(solver->schedule(&s, steps[k], shift, c->compat, &e));
        CHECK(s.num_steps == steps[k]);
        for (size_t i = 0; i <= count; i++)
            CHECK_MSG(s.sigma[i] == sigma[at_sigma + i], "%s: sigma %zu is %.9g, wanted %.9g", what,
                      i, (double)s.sigma[i], (double)sigma[at_sigma + i]);
        for (size_t i = 0; i < count; i++)
            CHECK_MSG(s.timestep[i] == timestep[at_step + i],
                      "%s: timestep %zu is %.9g, wanted %.9g", what, i, (double)s.timestep[i],
                      (double)timestep[at_step + i]);
        float end[WIDTH];
        run(solver, &s, start, end, path);
        check_close(what, path, want + at_step * WIDTH, count * WIDTH, 1e-5);
        at_sigma += count + 1;
        at_step += count;
    }
    CHECK(at_step * WIDTH == n);
    const float *final = find(g, "final", c->name, shift, &n);
    CHECK(n == 50 * WIDTH);
    for (int num_steps = 1; num_steps <= 50; num_steps++, final += WIDTH) {
        float end[WIDTH];
        snprintf(what, sizeof what, "%s, end of %d steps, shift %g", c->name, num_steps, shift);
        CHECK_OK(solver->schedule(&s, num_steps, shift, c->compat, &e));
        run(solver, &s, start, end, NULL);
        check_close(what, end, final, WIDTH, 1e-5);
        double r = rel_l2(end, final, WIDTH);
        if (r > *worst) *worst = r;
    }
}

/* The order of the sums, written out: whoever moves or merges them changes bytes of frames. */
static void by_hand(const char *name, const struct schedule *s, int step, float *x, float v,
                    float h[3])
{
    float sigma = s->sigma[step], next = s->sigma[step + 1];
    struct lincomb l[SOLVER_MAX_SUMS];
    int n = solver_find(name)->step(l, s, step);
    if (strcmp(name, "unipc") == 0) {
        float *now = &h[1 + step % 2], before = h[1 + (step + 1) % 2], x0 = *x - sigma * v;
        if (step > 0) { /* the coefficients are the solver's, the order is ours */
            float c = l[1].c[0] * h[0] + l[1].c[1] * before + l[1].c[2] * x0;
            if (l[1].n == 4) c += l[1].c[3] * *now;
            h[0] = c;
        } else {
            h[0] = *x;
        }
        *now = x0;
        if (next <= 0) {
            *x = x0;
            return;
        }
        float p = l[n - 1].c[0] * h[0] + l[n - 1].c[1] * *now;
        *x = l[n - 1].n == 3 ? p + l[n - 1].c[2] * before : p;
    } else if (strcmp(name, "dpmpp") == 0) {
        float *m0 = &h[step & 1], m1 = h[(step + 1) & 1];
        if (next <= 0) {
            *x -= sigma * v;
            return;
        }
        *m0 = *x - sigma * v;
        float keep = l[n - 1].c[0] * *x + l[n - 1].c[1] * *m0;
        *x = step > 0 ? keep + l[n - 1].c[2] * (*m0 - m1) : keep;
    } else {
        *x += (next - sigma) * v;
    }
}

static void check_bytes(struct test_rng *r)
{
    static struct schedule s;
    struct err e;
    for (int i = 0; i < solver_count(); i++) {
        const struct solver *solver = solver_at(i);
        for (int steps = 1; steps <= 30; steps += 7) {
            float buffer[MAX_BUFFERS], *at[MAX_BUFFERS], h[3] = {0}, x = rng_normal(r);
            for (int k = 0; k < MAX_BUFFERS; k++)
                at[k] = &buffer[k];
            CHECK_OK(solver->schedule(&s, steps, 3, COMPAT_DIFFUSERS_037, &e));
            buffer[BUFFER_LATENTS] = x;
            for (int k = 0; k < steps; k++) {
                float v = rng_normal(r);
                buffer[BUFFER_VELOCITY] = v;
                advance(solver, at, &s, k, 1);
                by_hand(solver->name, &s, k, &x, v, h);
                CHECK_MSG(memcmp(&x, &buffer[BUFFER_LATENTS], sizeof x) == 0,
                          "%s, step %d of %d: %.9g, wanted %.9g", solver->name, k, steps,
                          (double)buffer[BUFFER_LATENTS], (double)x);
            }
        }
    }
}

/* Data from a normal distribution (mean m, deviation d) has a velocity and a path in closed form:
 * x = alpha m + c(sigma) z with c^2 = (alpha d)^2 + sigma^2, and v = dx / dsigma. */
static const double data_mean = 0.7, data_deviation = 0.5;

static double spread(double sigma) { return hypot((1 - sigma) * data_deviation, sigma); }

static double error_of(const struct solver *solver, int num_steps, double z)
{
    static struct schedule s;
    float buffer[MAX_BUFFERS], *at[MAX_BUFFERS];
    for (int i = 0; i < MAX_BUFFERS; i++)
        at[i] = &buffer[i];
    /* from 0.9 to 0.2, and one step more than is taken: the last may be of lower order */
    s.num_steps = num_steps + 1;
    for (int i = 0; i <= num_steps; i++)
        s.sigma[i] = (float)(0.9 - 0.7 * i / num_steps);
    s.sigma[num_steps + 1] = 0.1f;
    double first = (double)s.sigma[0], last = (double)s.sigma[num_steps];
    float x = (float)((1 - first) * data_mean + spread(first) * z);
    at[BUFFER_LATENTS] = &x;
    for (int i = 0; i < num_steps; i++) {
        double sigma = (double)s.sigma[i], c = spread(sigma);
        double slope = (sigma - (1 - sigma) * data_deviation * data_deviation) / c;
        *at[BUFFER_VELOCITY] =
            (float)(-data_mean + slope * ((double)x - (1 - sigma) * data_mean) / c);
        advance(solver, at, &s, i, 1);
    }
    return fabs((double)x - ((1 - last) * data_mean + spread(last) * z));
}

static void check_order(const char *name, double order)
{
    const struct solver *solver = solver_find(name);
    double coarse = 0, fine = 0;
    for (double z = -2; z <= 2; z += 0.5) { /* one path alone may cross its error's zero */
        coarse = fmax(coarse, error_of(solver, 20, z));
        fine = fmax(fine, error_of(solver, 80, z));
    }
    double seen = log2(coarse / fine) / 2;
    CHECK_MSG(seen > order - 0.25, "%s: order %.2f, wanted %.1f (errors %.3g, %.3g)", name, seen,
              order, coarse, fine);
    printf("%s: order %.2f, error %.2g after 20 steps\n", name, seen, coarse);
}

static void check_limits(void)
{
    static struct schedule s;
    struct err e;
    for (int i = 0; i < solver_count(); i++) {
        const struct solver *v = solver_at(i);
        CHECK(v->name && v->summary && v->paper && v->schedule && v->step);
        CHECK(solver_find(v->name) == v);
        CHECK(v->schedule(&s, 0, 3, COMPAT_DIFFUSERS_037, &e) < 0 && e.code == ERR_USAGE);
        CHECK(v->schedule(&s, -5, 3, COMPAT_DIFFUSERS_037, &e) < 0 && e.code == ERR_USAGE);
        CHECK(v->schedule(&s, MAX_STEPS + 1, 3, COMPAT_DIFFUSERS_037, &e) < 0);
        CHECK(strstr(e.msg, "--steps") != NULL);
        CHECK(v->schedule(&s, 4, 0, COMPAT_DIFFUSERS_037, &e) < 0 && e.code == ERR_USAGE);
        CHECK(v->schedule(&s, 4, (double)NAN, COMPAT_DIFFUSERS_037, &e) < 0);
        CHECK(v->schedule(&s, 4, 1e9, COMPAT_DIFFUSERS_037, &e) < 0);
        CHECK(strstr(e.msg, "--flow-shift") != NULL);
        /* whatever is accepted falls, and gives numbers */
        for (int n = 1; n <= MAX_STEPS; n += 333) {
            for (double shift = 1e-3; shift <= 1000; shift *= 10) {
                if (v->schedule(&s, n, shift, COMPAT_DIFFUSERS_037, &e) < 0) continue;
                float start[WIDTH] = {1}, end[WIDTH];
                run(v, &s, start, end, NULL);
                for (int k = 0; k < WIDTH; k++)
                    CHECK_MSG(isfinite(end[k]), "%s, %d steps, shift %g", v->name, n, shift);
            }
        }
    }
    CHECK(solver_at(-1) == NULL && solver_at(solver_count()) == NULL);
    CHECK(solver_find("heun") == NULL);
    CHECK_STR(solver_at(0)->name, "unipc");
    CHECK(solver_find("unipc")->schedule(&s, 1000, 1000, COMPAT_DIFFUSERS_037, &e) < 0);
    CHECK(strstr(e.msg, "no noise between steps") != NULL);
}

int main(int argc, char **argv)
{
    struct test_rng r = test_seed(argc, argv);
    struct golden g = golden_open("sched.safetensors");
    float start[WIDTH];
    double worst = 0;
    tiny_fill(start, WIDTH, "sched.latents", 1, 0);
    for (size_t i = 0; i < ARRAY_LEN(columns); i++)
        for (size_t k = 0; k < ARRAY_LEN(shifts); k++)
            check_column(&g, &columns[i], shifts[k], start, &worst);
    printf("ends of 1 to 50 steps: relative L2 at most %.2g\n", worst);
    golden_close(&g);
    check_order("euler", 1);
    check_order("euler-simple", 1);
    check_order("dpmpp", 2);
    check_order("unipc", 2);
    check_limits();
    check_bytes(&r);
    return TEST_RESULT();
}
