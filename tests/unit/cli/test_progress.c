/* The bar fits the terminal at any width, also when it is resized while running; dumb terminals and
 * files get lines. A pseudo terminal plays the window. */
#include "app/cli/progress.h"
#include "app/cli/terminal.h"
#include "tests/check.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int master;
static FILE *slave;

static bool open_pty(void)
{
    master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || grantpt(master) < 0 || unlockpt(master) < 0) return false;
    const char *name = ptsname(master);
    slave = name ? fopen(name, "w") : NULL;
    fcntl(master, F_SETFL, O_NONBLOCK);
    return slave != NULL;
}

static void resize(int columns)
{
    struct winsize w = {.ws_row = 24, .ws_col = (unsigned short)columns};
    CHECK(ioctl(master, TIOCSWINSZ, &w) == 0);
}

/* What was drawn since the last call. */
static const char *drawn(void)
{
    static char text[65536];
    size_t n = 0;
    struct pollfd ready = {.fd = master, .events = POLLIN};
    while (n + 1 < sizeof text && poll(&ready, 1, 50) == 1) { /* a terminal delivers late */
        ssize_t got = read(master, text + n, sizeof text - 1 - n);
        if (got <= 0) break;
        n += (size_t)got;
    }
    text[n] = 0;
    return text;
}

/* Every line of it, between carriage returns, is narrower than the window and holds no colour. */
static int check_lines(const char *text, int width)
{
    int lines = 0;
    while (*text) {
        char line[1024];
        size_t n = strcspn(text, "\r\n"), from = strncmp(text, "\033[K", 3) == 0 ? 3 : 0;
        snprintf(line, sizeof line, "%.*s", (int)(n - from), text + from);
        CHECK_MSG(!strchr(line, '\033'), "a control sequence in '%s'", line);
        CHECK_MSG(terminal_columns(line) < width, "%d columns on %d: '%s'", terminal_columns(line),
                  width, line);
        if (n > from) lines++;
        text += n;
        text += strspn(text, "\r\n");
    }
    return lines;
}

static struct ditgen_progress at(enum ditgen_phase phase, int done, int block)
{
    return (struct ditgen_progress){.phase = phase,
                                    .done = done,
                                    .total = 1000,
                                    .block = block,
                                    .blocks = 80,
                                    .seconds = 12345.6 + done * 70 + block};
}

static void bars(void)
{
    struct progress p;
    setenv("TERM", "xterm", 1);
    resize(80);
    progress_init(&p, slave, false, false);
    CHECK(p.form == PROGRESS_BAR);
    for (int width = 10; width <= 200; width += width < 90 ? 1 : 13) {
        resize(width); /* while it runs */
        for (int phase = 0; phase < DITGEN_PHASES; phase++)
            for (int done = 0; done < 1000; done += 333) {
                struct ditgen_progress now = at((enum ditgen_phase)phase, done, done ? 40 : 0);
                progress_update(&p, &now);
            }
        int lines = check_lines(drawn(), width);
        CHECK_MSG(lines > 4, "%d columns: %d lines", width, lines);
    }
    resize(120);
    struct ditgen_progress now = at(DITGEN_DENOISE, 500, 12);
    progress_update(&p, &now);
    const char *text = drawn();
    CHECK(strstr(text, "500/1000") && strstr(text, "####") && strstr(text, "left") &&
          strstr(text, "s/step") && strstr(text, "block 12/80"));
    progress_pause(&p);
    drawn();
}

static void dumb(void)
{
    struct progress p;
    setenv("TERM", "dumb", 1);
    progress_init(&p, slave, false, false);
    CHECK(p.form == PROGRESS_LINES);
    for (int done = 1; done < 4; done++) {
        struct ditgen_progress now = at(DITGEN_DENOISE, done, 0);
        progress_update(&p, &now);
    }
    const char *text = drawn();
    CHECK(strstr(text, "step 3/1000") && !strchr(text, '\033'));
    unsetenv("TERM");
    progress_init(&p, slave, false, false);
    CHECK(p.form == PROGRESS_LINES);
}

static void widths(void)
{
    char text[64] = "a\xe7\x81\xab\xe7\xae\xad"
                    "b"; /* a rocket in Chinese, between letters */
    CHECK(terminal_columns(text) == 6);
    terminal_cut(text, 4);
    CHECK_STR(text, "a\xe7\x81\xab");
    CHECK(terminal_columns("\xf0\x9f\x9a\x80") == 2); /* an emoji */
    CHECK(terminal_columns("e\xcc\x81") == 1); /* e and an accent on it */
    CHECK(terminal_columns("\xff\xfe") == 2);
}

int main(void)
{
    widths();
    if (!open_pty()) {
        printf("skipped: no pseudo terminal here\n");
        return TEST_RESULT();
    }
    bars();
    dumb();
    fclose(slave);
    close(master);
    return TEST_RESULT();
}
