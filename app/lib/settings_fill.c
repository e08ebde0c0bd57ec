/* What nobody said: from the model, by size, from other rows; see settings_resolve(). */
#include "app/lib/settings.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/lib/by_size.h"
#include "app/lib/defaults.h"
#include "app/lib/run.h"

/* The model's value of a row stands where nobody said another. */
static int fill_row(struct ditgen_settings *s, int id, const struct ditgen_settings *model,
                    struct err *e)
{
    const struct setting_value *from = &model->values[id];
    struct setting_value *to = &s->values[id];
    if (to->from != LAYER_NONE || from->from == LAYER_NONE) return 0;
    char *text = from->by_size ? strdup(from->by_size) : settings_print(model, id, e);
    if (!text) return err_set(e, ERR_RESOURCE, "no memory for the settings");
    int rc = settings_put(to, setting_at(id), text, e);
    free(text);
    return rc;
}

/* What a resolved handle holds of defaults is forgotten: another size may have others. */
static void forget(struct ditgen_settings *s)
{
    for (int i = 0; i < setting_count(); i++)
        if (s->values[i].from == LAYER_NONE) settings_drop(&s->values[i], setting_at(i));
}

static int fill_defaults(struct ditgen_settings *s, const struct ditgen *d, struct err *e)
{
    if (settings_switch(s, SET_TURBO) && defaults_check_turbo(&d->defaults, &d->info, e) < 0)
        return -1;
    for (int i = 0; i < setting_count(); i++) {
        if (!(setting_at(i)->use & MODEL)) continue;
        if (settings_switch(s, SET_TURBO) && d->defaults.turbo->values[i].from != LAYER_NONE) {
            if (fill_row(s, i, d->defaults.turbo, e) < 0) return -1;
        } else if (fill_row(s, i, d->defaults.always, e) < 0) {
            return -1;
        }
    }
    return 0;
}

/* --- sizes -------------------------------------------------------------------------------------- */

static void frames_from_seconds(struct ditgen_settings *s, const struct ditgen *d, char *note)
{
    struct setting_value *seconds = &s->values[SET_SECONDS], *frames = &s->values[SET_FRAMES];
    double fps = settings_real(s, SET_FPS), asked = seconds->is.d, exact = asked * fps;
    int below, above, wanted = exact < 1 ? 1 : exact > 100000 ? 100000 : (int)lrint(exact);
    if (seconds->from <= frames->from) return;
    model_frames_near(&d->info, wanted, &below, &above);
    frames->is.i = below >= 1 && fabs(exact - below) <= fabs(above - exact) ? below : above;
    frames->from = seconds->from;
    settings_drop(seconds, setting_at(SET_SECONDS));
    double made = frames->is.i / fps;
    if (note && fabs(made - asked) > 0.0005)
        snprintf(note, 256,
                 "%g seconds at %g fps: the nearest this model can do is %d frames, %.3g seconds",
                 asked, fps, frames->is.i, made);
}

/* Tokens of the clip, as a number that no size overflows. */
static double tokens_of(const struct ditgen_settings *s, const struct ditgen *d)
{
    const struct model_clip clip = {.width = settings_int(s, SET_WIDTH),
                                    .height = settings_int(s, SET_HEIGHT),
                                    .frames = settings_int(s, SET_FRAMES)};
    const struct dit_config *c = &d->info.dit;
    struct dit_grid g = model_grid(&d->info, &clip);
    return (double)(g.frames / c->patch_t) * (g.height / c->patch_h) * (g.width / c->patch_w);
}

static int pick_by_size(struct ditgen_settings *s, double tokens, struct err *e)
{
    for (int i = 0; i < setting_count(); i++) {
        struct setting_value *v = &s->values[i];
        if (!v->by_size) continue;
        const struct option *o = &setting_at(i)->option;
        int rc = o->type == OPTION_STRING
                     ? by_size_text_pick(&v->is.text, o->name, v->by_size, tokens, e)
                     : by_size_pick(o, v->by_size, tokens, &v->is, e);
        if (rc < 0) return -1;
        free(v->by_size);
        v->by_size = NULL;
    }
    return 0;
}

#define ATTENTION_TEXT 4096 /* bytes of a stack with all its options: six methods of twenty each */

/* --- attention ---------------------------------------------------------------------------------- */

