/* list: what can be named after a flag, one a line: name, what it is. Standard output is for
 * programs. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/lib/assets.h"
#include "app/cli/cmd.h"
#include "app/clips/writer.h"
#include "model/base/file_map.h"
#include "model/model.h"
#include "sched/sched.h"

static void list_solvers(bool talk)
{
    (void)talk;
    for (int i = 0; i < solver_count(); i++) {
        const struct solver *s = solver_at(i);
        printf("  %-12s %s%s%s%s\n", s->name, s->summary, s->paper ? " (arXiv " : "",
               s->paper ? s->paper : "", s->paper ? ")" : "");
    }
}

static void list_option(const char *of, const struct option *o)
{
    char def[64], row[96];
    option_default_text(o, def, sizeof def);
    snprintf(row, sizeof row, "%s:%s=%s", of, o->name, def);
    printf("  %-12s %-26s %s", "", row, o->help);
    if (o->type == OPTION_INT || o->type == OPTION_DOUBLE) printf(" [%g to %g]", o->lo, o->hi);
    if (o->type == OPTION_ENUM) printf(" [%s]", o->choices);
    putchar('\n');
}

static void list_methods(bool talk)
{
    for (int i = 0; i < attn_methods(); i++) {
        struct attn_method_info m = attn_method_info(i);
        printf("  %-12s %s%s%s%s\n", m.name, m.summary, m.paper ? " (arXiv " : "",
               m.paper ? m.paper : "", m.paper ? ")" : "");
        for (const struct option *o = m.options; talk && o && o->name; o++)
            list_option(m.name, o);
    }
}

static void list_caches(bool talk)
{
    for (int i = 0; i < dit_caches(); i++) {
        struct dit_cache_info c = dit_cache_info(i);
        printf("  %-12s %s%s%s%s%s\n", c.name, c.summary, c.paper ? " (arXiv " : "",
               c.paper ? c.paper : "", c.paper ? ")" : "",
               c.calibrated ? " [calibrated: ditgen calibrate]" : "");
        for (const struct option *o = c.options; talk && o->name; o++)
            list_option(c.name, o);
    }
}

static void list_kernels(bool talk)
{
    (void)talk;
    struct cpu cpu;
    cpu_detect(&cpu);
    for (int i = 0; i < attn_kernel_count(); i++) {
        struct attn_kernel_info k = attn_kernel_at(i);
        printf("  %-12s %s%s\n", k.name, k.summary,
               k.needs > cpu.level ? " [not on this processor]" : "");
    }
}

static void list_gpus(void)
{
    struct device_info d;
    char why[200];
    for (int i = 1; device_at(i, &d); i++)
        if (d.why_not[0])
            printf("  %-12s cannot be used: %s\n", d.name, d.why_not);
        else
            printf("  %-12s %s: sm_%d, %.1f GiB of memory (--max-vram takes less); %s\n", d.name,
                   d.what, d.arch, (double)d.memory / (1 << 30), model_on_device());
    device_no_gpu(why, sizeof why);
    if (*why) printf("  %-12s not here: %s\n", "cuda", why);
}

static void list_devices(bool talk)
{
    (void)talk;
    struct cpu cpu;
    cpu_detect(&cpu);
    printf("  %-12s %s: %s, %d threads on %d cores; %s\n", "cpu",
           cpu.name[0] ? cpu.name : "processor", cpu_level_name(cpu.level), cpu.threads, cpu.cores,
           model_backend());
    list_gpus();
}

static void list_writers(bool talk)
{
    (void)talk;
    for (int i = 0; i < writer_kind_count(); i++) {
        const struct writer_kind *k = writer_kind_at(i);
        printf("  %-12s %s%s%s%s\n", k->name, k->summary, k->suffixes[0] ? " [" : "", k->suffixes,
               k->suffixes[0] ? "]" : "");
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Name and the first comment line of each file. */
static void list_profiles(bool talk)
{
    (void)talk;
    char dir[ASSETS_PATH], *names[64];
    int n = 0;
    struct err ignored;
    if (assets_find(dir, "profiles", &ignored) < 0) return;
    DIR *d = opendir(dir);
    if (!d) return;
    for (struct dirent *x; n < (int)ARRAY_LEN(names) && (x = readdir(d)) != NULL;) {
        size_t len = strlen(x->d_name);
        if (len > 4 && strcmp(x->d_name + len - 4, ".ini") == 0 && (names[n] = strdup(x->d_name)))
            n++;
    }
    closedir(d);
    qsort(names, (size_t)n, sizeof *names, by_name);
    for (int i = 0; i < n; i++) {
        char path[ASSETS_PATH + 300], line[200] = "";
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        struct err none;
        int fd = file_open(path, &none);
        FILE *f = fd >= 0 ? fdopen(fd, "r") : NULL;
        if (fd >= 0 && !f) close(fd);
        if (f && !fgets(line, sizeof line, f)) line[0] = 0;
        if (f) fclose(f);
        line[strcspn(line, "\n")] = 0;
        printf("  %-12.*s %s\n", (int)strlen(names[i]) - 4, names[i],
               line[0] == '#' || line[0] == ';' ? line + 1 + strspn(line + 1, " ") : "");
        free(names[i]);
    }
}

static const struct what {
    const char *name, *title;
    void (*print)(bool talk); /* talk: what belongs to each as well */
} whats[] = {
    {"solvers", "solvers (--solver)", list_solvers},
    {"methods", "attention methods (--attention)", list_methods},
    {"caches", "step caches (--step-cache)", list_caches},
    {"kernels", "attention kernels (--kernel), best first", list_kernels},
    {"devices", "devices", list_devices},
    {"writers", "writers (--output)", list_writers},
    {"profiles", "profiles (--profile)", list_profiles},
};

int cmd_list(int argc, char **argv, struct err *e)
{
    bool any = false, talk = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-v") != 0 && strcmp(argv[i], "--verbose") != 0) continue;
        talk = true;
        memmove(&argv[i], &argv[i + 1], (size_t)(argc-- - i) * sizeof *argv);
        i--;
    }
    if (argc > 2)
        return err_set(e, ERR_USAGE, "list takes one word, '%.60s' is the second", argv[2]);
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        puts("ditgen list [-v] [solvers|methods|caches|kernels|devices|writers|profiles]: what can "
             "be "
             "named after a flag; -v: options of methods and caches, with defaults and ranges");
        return 0;
    }
    for (size_t i = 0; i < ARRAY_LEN(whats); i++) {
        if (argc == 2 && strcmp(argv[1], whats[i].name) != 0) continue;
        printf("%s%s\n", any ? "\n" : "", whats[i].title);
        whats[i].print(talk);
        any = true;
    }
    if (!any)
        return err_set(
            e, ERR_USAGE,
            "there is no list of '%.60s'; there are solvers, methods, caches, kernels, devices, "
            "writers, profiles",
            argv[1]);
    return 0;
}
