/* Profiles and stored settings → settings; see profile.h. */
#include "app/cli/profile.h"

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "app/cli/input.h"
#include "app/lib/assets.h"
#include "app/lib/ini.h"

#define SECTION "ditgen"
#define PROFILE_MAX ((size_t)16 << 20) /* bytes: two prompts as long as they may be, escaped */

struct target { /* of take() */
    struct ditgen_settings *settings;
    enum layer layer;
};

static int take(void *ctx, const char *section, const char *key, const char *value, struct err *e)
{
    const struct target *t = ctx;
    if (strcmp(section, "run") == 0) return 0; /* what a run did asks for nothing: ran.h */
    if (*section && strcasecmp(section, SECTION) != 0)
        return err_set(e, ERR_INPUT, "unknown section [%s], wanted [" SECTION "]", section);
    if (!key) return 0;
    char *lower = strdup(key); /* in files, unlike in flags, capitals are not told apart */
    if (!lower) return err_set(e, ERR_RESOURCE, "no memory for the settings");
    for (char *p = lower; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    int rc = settings_set(t->settings, t->layer, lower, value, e);
    free(lower);
    if (rc < 0 && e->code == ERR_USAGE) e->code = ERR_INPUT;
    return rc;
}

static int read_text(struct ditgen_settings *s, enum layer layer, const char *text, size_t len,
                     const char *name, struct err *e)
{
    struct target t = {.settings = s, .layer = layer};
    return ini_parse(text, len, name, take, &t, e);
}

int profile_from_clip(struct ditgen_settings *s, enum layer layer, const char *text,
                      const char *name, struct err *e)
{
    return read_text(s, layer, text, strlen(text), name, e);
}

int profile_load_file(struct ditgen_settings *s, enum layer layer, const char *path, struct err *e)
{
    char *text = NULL;
    size_t len;
    if (input_text(&text, &len, path, PROFILE_MAX, e) < 0) return -1;
    int rc = read_text(s, layer, text, len, path, e);
    free(text);
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
