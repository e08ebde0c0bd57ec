/* Threads that cannot be made end no run: pthread_create() of this program fails where as many threads
 * live as the test allows, as under a limit of the system, for the runtimes of libraries too. */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "app/lib/ditgen.h"
#include "tests/check.h"

static atomic_int allowed = 1 << 20; /* that may live beside those that do */

struct life {
    void *(*f)(void *);
    void *ctx;
};

static void *live(void *arg)
{
    struct life l = *(struct life *)arg;
    free(arg);
    void *r = l.f(l.ctx);
    atomic_fetch_add(&allowed, 1);
    return r;
}

int pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *ctx)
{
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (!real) *(void **)(void *)&real = dlsym(RTLD_NEXT, "pthread_create");
    if (atomic_fetch_sub(&allowed, 1) <= 0) {
        atomic_fetch_add(&allowed, 1);
        return EAGAIN;
    }
    struct life *l = malloc(sizeof *l);
    if (!l) return EAGAIN;
    *l = (struct life){f, ctx};
    return real(t, a, live, l);
}

static int run(struct ditgen *d, const char *threads, struct ditgen_error *e)
{
    struct ditgen_settings *s;
    const char *const all[][2] = {
        {"prompt", "x"}, {"size", "32x32"}, {"frames", "1"}, {"steps", "1"}, {"threads", threads}};
    CHECK(ditgen_settings_open(&s, d, e) == 0);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        CHECK(ditgen_set(s, all[i][0], all[i][1], e) == 0);
    int rc = ditgen_generate(d, s, NULL, e);
    ditgen_settings_close(s);
    return rc;
}

int main(void)
{
    struct ditgen *d;
    struct ditgen_error e = {0};
    CHECK(ditgen_open(&d, NULL, &e) == 0);
    allowed = 2; /* who is there does the work */
    CHECK_MSG(run(d, "6", &e) == 0, "%s", e.message);
    allowed = 0;
    CHECK_MSG(run(d, "4", &e) == 0, "%s", e.message);
    CHECK_MSG(run(d, "0", &e) == 0, "%s", e.message);
    ditgen_close(d);
    return TEST_RESULT();
}
