/* rerun: the clip again, from the settings it carries; flags change what they name. */
#include <stdlib.h>
#include <string.h>

#include "app/lib/assets.h"
#include "app/cli/cmd.h"
#include "app/cli/generate.h"
#include "app/cli/help.h"
#include "app/cli/input.h"
#include "app/cli/profile.h"
#include "app/clips/writer.h"

static bool has_suffix(const char *path, const char *suffix)
{
    size_t n = strlen(path), k = strlen(suffix);
    return n > k && strcmp(path + n - k, suffix) == 0;
}

/* A text of settings rather than a clip: by its name, or, for what came out of a pipe, by how it
 * begins. */
static bool is_text(const struct input *in)
{
    unsigned char head[8];
    size_t n = input_head(in, head, sizeof head);
    return has_suffix(in->given, ".ini") || (n == sizeof head && memcmp(head, "[ditgen]", n) == 0);
}

static int of_clip(char **text, const char *path, struct err *e)
{
    struct clip clip = {0};
    if (clip_read(&clip, path, false, e) < 0) return -1;
    *text = clip.settings;
    clip.settings = NULL;
    clip_fini(&clip);
    if (!*text) return err_set(e, ERR_INPUT, "%s: carries no settings of ditgen", path);
    return 0;
}

/* Settings of a clip, a folder of PNG files, or a text file of them. Heap. */
static int stored_settings(char **text, const char *path, struct err *e)
{
    size_t len;
    struct input in;
    if (input_open(&in, path, e) < 0) return -1;
    int rc = is_text(&in) ? input_text(text, &len, in.path, CLIP_MAX_SETTINGS, e)
                          : of_clip(text, in.path, e);
    if (rc < 0) input_blame(&in, e);
    input_close(&in);
    return rc;
}

/* A clip names its model, not the folder it lay in. */
static int check_model(const struct cli *c, struct err *e)
{
    char path[ASSETS_PATH];
    if (settings_from(c->settings, SET_MODEL) != LAYER_CONFIG) return 0;
    const char *model = settings_text(c->settings, SET_MODEL);
    if (assets_model(path, model, e) == 0) return 0;
    return err_set(e, ERR_INPUT,
                   "the clip was made with the model '%.100s'; give its folder by -m DIR", model);
}

int cmd_rerun(int argc, char **argv, struct err *e)
{
    struct cli c;
    char *text = NULL;
    const char *suffix = NULL;
    int rc = cli_parse(&c, argc, argv, CLI_CLIP, e);
    if (rc < 0) goto out;
    if (c.help) {
        help_rerun(stdout);
        goto out;
    }
    rc = -1;
    if (c.n_words != 1) {
        err_set(e, ERR_USAGE, "rerun wants one clip, folder of PNG files or .ini file of settings");
        goto out;
    }
    if (stored_settings(&text, c.words[0], e) < 0) goto out;
    if (profile_from_clip(c.settings, LAYER_CONFIG, text, c.words[0], e) < 0) goto out;
    if (ran_read(&c.ran, text, c.words[0], e) < 0) goto out;
    if (!settings_from(c.settings, SET_PROMPT)) {
        err_set(e, ERR_INPUT, "%s: its settings have no prompt; give one by -p", c.words[0]);
        goto out;
    }
    if (c.file && prompt_read(&c, e) < 0) goto out;
    if (check_model(&c, e) < 0) goto out;
    const char *dot = strrchr(c.words[0], '.');
    struct err ignored;
    if (dot && !strchr(dot, '/') && strcmp(dot, ".ini") != 0 &&
        writer_kind_for(c.words[0], &ignored))
        suffix = dot + 1;
    rc = generate_run(&c, suffix, NULL, e);
out:
    free(text);
    cli_fini(&c);
    return rc;
}
