/* Several sizes: which, each with settings of its own, and one profile that goes by tokens. */
#include "app/cli/tune.h"

#include <stdlib.h>
#include <string.h>

#include "app/lib/ini.h"

/* --- which -------------------------------------------------------------------------------------- */

/* "256x256x33,384x384x33" */
int tune_sizes_parse(struct tune *t, const char *text, struct err *e)
{
    for (const char *at = text; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        struct tune_size *s = &t->sizes[t->n_sizes];
        int used = 0;
        if (t->n_sizes == TUNE_SIZES)
            return err_set(e, ERR_USAGE, "--sizes: more than %d", TUNE_SIZES);
        if (sscanf(at, "%5dx%5dx%6d%n", &s->width, &s->height, &s->frames, &used) != 3 ||
            (at[used] && at[used] != ',') || s->width < 1 || s->height < 1 || s->frames < 1)
            return err_set(e, ERR_USAGE,
                           "--sizes is '%.80s', wanted WIDTHxHEIGHTxFRAMES,... as "
                           "256x256x33,384x384x33",
                           text);
        t->n_sizes++;
    }
    return 0;
}

int tune_sizes_base(struct ditgen_settings **out, const struct tune_size *size,
                    const struct ditgen_settings *all, const struct ditgen *d, struct err *e)
{
    struct ditgen_settings *s = NULL;
    const struct {
        const char *name;
        int value;
    } sides[] = {{"width", size->width}, {"height", size->height}, {"frames", size->frames}};
    char number[24];
    *out = NULL;
    if (settings_copy(&s, all, e) < 0) return -1;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < ARRAY_LEN(sides); i++) {
        snprintf(number, sizeof number, "%d", sides[i].value);
        rc = settings_set(s, LAYER_CALL, sides[i].name, number, e);
    }
    if (rc == 0) rc = settings_resolve(out, s, d, NULL, e);
    settings_close(s);
    return rc;
}

void tune_sizes_free(struct tune *t)
{
    for (int i = 0; i < t->n_sizes; i++)
        free(t->sizes[i].comment);
}

/* Fewest tokens first: how a list by size goes. */
static int by_tokens(const void *a, const void *b)
{
    return ((const struct tune_size *)a)->tokens - ((const struct tune_size *)b)->tokens;
}

/* --- one profile -------------------------------------------------------------------------------- */

/* The value of a key in a row; otherwise: what stands where the row says nothing. */
static void value_of(char *to, size_t n, const char *row, const char *key, const char *otherwise)
{
    size_t len = strlen(key);
    snprintf(to, n, "%s", otherwise);
    for (const char *at = row; at && *at;) {
        size_t word = strcspn(at, ";");
        if (strncmp(at, key, len) == 0 && at[len] == '=')
            snprintf(to, n, "%.*s", (int)(word - len - 1), at + len + 1);
        at = at[word] ? at + word + 1 : NULL;
    }
}

static void put_key(FILE *to, const struct tune *t, const char *key, const char *otherwise,
                    const char *between)
{
    char list[TUNE_SIZES * 300] = "", last[256] = "", quoted[2 * sizeof list];
    bool any = false;
    size_t len = 0;
    for (int i = 0; i < t->n_sizes; i++) {
        const struct tune_size *s = &t->sizes[i];
        char value[256], usual[16];
        snprintf(usual, sizeof usual, "%d", s->steps);
        value_of(value, sizeof value, s->row, key, otherwise ? otherwise : usual);
        any = any || strcmp(value, otherwise ? otherwise : usual) != 0;
        if (i && strcmp(value, last) == 0) continue;
        len += (size_t)snprintf(list + len, sizeof list - len, i ? "%s%s@%d" : "%s%s",
                                i ? between : "", value, s->tokens);
        snprintf(last, sizeof last, "%s", value);
    }
    if (!any) return;
    ini_quote(quoted, sizeof quoted, list);
    fprintf(to, "%s = %s\n", key, quoted);
}

void tune_sizes_profile(FILE *to, struct tune *t)
{
    qsort(t->sizes, (size_t)t->n_sizes, sizeof *t->sizes, by_tokens);
    fputs("# ", to);
    for (int i = 0; i < t->n_sizes; i++) {
        const struct tune_size *s = &t->sizes[i];
        fprintf(to, "%s%dx%d, %d frames: ", i ? "; " : "", s->width, s->height, s->frames);
        if (s->row[0])
            fprintf(to, "%s%.2f of exact's seconds and %.1f dB",
                    s->verified ? "" : "not verified: ", s->share, s->psnr);
        else
            fputs("exact, as nothing met the target", to);
    }
    fputs("\n# ditgen tune --sizes\n", to);
    for (int i = 0; i < t->n_sizes; i++)
        if (t->sizes[i].comment) fputs(t->sizes[i].comment, to);
    fputs("[ditgen]\n", to);
    put_key(to, t, "attention", "dense", " | ");
    put_key(to, t, "error-budget", "none", " | ");
    put_key(to, t, "step-cache", "none", " | ");
    put_key(to, t, "steps", NULL, ", ");
}
