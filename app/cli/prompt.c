/* Where a prompt comes from when it is not on the command line; see generate.h. */
#include "app/cli/generate.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app/lib/assets.h"

#define PROMPT_MAX (1 << 20) /* bytes: far above what any tokenizer here keeps */

static int read_prompt(char **out, FILE *f, const char *name, struct err *e)
{
    char *text = malloc(PROMPT_MAX + 1);
    if (!text) return err_set(e, ERR_RESOURCE, "no memory for the prompt");
    size_t n = fread(text, 1, PROMPT_MAX + 1, f);
    int rc = 0;
    if (ferror(f))
        rc = err_set(e, ERR_INPUT, "%s: cannot be read: %s", name, strerror(errno));
    else if (n > PROMPT_MAX)
        rc = err_set(e, ERR_INPUT, "%s: longer than %d bytes: this is no prompt", name, PROMPT_MAX);
    else if (memchr(text, 0, n))
        rc = err_set(e, ERR_INPUT, "%s: holds a NUL byte: this is no text", name);
    if (rc < 0) {
        free(text);
        return -1;
    }
    while (n && (text[n - 1] == '\n' || text[n - 1] == '\r'))
        n--;
    text[n] = 0;
    *out = text;
    return 0;
}

/* A person's terminal and /dev/null hold no prompt; a pipe, a socket or a file may. */
static bool stdin_has_prompt(void)
{
    struct stat st;
    return fstat(STDIN_FILENO, &st) == 0 &&
           (S_ISFIFO(st.st_mode) || S_ISREG(st.st_mode) || S_ISSOCK(st.st_mode));
}

int prompt_read(struct cli *c, struct err *e)
{
    bool given = c->file != NULL, pipe = !given || strcmp(c->file, "-") == 0;
    char *text = NULL;
    int rc;
    if (!given && settings_from(c->settings, SET_PROMPT)) return 0;
    if (!given && c->plan && !stdin_has_prompt()) /* a plan does not depend on the words */
        return settings_set(c->settings, LAYER_FLAG, "prompt", "", e);
    if (!given && !stdin_has_prompt())
        return err_set(e, ERR_USAGE,
                       "no prompt: give one as ditgen \"a rocket flies up\", or by -f FILE");
    if (pipe) {
        rc = read_prompt(&text, stdin, "standard input", e);
        if (rc == 0 && !given && !text[strspn(text, " \t\r\n")])
            rc = err_set(e, ERR_USAGE,
                         "no prompt: standard input is empty (an empty prompt is -p \"\")");
    } else {
        if (path_is_dir(c->file))
            return err_set(e, ERR_INPUT, "%s: is a folder, wanted a text file", c->file);
        FILE *f = fopen(c->file, "rb");
        if (!f) return err_set(e, ERR_INPUT, "%s: cannot be read: %s", c->file, strerror(errno));
        rc = read_prompt(&text, f, c->file, e);
        fclose(f);
    }
    if (rc == 0) rc = settings_set(c->settings, LAYER_FLAG, "prompt", text, e);
    free(text);
    return rc;
}
