/* The library's door to settings: set, get and list by name; see ditgen.h. */
#include "app/lib/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/lib/run.h"

int ditgen_settings_open(struct ditgen_settings **s, struct ditgen *d, struct ditgen_error *error)
{
    struct err e = {0};
    if (settings_open(s, &e) < 0) return give_error(error, &e);
    (*s)->model = d;
    return 0;
}

void ditgen_settings_close(struct ditgen_settings *s) { settings_close(s); }

/* Rows that only the command knows are no settings of the library. */
static int check_known(const char *name, const char *value, struct err *e)
{
    int id = setting_find(name);
    if (id == SET_DEVICE && value && strncmp(value, "cpu:", 4) == 0)
        return err_set(e, ERR_USAGE,
                       "how much of the processor is used is what ditgen_device() chose, once a "
                       "process; device takes cpu, auto, cuda and cuda:N");
    if (id < 0 || !(setting_at(id)->use & COMMAND)) return 0;
    if (id == SET_MODEL)
        return err_set(e, ERR_USAGE, "the model is the folder that ditgen_open() was given");
    return err_set(e, ERR_USAGE,
                   "%s is for files, which the command writes; the library gives frames",
                   setting_at(id)->option.name);
}

int ditgen_set(struct ditgen_settings *s, const char *name, const char *value,
               struct ditgen_error *error)
{
    struct err e = {0};
    if (check_known(name, value, &e) < 0) return give_error(error, &e);
    int rc = value ? settings_set(s, LAYER_CALL, name, value, &e) : settings_unset(s, name, &e);
    return rc < 0 ? give_error(error, &e) : 0;
}

int ditgen_set_number(struct ditgen_settings *s, const char *name, double value,
                      struct ditgen_error *error)
{
    char text[40]; /* all digits: the same double comes back; whole numbers without an exponent */
    if (value > -1e15 && value < 1e15 && value == (double)(long long)value)
        snprintf(text, sizeof text, "%lld", (long long)value);
    else
        snprintf(text, sizeof text, "%.17g", value);
    return ditgen_set(s, name, text, error);
}

/* What the resolved settings say of a method's option: its default when the text does not. */
static int get_method(struct ditgen_settings *s, const char *name, const char *attention,
                      struct err *e)
{
    struct setting_method of;
    if (!setting_find_method(name, &of)) /* refuses, naming the nearest */
        return settings_unset(s, name, e);
    s->got_text = attn_words_get(attention, of.method.name, of.option->name);
    if (s->got_text) return 0;
    void *options = calloc(1, of.method.options_size);
    int rc = !options ? err_set(e, ERR_RESOURCE, "no memory for the options of %s", of.method.name)
                      : option_defaults(of.method.options, options, e);
    size_t n = rc < 0 ? 0 : (size_t)option_print(of.option, options, NULL, 0) + 1;
    if (rc == 0 && !(s->got_text = malloc(n)))
        rc = err_set(e, ERR_RESOURCE, "no memory for %s", name);
    if (rc == 0) option_print(of.option, options, s->got_text, n);
    if (options) option_free(of.method.options, options);
    free(options);
    return rc;
}

int ditgen_get(struct ditgen_settings *s, const char *name, const char **value,
               struct ditgen_error *error)
{
    struct err e = {0};
    int id = setting_find(name), rc = 0;
    settings_close(s->got);
    free(s->got_text);
    s->got = NULL, s->got_text = NULL;
    *value = NULL;
    if (check_known(name, NULL, &e) < 0) return give_error(error, &e);
    if (settings_resolve(&s->got, s, s->model, NULL, &e) < 0) return give_error(error, &e);
    if (id == SET_SIZE) {
        char size[40];
        snprintf(size, sizeof size, "%dx%d", settings_int(s->got, SET_WIDTH),
                 settings_int(s->got, SET_HEIGHT));
        if (!(s->got_text = strdup(size))) rc = err_set(&e, ERR_RESOURCE, "no memory for size");
    } else if (id == SET_SECONDS) {
        char seconds[40];
        snprintf(seconds, sizeof seconds, "%.9g",
                 settings_int(s->got, SET_FRAMES) / settings_real(s->got, SET_FPS));
        if (!(s->got_text = strdup(seconds)))
            rc = err_set(&e, ERR_RESOURCE, "no memory for seconds");
    } else if (id >= 0) {
        s->got_text = settings_print(s->got, id, &e);
        rc = e.code ? -1 : 0;
    } else {
        rc = get_method(s, name, settings_text(s->got, SET_ATTENTION), &e);
    }
    *value = s->got_text;
    return rc < 0 ? give_error(error, &e) : 0;
}

int ditgen_get_number(struct ditgen_settings *s, const char *name, double *value,
                      struct ditgen_error *error)
{
    const char *text;
    struct err e = {0};
    if (ditgen_get(s, name, &text, error) < 0) return -1;
    if (text && strcmp(text, "true") == 0) text = "1";
    if (text && strcmp(text, "false") == 0) text = "0";
    if (text && parse_double(text, -1e300, 1e300, value) == 0) return 0;
    err_set(&e, ERR_USAGE, "%.100s is %s%.100s%s, no number", name, text ? "'" : "",
            text ? text : "not set", text ? "'" : "");
    return give_error(error, &e);
}

/* --- the list ----------------------------------------------------------------------------------- */

static void tell(struct ditgen_setting *info, const struct option *o, const char *method)
{
    static const char *const types[] = {
        [OPTION_INT] = "whole",   [OPTION_DOUBLE] = "number", [OPTION_BOOL] = "switch",
        [OPTION_STRING] = "text", [OPTION_ENUM] = "choice",   [OPTION_U64] = "whole"};
    *info = (struct ditgen_setting){.help = o->help,
                                    .type = types[o->type],
                                    .lo = o->lo,
                                    .hi = o->type == OPTION_U64 ? 18446744073709551615.0 : o->hi,
                                    .choices = o->type == OPTION_ENUM ? o->choices : NULL};
    snprintf(info->name, sizeof info->name, "%s%s%s", method ? method : "", method ? "-" : "",
             o->name);
}

int ditgen_setting_at(int i, struct ditgen_setting *info)
{
    if (i < 0) return -1;
    for (int id = 0; id < setting_count(); id++)
        if (!(setting_at(id)->use & COMMAND) && i-- == 0)
            return tell(info, &setting_at(id)->option, NULL), 0;
    for (int k = 0; k < attn_methods(); k++) {
        struct attn_method_info m = attn_method_info(k);
        for (const struct option *o = m.options; o && o->name; o++)
            if (i-- == 0) return tell(info, o, m.name), 0;
    }
    return -1;
}
