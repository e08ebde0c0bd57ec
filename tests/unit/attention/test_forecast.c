/* What is said of a run before it: density of plans that look at no number is known, of others bounded
 * by what their selection is told. test_methods holds every forecast against its run; here it must
 * also be worth something. */
#include "transcribed.h"

static struct attn_forecast forecast_of(const char *stack)
{
    struct attn_params params = {.method = stack, .threads = 1};
    struct attn_forecast f = {0};
    struct err e = {0};
    cpu_detect(&params.cpu);
    CHECK_OK(attn_forecast(&f, &params, &shape, &e));
    return f;
}

static double measured(const char *stack)
{
    struct planned p = open_on(stack);
    struct attn_stats st;
    for (int step = 0; step < 20; step++)
        call(&p, step);
    attn_stats(p.a, &st);
    planned_close(&p);
    return st.density;
}

int main(void)
{
    static const struct {
        const char *stack;
        double wide; /* most between the bounds */
    } cases[] = {
        {"window:tiles=1", 1e-9},
        {"tile:block=32", 1e-9},
        {"clear:block=32,reach=3x5x6", 1e-9},
        {"vdit:block=32", 1e-9},
        {"tile:block=32,first=.5", 1e-9},
        {"subblock:block=16", .06},
        {"score:block=16,density=.4", .06},
        {"layers:block=16", .06},
        {"layers:block=16,sink=1", .32},
        {"adaspa:block=16", .12},
        {"svg1:block=16", .3},
        {"lvsa:block=16", .5},
        {"rainfusion2:block=16", .6},
        {"draft:block=16", .8},
        {"resid:block=16", .01},
        {"tile:block=32+resid:every=4", .01},
        {"svg2", 1},
        {"sol:block=16", 1},
        {"haste:block=16", 1},
        {"moba:block=16", 1},
    };
    threads_set(2);
    fill(4);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct attn_forecast f = forecast_of(cases[i].stack);
        double is = measured(cases[i].stack);
        printf("%-32s %.3f to %.3f, was %.3f\n", cases[i].stack, f.density[0], f.density[1], is);
        CHECK_MSG(f.density[0] <= is + 1e-6 && is <= f.density[1] + 1e-6,
                  "%s: %.4f, said %.4f to %.4f", cases[i].stack, is, f.density[0], f.density[1]);
        CHECK_MSG(f.density[1] - f.density[0] <= cases[i].wide, "%s: %.3f to %.3f says little",
                  cases[i].stack, f.density[0], f.density[1]);
    }
    return TEST_RESULT();
}
