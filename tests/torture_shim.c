/* Preloaded by torture.sh: the Nth call of one kind fails, counted over the whole process.
 *
 * FAIL_KIND is malloc (also calloc, realloc, aligned ones; asked for by the program and libc), library
 * (the same, asked for by oneDNN, libav and other libraries), open or thread; FAIL_AT the number, from 1
 * on; FAIL_LONG=1 lets all later ones fail too. At exit the number of calls goes to FAIL_COUNT, a
 * file. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);
extern void *__libc_memalign(size_t a, size_t n);

static atomic_long calls;
static long fail_at;
static int fail_long;
static enum { NONE, MALLOC, LIBRARY, OPEN, THREAD } kind;
static struct {
    const char *begin, *end;
} own[8]; /* code of the program and of libc */
static int n_own;

static int note_code(struct dl_phdr_info *info, size_t size, void *ctx)
{
    int *first = ctx;
    (void)size;
    int mine = *first || strstr(info->dlpi_name, "/libc.so");
    *first = 0;
    for (int i = 0; mine && i < info->dlpi_phnum && n_own < 8; i++) {
        const ElfW(Phdr) *h = &info->dlpi_phdr[i];
        if (h->p_type != PT_LOAD || !(h->p_flags & PF_X)) continue;
        own[n_own].begin = (const char *)info->dlpi_addr + h->p_vaddr;
        own[n_own].end = own[n_own].begin + h->p_memsz;
        n_own++;
    }
    return 0;
}

__attribute__((constructor)) static void begin(void)
{
    const char *k = getenv("FAIL_KIND"), *at = getenv("FAIL_AT"), *all = getenv("FAIL_LONG");
    fail_at = at ? atol(at) : 0;
    fail_long = all && *all == '1';
    atomic_store(&calls, 0);
    int first = 1;
    dl_iterate_phdr(note_code, &first);
    kind = !k                      ? NONE
           : !strcmp(k, "malloc")  ? MALLOC
           : !strcmp(k, "library") ? LIBRARY
           : !strcmp(k, "open")    ? OPEN
                                   : THREAD;
}

__attribute__((destructor)) static void end(void)
{
    const char *path = getenv("FAIL_COUNT");
    kind = NONE;
    FILE *f = path ? fopen(path, "w") : NULL;
    if (!f) return;
    fprintf(f, "%ld\n", atomic_load(&calls));
    fclose(f);
}

static int who(const void *caller)
{
    for (int i = 0; i < n_own; i++)
        if ((const char *)caller >= own[i].begin && (const char *)caller < own[i].end)
            return MALLOC;
    return LIBRARY;
}

static int fails(int of)
{
    if (kind == NONE || (int)kind != of) return 0;
    long n = atomic_fetch_add(&calls, 1) + 1;
    return fail_at > 0 && (n == fail_at || (fail_long && n > fail_at));
}

void *malloc(size_t n)
{
    if (fails(who(__builtin_return_address(0)))) return errno = ENOMEM, NULL;
    return __libc_malloc(n);
}
void *calloc(size_t n, size_t size)
{
    if (fails(who(__builtin_return_address(0)))) return errno = ENOMEM, NULL;
    return __libc_calloc(n, size);
}
void *realloc(void *p, size_t n)
{
    if (fails(who(__builtin_return_address(0)))) return errno = ENOMEM, NULL;
    return __libc_realloc(p, n);
}
void *aligned_alloc(size_t a, size_t n)
{
    if (fails(who(__builtin_return_address(0)))) return errno = ENOMEM, NULL;
    return __libc_memalign(a, n);
}
int posix_memalign(void **p, size_t a, size_t n)
{
    if (fails(who(__builtin_return_address(0)))) return ENOMEM;
    *p = __libc_memalign(a, n);
    return *p ? 0 : ENOMEM;
}

/* Descriptors run out. */
int open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    va_list ap;
    va_start(ap, flags);
    if (flags & (O_CREAT | __O_TMPFILE)) mode = va_arg(ap, mode_t);
    va_end(ap);
    if (fails(OPEN)) return errno = EMFILE, -1;
    return openat(AT_FDCWD, path, flags, mode);
}
FILE *fopen(const char *path, const char *mode)
{
    static FILE *(*real)(const char *, const char *);
    if (!real) *(void **)(void *)&real = dlsym(RTLD_NEXT, "fopen");
    if (fails(OPEN)) return errno = EMFILE, NULL;
    return real(path, mode);
}

int pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *ctx)
{
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (!real) *(void **)(void *)&real = dlsym(RTLD_NEXT, "pthread_create");
    return fails(THREAD) ? EAGAIN : real(t, a, f, ctx);
}
