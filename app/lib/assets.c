/* Looking for data; see assets.h. */
#include "app/lib/assets.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool path_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

bool path_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

void path_last(char *name, size_t n, const char *path)
{
    char whole[PATH_MAX];
    size_t len = strlen(path);
    /* "." and ".." name nothing: ask where they are */
    if ((strcmp(path, ".") == 0 || strcmp(path, "..") == 0) && realpath(path, whole))
        path = whole, len = strlen(path);
    while (len > 1 && path[len - 1] == '/')
        len--;
    size_t start = len;
    while (start > 0 && path[start - 1] != '/')
        start--;
    snprintf(name, n, "%.*s", (int)(len - start), path + start);
}

/* dir[ASSETS_PATH] ← ../share/ditgen of the folder that holds `file`. */
static bool share_beside(char *dir, const char *file)
{
    char real[PATH_MAX];
    if (!realpath(file, real)) return false;
    char *slash = strrchr(real, '/');
    if (!slash) return false;
    *slash = 0;
    int n = snprintf(dir, ASSETS_PATH, "%s/../%s", real, DITGEN_INSTALL_ASSETS);
    return n > 0 && n < ASSETS_PATH;
}

static bool try_place(char *path, const char *place, const char *name)
{
    int n = snprintf(path, ASSETS_PATH, "%s/%s", place, name);
    return n > 0 && n < ASSETS_PATH && path_exists(path);
}

int assets_find(char *path, const char *name, struct err *e)
{
    char dir[ASSETS_PATH];
    const char *env = getenv("DITGEN_ASSETS");
    if (env && *env) {
        if (try_place(path, env, name)) return 0;
        return err_set(e, ERR_INPUT, "no '%s' in %s (from $DITGEN_ASSETS)", name, env);
    }
    if (share_beside(dir, "/proc/self/exe") && try_place(path, dir, name)) return 0;
    Dl_info here; /* the shared library, when this code lives in one */
    if (dladdr((const void *)DITGEN_INSTALL_ASSETS, &here) && here.dli_fname &&
        share_beside(dir, here.dli_fname) && try_place(path, dir, name))
        return 0;
    if (try_place(path, DITGEN_SOURCE_ASSETS, name)) return 0;
    return err_set(e, ERR_INPUT,
                   "no '%s' in ../share/ditgen beside the program nor in the source tree; set "
                   "DITGEN_ASSETS to the assets folder",
                   name);
}

int assets_model(char *path, const char *dir_or_name, struct err *e)
{
    if (!dir_or_name) return assets_find(path, ASSETS_MODEL, e);
    if (strlen(dir_or_name) >= ASSETS_PATH)
        return err_set(e, ERR_USAGE, "the model's path is longer than %d bytes", ASSETS_PATH - 1);
    if (path_exists(dir_or_name)) {
        strcpy(path, dir_or_name);
        return 0;
    }
    struct err ignored;
    if (!strchr(dir_or_name, '/') && *dir_or_name && assets_find(path, dir_or_name, &ignored) == 0)
        return 0;
    return err_set(e, ERR_INPUT, "model '%s': no such folder", dir_or_name);
}
