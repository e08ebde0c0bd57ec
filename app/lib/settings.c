/* Values of rows and their layers; see settings.h. */
#include "app/lib/settings.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/lib/by_size.h"
#include "model/model.h"

static int no_memory(struct err *e)
{
    return err_set(e, ERR_RESOURCE, "no memory for the settings");
}

/* --- values ------------------------------------------------------------------------------------- */

/* The row's own default: nobody said. */
static void clear(struct setting_value *v, const struct setting *row)
{
    const struct option *o = &row->option;
    memset(v, 0, sizeof *v);
    if (o->type == OPTION_INT) v->is.i = (int)o->def;
    if (o->type == OPTION_DOUBLE) v->is.d = o->def;
}

void settings_drop(struct setting_value *v, const struct setting *row)
{
    if (row->option.type == OPTION_STRING) free(v->is.text);
    free(v->by_size);
    clear(v, row);
}

/* Bytes of another encoding would be damaged in silence, and stored so. */
static int check_utf8(const struct setting *row, const char *value, struct err *e)
{
    size_t at = model_text_fault(value), shown = at < 20 ? at : 20;
    if (!value[at]) return 0;
    while (shown > 0 && ((unsigned char)value[at - shown] & 0xc0) == 0x80)
        shown--; /* from the beginning of a letter on */
    return err_set(e, ERR_USAGE,
                   "%s is not UTF-8: byte 0x%02X at position %zu%s%.*s%s; iconv -f latin1 -t utf8 "
                   "makes it so from Latin-1",
                   row->option.name, (unsigned char)value[at], at + 1, shown ? ", behind '" : "",
                   (int)shown, value + at - shown, shown ? "'" : "");
}

int settings_put(struct setting_value *v, const struct setting *row, const char *value,
                 struct err *e)
{
    char *list = NULL;
    bool text = row->option.type == OPTION_STRING;
    if (row->use & BY_SIZE && text && by_size_is_text(value)) {
        if (by_size_text_check(row->option.name, value, row->check, e) < 0) return -1;
        if (!(list = strdup(value))) return no_memory(e);
        free(v->is.text);
        v->is.text = NULL;
        free(v->by_size);
        v->by_size = list;
        return 0;
    }
    if (row->use & UTF8 && check_utf8(row, value, e) < 0) return -1;
    if (row->check && row->check(value, e) < 0) return -1;
    if (row->use & BY_SIZE && !text && strchr(value, '@')) {
        if (by_size_check(&row->option, value, e) < 0) return -1;
        if (!(list = strdup(value))) return no_memory(e);
    } else if (option_parse(&row->option, &v->is, value, e) < 0) {
        return -1;
    }
    free(v->by_size);
    v->by_size = list;
    return 0;
}

int settings_open(struct ditgen_settings **out, struct err *e)
{
    struct ditgen_settings *s = calloc(1, sizeof *s);
    if (s) s->values = calloc((size_t)setting_count(), sizeof *s->values);
    *out = NULL;
    if (!s || !s->values) {
        free(s);
        return no_memory(e);
    }
    for (int i = 0; i < setting_count(); i++)
        clear(&s->values[i], setting_at(i));
    *out = s;
    return 0;
}

void settings_close(struct ditgen_settings *s)
{
    if (!s) return;
    for (int i = 0; i < setting_count(); i++)
        settings_drop(&s->values[i], setting_at(i));
    for (int i = 0; i < s->n_methods; i++)
        free(s->methods[i].text);
    settings_close(s->got);
    free(s->got_text);
    free(s->methods);
    free(s->values);
    free(s);
}

static int copy_value(struct setting_value *to, const struct setting_value *from,
                      const struct setting *row, struct err *e)
{
    *to = *from;
    to->by_size = NULL;
    if (row->option.type == OPTION_STRING) {
        to->is.text = NULL;
        if (from->is.text && !(to->is.text = strdup(from->is.text))) return no_memory(e);
    }
    if (from->by_size && !(to->by_size = strdup(from->by_size))) return no_memory(e);
    return 0;
}

static int add_method(struct ditgen_settings *s, const struct setting_method *of, const char *value,
                      enum layer layer, struct err *e);

int settings_copy(struct ditgen_settings **out, const struct ditgen_settings *from, struct err *e)
{
    struct ditgen_settings *s = NULL;
    *out = NULL;
    if (settings_open(&s, e) < 0) return -1;
    for (int i = 0; i < setting_count(); i++)
        if (copy_value(&s->values[i], &from->values[i], setting_at(i), e) < 0) goto fail;
    for (int i = 0; i < from->n_methods; i++)
        if (add_method(s, &from->methods[i].of, from->methods[i].text, from->methods[i].from, e) <
            0)
            goto fail;
    s->model = from->model;
    *out = s;
    return 0;
fail:
    settings_close(s);
    return -1;
}

/* --- options of methods ------------------------------------------------------------------------- */

static struct method_value *method_value(const struct ditgen_settings *s,
                                         const struct setting_method *of)
{
    for (int i = 0; i < s->n_methods; i++)
        if (s->methods[i].of.option == of->option) return &s->methods[i];
    return NULL;
}

static int add_method(struct ditgen_settings *s, const struct setting_method *of, const char *value,
                      enum layer layer, struct err *e)
{
    struct method_value *at = method_value(s, of);
    if (at && at->from > layer) return 0;
    char *copy = strdup(value);
    if (!copy) return no_memory(e);
    if (!at) {
        struct method_value *more = realloc(s->methods, (size_t)(s->n_methods + 1) * sizeof *more);
        if (!more) {
            free(copy);
            return no_memory(e);
        }
        s->methods = more;
        at = &s->methods[s->n_methods++];
        *at = (struct method_value){.of = *of};
    }
    free(at->text);
    at->text = copy;
    at->from = layer;
    return 0;
}

