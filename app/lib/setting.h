/* The rows of settings.def: what may be set, by which names, within which bounds.
 *
 * '-' and '_' are equal in names. Options of attention methods are named METHOD-OPTION
 * ("window-tiles"): two methods may use one option name. Constants; threads: any. */
#ifndef DITGEN_APP_SETTING_H
#define DITGEN_APP_SETTING_H

#include "attention/attention.h"
#include "model/base/option.h"

enum setting_id {
#define SETTING(id, ...) SET_##id,
#include "app/lib/settings.def"
#undef SETTING
    SET_COUNT, /* of these; a test may have linked a table with more rows (setting_count) */
};

enum setting_section {
    SECTION_CLIP,
    SECTION_SAMPLING,
    SECTION_COMPUTE,
    SECTION_VIDEO,
    SECTION_COMPATIBILITY,
    SECTIONS
};

enum setting_use { /* bits; settings.def says what they mean */
                   KEPT = 1,
                   MODEL = 2,
                   BY_SIZE = 4,
                   SPELLING = 8,
                   COMMAND = 16,
                   UTF8 = 32,
};

struct setting {
    struct option option; /* name, type, range, help; of one value (offset 0) */
    enum setting_section section;
    unsigned use;
    const char *alias, *dash, *word, *rivals; /* NULL: none */
    int (*check)(const char *value, struct err *e); /* NULL: any */
};

int setting_count(void);
const struct setting *setting_at(int id);
const char *setting_section_title(enum setting_section s);
int setting_find(const char *name); /* also by an alias; -1: none */
bool setting_named(const struct setting *s, const char *name);

/* An option of a method. */
struct setting_method {
    struct attn_method_info method;
    const struct option *option;
};
bool setting_find_method(const char *name, struct setting_method *m);
/* "window-tiles"; at most n - 1 bytes, returns the length needed. */
int setting_method_name(const struct setting_method *m, char *buf, size_t n);

/* The name nearest to an unknown one, of rows and of methods' options (then in buf[n]); NULL:
 * nothing is near. */
const char *setting_nearest(const char *name, char *buf, size_t n);

/* What --help shows for the value: "N", "NAME", "" of a switch. */
const char *setting_word(const struct setting *s);

/* "832x480", also with X or * between. */
int setting_parse_size(const char *text, int *width, int *height, struct err *e);

/* "16G", "900M", "1.5g", "17179869184": bytes; K, M and G are 1024, 1024² and 1024³ of them. */
int setting_parse_bytes(const char *text, size_t *bytes, struct err *e);

/* "40dB", "40", or a level → dB; "none": 0. */
int setting_parse_budget(const char *text, double *db, struct err *e);

struct setting_compat {
    bool diffusers_036; /* UniPC's noise levels as diffusers up to 0.36 has them */
    bool truncate; /* frames to bytes by truncation, as diffusers' export does */
};
/* NULL: none. */
int setting_parse_compat(const char *list, struct setting_compat *c, struct err *e);

#endif
