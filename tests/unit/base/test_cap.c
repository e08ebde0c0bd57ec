/* The process's cap: names, what is above the processor, and that it stands once anybody has asked. */
#include "model/base/cpu.h"
#include "tests/check.h"

int main(void)
{
    struct err e = {0};
    static const char *const wrong[] = {"cpu:avx9", "cpu:", "cuda", "cpux", ""};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        e = (struct err){0};
        CHECK_MSG(cpu_cap(wrong[i], &e) < 0 && e.code == ERR_USAGE, "'%s'", wrong[i]);
    }
    CHECK(cpu_cap("cpu", &e) == 0 && !cpu_capped());
    CHECK_OK(cpu_cap("cpu:ref", &e));
    CHECK(cpu_capped() && cpu_level() == CPU_REF);
    struct cpu c;
    cpu_detect(&c);
    CHECK(c.level == CPU_REF && c.threads >= 1 && c.cores >= 1);
    CHECK(cpu_cap("cpu:ref", &e) == 0); /* it stands */
    e = (struct err){0};
    CHECK(cpu_cap("cpu", &e) < 0 && e.code == ERR_USAGE && strstr(e.msg, "cpu:ref"));
    CHECK(cpu_level() == CPU_REF);
    return TEST_RESULT();
}
