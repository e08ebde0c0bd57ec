/* Limits of control groups, all the way up, versions 1 and 2, on trees of the test's own: fopen() of our
 * objects comes here (tests/CMakeLists.txt), and what is of the system is looked for in a folder.
 * Resource limits are real ones. */
#include "model/base/limits.h"
#include "model/base/threads.h"
#include "tests/check.h"
#include "tests/golden/tiny.h"

#include <stdint.h>
#include <sys/resource.h>

#define MIB ((size_t)1 << 20)

FILE *__real_fopen(const char *path, const char *mode);
FILE *__wrap_fopen(const char *path, const char *mode);

static char root[256];
static int asked; /* for what the system says of groups */

FILE *__wrap_fopen(const char *path, const char *mode)
{
    char moved[1024];
    if (strncmp(path, "/sys/fs/cgroup", 14) != 0 && strcmp(path, "/proc/self/cgroup") != 0)
        return __real_fopen(path, mode);
    asked++;
    snprintf(moved, sizeof moved, "%s%s", root, path);
    return __real_fopen(moved, mode);
}

static void put(const char *path, const char *text)
{
    char full[1024];
    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *slash = full + strlen(root) + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = 0;
        mkdir(full, 0777);
        *slash = '/';
    }
    tiny_write_text(full, text);
}

static void begin(const char *groups)
{
    tiny_temp(root);
    put("/proc/self/cgroup", groups);
}

static void expect_memory(size_t mib, const char *what)
{
    size_t got = limit_memory();
    CHECK_MSG(got / MIB == mib, "%s: %zu MiB, wanted %zu", what, got / MIB, mib);
}

static void version_2(void)
{
    begin("0::/jobs/mine/inner\n");
    CHECK(limit_cpus() == 0);
    put("/sys/fs/cgroup/jobs/mine/inner/cpu.max", "max 100000\n");
    CHECK(limit_cpus() == 0);
    put("/sys/fs/cgroup/jobs/cpu.max", "150000 100000\n"); /* two levels up */
    CHECK(limit_cpus() == 1.5);
    CHECK(threads_probe() == 1); /* a second thread would be paid for by half */
    put("/sys/fs/cgroup/jobs/mine/cpu.max", "50000 100000\n");
    CHECK(limit_cpus() == .5);
    put("/sys/fs/cgroup/jobs/mine/inner/memory.max", "max\n");
    put("/sys/fs/cgroup/jobs/mine/inner/memory.current", "20971520\n");
    put("/sys/fs/cgroup/jobs/mine/memory.max", "104857600\n");
    put("/sys/fs/cgroup/jobs/mine/memory.current", "62914560\n");
    expect_memory(40, "the parent's limit less what it uses");
    put("/sys/fs/cgroup/jobs/mine/memory.stat", "anon 1\ninactive_file 10485760\nfile 3\n");
    expect_memory(50, "with files that it can drop");
    put("/sys/fs/cgroup/jobs/memory.max", "104857600\n");
    put("/sys/fs/cgroup/jobs/memory.current", "209715200\n");
    CHECK(limit_memory() == 1); /* beyond its limit: nothing, which is not "no limit" */
    tiny_remove(root);
}

static void version_1(void)
{
    begin("5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    CHECK(limit_cpus() == 0);
    /* in a container the path is the host's, and the mount itself answers */
    put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "250000\n");
    CHECK(limit_cpus() == 2.5);
    put("/sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us", "100000\n");
    put("/sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us", "100000\n");
    CHECK(limit_cpus() == 1);
    put("/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "9223372036854771712\n");
    put("/sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes", "1048576\n");
    put("/sys/fs/cgroup/memory/docker/memory.limit_in_bytes", "83886080\n");
    put("/sys/fs/cgroup/memory/docker/memory.usage_in_bytes", "20971520\n");
    put("/sys/fs/cgroup/memory/docker/memory.stat", "cache 7\ntotal_inactive_file 5242880\n");
    expect_memory(65, "version 1, one level up");
    tiny_remove(root);
}

static bool is_kept(int what, const struct rlimit *wanted)
{
    struct rlimit now;
    return getrlimit(what, &now) == 0 && now.rlim_cur == wanted->rlim_cur;
}

static void resource_limits(void)
{
    struct rlimit before, small;
    size_t space, data, now;
    begin("");
    limit_room(&space, &data);
    if (getrlimit(RLIMIT_AS, &before) != 0 || before.rlim_cur != RLIM_INFINITY) return;
    CHECK(space == SIZE_MAX);
    now = limit_resident();
    small = (struct rlimit){.rlim_cur = now + 512 * MIB, .rlim_max = before.rlim_max};
    CHECK(setrlimit(RLIMIT_AS, &small) == 0);
    if (!is_kept(RLIMIT_AS, &small)) {
        puts("skipped: this system (an emulator?) takes limits and does not keep them");
        tiny_remove(root);
        return;
    }
    limit_room(&space, &data);
    CHECK(space < 512 * MIB && data == SIZE_MAX); /* mapped is more than resident */
    CHECK(limit_memory() <= 512 * MIB);
    CHECK(setrlimit(RLIMIT_AS, &before) == 0);
    if (getrlimit(RLIMIT_DATA, &before) != 0 || before.rlim_cur != RLIM_INFINITY) return;
    small = (struct rlimit){.rlim_cur = 256 * MIB, .rlim_max = before.rlim_max};
    CHECK(setrlimit(RLIMIT_DATA, &small) == 0);
    limit_room(&space, &data);
    CHECK(space == SIZE_MAX && data > 0 && data < 256 * MIB);
    CHECK(setrlimit(RLIMIT_DATA, &before) == 0);
    tiny_remove(root);
}

int main(void)
{
    version_2();
    version_1();
    CHECK(asked > 20); /* the tree was read, and not the system's */
#ifdef __SANITIZE_ADDRESS__
    (void)resource_limits; /* the sanitizer's shadow is mapped beyond any limit */
#else
    resource_limits();
#endif
    return TEST_RESULT();
}
