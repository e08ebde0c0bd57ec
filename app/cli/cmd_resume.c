/* resume: goes on where a run was broken off. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/cli/cmd.h"
#include "app/cli/generate.h"
#include "app/cli/profile.h"
#include "app/cli/state.h"
#include "app/clips/writer.h"
#include "app/lib/assets.h"

/* All states here, for a message. */
static void list_states(char *text, size_t n)
{
    char path[STATE_PATH];
    size_t len = 0;
    text[0] = 0;
    for (int i = 0; len < n && state_at(path, "", i); i++) {
        const char *name = path + sizeof STATE_FOLDER;
        len += (size_t)snprintf(text + len, n - len, "%s%.*s", i ? ", " : "", (int)strlen(name) - 6,
                                name);
    }
}

/* Which state: by the output's name, by its own, or the only one here. */
static int choose(char path[STATE_PATH], const struct cli *c, struct err *e)
{
    char all[300], second[STATE_PATH];
    list_states(all, sizeof all);
    if (c->n_words) {
        const char *word = c->words[0];
        size_t n = strlen(word);
        if (n > 6 && strcmp(word + n - 6, ".state") == 0 && n < STATE_PATH && path_exists(word)) {
            memcpy(path, word, n + 1);
            return 0;
        }
        if (state_path(path, word) && path_exists(path)) return 0;
        return err_set(e, ERR_INPUT,
                       "no state of %.100s is kept%s%s; ditgen resume NAME, with the "
                       "name of the output",
                       word, *all ? "; here are " : "", all);
    }
    if (!state_at(path, "", 0))
        return err_set(e, ERR_INPUT, "no state is kept in this folder (%s)", STATE_FOLDER);
    if (state_at(second, "", 1))
        return err_set(e, ERR_USAGE, "several runs can go on, name one: %s", all);
    return 0;
}

/* Settings and names as the first run had them; flags stand above. */
static int take_over(struct cli *c, const struct state *s, const char *path, struct err *e)
{
    if (profile_from_clip(c->settings, LAYER_CONFIG, s->used, path, e) < 0) return -1;
    if (s->model_dir[0] && settings_from(c->settings, SET_MODEL) != LAYER_FLAG &&
        settings_set(c->settings, LAYER_FLAG, "model", s->model_dir, e) < 0)
        return -1;
    c->yes |= s->overwrite;
    if (!c->output && !(c->output = strdup(s->output)))
        return err_set(e, ERR_RESOURCE, "no memory for a name");
    if (s->latents && !c->latents && (c->yes || !path_exists(s->latents)) &&
        !(c->latents = strdup(s->latents)))
        return err_set(e, ERR_RESOURCE, "no memory for a name");
    return 0;
}

/* Killed between giving the clip its name and removing the state: nothing is left to do. */
static bool complete(const struct cli *c, const struct state *s)
{
    struct clip clip;
    struct err ignored;
    if (strcmp(c->output, s->output) != 0 || !path_exists(c->output) ||
        clip_read(&clip, c->output, false, &ignored) < 0)
        return false;
    bool same = clip.settings && strcmp(clip.settings, s->stored) == 0;
    clip_fini(&clip);
    return same;
}

int cmd_resume(int argc, char **argv, struct err *e)
{
    struct cli c;
    struct state s = {0};
    char path[STATE_PATH];
    int rc = cli_parse(&c, argc, argv, CLI_CLIP, e);
    if (rc == 0 && c.help) {
        puts(
            "ditgen resume [NAME] [flags]: goes on where a run was broken off\n"
            "\n"
            "A run keeps its state in .ditgen/NAME.state beside its output NAME: every "
            "--state-every "
            "seconds, and\n"
            "before decoding. NAME is needed only where several are kept. The clip is the one that "
            "the unbroken run\n"
            "would have made, byte for byte; flags may change how it runs (-t, -v, -o, -y), not "
            "what.");
        goto out;
    }
    if (rc == 0) rc = choose(path, &c, e);
    if (rc == 0) rc = state_read(&s, path, e);
    if (rc == 0) rc = take_over(&c, &s, path, e);
    if (rc == 0 && complete(&c, &s))
        fprintf(stderr, "%s is complete\n", c.output);
    else if (rc == 0)
        rc = generate_run(&c, NULL, &s, e);
    if (rc == 0 && !c.plan) state_remove(path);
out:
    state_fini(&s);
    cli_fini(&c);
    return rc;
}
