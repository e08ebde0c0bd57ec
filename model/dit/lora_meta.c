/* peft's LoraConfig, read strictly; see lora_meta.h. */
#include "model/dit/lora_meta.h"

#include "model/base/json.h"
#include "model/base/regex.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX "transformer."

enum { MAX_PATTERNS = 4096, MAX_REGEXES = 256, DEFAULT_RANK = 8, DEFAULT_ALPHA = 8 };

struct entry {
    const char *key; /* borrowed from the document */
    struct regex *regex; /* NULL: letters and dots only, compared as such */
    double value;
};

struct table {
    struct entry *at;
    int n;
};

struct lora_meta {
    struct json *root;
    struct table alphas, ranks;
    double alpha, rank;
    bool stable; /* use_rslora */
};

/* Keys of LoraConfig (peft 0.21) that say nothing of the sum of a loaded adapter: where modules are
 * follows from the tensors. */
static const char *const idle[] = {
    "task_type",
    "peft_type",
    "auto_mapping",
    "peft_version",
    "revision",
    "inference_mode",
    "target_modules",
    "exclude_modules",
    "lora_dropout",
    "layers_to_transform",
    "layers_pattern",
    "megatron_core",
    "lora_bias",
    "qalora_group_size",
    "base_model_name_or_path",
    "runtime_config",
    /* read below */
    "r",
    "lora_alpha",
    "rank_pattern",
    "alpha_pattern",
    "use_rslora",
};

/* How pairs were begun; the other ways that peft knows change the weights they are added to. */
static const char *const begun[] = {"gaussian", "orthogonal", "eva"};

static bool one_of(const char *s, const char *const *list, size_t n)
{
    for (size_t i = 0; s && i < n; i++)
        if (strcmp(s, list[i]) == 0) return true;
    return false;
}

/* null, false, nothing, "none": what an option that is not used says. */
static bool unused(const struct json *v)
{
    bool b;
    const char *s = json_string(v);
    if (json_is_null(v)) return true;
    if (json_bool(v, &b)) return !b;
    if (s) return strcmp(s, "none") == 0;
    return (json_is_array(v) || json_is_object(v)) && json_count(v) == 0;
}

static int check_key(const char *key, const struct json *v, struct err *e)
{
    bool b;
    if (one_of(key, idle, ARRAY_LEN(idle)) || unused(v)) return 0;
    if (strcmp(key, "init_lora_weights") == 0 &&
        (json_bool(v, &b) || one_of(json_string(v), begun, ARRAY_LEN(begun))))
        return 0;
    return err_set(e, ERR_INPUT,
                   "asks for %.60s%s%.40s, which is not done here; merge the adapter into the "
                   "transformer with peft, and save that",
                   key, json_string(v) ? " " : "", json_string(v) ? json_string(v) : "");
}

static int read_number(double *v, const struct json *n, const char *what, double least, double most,
                       struct err *e)
{
    if (json_number(n, v) && *v >= least && *v <= most) return 0;
    return err_set(e, ERR_INPUT, "gives %.100s a value that is no number from %.9g to %.9g", what,
                   least, most);
}

/* No mark of a regular expression but the dot, which any character matches. */
static bool is_plain(const char *key) { return !strpbrk(key, "^$[](){}*+?|\\"); }

static bool plain_tail(const char *key, const char *module)
{
    size_t n = strlen(key), len = strlen(module);
    if (n > len || (n < len && module[len - n - 1] != '.')) return false;
    for (size_t i = 0; i < n; i++)
        if (key[i] != '.' && key[i] != module[len - n + i]) return false;
    return true;
}

static int read_table(struct table *t, const struct json *list, const char *name, double least,
                      double most, struct err *e)
{
    int regexes = 0;
    if (json_is_null(list)) return 0;
    if (!json_is_object(list) || json_count(list) > MAX_PATTERNS)
        return err_set(e, ERR_INPUT, "%s is not a table of at most %d patterns", name,
                       MAX_PATTERNS);
    t->at = calloc((size_t)json_count(list) + 1, sizeof *t->at);
    if (!t->at) return err_set(e, ERR_RESOURCE, "no memory for %s", name);
    for (const struct json *x = json_first(list); x; x = json_next(x)) {
        struct entry *a = &t->at[t->n++];
        a->key = json_key(x);
        if (read_number(&a->value, x, a->key, least, most, e) < 0) return err_wrap(e, "%s", name);
        if (is_plain(a->key)) continue;
        if (++regexes > MAX_REGEXES)
            return err_set(e, ERR_INPUT, "%s has more than %d regular expressions", name,
                           MAX_REGEXES);
        if (regex_open(&a->regex, a->key, e) < 0) return err_wrap(e, "%s", name);
    }
    return 0;
}

