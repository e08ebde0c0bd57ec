/* Help for people; see help.h. */
#include "app/cli/help.h"

#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "app/cli/cli.h"
#include "app/clips/writer.h"
#include "model/model.h"

#define COLUMN 28 /* where the words begin */

static int screen_width(FILE *to)
{
    struct winsize w;
    if (isatty(fileno(to)) && ioctl(fileno(to), TIOCGWINSZ, &w) == 0 && w.ws_col >= 60)
        return w.ws_col < 110 ? w.ws_col : 110;
    return 96;
}

/* text and tail in a column of its own, broken at blanks; the cursor stands at `at`. */
static void put_column(FILE *to, int at, int width, const char *text, const char *tail)
{
    if (at >= COLUMN) fputc('\n', to), at = 0;
    fprintf(to, "%*s", COLUMN - at, "");
    int room = width - COLUMN, col = 0;
    for (const char *p = text; *p || *tail;) {
        if (!*p) p = tail + strspn(tail, " "), tail = "";
        int n = (int)strcspn(p, " ");
        if (col && col + 1 + n > room) {
            fprintf(to, "\n%*s", COLUMN, "");
            col = 0;
        } else if (col) {
            fputc(' ', to), col++;
        }
        fprintf(to, "%.*s", n, p);
        col += n;
        p += n;
        p += strspn(p, " ");
    }
    fputc('\n', to);
}

static void put_flag(FILE *to, int width, const char *dash, const char *name, const char *word,
                     const struct option *o)
{
    char flag[200], value[48] = "";
    int n =
        snprintf(flag, sizeof flag, dash && strlen(dash) > 2 ? "  %s, --%s%s%s" : "  %-4s --%s%s%s",
                 dash ? dash : "", name, *word ? " " : "", word);
    /* a default that is the same for every model */
    if ((o->type == OPTION_INT || o->type == OPTION_DOUBLE) && o->def != 0 && o->def >= o->lo)
        snprintf(value, sizeof value, " (%g)", o->def);
    fputs(flag, to);
    put_column(to, n, width, o->help, value);
}

static void put_row(FILE *to, int width, const struct setting *s)
{
    put_flag(to, width, s->dash, s->option.name, setting_word(s), &s->option);
}

/* Its own options, as they follow the method's name and as flags. */
static void put_method(FILE *to, int width, const struct attn_method_info *m)
{
    if (!m->options || !m->options->name) return;
    fprintf(to, "\nWith --attention %s (also as %s:", m->name, m->name);
    for (const struct option *o = m->options; o->name; o++)
        fprintf(to, "%s%s=...", o == m->options ? "" : ",", o->name);
    fputs(")\n", to);
    for (const struct option *o = m->options; o->name; o++) {
        const struct setting row = {.option = *o};
        char name[128];
        setting_method_name(&(struct setting_method){*m, o}, name, sizeof name);
        put_flag(to, width, NULL, name, setting_word(&row), o);
    }
}

static void put_all(FILE *to)
{
    int width = screen_width(to), section = -1;
    for (int i = 0; i < setting_count(); i++) {
        const struct setting *s = setting_at(i);
        if ((int)s->section != section) fprintf(to, "\n%s\n", setting_section_title(s->section));
        section = (int)s->section;
        put_row(to, width, s);
    }
    for (int i = 0; i < attn_methods(); i++) {
        struct attn_method_info m = attn_method_info(i);
        put_method(to, width, &m);
    }
    fputs("\nFiles and talk\n", to);
    for (const struct setting *s = cli_rows; s->option.name; s++)
        put_row(to, width, s);
}

void help_generate(FILE *to)
{
    fputs(
        "ditgen: a prompt becomes a video, on this processor\n"
        "\n"
        "  ditgen \"a rocket flies up in outer space\" -o rocket.mp4\n"
        "  echo \"a big shark moves left underwater\" | ditgen -o shark.mp4 --seed 7\n"
        "  ditgen -m Wan2.1-T2V-1.3B-Diffusers \"a cat\" --size 832x480 --seconds 5 --plan\n"
        "  ditgen rerun rocket.mp4 --steps 50\n"
        "\n"
        "Verbs (the first word; without one, generate)\n"
        "  generate [flags] PROMPT   make a clip\n"
        "  rerun CLIP [flags]        make it again from the settings it carries, changed by flags\n"
        "  resume [NAME] [flags]     go on where a run was broken off\n"
        "  decode LATENTS -o CLIP    a clip from latents that were kept\n"
        "  list [WHAT]               solvers, methods, kernels, devices, writers, profiles\n"
        "  inspect DIR|FILE          a model folder or a checkpoint\n"
        "  compare A B               PSNR and SSIM of two clips, PNG folders or latents\n"
        "  bench [flags]             seconds and memory of each phase\n"
        "  calibrate [flags]         measure a model for --step-cache\n"
        "  tune [flags]              settings that save most at a wanted fidelity\n",
        to);
    put_all(to);
    fputs("\nWhat is not given comes from --config, then --profile, then the model's own defaults. "
          "Every clip\n"
          "carries its settings. Exit codes: 0 done, 2 flags, 3 input, 4 memory or disk, 5 "
          "processor,\n"
          "6 cancelled.\n",
          to);
}

void help_rerun(FILE *to)
{
    fputs("ditgen rerun CLIP [flags]: the clip again, from the settings it carries\n"
          "\n"
          "CLIP is an mp4, mov, webm or y4m file, a folder of PNG frames, or a settings.ini. Flags "
          "replace what\n"
          "they name, all others stay. A clip names its model; one that is not among the assets is "
          "given by -m.\n",
          to);
    put_all(to);
}

void help_version(FILE *to)
{
    fprintf(to, "ditgen %s\n", ditgen_version());
    fprintf(to, "linear layers   %s\n", model_backend());
    fputs("writers        ", to);
    for (int i = 0; i < writer_kind_count(); i++)
        fprintf(to, " %s", writer_kind_at(i)->name);
    fputc('\n', to);
}
