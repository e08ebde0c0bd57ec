/* Each layer and step gets one of five treatments: DiTFastAttn, arXiv 2406.08552; attention-kernels.md
 * 4.
 *
 *   F  everything, and what the window lacks of it
 *   W  the window, and what it lacked at the last F
 *   A  what the layer gave in the step before; q, k, v and the output layer are not made either
 *   C  F, and other branches take what the first one gives
 *   c  W, likewise
 *
 * The window is a band of blocks in tiles of tokens (or another method's selection). Treatments are a
 * pattern for each layer, or those of a plan file, which `search` writes: a run computes everything and
 * notes, on sampled rows, what each would have cost, and layer by layer, step by step, takes the cheapest
 * whose relative L1 error stays under error * (layer + 1) / layers. Deviations: errors are those of a
 * layer's own o rather than of the model run anew for every choice (121 forwards a step there), at most 2
 * A in a row and W at most 5 steps after its F, C not in the first fifth; names in a plan file say for
 * which run it is, and any other is refused. On the embedded model C alone lost most by far (17.3). */
#include "attention/methods/ditfast.h"

#include "model/base/json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct ditfast *of(const struct attn_part *p) { return p->options; }

char ditfast_at(const struct attn_part *p, int layer, int step)
{
    struct attn_ctx c = {.step = step, .layer = layer};
    return attn_is_exact(p, &c) ? 'F' : of(p)->table[layer * p->shape->n_steps + step];
}

/* --- members --- */

static enum attn_ask ditfast_ask(const struct attn_part *p, const struct attn_ctx *c)
{
    char at = ditfast_at(p, c->layer, c->step);
    if (at == 'A') return ATTN_ASK_COPY_STEP;
    return (at == 'C' || at == 'c') && c->branch > 0 ? ATTN_ASK_COPY_BRANCH : ATTN_ASK_COMPUTE;
}

static const struct axis_ask asks[] = {
    {.name = "plan", .summary = "copies by a plan", .ask = ditfast_ask},
    {.name = "plan", .summary = "copies by a plan", .ask = ditfast_ask, .over_steps = true},
    {.name = "plan", .summary = "copies by a plan", .ask = ditfast_ask, .over_branches = true},
    {.name = "plan",
     .summary = "copies by a plan",
     .ask = ditfast_ask,
     .over_steps = true,
     .over_branches = true},
};

/* What should have been copied and could not be is computed whole. */
static bool ditfast_anew(const struct attn_part *p, const struct attn_turn *t)
{
    char at = ditfast_at(p, t->at.layer, t->at.step);
    return at != 'W' && at != 'c';
}

static const struct axis_reuse anew_by_plan = {
    .name = "plan",
    .summary = "a window's rest stands until the next F",
    .anew = ditfast_anew,
    .scheduled = true,
};

/* --- the table --- */

static int wrong_letters(const char *where, const char *text, struct err *e)
{
    return err_set(e, ERR_USAGE, "%s is '%.60s', wanted letters of " DITFAST_LETTERS ", %s", where,
                   text, "layers apart by /");
}

/* Layer i has the i-th pattern, or the last; it begins at the first step that is not exact. */
static int by_pattern(struct ditfast *o, const struct attn_part *p, struct err *e)
{
    const char *at = o->steps ? o->steps : "";
    for (int layer = 0; layer < p->shape->n_layers; layer++) {
        char *row = o->table + layer * p->shape->n_steps;
        size_t n = strspn(at, DITFAST_LETTERS);
        if (!n || (at[n] && at[n] != '/')) return wrong_letters("steps", at, e);
        for (int step = p->first; step < p->last; step++)
            row[step] = at[(size_t)(step - p->first) % n];
        if (at[n] == '/') at += n + 1;
    }
    size_t n = strspn(at, DITFAST_LETTERS);
    return n && (!at[n] || at[n] == '/') ? 0 : wrong_letters("steps", at, e);
}

