/* No velocity of ours allocates, and the predicted bytes are the bytes that are taken. Counts the
 * heap by standing in front of glibc's; under a sanitizer or another libc only the velocities are
 * computed. A matrix library keeps books while it runs: its calls come from another object and are
 * told apart by the return address. */
#include "tests/unit/dit/fixture.h"

#include <errno.h>
#include <malloc.h>

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)
#define COUNTING 1
#else
#define COUNTING 0
#endif

static size_t live;
static long ours, others; /* allocations so far, by who asked */

#if COUNTING
extern char __executable_start, etext; /* the linker's: code of this test and of our rooms */
extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t each);
extern void *__libc_realloc(void *p, size_t n);
extern void *__libc_memalign(size_t align, size_t n);
extern void __libc_free(void *p);

static void *count(void *p, const void *caller)
{
    bool mine = (const char *)caller >= &__executable_start && (const char *)caller < &etext;
    __atomic_fetch_add(&live, p ? malloc_usable_size(p) : 0, __ATOMIC_RELAXED);
    __atomic_fetch_add(mine ? &ours : &others, 1, __ATOMIC_RELAXED);
    return p;
}

void *malloc(size_t n) { return count(__libc_malloc(n), __builtin_return_address(0)); }

void *calloc(size_t n, size_t each)
{
    return count(__libc_calloc(n, each), __builtin_return_address(0));
}

void *realloc(void *p, size_t n)
{
    __atomic_fetch_sub(&live, p ? malloc_usable_size(p) : 0, __ATOMIC_RELAXED);
    return count(__libc_realloc(p, n), __builtin_return_address(0));
}

void *aligned_alloc(size_t align, size_t n)
{
    return count(__libc_memalign(align, n), __builtin_return_address(0));
}

void *memalign(size_t align, size_t n)
{
    return count(__libc_memalign(align, n), __builtin_return_address(0));
}

int posix_memalign(void **p, size_t align, size_t n)
{
    *p = count(__libc_memalign(align, n), __builtin_return_address(0));
    return *p || !n ? 0 : ENOMEM;
}

void free(void *p)
{
    __atomic_fetch_sub(&live, p ? malloc_usable_size(p) : 0, __ATOMIC_RELAXED);
    __libc_free(p);
}
#endif

static void check_loop(struct dit *d, const struct clip *c)
{
    const struct dit_config *cfg = dit_config_of(d);
    struct err e = {0};
    free(velocity_of(d, c)); /* first use: thread pools and the like */
    float *latents =
        drawn("dit.latents", (size_t)cfg->in_channels * (size_t)(c->frames * c->height * c->width));
    float *v = calloc(velocity_len(d, c), sizeof *v);
    struct dit_call call = {.branch = 1, .n_branches = 1, .timestep = 500};
    CHECK_OK(dit_velocity(d, &v, latents, &call, &e));
    size_t before = live;
    ours = others = 0;
    for (int step = 0; step < 2; step++) {
        call.step = step;
        CHECK_OK(dit_velocity(d, &v, latents, &call, &e));
    }
    CHECK_MSG(ours == 0, "%ld allocations of ours", ours);
    CHECK_MSG(live == before, "%zu bytes before, %zu after", before, live);
    printf("two velocities: %ld allocations of ours, %ld of libraries, %zu bytes kept\n", ours,
           others, live - before);
    free(latents), free(v);
}

/* Large enough that the model's own bytes outweigh names and primitives. */
static void check_prediction(enum precision precision, const struct clip *c)
{
    struct err e;
    struct dit *d = NULL;
    struct attn_params attn = cpu_attention(precision);
    struct dit_run_params p = run_params(c, &attn);
    size_t before = live;
    CHECK_OK(dit_open(&d, TEST_SOURCE_DIR "/assets/emoji/transformer", precision, NULL, &e));
    if (!d) return;
    size_t want;
    CHECK_OK(dit_bytes(&want, dit_config_of(d), precision, &p, &e));
    CHECK_OK(dit_prepare(d, &p, &e));
    size_t got = live - before;
    printf("%s: predicted %.2f MiB, taken %.2f MiB\n", precision_name(precision),
           (double)want / 1048576, (double)got / 1048576);
    if (COUNTING)
        CHECK_MSG(fabs((double)got - (double)want) < 0.05 * (double)want,
                  "predicted %zu, taken %zu", want, got);
    dit_close(d);
    if (COUNTING && precision == PRECISION_FP32)
        CHECK_MSG(live - before < want / 20, "%zu bytes left after closing", live - before);
}

int main(void)
{
    long before = ours;
    free(drawn("dit.latents", 4));
    if (COUNTING) CHECK(ours == before + 1); /* the counter sees what it should */
    struct clip text = {3, 6, 10, 5, 999, 0, NULL, false, 0};
    struct clip image = {2, 4, 6, 7, 850, 17, NULL, false, 0};
    struct clip real = {3, 16, 16, 20, 500, 0, NULL, false, 0};
    struct dit *d = open_tiny("t2v", PRECISION_FP32);
    if (d) check_loop(d, &text);
    dit_close(d);
    d = open_tiny("i2v", PRECISION_FP32);
    if (d) check_loop(d, &image);
    dit_close(d);
    d = open_tiny("t2v", PRECISION_BF16_EMULATED);
    if (d) check_loop(d, &text);
    dit_close(d);
    check_prediction(PRECISION_FP32, &real);
    check_prediction(PRECISION_BF16_EMULATED, &real);
    return TEST_RESULT();
}
