/* The status line; see progress.h. */
#include "app/cli/progress.h"

#include <stdarg.h>
#include <string.h>

#include "app/cli/terminal.h"

#define REDRAW 0.1 /* seconds between drawings of the bar */
#define SLOW_STEP 1.0 /* seconds a step from which its blocks are worth showing */
#define BAR_WIDTH 28

void progress_init(struct progress *p, FILE *to, bool json, bool quiet)
{
    memset(p, 0, sizeof *p);
    p->to = to;
    p->form = quiet                ? PROGRESS_QUIET
              : json               ? PROGRESS_JSON
              : terminal_draws(to) ? PROGRESS_BAR
                                   : PROGRESS_LINES;
}

void seconds_text(char *buf, size_t n, double s)
{
    if (s < 0) s = 0;
    if (s < 10)
        snprintf(buf, n, "%.1f s", s);
    else if (s < 119.5)
        snprintf(buf, n, "%.0f s", s);
    else if (s < 7200)
        snprintf(buf, n, "%d min %d s", (int)(s + 0.5) / 60, (int)(s + 0.5) % 60);
    else if (s < 1e8)
        snprintf(buf, n, "%d h %d min", (int)(s / 3600), (int)(s / 60) % 60);
    else
        snprintf(buf, n, "years");
}

void bytes_text(char *buf, size_t n, double bytes)
{
    if (bytes < 1024.0 * 1024 * 1024)
        snprintf(buf, n, "%.0f MiB", bytes / (1024 * 1024));
    else
        snprintf(buf, n, "%.1f GiB", bytes / (1024.0 * 1024 * 1024));
}

void json_put_string(FILE *f, const char *text)
{
    fputc('"', f);
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (*c == '"' || *c == '\\')
            fprintf(f, "\\%c", *c);
        else if (*c < 32)
            fprintf(f, "\\u%04x", *c);
        else
            fputc(*c, f);
    }
    fputc('"', f);
}

void progress_pause(struct progress *p)
{
    if (p->drawn) fputs("\r\033[K", p->to);
    p->drawn = false;
    fflush(p->to);
}

