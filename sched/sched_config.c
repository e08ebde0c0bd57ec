/* scheduler/scheduler_config.json: which solver, which shift; anything else it asks for is refused
 * by name, since a schedule silently other than the one asked for still makes a clip. wan.md 5.1.
 */
#include "model/base/json.h"
#include "sched/sched.h"

#include <stdio.h>
#include <string.h>

/* A key whose value must be one of a few; values as JSON shows them, "|" between. absent: what the
 * class takes when the key is missing is not one of them. */
struct rule {
    const char *key, *values;
    bool absent_is_wrong;
};

static const struct rule flow_rules[] = {
    /* both multistep classes */
    {"use_flow_sigmas", "true", true},
    {"prediction_type", "\"flow_prediction\"", true},
    {"solver_order", "2", false},
    {"lower_order_final", "true", false},
    {"final_sigmas_type", "\"zero\"", false},
    {"thresholding", "false|null", false},
};
static const struct rule unipc_rules[] = {
    /* the reference reads the last three as bh2 */
    {"solver_type", "\"bh2\"|\"midpoint\"|\"heun\"|\"logrho\"", false},
    {"predict_x0", "true", false},
    {"disable_corrector", "[]", false},
    {"solver_p", "null", false},
};
static const struct rule dpmpp_rules[] = {
    /* the reference reads the last three as midpoint */
    {"solver_type", "\"midpoint\"|\"bh1\"|\"bh2\"|\"logrho\"", false},
    {"algorithm_type", "\"dpmsolver++\"", false},
    {"use_lu_lambdas", "false|null", false},
    {"variance_type", "null", false},
};
static const struct rule euler_rules[] = {
    {"invert_sigmas", "false|null", false},
    {"stochastic_sampling", "false|null", false},
};
static const struct rule all_rules[] = {
    {"use_dynamic_shifting", "false|null", false}, {"shift_terminal", "null", false},
    {"use_karras_sigmas", "false|null", false},    {"use_exponential_sigmas", "false|null", false},
    {"use_beta_sigmas", "false|null", false},
};

struct sched_class {
    const char *class_name, *solver;
    const char *shift_key;
    bool flow; /* takes flow_rules */
    const struct rule *rules;
    int n_rules;
};

static const struct sched_class classes[] = {
    {"UniPCMultistepScheduler", "unipc", "flow_shift", true, unipc_rules, ARRAY_LEN(unipc_rules)},
    {"FlowMatchEulerDiscreteScheduler", "euler", "shift", false, euler_rules,
     ARRAY_LEN(euler_rules)},
    {"DPMSolverMultistepScheduler", "dpmpp", "flow_shift", true, dpmpp_rules,
     ARRAY_LEN(dpmpp_rules)},
};

/* A value as JSON, short; containers by their kind. */
static void show(char *text, size_t size, const struct json *v)
{
    bool b;
    double d;
    if (!v)
        snprintf(text, size, "absent");
    else if (json_is_null(v))
        snprintf(text, size, "null");
    else if (json_bool(v, &b))
        snprintf(text, size, "%s", b ? "true" : "false");
    else if (json_number(v, &d))
        snprintf(text, size, "%.9g", d);
    else if (json_string(v))
        snprintf(text, size, "\"%.60s\"", json_string(v));
    else if (json_is_array(v))
        snprintf(text, size, json_count(v) ? "[...]" : "[]");
    else
        snprintf(text, size, "{...}");
}

static bool one_of(const char *text, const char *values)
{
    size_t len = strlen(text);
    if (strchr(text, '|')) return false;
    for (const char *v = values; v; v = strchr(v, '|') ? strchr(v, '|') + 1 : NULL)
        if (strncmp(v, text, len) == 0 && (v[len] == '|' || !v[len])) return true;
    return false;
}

static int check(const struct json *root, const char *path, const struct rule *rules, int n,
                 struct err *e)
{
    for (int i = 0; i < n; i++) {
        char seen[80];
        const struct json *v = json_get(root, rules[i].key);
        if (!v && !rules[i].absent_is_wrong) continue;
        show(seen, sizeof seen, v);
        if (one_of(seen, rules[i].values)) continue;
        const char *bar = strchr(rules[i].values, '|'); /* the first is its own name */
        int len = bar ? (int)(bar - rules[i].values) : (int)strlen(rules[i].values);
        return err_set(e, ERR_INPUT, "%s: %s is %s, only %.*s is implemented", path, rules[i].key,
                       seen, len, rules[i].values);
    }
    return 0;
}

static const struct sched_class *find_class(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(classes); i++)
        if (strcmp(classes[i].class_name, name) == 0) return &classes[i];
    return NULL;
}

static int read_root(struct sched_config *c, const struct json *root, const char *path,
                     struct err *e)
{
    const char *name;
    if (!json_is_object(root)) return err_set(e, ERR_INPUT, "%s: no JSON object", path);
    if (json_read_string(root, path, "_class_name", NULL, &name, e) < 0) return -1;
    const struct sched_class *k = name ? find_class(name) : NULL;
    if (!k)
        return err_set(e, ERR_INPUT, "%s: _class_name is %.60s, wanted %s, %s or %s", path,
                       name ? name : "absent", classes[0].class_name, classes[1].class_name,
                       classes[2].class_name);
    if (k->flow && check(root, path, flow_rules, ARRAY_LEN(flow_rules), e) < 0) return -1;
    if (check(root, path, k->rules, k->n_rules, e) < 0) return -1;
    if (check(root, path, all_rules, ARRAY_LEN(all_rules), e) < 0) return -1;
    if (json_read_int(root, path, "num_train_timesteps", 1000, 1000, 1000, &c->num_train_timesteps,
                      e) < 0)
        return -1;
    /* one of the two keys is the class's own; a folder converted by hand may have the other */
    const char *key = k->shift_key;
    if (!json_get(root, key)) key = k->flow ? "shift" : "flow_shift";
    if (json_read_double(root, path, key, 1e-3, 1e3, 1, &c->flow_shift, e) < 0) return -1;
    snprintf(c->class_name, sizeof c->class_name, "%s", name);
    c->solver = k->solver;
    return 0;
}

int sched_config_read(struct sched_config *c, const char *path, struct err *e)
{
    struct json *root = NULL;
    memset(c, 0, sizeof *c);
    if (json_open(&root, path, e) < 0) return -1;
    int rc = read_root(c, root, path, e);
    json_close(root);
    return rc;
}
