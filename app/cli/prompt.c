/* Where a prompt comes from when it is not on the command line; see generate.h. */
#include "app/cli/generate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app/cli/input.h"

#define PROMPT_MAX ((size_t)1 << 20) /* bytes: far above what any tokenizer here keeps */

/* A person's terminal and /dev/null hold no prompt; a pipe, a socket or a file may. */
static bool stdin_has_prompt(void)
{
    struct stat st;
    return fstat(STDIN_FILENO, &st) == 0 &&
           (S_ISFIFO(st.st_mode) || S_ISREG(st.st_mode) || S_ISSOCK(st.st_mode));
}

static bool is_blank(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strchr(" \t\r", text[i])) return false;
    return true;
}

static int lines_of(const char *text)
{
    int lines = 0;
    while (*text) {
        size_t n = strcspn(text, "\n");
        lines += !is_blank(text, n);
        text += n + (text[n] == '\n');
    }
    return lines;
}

/* Takes the line ends at its end; a list of prompts is likely a mistake, which nobody would see. */
static int use(struct cli *c, char *text, const char *name, struct err *e)
{
    size_t n = strlen(text);
    while (n && (text[n - 1] == '\n' || text[n - 1] == '\r'))
        n--;
    text[n] = 0;
    int lines = lines_of(text);
    if (lines > 1)
        snprintf(c->warning, sizeof c->warning,
                 "the %d lines of %.200s are one prompt; a clip a line takes a run a line", lines,
                 name);
    if (settings_set(c->settings, LAYER_FLAG, "prompt", text, e) == 0) return 0;
    if (e->code == ERR_USAGE) e->code = ERR_INPUT;
    return err_wrap(e, "%s", name);
}

int prompt_read(struct cli *c, struct err *e)
{
    bool given = c->file != NULL;
    const char *path = given ? c->file : "-",
               *name = strcmp(path, "-") == 0 ? "standard input" : path;
    char *text = NULL;
    size_t len;
    if (!given && settings_from(c->settings, SET_PROMPT)) return 0;
    if (!given && c->plan && !stdin_has_prompt()) /* a plan does not depend on the words */
        return settings_set(c->settings, LAYER_FLAG, "prompt", "", e);
    if (!given && !stdin_has_prompt())
        return err_set(e, ERR_USAGE,
                       "no prompt: give one as ditgen \"a rocket flies up\", or by -f FILE");
    if (input_text(&text, &len, path, PROMPT_MAX, e) < 0) return -1;
    int rc;
    if (!given && !text[strspn(text, " \t\r\n")])
        rc = err_set(e, ERR_USAGE,
                     "no prompt: standard input is empty (an empty prompt is -p \"\")");
    else
        rc = use(c, text, name, e);
    free(text);
    return rc;
}
