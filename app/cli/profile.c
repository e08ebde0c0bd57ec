/* Profiles and stored settings → struct settings; see profile.h. */
#include "app/cli/profile.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/lib/assets.h"
#include "app/lib/ini.h"

#ifdef DITGEN_HAVE_INIPARSER
#include <iniparser.h>
#endif

#define SECTION "ditgen"

struct target { /* of take_stored() */
    struct ditgen_settings *settings;
    enum layer layer;
};

static int take_stored(void *ctx, const char *section, const char *key, const char *value,
                       struct err *e)
{
    const struct target *t = ctx;
    if (*section && strcmp(section, SECTION) != 0)
        return err_set(e, ERR_INPUT, "unknown section [%s], wanted [" SECTION "]", section);
    if (settings_set(t->settings, t->layer, key, value, e) == 0) return 0;
    e->code = ERR_INPUT;
    return -1;
}

int profile_from_clip(struct ditgen_settings *s, enum layer layer, const char *text,
                      const char *name, struct err *e)
{
    struct target t = {.settings = s, .layer = layer};
    return ini_parse(text, strlen(text), name, take_stored, &t, e);
}

#ifdef DITGEN_HAVE_INIPARSER

bool profile_supported(void) { return true; }

/* iniparser speaks through one global callback: what it says of the file being read is kept here.
 */
static char parser_said[256];

static int keep_words(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (!parser_said[0]) vsnprintf(parser_said, sizeof parser_said, fmt, ap);
    va_end(ap);
    return 0;
}

/* The line where key stands, for messages: the dictionary does not keep it. 0: not found. */
static int line_of(const char *path, const char *key)
{
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    char line[2048];
    int number = 0, found = 0;
    size_t n = strlen(key);
    while (!found && fgets(line, sizeof line, f)) {
        number++;
        const char *p = line + strspn(line, " \t");
        if (strncasecmp(p, key, n) != 0) continue;
        p += n;
        p += strspn(p, " \t");
        if (*p == '=' || *p == '\n' || !*p) found = number;
    }
    fclose(f);
    return found;
}

static int set_entry(struct ditgen_settings *s, enum layer layer, const char *path,
                     const char *entry, const char *value, struct err *e)
{
    const char *colon = strchr(entry, ':');
    if (!colon) { /* a section by itself, value NULL */
        if (strcmp(entry, SECTION) == 0) return 0;
        return err_set(e, ERR_INPUT, "%s: unknown section [%s], wanted [" SECTION "]", path, entry);
    }
    const char *key = colon + 1;
    size_t n = (size_t)(colon - entry);
    int line = line_of(path, key);
    if (n && (n != strlen(SECTION) || memcmp(entry, SECTION, n) != 0))
        return err_set(e, ERR_INPUT, "%s: key '%s' is in section [%.*s], wanted [" SECTION "]",
                       path, key, (int)n, entry);
    char *copy = strdup(value ? value : "");
    if (!copy) return err_set(e, ERR_RESOURCE, "no memory for %s", path);
    int rc = 0;
    if (!value)
        rc = err_set(e, ERR_INPUT, "'%s' has no value", key);
    else if (!ini_unescape(copy))
        rc = err_set(e, ERR_INPUT, "%s: unknown escape (there are \\\\ \\n \\t \\xHH)", key);
    else
        rc = settings_set(s, layer, key, copy, e);
    free(copy);
    if (rc == 0) return 0;
    e->code = ERR_INPUT;
    if (line > 0) return err_wrap(e, "%s:%d", path, line);
    return err_wrap(e, "%s", path);
}

/* What iniparser lets pass or reads differently than it stands: NUL bytes, lines over its buffer.
 */
static int check_text(const char *path, struct err *e)
{
    FILE *f = fopen(path, "rb");
    if (!f) return err_set(e, ERR_INPUT, "%s: cannot be read", path);
    int line = 1, len = 0, rc = 0;
    for (int c; rc == 0 && (c = fgetc(f)) != EOF;) {
        if (c == 0)
            rc = err_set(e, ERR_INPUT, "%s:%d: a NUL byte: this is no text file", path, line);
        if (++len > 1000)
            rc = err_set(e, ERR_INPUT,
                         "%s:%d: the line is longer than 1000 bytes; long prompts go by -f", path,
                         line);
        if (c == '\n') line++, len = 0;
    }
    if (rc == 0 && ferror(f)) rc = err_set(e, ERR_INPUT, "%s: cannot be read", path);
    fclose(f);
    return rc;
}

int profile_load_file(struct ditgen_settings *s, enum layer layer, const char *path, struct err *e)
{
    if (path_is_dir(path))
        return err_set(e, ERR_INPUT, "%s: is a folder, wanted an .ini file", path);
    if (check_text(path, e) < 0) return -1;
    parser_said[0] = 0;
    iniparser_set_error_callback(keep_words);
    dictionary *d = iniparser_load(path);
    iniparser_set_error_callback(NULL);
    if (!d || parser_said[0]) {
        if (d) iniparser_freedict(d);
        const char *open = strrchr(parser_said, '('); /* "... in FILE (LINE):" */
        int line = open ? atoi(open + 1) : 0;
        if (line > 0)
            return err_set(e, ERR_INPUT, "%s:%d: wanted [section] or key = value", path, line);
        return err_set(e, ERR_INPUT, "%s: not an .ini file", path);
    }
    int rc = 0;
    for (ssize_t i = 0; rc == 0 && i < (ssize_t)d->size; i++)
        if (d->key[i]) rc = set_entry(s, layer, path, d->key[i], d->val[i], e);
    iniparser_freedict(d);
    return rc;
}

/* "draft, fine" of a folder. */
static void list_profiles(char *text, size_t n, const char *dir)
{
    struct dirent **found;
    text[0] = 0;
    int count = scandir(dir, &found, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        size_t len = strlen(found[i]->d_name), at = strlen(text);
        if (len > 4 && strcmp(found[i]->d_name + len - 4, ".ini") == 0)
            snprintf(text + at, n - at, "%s%.*s", at ? ", " : "", (int)(len - 4), found[i]->d_name);
        free(found[i]);
    }
    if (count >= 0) free(found);
}

int profile_load(struct ditgen_settings *s, const char *name, struct err *e)
{
    char path[ASSETS_PATH], dir[ASSETS_PATH], file[300], all[256];
    if (assets_find(dir, "profiles", e) < 0) return -1;
    snprintf(file, sizeof file, "profiles/%.200s.ini", name);
    if (strchr(name, '/') || strlen(name) > 200 || assets_find(path, file, e) < 0) {
        list_profiles(all, sizeof all, dir);
        return err_set(e, ERR_USAGE,
                       "there is no profile '%.100s'; there are %s (a file goes by --config)", name,
                       all[0] ? all : "none");
    }
    return profile_load_file(s, LAYER_PROFILE, path, e);
}

#else

bool profile_supported(void) { return false; }

int profile_load_file(struct ditgen_settings *s, enum layer layer, const char *path, struct err *e)
{
    (void)s, (void)layer, (void)path;
    return err_set(e, ERR_USAGE,
                   "--profile and --config need iniparser: this ditgen was built without it");
}

int profile_load(struct ditgen_settings *s, const char *name, struct err *e)
{
    return profile_load_file(s, LAYER_PROFILE, name, e);
}

#endif
