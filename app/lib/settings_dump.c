/* Settings as text: --dump-config, and what clips carry; see settings_dump(). */
#include "app/lib/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/lib/assets.h"
#include "app/lib/ini.h"

/* A value there is: said by somebody, or a default within the row's range. */
static bool has_value(const struct setting_value *v, const struct setting *row)
{
    switch (row->option.type) {
    case OPTION_STRING:
        return v->by_size || v->is.text;
    case OPTION_BOOL:
        return v->is.b;
    case OPTION_INT:
        return v->by_size || v->is.i >= row->option.lo;
    case OPTION_DOUBLE:
        return v->by_size || v->is.d >= row->option.lo;
    case OPTION_ENUM:
    case OPTION_U64:
        return true;
    }
    return false;
}

char *settings_print(const struct ditgen_settings *s, int id, struct err *e)
{
    const struct setting *row = setting_at(id);
    const struct setting_value *v = &s->values[id];
    e->code = ERR_NONE;
    if (row->option.type != OPTION_BOOL && !has_value(v, row)) return NULL;
    char *text = NULL;
    if (v->by_size) {
        text = strdup(v->by_size);
    } else {
        size_t n = (size_t)option_print(&row->option, &v->is, NULL, 0) + 1;
        if ((text = malloc(n))) option_print(&row->option, &v->is, text, n);
    }
    if (!text) err_set(e, ERR_RESOURCE, "no memory for the settings");
    return text;
}

static int put_line(FILE *f, const char *name, const char *value, bool quote)
{
    if (!quote) return fprintf(f, "%s = %s\n", name, value) < 0 ? -1 : 0;
    size_t n = (size_t)ini_quote(NULL, 0, value) + 1;
    char *quoted = malloc(n);
    if (!quoted) return -1;
    ini_quote(quoted, n, value);
    int rc = fprintf(f, "%s = %s\n", name, quoted);
    free(quoted);
    return rc < 0 ? -1 : 0;
}

static int put_row(FILE *f, const struct ditgen_settings *s, int id, bool clip)
{
    const struct setting *row = setting_at(id);
    struct err e = {0};
    char last[256];
    if (row->use & SPELLING || (clip && !(row->use & KEPT)) || !has_value(&s->values[id], row))
        return 0;
    char *text = settings_print(s, id, &e);
    if (!text) return -1;
    const char *value = text;
    if (clip && id == SET_MODEL) path_last(last, sizeof last, text), value = last;
    int rc = put_line(f, row->option.name, value, row->option.type == OPTION_STRING);
    free(text);
    return rc;
}

char *settings_dump(const struct ditgen_settings *s, bool clip)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    if (!f) return NULL;
    int rc = fputs("[ditgen]\n", f) < 0 ? -1 : 0;
    for (int i = 0; rc == 0 && i < setting_count(); i++)
        rc = put_row(f, s, i, clip);
    for (int i = 0; rc == 0 && i < s->n_methods; i++) { /* none where settings were resolved */
        char name[128];
        setting_method_name(&s->methods[i].of, name, sizeof name);
        rc = put_line(f, name, s->methods[i].text, true);
    }
    if (fclose(f) != 0 || rc < 0) {
        free(text);
        return NULL;
    }
    return text;
}