static int must_be(const struct json *root, const char *path, const char *key, int wanted,
                   struct err *e)
{
    int seen;
    if (json_read_int(root, path, key, 0, 1000000000, -1, &seen, e) < 0) return -1;
    if (seen == wanted) return 0;
    return err_set(e, ERR_INPUT, "%s: a plan for another run: %s is %d, here it is %d", path, key,
                   seen, wanted);
}

static int same_text(const struct json *root, const char *path, const char *key, const char *wanted,
                     struct err *e)
{
    const char *seen;
    if (json_read_string(root, path, key, "", &seen, e) < 0) return -1;
    if (strcmp(seen, wanted) == 0) return 0;
    return err_set(e, ERR_INPUT, "%s: a plan for another run: %s is '%.40s', here it is '%.40s'",
                   path, key, seen, wanted);
}

/* What a clip says of a plan is its name and this: FNV-1a of its bytes. */
static int ditfast_complete(const struct attn_part *p, struct err *e)
{
    struct ditfast *o = (struct ditfast *)(uintptr_t)p->options;
    uint64_t hash = 0xcbf29ce484222325u;
    char text[20];
    if (o->search && o->file)
        return err_set(e, ERR_USAGE,
                       "file names a plan and search makes one; leave one of them out");
    if (!o->file && !o->hash) return 0;
    if (!o->file) return err_set(e, ERR_USAGE, "hash is that of a plan file, and there is no file");
    FILE *f = fopen(o->file, "rb");
    if (!f) return err_set(e, ERR_INPUT, "%s cannot be read: %s", o->file, strerror(errno));
    for (int c; (c = getc(f)) != EOF;)
        hash = (hash ^ (uint64_t)c) * 0x100000001b3u;
    bool bad = ferror(f);
    fclose(f);
    if (bad) return err_set(e, ERR_INPUT, "%s cannot be read", o->file);
    snprintf(text, sizeof text, "%016llx", (unsigned long long)hash);
    if (o->hash && strcmp(o->hash, text) != 0)
        return err_set(
            e, ERR_INPUT,
            "%s has changed: its hash is %s, wanted %.40s; leave hash out to take it as it "
            "is",
            o->file, text, o->hash);
    if (!o->hash && !(o->hash = strdup(text))) return err_set(e, ERR_RESOURCE, "no memory");
    return 0;
}

static int read_rows(struct ditfast *o, const struct attn_part *p, const struct json *root,
                     struct err *e)
{
    int layers = p->shape->n_layers, steps = p->shape->n_steps, layer = 0;
    const struct json *blocks = json_get(root, "blocks");
    if (!json_is_array(blocks) || json_count(blocks) != layers)
        return err_set(e, ERR_INPUT, "%s: blocks has %d rows, wanted one for each of %d layers",
                       o->file, json_is_array(blocks) ? json_count(blocks) : 0, layers);
    for (const struct json *row = json_first(blocks); row; row = json_next(row), layer++) {
        const char *text = json_string(row);
        if (!text || strlen(text) != (size_t)steps ||
            strspn(text, DITFAST_LETTERS) != (size_t)steps)
            return err_set(e, ERR_INPUT, "%s: row %d of blocks is '%.60s', wanted %d of %s",
                           o->file, layer, text ? text : "", steps, DITFAST_LETTERS);
        memcpy(o->table + layer * steps, text, (size_t)steps);
    }
    return 0;
}

