/* Processor features; see cpu.h. */
#include "model/base/cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCH_REQ_XCOMP_PERM 0x1023 /* Linux: asks for a dynamically enabled register state */
#define XFEATURE_XTILEDATA 18

static uint64_t xcr0(void)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

static enum cpu_level detect_level(void)
{
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return CPU_REF;
    bool fma = c >> 12 & 1, osxsave = c >> 27 & 1, f16c = c >> 29 & 1;
    if (!osxsave || !fma || !f16c) return CPU_REF;
    uint64_t xcr = xcr0();
    if ((xcr & 6) != 6) return CPU_REF;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return CPU_REF;
    if (!(b >> 5 & 1)) return CPU_REF;
    bool avx512 = b >> 16 & 1 && b >> 17 & 1 && b >> 30 & 1 && b >> 31 & 1; /* F DQ BW VL */
    bool amx = d >> 24 & 1 && d >> 22 & 1 && d >> 25 & 1; /* TILE, BF16, INT8 */
    bool vnni = c >> 11 & 1;
    if (!avx512 || (xcr & 0xe6) != 0xe6) return CPU_AVX2;
    if (!vnni) return CPU_AVX512;
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a >> 5 & 1)) return CPU_AVX512_VNNI;
    if (!amx || (xcr & 3u << 17) != 3u << 17) return CPU_AVX512_BF16;
    if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) != 0)
        return CPU_AVX512_BF16;
    return CPU_AMX;
}

static void detect_name(char *name, size_t n)
{
    uint32_t r[12];
    name[0] = 0;
    for (uint32_t i = 0; i < 3; i++)
        if (!__get_cpuid(0x80000002u + i, &r[4 * i], &r[4 * i + 1], &r[4 * i + 2], &r[4 * i + 3]))
            return;
    char text[sizeof r + 1];
    memcpy(text, r, sizeof r);
    text[sizeof r] = 0;
    const char *s = text;
    while (*s == ' ')
        s++;
    snprintf(name, n, "%s", s);
    for (size_t i = strlen(name); i && name[i - 1] == ' '; i--)
        name[i - 1] = 0;
}
#else
static enum cpu_level detect_level(void) { return CPU_REF; }

static void detect_name(char *name, size_t n)
{
    struct utsname u;
    snprintf(name, n, "%.63s", uname(&u) == 0 && u.machine[0] ? u.machine : "processor");
}
#endif

/* Distinct (package, core) pairs among the processors we may use; 0 when the system does not say.
 */
static int count_cores(const cpu_set_t *set)
{
    long seen[CPU_SETSIZE];
    int n = 0;
    for (int i = 0; i < CPU_SETSIZE; i++) {
        if (!CPU_ISSET(i, set)) continue;
        long id[2];
        for (int j = 0; j < 2; j++) {
            char path[96];
            snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/%s", i,
                     j ? "core_id" : "physical_package_id");
            FILE *f = fopen(path, "r");
            if (!f) return 0;
            int ok = fscanf(f, "%ld", &id[j]);
            fclose(f);
            if (ok != 1) return 0;
        }
        long key = id[0] << 20 | id[1];
        int k = 0;
        while (k < n && seen[k] != key)
            k++;
        if (k == n) seen[n++] = key;
    }
    return n;
}

static const char *const names[] = {"ref", "avx2", "avx512", "avx512vnni", "avx512bf16", "amx"};

const char *cpu_level_name(enum cpu_level l) { return names[l]; }

/* The cap and what came of it, once a process. */
static int cap = -1; /* -1: none */
static int level = -1; /* -1: nobody asked yet; then it never changes */

enum cpu_level cpu_level(void)
{
    int l = __atomic_load_n(&level, __ATOMIC_ACQUIRE);
    if (l < 0) { /* every thread that comes here finds the same */
        l = (int)detect_level();
        if (cap >= 0 && cap < l) l = cap;
        __atomic_store_n(&level, l, __ATOMIC_RELEASE);
    }
    return (enum cpu_level)l;
}

bool cpu_capped(void) { return cap >= 0; }

void cpu_detect(struct cpu *c)
{
    memset(c, 0, sizeof *c);
    c->level = cpu_level();
    detect_name(c->name, sizeof c->name);
    cpu_set_t set;
    c->threads = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    if (c->threads < 1) c->threads = 1;
    c->cores = count_cores(&set);
    if (c->cores < 1 || c->cores > c->threads) c->cores = c->threads;
}

int cpu_cap(const char *device, struct err *e)
{
    int wanted = -1;
    if (strncmp(device, "cpu", 3) != 0 || (device[3] && device[3] != ':'))
        return err_set(e, ERR_USAGE, "there is no device '%.40s'; wanted cpu, or cpu:LEVEL",
                       device);
    if (device[3]) {
        wanted = 0;
        while (wanted < (int)ARRAY_LEN(names) && strcmp(names[wanted], device + 4) != 0)
            wanted++;
        if (wanted == (int)ARRAY_LEN(names))
            return err_set(e, ERR_USAGE,
                           "'%.40s' is no processor level; use ref, avx2, avx512, avx512vnni, "
                           "avx512bf16 or amx",
                           device + 4);
        int most = (int)detect_level();
        if (wanted > most)
            return err_set(e, ERR_DEVICE, "this processor has no %s; it goes up to %s",
                           names[wanted], names[most]);
    }
    if (wanted == cap) return 0;
    if (__atomic_load_n(&level, __ATOMIC_ACQUIRE) >= 0)
        return err_set(e, ERR_USAGE,
                       "the device is %s%s%s for this process: code was picked for it already; set "
                       "it before the first model is opened",
                       "cpu", cap < 0 ? "" : ":", cap < 0 ? "" : names[cap]);
    cap = wanted;
    return 0;
}
