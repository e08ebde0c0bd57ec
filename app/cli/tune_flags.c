/* Flags of tune beside those of generate; see tune.h. */
#include "app/cli/tune.h"
#include "model/base/option.h"

#include <string.h>

const char tune_usage[] =
    "ditgen tune [--db X] [--ssim X] [--share X] [-o PROFILE.ini] [--svg FILE] [--json]\n"
    "            [--log FILE] [--resume] [--minutes N] [--search N] [--verify N] [--quick]\n"
    "            [--sizes WxHxF,...] [--clock wall|cpu] [flags of generate]\n"
    "  --db X         fidelity wanted: mean PSNR of frames against exact (default 40)\n"
    "  --ssim X       the same as SSIM, instead or besides\n"
    "  --share X      a time target instead: at most X of exact's seconds (0.5), as faithful as "
    "can be\n"
    "  -o FILE        the profile: the settings, with figures, prompts and seeds as comments "
    "(default\n"
    "                 tuned.ini); use it with --config\n"
    "  --svg FILE     a picture: seconds against dB, the frontier and fewer steps\n"
    "  --search N     prompts to search with (2), --verify N: others to verify with (4)\n"
    "  --minutes N    verifies after so long whatever is left to search\n"
    "  --quick        one setting a method, one round, 2 prompts to verify with\n"
    "  --log FILE     JSON lines, one a clip (default tune.jsonl); --resume goes on with it\n"
    "  --clock cpu    shares by the CPU time of all threads: on a machine that others use\n"
    "  --check FILE   only measures a profile on the prompts that verify: mean, worst and each "
    "clip, "
    "with\n"
    "                 as many seconds of fewer steps beside it, and what an error budget held\n"
    "  --sizes LIST   256x256x33,384x384x33: searches each, and writes one profile that goes by "
    "tokens; "
    "with\n"
    "                 --check measures each\n"
    "Looks at steps, solver, step cache, method, density, refresh schedule, exact first and last "
    "steps\n"
    "and precision, at the size that is set. Ctrl-C writes the best so far, marked as not "
    "verified.\n";

static int take_value(struct tune *t, const char *name, const char *value, struct err *e)
{
    const struct {
        const char *name;
        double *number;
        int *whole;
        const char **text;
        double lo, hi;
    } flags[] = {
        {"--db", &t->target.db, NULL, NULL, 1, 90},
        {"--ssim", &t->target.ssim, NULL, NULL, 0.01, 1},
        {"--share", &t->target.share, NULL, NULL, 0.01, 1},
        {"--minutes", &t->minutes, NULL, NULL, 0.01, 1e6},
        {"--search", NULL, &t->n_search, NULL, 1, 64},
        {"--verify", NULL, &t->n_verify, NULL, 1, 64},
        {"--log", NULL, NULL, &t->log, 0, 0},
        {"--svg", NULL, NULL, &t->svg, 0, 0},
        {"--check", NULL, NULL, &t->check, 0, 0},
    };
    if (strcmp(name, "--clock") == 0) {
        if (value && strcmp(value, "cpu") != 0 && strcmp(value, "wall") != 0)
            return err_set(e, ERR_USAGE, "--clock is '%.40s', wanted wall or cpu", value);
        if (value) t->cpu = value[0] == 'c';
        return value ? 1 : err_set(e, ERR_USAGE, "--clock wants a value");
    }
    if (strcmp(name, "--sizes") == 0) {
        if (!value) return err_set(e, ERR_USAGE, "--sizes wants a value");
        t->n_sizes = 0;
        return tune_sizes_parse(t, value, e) < 0 ? -1 : 1;
    }
    for (size_t i = 0; i < ARRAY_LEN(flags); i++) {
        if (strcmp(name, flags[i].name) != 0) continue;
        if (!value) return err_set(e, ERR_USAGE, "%s wants a value", name);
        if (flags[i].text) {
            *flags[i].text = value;
        } else if (flags[i].whole
                       ? parse_int(value, (long)flags[i].lo, (long)flags[i].hi, flags[i].whole) < 0
                       : parse_double(value, flags[i].lo, flags[i].hi, flags[i].number) < 0) {
            return err_set(e, ERR_USAGE, "%s is '%.40s', wanted %g to %g", name, value, flags[i].lo,
                           flags[i].hi);
        }
        return 1;
    }
    return 0;
}

int tune_flags(struct tune *t, int *argc, char **argv, struct err *e)
{
    const struct {
        const char *name;
        bool *on;
    } switches[] = {{"--quick", &t->quick},
                    {"--resume", &t->resume},
                    {"--json", &t->json},
                    {"--help", &t->help},
                    {"-h", &t->help}};
    int n = 1;
    for (int i = 1; i < *argc; i++) {
        bool on = false;
        for (size_t k = 0; k < ARRAY_LEN(switches); k++)
            if (strcmp(argv[i], switches[k].name) == 0) *switches[k].on = on = true;
        int taken = on ? 0 : take_value(t, argv[i], i + 1 < *argc ? argv[i + 1] : NULL, e);
        if (taken < 0) return -1;
        if (!on && !taken) argv[n++] = argv[i];
        i += taken;
    }
    *argc = n;
    if (!t->log) t->log = "tune.jsonl";
    if (!t->n_search) t->n_search = t->quick ? 1 : 2;
    if (!t->n_verify) t->n_verify = t->quick ? 2 : 4;
    if (t->target.db <= 0 && t->target.ssim <= 0 && t->target.share <= 0) t->target.db = 40;
    return 0;
}