void progress_say(struct progress *p, const char *fmt, ...)
{
    if (p->form == PROGRESS_QUIET) return;
    char line[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    progress_pause(p);
    if (p->form == PROGRESS_JSON) {
        fputs("{\"event\":\"log\",\"line\":", p->to);
        json_put_string(p->to, line);
        fputs("}\n", p->to);
    } else {
        fprintf(p->to, "%s\n", line);
    }
    fflush(p->to);
}

static const char *phase_name(enum ditgen_phase phase)
{
    static const char *const names[] = {"text", "denoise", "decode"};
    return names[phase];
}

/* Share of the phase done, counting blocks of the step under way. */
static double share(const struct ditgen_progress *n)
{
    double done = n->done;
    if (n->blocks > 0) done += (double)n->block / n->blocks;
    return n->total > 0 ? done / n->total : 0;
}

/* Seconds left by what this run did of it; -1: too early to say. */
static double seconds_left(const struct ditgen_progress *n)
{
    double done = share(n) * n->total - n->first, all = n->total - n->first;
    return all > 0 && done > 0.02 * all ? n->seconds * (all - done) / done : -1;
}

/* Puts " word" behind the line when that fits; the last column stays free, because some terminals
 * wrap there. */
static void add_word(char *line, size_t size, int width, const char *word)
{
    size_t n = strlen(line);
    if (terminal_columns(line) + terminal_columns(word) + 1 < width)
        snprintf(line + n, size - n, " %s", word);
}

/* What there is to say, in the order of its worth; the bar takes what is left over. */
static void draw_bar(struct progress *p, const struct ditgen_progress *n)
{
    static const char *const words[] = {"text", "step", "frame"};
    int width = terminal_width(p->to);
    char line[160], left[48] = "", pace[40] = "", block[40] = "", bar[BAR_WIDTH + 3], eta[40];
    double s = share(n), done = s * n->total - n->first;
    snprintf(line, sizeof line, "%-5s %3d/%d", words[n->phase], n->done, n->total);
    if (seconds_left(n) >= 0) {
        seconds_text(eta, sizeof eta, seconds_left(n));
        snprintf(left, sizeof left, "%s left", eta);
    }
    if (n->phase == DITGEN_DENOISE) {
        if (done > 0.02) snprintf(pace, sizeof pace, "%.2f s/step", n->seconds / done);
        if (done > 0 && n->seconds / done > SLOW_STEP && n->block > 0)
            snprintf(block, sizeof block, "block %d/%d", n->block, n->blocks);
    }
    /* the bar stands first and shrinks last but one: 10 columns of it are enough to see */
    int words_width = (int)(strlen(left) + strlen(pace) + strlen(block)) + 3;
    int room = width - terminal_columns(line) - words_width - 4;
    int size = room > BAR_WIDTH ? BAR_WIDTH : room < 10 ? 10 : room, full = (int)(s * size + 1e-9);
    for (int i = 0; i < size; i++)
        bar[i + 1] = i < full ? '#' : '.';
    bar[0] = '[', bar[size + 1] = ']', bar[size + 2] = 0;
    add_word(line, sizeof line, width, bar);
    if (left[0]) add_word(line, sizeof line, width, left);
    if (pace[0]) add_word(line, sizeof line, width, pace);
    if (block[0]) add_word(line, sizeof line, width, block);
    terminal_cut(line, width - 1);
    fprintf(p->to, "\r\033[K%s", line);
    fflush(p->to);
    p->drawn = true;
    p->last = n->seconds;
}

/* Blocks are told only while steps are slow: a line a second at most. */
static bool worth_json(const struct progress *p, const struct ditgen_progress *n)
{
    return n->done != p->done || n->seconds - p->last >= SLOW_STEP;
}

static void put_json(struct progress *p, const struct ditgen_progress *n)
{
    double left = seconds_left(n);
    fprintf(p->to,
            "{\"event\":\"progress\",\"phase\":\"%s\",\"done\":%d,\"total\":%d,\"seconds\":%.3f",
            phase_name(n->phase), n->done, n->total, n->seconds);
    if (n->blocks > 0) fprintf(p->to, ",\"block\":%d,\"blocks\":%d", n->block, n->blocks);
    if (left >= 0) fprintf(p->to, ",\"eta\":%.3f", left);
    fputs("}\n", p->to);
    fflush(p->to);
    p->last = n->seconds;
}

static void put_line(struct progress *p, const struct ditgen_progress *n)
{
    char eta[40], took[40];
    seconds_text(took, sizeof took, n->seconds);
    if (n->phase == DITGEN_DENOISE) {
        if (n->done == p->done || n->done == n->first) return;
        seconds_text(eta, sizeof eta, seconds_left(n));
        fprintf(p->to, "step %d/%d: %.2f s, %s left\n", n->done, n->total,
                n->seconds - p->step_begin, eta);
    } else if (n->done == n->total && n->total != p->done) {
        if (n->phase == DITGEN_TEXT)
            fprintf(p->to, "text read in %s\n", took);
        else
            fprintf(p->to, "%d frames decoded in %s\n", n->total, took);
    }
    fflush(p->to);
}

void progress_update(struct progress *p, const struct ditgen_progress *n)
{
    if (!p->begun || p->phase != n->phase) {
        p->begun = true;
        p->phase = n->phase;
        p->done = n->first;
        p->last = -SLOW_STEP;
        p->step_begin = 0;
    }
    p->phase_seconds[n->phase] = n->seconds;
    switch (p->form) {
    case PROGRESS_BAR:
        if (n->done != p->done || n->seconds - p->last >= REDRAW) draw_bar(p, n);
        break;
    case PROGRESS_LINES:
        if (n->done > 0) put_line(p, n);
        break;
    case PROGRESS_JSON:
        if (worth_json(p, n)) put_json(p, n);
        break;
    case PROGRESS_QUIET:
        break;
    }
    if (n->done != p->done) p->step_begin = n->seconds;
    p->done = n->done;
}
