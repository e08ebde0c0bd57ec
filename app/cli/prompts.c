/* Lists of prompts; see prompts.h. */
#include "app/cli/prompts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/cli/input.h"
#include "app/lib/assets.h"
#include "model/base/option.h"

static int find(char path[ASSETS_PATH], const char *model_dir, const char *which, struct err *e)
{
    char name[256], file[320];
    struct err ignored;
    path_last(name, sizeof name, model_dir);
    snprintf(file, sizeof file, "prompts/%s-%.20s.txt", name, which);
    if (assets_find(path, file, &ignored) == 0) return 0;
    snprintf(file, sizeof file, "prompts/wan-%.20s.txt", which);
    return assets_find(path, file, e);
}

int prompts_read(struct prompts *p, const char *model_dir, const char *which, const char *file,
                 struct err *e)
{
    char path[ASSETS_PATH];
    size_t len;
    memset(p, 0, sizeof *p);
    if (!file && find(path, model_dir, which, e) < 0) return -1;
    snprintf(p->path, sizeof p->path, "%s", file ? file : path);
    if (input_text(&p->text, &len, p->path, (size_t)1 << 20, e) < 0) return -1;
    for (char *at = p->text; *at && p->n < (int)ARRAY_LEN(p->line);) {
        size_t n = strcspn(at, "\r\n");
        bool end = !at[n];
        at[n] = 0;
        if (at[strspn(at, " \t")] && at[0] != '#') p->line[p->n++] = at;
        at += n + !end;
    }
    if (p->n) return 0;
    err_set(e, ERR_INPUT, "%.300s: no prompt in it", p->path);
    prompts_fini(p);
    return -1;
}

void prompts_fini(struct prompts *p)
{
    free(p->text);
    memset(p, 0, sizeof *p);
}