static int read_meta(struct lora_meta *m, struct err *e)
{
    int n = 0;
    if (!json_is_object(m->root)) return err_set(e, ERR_INPUT, "is not a JSON object");
    for (const struct json *x = json_first(m->root); x; x = json_next(x)) {
        const char *key = json_key(x);
        if (strncmp(key, PREFIX, strlen(PREFIX)) != 0) continue; /* of a part that is not this */
        if (check_key(key + strlen(PREFIX), x, e) < 0) return -1;
        n++;
    }
    if (!n) return err_set(e, ERR_INPUT, "says nothing of the transformer (keys " PREFIX "...)");
    const struct json *alpha = json_get(m->root, PREFIX "lora_alpha"),
                      *rank = json_get(m->root, PREFIX "r"),
                      *stable = json_get(m->root, PREFIX "use_rslora");
    m->alpha = DEFAULT_ALPHA;
    m->rank = DEFAULT_RANK;
    if (alpha && read_number(&m->alpha, alpha, "lora_alpha", -1e6, 1e6, e) < 0) return -1;
    if (rank && read_number(&m->rank, rank, "r", 1, 1e6, e) < 0) return -1;
    if (!json_is_null(stable) && !json_bool(stable, &m->stable))
        return err_set(e, ERR_INPUT, "use_rslora is not true or false");
    if (read_table(&m->alphas, json_get(m->root, PREFIX "alpha_pattern"), "alpha_pattern", -1e6,
                   1e6, e) < 0)
        return -1;
    return read_table(&m->ranks, json_get(m->root, PREFIX "rank_pattern"), "rank_pattern", 1, 1e6,
                      e);
}

int lora_meta_open(struct lora_meta **out, const char *text, const char *path, struct err *e)
{
    *out = NULL;
    struct lora_meta *m = calloc(1, sizeof *m);
    if (!m) return err_set(e, ERR_RESOURCE, "no memory for the adapter");
    if (json_parse(&m->root, text, strlen(text), "lora_adapter_metadata", e) < 0) {
        err_wrap(e, "%s", path);
        goto fail;
    }
    if (read_meta(m, e) < 0) {
        err_wrap(e, "%s: lora_adapter_metadata", path);
        goto fail;
    }
    *out = m;
    return 0;
fail:
    lora_meta_close(m);
    return -1;
}

static void close_table(struct table *t)
{
    for (int i = 0; i < t->n; i++)
        regex_close(t->at[i].regex);
    free(t->at);
}

void lora_meta_close(struct lora_meta *m)
{
    if (!m) return;
    close_table(&m->alphas);
    close_table(&m->ranks);
    json_close(m->root);
    free(m);
}

static double value_of(const struct table *t, const char *module, double fallback)
{
    for (int i = 0; i < t->n; i++) {
        const struct entry *a = &t->at[i];
        if (a->regex ? regex_is_tail(a->regex, module) : plain_tail(a->key, module))
            return a->value;
    }
    for (int i = 0; i < t->n; i++) /* a name whose marks do not match themselves */
        if (strcmp(t->at[i].key, module) == 0) return t->at[i].value;
    return fallback;
}

int lora_meta_scale(const struct lora_meta *m, const char *module, int rank, double *scale,
                    struct err *e)
{
    double said = value_of(&m->ranks, module, m->rank);
    if (said != (double)rank)
        return err_set(e, ERR_INPUT,
                       "lora_adapter_metadata gives %s rank %.9g, its tensors have %d", module,
                       said, rank);
    double alpha = value_of(&m->alphas, module, m->alpha);
    *scale = alpha / (m->stable ? sqrt((double)rank) : (double)rank);
    return 0;
}
