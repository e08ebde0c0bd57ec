/* Names of numbered frames; see png.h. */
#include "app/clips/png.h"

#include "app/clips/aside.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

bool png_name_is(const char *path)
{
    const char *name = last_part(path);
    size_t n = strlen(name);
    if (path[0] && !name[0]) return true; /* ends in a slash */
    return n > 4 && strcasecmp(name + n - 4, ".png") == 0 && strchr(name, '%');
}

/* One conversion at p ("%..."): its length, digits in *digits; 0 when it is not %d or %0Nd. */
static size_t conversion(const char *p, int *digits)
{
    if (p[1] == 'd') {
        *digits = 1;
        return 2;
    }
    if (p[1] == '0' && p[2] >= '1' && p[2] <= '9' && p[3] == 'd') {
        *digits = p[2] - '0';
        return 4;
    }
    return 0;
}

static int parse_pattern(struct png_name *n, const char *path, const char *name, struct err *e)
{
    static const char wanted[] = "wanted exactly one %d or %0Nd, as in f_%04d.png";
    char *out = n->prefix;
    if (strlen(name) > 200)
        return err_set(e, ERR_USAGE, "%.60s...: the file name is too long", name);
    for (const char *p = name; *p;) {
        size_t len;
        if (*p != '%') {
            *out++ = *p++;
        } else if (p[1] == '%') {
            *out++ = '%';
            p += 2;
        } else if ((len = conversion(p, &n->digits)) == 0) {
            return err_set(e, ERR_USAGE, "%s: bad number form \"%.4s\", %s", path, p, wanted);
        } else if (out >= n->suffix && out < n->suffix + sizeof n->suffix) {
            return err_set(e, ERR_USAGE, "%s: two numbers in the name, %s", path, wanted);
        } else {
            out = n->suffix;
            p += len;
        }
    }
    if (!n->digits) return err_set(e, ERR_USAGE, "%s: no number in the name, %s", path, wanted);
    return 0;
}

int png_name_parse(struct png_name *n, const char *path, struct err *e)
{
    memset(n, 0, sizeof *n);
    const char *name = last_part(path);
    if (name[0]) {
        if (parse_pattern(n, path, name, e) < 0) return -1;
        n->folder = path_folder(path);
    } else {
        snprintf(n->prefix, sizeof n->prefix, "frame_");
        snprintf(n->suffix, sizeof n->suffix, ".png");
        n->digits = 4;
        size_t len = strlen(path);
        while (len > 1 && path[len - 1] == '/')
            len--;
        n->folder = strndup(path, len);
    }
    return n->folder ? 0 : err_set(e, ERR_RESOURCE, "%s: no memory for its name", path);
}

void png_name_fini(struct png_name *n)
{
    free(n->folder);
    memset(n, 0, sizeof *n);
}

void png_name_at(const struct png_name *n, int index, char *name, size_t size)
{
    snprintf(name, size, "%s%0*d%s", n->prefix, n->digits, index, n->suffix);
}

int png_name_index(const struct png_name *n, const char *name)
{
    size_t prefix = strlen(n->prefix);
    if (strncmp(name, n->prefix, prefix) != 0) return -1;
    const char *digits = name + prefix;
    size_t len = strspn(digits, "0123456789");
    if (len < (size_t)n->digits || len > 9 || (len > (size_t)n->digits && digits[0] == '0'))
        return -1;
    return strcmp(digits + len, n->suffix) == 0 ? atoi(digits) : -1;
}
