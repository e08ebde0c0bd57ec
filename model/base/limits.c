/* Limits; see limits.h. */
#include "model/base/limits.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define PATH 4352
#define NO_LIMIT 9e18 /* version 1 writes a huge number */

/* A number in the first line of a small file, or of the line that begins with key. */
static bool read_number(const char *path, const char *key, double *v)
{
    FILE *f = fopen(path, "re");
    if (!f) return false;
    char line[256];
    bool found = false;
    while (!found && fgets(line, sizeof line, f)) {
        size_t n = key ? strlen(key) : 0;
        if (n && strncmp(line, key, n) != 0) continue;
        found = sscanf(line + n, " %lf", v) == 1;
        if (!key) break;
    }
    fclose(f);
    return found;
}

/* The least of a question asked of each of this process's groups, from its own up to the root. */
struct question {
    const char *mount, *controller; /* controller NULL: version 2 */
    double (*ask)(const char *dir); /* 0: no limit here */
};

/* This process's path in the hierarchy: "0::/a/b", or "4:cpu,cpuacct:/a/b". */
static bool group_path(char path[PATH], const char *controller)
{
    char line[PATH];
    bool found = false;
    FILE *f = fopen("/proc/self/cgroup", "re");
    if (!f) return false;
    while (!found && fgets(line, sizeof line, f)) {
        char *list = strchr(line, ':'), *at = list ? strchr(list + 1, ':') : NULL;
        if (!at) continue;
        *at++ = 0;
        list++;
        at[strcspn(at, "\n")] = 0;
        if (!controller) {
            found = !*list;
        } else {
            for (char *word = strtok(list, ","); word && !found; word = strtok(NULL, ","))
                found = strcmp(word, controller) == 0;
        }
        if (found) snprintf(path, PATH, "%s", strcmp(at, "/") == 0 ? "" : at);
    }
    fclose(f);
    return found;
}

static double least(const struct question *q)
{
    char path[PATH], dir[2 * PATH];
    double most = 0;
    if (!group_path(path, q->controller)) return 0;
    for (;;) { /* in a container the path may be one of the host: then only the mount answers */
        snprintf(dir, sizeof dir, "%s%s", q->mount, path);
        double v = q->ask(dir);
        if (v > 0 && (most == 0 || v < most)) most = v;
        char *slash = strrchr(path, '/');
        if (!slash) return most;
        *slash = 0;
    }
}

static double cpus_2(const char *dir)
{
    char path[2 * PATH + 16];
    double quota, period;
    snprintf(path, sizeof path, "%s/cpu.max", dir);
    FILE *f = fopen(path, "re");
    if (!f) return 0;
    int n = fscanf(f, "%lf %lf", &quota, &period); /* "max 100000": none */
    fclose(f);
    return n == 2 && quota > 0 && period > 0 ? quota / period : 0;
}

static double cpus_1(const char *dir)
{
    char path[2 * PATH + 32];
    double quota, period;
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", dir);
    if (!read_number(path, NULL, &quota)) return 0;
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", dir);
    if (!read_number(path, NULL, &period)) return 0;
    return quota > 0 && period > 0 ? quota / period : 0;
}

/* What a group has left, of its limit and of its cache that can be dropped; at least a byte, since 0
 * says that there is no limit. */
static double memory_of(const char *dir, const char *max, const char *now, const char *key)
{
    char path[2 * PATH + 40];
    double limit, used, cache = 0;
    snprintf(path, sizeof path, "%s/%s", dir, max);
    if (!read_number(path, NULL, &limit) || limit >= NO_LIMIT) return 0;
    snprintf(path, sizeof path, "%s/%s", dir, now);
    if (!read_number(path, NULL, &used)) return 0;
    snprintf(path, sizeof path, "%s/memory.stat", dir);
    read_number(path, key, &cache);
    double left = limit - used + cache;
    return left > 1 ? left : 1;
}

static double memory_2(const char *dir)
{
    return memory_of(dir, "memory.max", "memory.current", "inactive_file ");
}

static double memory_1(const char *dir)
{
    return memory_of(dir, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ");
}

static double least_of(const struct question *q, int n)
{
    double most = 0;
    for (int i = 0; i < n; i++) {
        double v = least(&q[i]);
        if (v > 0 && (most == 0 || v < most)) most = v;
    }
    return most;
}

double limit_cpus(void)
{
    static const struct question q[] = {{"/sys/fs/cgroup", NULL, cpus_2},
                                        {"/sys/fs/cgroup/cpu", "cpu", cpus_1}};
    return least_of(q, 2);
}

/* Bytes of this process's address space and of its data, as the limits count them. */
static bool sizes_now(double *space, double *data)
{
    FILE *f = fopen("/proc/self/statm", "re");
    if (!f) return false;
    long pages[6];
    int n = fscanf(f, "%ld %ld %ld %ld %ld %ld", &pages[0], &pages[1], &pages[2], &pages[3],
                   &pages[4], &pages[5]);
    fclose(f);
    double page = (double)sysconf(_SC_PAGESIZE);
    *space = (double)pages[0] * page;
    *data = (double)pages[5] * page;
    return n == 6;
}

static void keep_least(double *least_left, double left)
{
    if (left < 1) left = 1;
    if (*least_left == 0 || left < *least_left) *least_left = left;
}

size_t limit_memory(void)
{
    static const struct question q[] = {{"/sys/fs/cgroup", NULL, memory_2},
                                        {"/sys/fs/cgroup/memory", "memory", memory_1}};
    double left = 0, kib, space, data;
    if (read_number("/proc/meminfo", "MemAvailable:", &kib)) left = kib * 1024;
    double group = least_of(q, 2);
    if (group > 0) keep_least(&left, group);
    struct rlimit limit;
    if (sizes_now(&space, &data)) {
        if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
            keep_least(&left, (double)limit.rlim_cur - space);
        if (getrlimit(RLIMIT_DATA, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
            keep_least(&left, (double)limit.rlim_cur - data);
    }
    return (size_t)left;
}

static size_t left_of(int what, double used)
{
    struct rlimit limit;
    if (getrlimit(what, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return SIZE_MAX;
    return (double)limit.rlim_cur > used ? (size_t)((double)limit.rlim_cur - used) : 0;
}

void limit_room(size_t *space, size_t *data)
{
    double space_now, data_now;
    *space = *data = SIZE_MAX;
    if (!sizes_now(&space_now, &data_now)) return;
    *space = left_of(RLIMIT_AS, space_now);
    *data = left_of(RLIMIT_DATA, data_now);
}

size_t limit_resident(void)
{
    FILE *f = fopen("/proc/self/statm", "re");
    if (!f) return 0;
    long total = 0, resident = 0;
    int n = fscanf(f, "%ld %ld", &total, &resident);
    fclose(f);
    return n == 2 ? (size_t)resident * (size_t)sysconf(_SC_PAGESIZE) : 0;
}
