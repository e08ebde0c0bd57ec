/* Trials kept on disk; see trial_log.h. */
#include "app/cli/trial_log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/cli/input.h"
#include "app/lib/assets.h"
#include "model/base/json.h"

static const struct {
    const char *name;
    size_t at;
} fields[] = {
#define FIELD(f)                                                                                   \
    {                                                                                              \
#f, offsetof(struct trial, f)                                                              \
    }
    FIELD(wall),   FIELD(cpu),    FIELD(share),    FIELD(cpu_share), FIELD(computed),
    FIELD(copied), FIELD(reused), FIELD(error),    FIELD(recall),    FIELD(planning),
    FIELD(psnr),   FIELD(ssim),   FIELD(estimate), /* the last: older logs lack it */
#undef FIELD
};

static int keep(struct trials *t, const char *key, const struct trial *r, struct err *e)
{
    if (t->n_known == t->room) {
        int room = t->room ? 2 * t->room : 64;
        struct trial_known *more = realloc(t->known, (size_t)room * sizeof *more);
        if (!more) return err_set(e, ERR_RESOURCE, "no memory for %d trials", room);
        t->known = more;
        t->room = room;
    }
    char *copy = strdup(key);
    if (!copy) return err_set(e, ERR_RESOURCE, "no memory for a trial");
    t->known[t->n_known++] = (struct trial_known){copy, *r};
    return 0;
}

static int take_line(struct trials *t, const char *line, size_t n, int number, struct err *e)
{
    struct json *root = NULL;
    struct trial r = {0};
    struct err bad;
    int rc = json_parse(&root, line, n, t->path, &bad);
    const char *key = rc == 0 ? json_string(json_get(root, "key")) : NULL;
    bool whole = key != NULL;
    for (size_t i = 0; whole && i < ARRAY_LEN(fields); i++) {
        double *v = (void *)((char *)&r + fields[i].at);
        whole = json_number(json_get(root, fields[i].name), v) || i + 1 == ARRAY_LEN(fields);
    }
    rc = whole ? keep(t, key, &r, e)
               : err_set(e, ERR_INPUT, "%s: line %d is no trial of this program", t->path, number);
    json_close(root);
    return rc;
}

int trial_log_parse(struct trials *t, const char *text, size_t len, struct err *e)
{
    int number = 1;
    for (const char *at = text, *end = text + len; at < end; number++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        if (!stop) break; /* cut off while it was written: that clip is made again */
        if (take_line(t, at, (size_t)(stop - at), number, e) < 0) return -1;
        at = stop + 1;
    }
    return 0;
}

static int append(const struct trials *t, const char *key, const struct trial *r, struct err *e)
{
    FILE *f = fopen(t->path, "a");
    if (!f) return err_set(e, ERR_RESOURCE, "%s: cannot be written (%s)", t->path, strerror(errno));
    fputs("{\"key\": ", f);
    json_put_string(f, key);
    for (size_t i = 0; i < ARRAY_LEN(fields); i++)
        fprintf(f, ", \"%s\": %.9g", fields[i].name,
                *(const double *)(const void *)((const char *)r + fields[i].at));
    fputs("}\n", f);
    bool failed = ferror(f) != 0;
    if (fclose(f) == 0 && !failed) return 0;
    return err_set(e, ERR_RESOURCE, "%s: cannot be written (%s)", t->path, strerror(errno));
}

int trial_log_open(struct trials *t, bool resume, bool replace, struct err *e)
{
    char *text = NULL;
    size_t len = 0;
    bool there = path_exists(t->path);
    if (there && !resume && !replace)
        return err_set(e, ERR_USAGE,
                       "%s is there: --resume goes on with it, -y begins anew, --log FILE keeps "
                       "another",
                       t->path);
    if (there && resume) {
        if (input_text(&text, &len, t->path, (size_t)1 << 28, e) < 0) return -1;
        int rc = trial_log_parse(t, text, len, e);
        size_t whole = len;
        while (whole && text[whole - 1] != '\n')
            whole--;
        free(text);
        /* what was cut off must not stay in front of what is appended */
        if (rc == 0 && whole < len && truncate(t->path, (off_t)whole) < 0)
            rc = err_set(e, ERR_RESOURCE, "%s: cannot be cut (%s)", t->path, strerror(errno));
        return rc;
    }
    FILE *f = fopen(t->path, "w");
    if (f && fclose(f) == 0) return 0;
    return err_set(e, ERR_RESOURCE, "%s: cannot be written (%s)", t->path, strerror(errno));
}

int trial_log_add(struct trials *t, const char *key, const struct trial *r, struct err *e)
{
    if (keep(t, key, r, e) < 0) return -1;
    return t->path ? append(t, key, r, e) : 0;
}