/* Checked as the option that it is; messages begin with the name that was used. */
static int check_method(const struct setting_method *of, const char *value, struct err *e)
{
    struct err why = {0};
    char *text = NULL;
    void *options = calloc(1, of->method.options_size);
    if (!options) return no_memory(e);
    int rc = option_parse(of->option, options, value, &why);
    if (rc < 0) err_set(e, why.code, "%s-%s", of->method.name, why.msg);
    option_free(of->method.options, options);
    free(options);
    if (rc == 0) /* also as a part of the method's text */
        rc = attn_words_set(&text, of->method.name, of->method.name, of->option->name, value, e);
    free(text);
    return rc;
}

static int set_method(struct ditgen_settings *s, enum layer layer, const struct setting_method *of,
                      const char *value, struct err *e)
{
    if (check_method(of, value, e) < 0) return -1;
    return add_method(s, of, value, layer, e);
}

/* --- set and get -------------------------------------------------------------------------------- */

static int unknown(const char *name, struct err *e)
{
    char buf[128];
    const char *near = setting_nearest(name, buf, sizeof buf);
    if (near) return err_set(e, ERR_USAGE, "unknown key '%.100s', did you mean '%s'?", name, near);
    return err_set(e, ERR_USAGE, "unknown key '%.100s'", name);
}

int settings_spread_size(struct ditgen_settings *s, struct err *e)
{
    int w, h;
    struct setting_value *size = &s->values[SET_SIZE], *width = &s->values[SET_WIDTH],
                         *height = &s->values[SET_HEIGHT];
    if (!size->is.text) return 0;
    if (setting_parse_size(size->is.text, &w, &h, e) < 0) return -1;
    if (width->from < size->from) width->is.i = w, width->from = size->from;
    if (height->from < size->from) height->is.i = h, height->from = size->from;
    settings_drop(size, setting_at(SET_SIZE));
    return 0;
}

/* Rows of the same layer that say the same thing. */
static int meet_rivals(struct ditgen_settings *s, enum layer layer, const struct setting *row,
                       struct err *e)
{
    for (const char *p = row->rivals; p && *p; p += strspn(p, " ")) {
        char name[64];
        size_t n = strcspn(p, " ");
        snprintf(name, sizeof name, "%.*s", (int)n, p);
        p += n;
        int id = setting_find(name);
        if (s->values[id].from != layer) continue;
        if (layer != LAYER_CALL)
            return err_set(e, ERR_USAGE, "%s and %s contradict each other, give one",
                           row->option.name, name);
        if (id == SET_SIZE && settings_spread_size(s, e) < 0) return -1; /* its other half stays */
        settings_drop(&s->values[id], setting_at(id));
    }
    return 0;
}

int settings_set(struct ditgen_settings *s, enum layer layer, const char *name, const char *value,
                 struct err *e)
{
    struct setting_method method;
    int id = setting_find(name);
    if (id < 0 && setting_find_method(name, &method))
        return set_method(s, layer, &method, value, e);
    if (id < 0) return unknown(name, e);
    const struct setting *row = setting_at(id);
    struct setting_value v = {0}; /* a bad value is refused also where a higher layer wins */
    if (settings_put(&v, row, value, e) < 0) return -1;
    int rc = meet_rivals(s, layer, row, e);
    if (rc < 0 || s->values[id].from > layer) {
        settings_drop(&v, row);
        return rc;
    }
    settings_drop(&s->values[id], row);
    v.from = layer;
    s->values[id] = v;
    return 0;
}

int settings_unset(struct ditgen_settings *s, const char *name, struct err *e)
{
    struct setting_method of;
    int id = setting_find(name);
    if (id >= 0) {
        settings_drop(&s->values[id], setting_at(id));
        return 0;
    }
    if (!setting_find_method(name, &of)) return unknown(name, e);
    struct method_value *at = method_value(s, &of);
    if (at) {
        free(at->text);
        *at = s->methods[--s->n_methods];
    }
    return 0;
}

static const struct setting_value *value_of(const struct ditgen_settings *s, enum setting_id id,
                                            enum option_type type)
{
    assert(setting_at((int)id)->option.type == type);
    (void)type;
    return &s->values[id];
}

enum layer settings_from(const struct ditgen_settings *s, enum setting_id id)
{
    return s->values[id].from;
}

int settings_int(const struct ditgen_settings *s, enum setting_id id)
{
    enum option_type type = setting_at((int)id)->option.type;
    return value_of(s, id, type == OPTION_ENUM ? OPTION_ENUM : OPTION_INT)->is.i;
}

double settings_real(const struct ditgen_settings *s, enum setting_id id)
{
    return value_of(s, id, OPTION_DOUBLE)->is.d;
}

bool settings_switch(const struct ditgen_settings *s, enum setting_id id)
{
    return value_of(s, id, OPTION_BOOL)->is.b;
}

const char *settings_budget(const struct ditgen_settings *s)
{
    const char *text = settings_text(s, SET_ERROR_BUDGET);
    return text && strcmp(text, "none") != 0 ? text : NULL;
}

bool settings_budget_steps(const struct ditgen_settings *s)
{
    const char *cache = settings_text(s, SET_STEP_CACHE);
    return cache && strncmp(cache, "budget", 6) == 0 && (!cache[6] || cache[6] == ':');
}

uint64_t settings_seed(const struct ditgen_settings *s)
{
    return value_of(s, SET_SEED, OPTION_U64)->is.u;
}

const char *settings_text(const struct ditgen_settings *s, enum setting_id id)
{
    return value_of(s, id, OPTION_STRING)->is.text;
}