/* Options given by their own names go into the method's text. */
static int merge_methods(struct ditgen_settings *s, struct err *e)
{
    struct setting_value *attention = &s->values[SET_ATTENTION];
    for (int i = 0; i < s->n_methods; i++) {
        struct method_value *m = &s->methods[i];
        const char *method = m->of.method.name, *option = m->of.option->name;
        char *text = NULL, name[128];
        setting_method_name(&m->of, name, sizeof name);
        switch (attn_words_has(attention->is.text, method, option)) {
        case ATTN_WORDS_NO_METHOD:
            if (m->from < attention->from) continue; /* a higher layer chose another method */
            return err_set(e, ERR_USAGE, "%s belongs to --attention %s, but the method is %s", name,
                           method, attention->is.text);
        case ATTN_WORDS_OPTION:
            if (m->from < attention->from) continue;
            if (m->from == attention->from && m->from != LAYER_CALL)
                return err_set(e, ERR_USAGE, "%s and attention '%.100s' contradict each other",
                               name, attention->is.text);
            break;
        case ATTN_WORDS_METHOD:
            break;
        }
        if (attn_words_set(&text, attention->is.text, method, option, m->text, e) < 0) return -1;
        free(attention->is.text);
        attention->is.text = text;
    }
    for (int i = 0; i < s->n_methods; i++)
        free(s->methods[i].text);
    s->n_methods = 0;
    return 0;
}

/* Every option of a stack or a step cache, so that a stored clip means the same when defaults change. */
static int write_out(struct setting_value *v,
                     int (*check)(const char *text, char *canonical, size_t n, struct err *e),
                     struct err *e)
{
    char all[ATTENTION_TEXT];
    if (!v->is.text) return 0;
    if (check(v->is.text, all, sizeof all, e) < 0) return -1;
    char *copy = strdup(all);
    if (!copy) return err_set(e, ERR_RESOURCE, "no memory for the settings");
    free(v->is.text);
    v->is.text = copy;
    return 0;
}

/* What steers itself: resid in place of dense or beside what is there, renewed as the budget says. */
static int add_budget(struct setting_value *v, struct err *e)
{
    static const char *const begin[][2] = {{"first", "2"}, {"last", "0"}}; /* the rest is weighed */
    bool dense = strcmp(v->is.text, attn_method_info(0).name) == 0;
    char *text = NULL;
    if (attn_words_has(v->is.text, "resid", "every") == ATTN_WORDS_NO_METHOD) {
        size_t n = strlen(v->is.text) + sizeof "+resid";
        if (!(text = malloc(n))) return err_set(e, ERR_RESOURCE, "no memory for the settings");
        snprintf(text, n, "%s%sresid", dense ? "" : v->is.text, dense ? "" : "+");
        free(v->is.text);
        v->is.text = text;
    }
    char *every = attn_words_get(v->is.text, "resid", "every");
    bool own = every && strcmp(every, "budget") != 0;
    if (own)
        err_set(
            e, ERR_USAGE,
            "--error-budget says when resid is renewed, and so does resid:every=%.60s: leave one "
            "of them out",
            every);
    free(every);
    if (own) return -1;
    for (int i = 0; i < 3; i++) {
        const char *option = i ? begin[i - 1][0] : "every", *to = i ? begin[i - 1][1] : "budget";
        if (attn_words_has(v->is.text, "resid", option) != ATTN_WORDS_METHOD) continue;
        if (attn_words_set(&text, v->is.text, "resid", option, to, e) < 0) return -1;
        free(v->is.text);
        v->is.text = text;
    }
    struct err composed;
    if (attn_words_check(v->is.text, &composed) == 0) return 0;
    return err_set(e, ERR_USAGE, "--error-budget adds resid: %.400s", composed.msg);
}

static int fill_attention(struct ditgen_settings *s, struct err *e)
{
    struct setting_value *v = &s->values[SET_ATTENTION];
    if (!v->is.text && !(v->is.text = strdup(attn_method_info(0).name)))
        return err_set(e, ERR_RESOURCE, "no memory for the settings");
    if (merge_methods(s, e) < 0) return -1;
    if (settings_budget(s) && !settings_budget_steps(s) && add_budget(v, e) < 0) return -1;
    return write_out(v, attn_stack_check, e);
}

int settings_resolve(struct ditgen_settings **out, const struct ditgen_settings *given,
                     const struct ditgen *d, char *note, struct err *e)
{
    struct ditgen_settings *s = NULL;
    if (note) note[0] = 0;
    *out = NULL;
    if (settings_copy(&s, given, e) < 0) return -1;
    forget(s);
    if (settings_spread_size(s, e) < 0) goto fail;
    if (fill_defaults(s, d, e) < 0) goto fail;
    frames_from_seconds(s, d, note);
    if (pick_by_size(s, tokens_of(s, d), e) < 0) goto fail;
    if (fill_attention(s, e) < 0) goto fail;
    if (write_out(&s->values[SET_STEP_CACHE], dit_cache_check, e) < 0) goto fail;
    *out = s;
    return 0;
fail:
    settings_close(s);
    return -1;
}