static int by_file(struct ditfast *o, const struct attn_part *p, struct err *e)
{
    const struct attn_shape *s = p->shape;
    const struct {
        const char *key;
        int is;
    } same[] = {{"version", 1},          {"num_steps", s->n_steps}, {"n_layers", s->n_layers},
                {"n_heads", s->n_heads}, {"head_dim", s->head_dim}, {"grid_t", s->grid_t},
                {"grid_h", s->grid_h},   {"grid_w", s->grid_w},     {"block", o->knobs.block}};
    struct json *root;
    int rc = 0;
    if (json_open(&root, o->file, e) < 0) return -1;
    if (!json_is_object(root)) rc = err_set(e, ERR_INPUT, "%s is no plan of ditfast", o->file);
    for (size_t i = 0; rc == 0 && i < ARRAY_LEN(same); i++)
        rc = must_be(root, o->file, same[i].key, same[i].is, e);
    char density[32];
    snprintf(density, sizeof density, "%.6g", o->knobs.density);
    if (rc == 0) rc = same_text(root, o->file, "tile", o->knobs.tile ? o->knobs.tile : "raster", e);
    if (rc == 0) rc = same_text(root, o->file, "density", density, e);
    if (rc == 0) rc = read_rows(o, p, root, e);
    json_close(root);
    return rc;
}

static int ditfast_choose(const struct attn_part *p, struct attn_recipe *r, struct err *e)
{
    struct ditfast *o = (struct ditfast *)(uintptr_t)p->options; /* the table is made here */
    size_t n = (size_t)p->shape->n_layers * (size_t)p->shape->n_steps;
    if (axis_choose(p, r, e) < 0) return -1;
    if (o->search && access(o->search, F_OK) == 0)
        return err_set(e, ERR_USAGE, "search would write over %.200s; name another file",
                       o->search);
    free(o->table);
    o->table = malloc(n + 1);
    if (!o->table) return err_set(e, ERR_RESOURCE, "no memory for a plan of %zu bytes", n + 1);
    memset(o->table, 'F', n);
    o->table[n] = 0;
    if (o->search) {
        *r = (struct attn_recipe){0};
        return 0;
    }
    if ((o->file ? by_file(o, p, e) : by_pattern(o, p, e)) < 0) return -1;
    for (int i = 0; i < p->shape->n_layers * p->shape->n_steps; i++) {
        int step = i % p->shape->n_steps; /* steps that are exact need no memory */
        if (step < p->first || step >= p->last) o->table[i] = 'F';
    }
    bool steps = strchr(o->table, 'A') != NULL, window = strpbrk(o->table, "Wc") != NULL;
    bool branches = strpbrk(o->table, "Cc") && p->shape->n_branches > 1;
    if (!window) *r = (struct attn_recipe){0};
    r->ask = steps || branches ? &asks[steps + 2 * branches] : NULL;
    return 0;
}

static void ditfast_close(const struct attn_part *p)
{
    struct ditfast *o = (struct ditfast *)(uintptr_t)p->options;
    free(o->table);
    o->table = NULL;
}

const struct attn_method attn_ditfast = {
    .name = "ditfast",
    .summary = "by layer and step: all, a window and its rest, an earlier output, another branch's",
    .paper = "2406.08552",
    .recipe = {.order = &order_by_tile,
               .select = &keep_band,
               .reuse = &anew_by_plan,
               .compensate = &rest_residual,
               .mild = true},
    .options = OPTIONS(
        OPT_STRING(struct ditfast, steps, "steps", "FWAW",
                   "letters of F W A C c, repeated over the steps; layers apart by /"),
        OPT_STRING(struct ditfast, file, "file", NULL, "a plan instead, for this model and size"),
        OPT_STRING(struct ditfast, hash, "hash", NULL,
                   "of that file, as clips keep it; another file is refused"),
        OPT_STRING(struct ditfast, search, "search", NULL,
                   "compute everything and write the plan that keeps `error` into this file"),
        OPT_DOUBLE(struct ditfast, error, "error", 0.1, 0, 10,
                   "relative error of a layer that a search allows the last layer; less before"),
        KNOB_DENSITY(0.125, "share of keys in the window"), KNOB_TILE("4x4x4"), KNOB_FIRST(0.2),
        KNOB_LAST(0.1), KNOB_BLOCK(64)),
    .options_size = sizeof(struct ditfast),
    .complete = ditfast_complete,
    .choose = ditfast_choose,
    .close = ditfast_close,
    .sizes = ditfast_search_sizes,
    .observe = ditfast_search,
    .observe_looks = ditfast_search_looks,
};
