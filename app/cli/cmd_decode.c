/* decode: latents that were kept become a clip. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/cli/cmd.h"
#include "app/cli/generate.h"
#include "app/cli/profile.h"
#include "app/cli/state.h"
#include "app/lib/assets.h"
#include "model/model.h"

/* [C, F, H, W], or one such in a batch. */
static int shape_of(int shape[4], const struct latents *l, const char *path, struct err *e)
{
    int extra = l->n_dims == 5 && l->shape[0] == 1;
    if (l->n_dims - extra != 4)
        return err_set(e, ERR_INPUT,
                       "%s: latents of %d axes, wanted [channels, frames, height, width]", path,
                       l->n_dims);
    for (int i = 0; i < 4; i++) {
        if (l->shape[i + extra] > 100000)
            return err_set(e, ERR_INPUT,
                           "%s: axis %d of the latents is %lld long, wanted at most "
                           "100000",
                           path, i, (long long)l->shape[i + extra]);
        shape[i] = (int)l->shape[i + extra];
    }
    return 0;
}

/* Size and frames follow from the latents, whatever the settings beside them say. */
static int set_size(struct cli *c, const int shape[4], struct err *e)
{
    char dir[ASSETS_PATH], text[24];
    struct model_info m;
    const char *const names[] = {"frames", "height", "width"};
    if (assets_model(dir, settings_text(c->settings, SET_MODEL), e) < 0 ||
        model_info_read(&m, dir, e) < 0)
        return -1;
    const long long values[] = {(shape[1] - 1) * (long long)m.vae.scale_temporal + 1,
                                shape[2] * (long long)m.vae.scale_spatial,
                                shape[3] * (long long)m.vae.scale_spatial};
    for (int i = 0; i < 3; i++) {
        snprintf(text, sizeof text, "%lld", values[i]);
        if (settings_set(c->settings, LAYER_CALL, names[i], text, e) < 0) return -1;
    }
    return 0;
}

static int run(struct cli *c, struct err *e)
{
    struct state s = {0};
    if (c->n_words != 1) return err_set(e, ERR_USAGE, "decode wants one file of latents");
    if (!c->output) return err_set(e, ERR_USAGE, "decode wants the clip's name: -o CLIP");
    const char *path = c->words[0];
    int rc = latents_read(&s.file, path, e);
    const char *text = rc == 0 ? latents_note(&s.file, LATENTS_SETTINGS) : NULL;
    if (rc == 0) rc = shape_of(s.at.shape, &s.file, path, e);
    if (rc == 0 && text) rc = profile_from_clip(c->settings, LAYER_CONFIG, text, path, e);
    if (rc == 0 && !settings_from(c->settings, SET_PROMPT))
        rc = settings_set(c->settings, LAYER_CONFIG, "prompt", "", e);
    if (rc == 0) rc = set_size(c, s.at.shape, e);
    const char *step = rc == 0 ? latents_note(&s.file, "step") : NULL,
               *steps = step ? latents_note(&s.file, "steps") : NULL;
    if (steps && strcmp(step, steps) != 0)
        rc = err_set(e, ERR_INPUT,
                     "%s: is the state after step %s of %s, not denoised yet: ditgen "
                     "resume goes on",
                     path, step, steps);
    s.at.latents = s.file.values;
    c->state_every = 0; /* the file given is the state */
    if (rc == 0) rc = generate_run(c, NULL, &s, e);
    latents_fini(&s.file);
    return rc;
}

int cmd_decode(int argc, char **argv, struct err *e)
{
    struct cli c;
    int rc = cli_parse(&c, argc, argv, CLI_CLIP, e);
    if (rc == 0 && c.help)
        puts(
            "ditgen decode LATENTS -o CLIP [flags]: a clip from latents that were kept\n"
            "\n"
            "LATENTS is a file of --save-latents, a .ditgen/NAME.state, or a .safetensors file "
            "with a "
            "tensor\n"
            "\"latents\" [channels, frames, height, width] of another program; -m names its model. "
            "Only the vae of\n"
            "the model is opened.");
    else if (rc == 0)
        rc = run(&c, e);
    cli_fini(&c);
    return rc;
}
