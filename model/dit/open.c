/* Opening a transformer: every tensor bound by its name, converted, merged with an adapter, and put where
 * it is computed; closing it. */
#include "model/dit/dit_internal.h"

#include "model/dit/lora.h"

#include <stdio.h>
#include <stdlib.h>

struct source {
    struct weights *file;
    struct lora *lora;
    struct device *device;
    const struct ops *ops;
    enum precision precision;
    const struct dit_config *config;
    struct linear_stage *stage;
    struct dit *d; /* whose weights' memory is carved, and blocks streamed */
    const char *attention; /* a stack, whose own tensors are read */
    bool check; /* binds only: target is not used */
    struct dit_sender *sender; /* weights that go up meanwhile, or NULL */
};

struct dit_opening {
    struct source s;
    struct linear_stage stage;
    struct dit_params p;
};

struct pair {
    struct tensor weight, bias;
};

/* Its weights, on a device where this layer's belong: in the slot, or behind those before. */
static int open_weights(const struct source *s, void *target, const struct layer_row *r,
                        struct dit_slot *slot, const struct pair *p, struct err *e)
{
    struct linear_params lp = dit_linear_params(r, s->precision);
    struct op_linear **at = (struct op_linear **)(void *)((char *)target + r->offset);
    if (*at) return s->ops->linear_rebind(*at, &p->weight, &p->bias, e); /* of a slot */
    if (slot)
        lp.at = dit_stream_place(s->d, slot, r);
    else if (device_place(s->device) != PLACE_HOST)
        lp.at = arena_take(&s->d->weights, s->ops->linear_bytes(&lp));
    lp.sent = dit_sender_has(s->sender, lp.at);
    return s->ops->linear_open(at, s->device, &lp, &p->weight, &p->bias, s->stage, e);
}

static int bind_layer(const struct source *s, struct pair *p, const struct layer_row *r, int layer,
                      struct err *e)
{
    char weight[128], bias[128];
    snprintf(weight, sizeof weight, "%s.weight", r->name);
    snprintf(bias, sizeof bias, "%s.bias", r->name);
    struct bind_row rows[2] = {
        {weight, offsetof(struct pair, weight), 2, {r->out, r->in}, false},
        {bias, offsetof(struct pair, bias), 1, {r->out}, false},
    };
    const struct dit_config *c = s->config;
    if (r->patch)
        rows[0] = (struct bind_row){weight,
                                    offsetof(struct pair, weight),
                                    5,
                                    {r->out, c->in_channels, c->patch_t, c->patch_h, c->patch_w},
                                    false};
    if (weights_bind(s->file, p, rows, 2, layer, e) < 0) return -1;
    if (r->patch) { /* its columns are already in patchify()'s order */
        p->weight.n_dims = 2;
        p->weight.shape[1] = r->in;
    }
    return 0;
}

static int open_layer(const struct source *s, void *target, const struct layer_row *r, int layer,
                      struct dit_slot *slot, struct err *e)
{
    char module[128];
    const char *d = strstr(r->name, "%d");
    if (d)
        snprintf(module, sizeof module, "%.*s%d%s", (int)(d - r->name), r->name, layer, d + 2);
    else
        snprintf(module, sizeof module, "%s", r->name);
    struct pair p;
    if (bind_layer(s, &p, r, layer, e) < 0) return -1;
    struct pair plain = p;
    if (lora_merge(s->lora, module, &p.weight, &p.bias, e) < 0) return -1;
    if (s->check) return 0;
    if (open_weights(s, target, r, slot, &p, e) < 0)
        return err_wrap(e, "%s: %s", weights_path(s->file), module);
    weights_drop(s->file, &plain.weight); /* packed: its pages are not needed again */
    return 0;
}

static int open_vector(const struct source *s, void *target, const struct vector_row *r, int layer,
                       struct err *e)
{
    struct tensor t;
    struct bind_row row = {r->name, 0, r->n_dims, {r->shape[0], r->shape[1], r->shape[2]}, false};
    if (weights_bind(s->file, &t, &row, 1, layer, e) < 0) return -1;
    if (s->check) return 0;
    float *dst;
    size_t n = tensor_len(&t);
    bool there = device_place(s->device) != PLACE_HOST;
    memcpy(&dst, (char *)target + r->offset, sizeof dst);
    float *room = there ? malloc((n ? n : 1) * sizeof *room) : dst;
    if (!room) return err_set(e, ERR_RESOURCE, "no memory for a vector of %zu numbers", n);
    dtype_to_f32(room, t.data, t.dtype, n);
    if (r->narrow && s->precision != PRECISION_FP32) round_rows(room, n);
    int rc = there ? device_upload(s->device, dst, room, n * sizeof *room, e) : 0;
    if (there) free(room);
    return rc;
}

/* The reference ignores this weight too: a norm that nothing uses. */
static int skip_stray(const struct source *s, int layer, struct err *e)
{
    struct tensor unused;
    struct bind_row row = {"blocks.%d.attn2.norm_added_q.weight",
                           0,
                           1,
                           {s->config->n_heads * s->config->head_dim},
                           true};
    return weights_bind(s->file, &unused, &row, 1, layer, e);
}

/* Of a block that streams: those layers that steps use, or the others, to the device and back. */
static int open_part(const struct source *s, struct dit_block *b, const struct layer_row *rows,
                     int n, int layer, struct dit_slot *slot, bool text, struct err *e)
{
    for (int i = 0; i < n; i++)
        if (dit_row_is_text(&rows[i]) == text && open_layer(s, b, &rows[i], layer, slot, e) < 0)
            return -1;
    return dit_stream_keep(s->d, layer, text, e);
}

static int open_block(const struct source *s, const struct layer_row *rows, int n, int layer,
                      struct err *e)
{
    struct dit_slot *slot = NULL;
    struct dit_block *b = s->check ? NULL : dit_stream_block(s->d, layer, &slot);
    if (slot)
        return open_part(s, b, rows, n, layer, slot, false, e) < 0 ||
                       open_part(s, b, rows, n, layer, slot, true, e) < 0
                   ? -1
                   : 0;
    for (int i = 0; i < n; i++)
        if (open_layer(s, b, &rows[i], layer, NULL, e) < 0) return -1;
    return 0;
}

static int open_all(struct dit *d, const struct source *s, struct err *e)
{
    struct layer_row layers[DIT_MAX_ROWS];
    struct vector_row vectors[DIT_MAX_ROWS];
    int n_layers = dit_top_layers(&d->config, layers),
        n_vectors = dit_top_vectors(&d->config, vectors);
    for (int i = 0; i < n_layers; i++)
        if (open_layer(s, &d->top, &layers[i], 0, NULL, e) < 0) return -1;
    for (int i = 0; i < n_vectors; i++)
        if (open_vector(s, &d->top, &vectors[i], 0, e) < 0) return -1;
    n_layers = dit_block_layers(&d->config, layers);
    n_vectors = dit_block_vectors(&d->config, vectors);
    for (int b = 0; b < d->config.n_layers; b++) {
        if (open_block(s, layers, n_layers, b, e) < 0) return -1;
        for (int i = 0; i < n_vectors; i++)
            if (open_vector(s, d->blocks ? &d->blocks[b] : NULL, &vectors[i], b, e) < 0) return -1;
        if (skip_stray(s, b, e) < 0) return -1;
    }
    if (dit_own_open(&d->own, s->file, s->attention, d->config.n_layers, s->check, e) < 0)
        return -1;
    if (weights_all_used(s->file, NULL, e) < 0) return -1;
    return s->lora ? lora_all_used(s->lora, e) : 0;
}

int dit_check(const char *dir, const char *lora_file, const char *attention, struct err *e)
{
    char path[4200];
    struct dit d = {0};
    struct source s = {.config = &d.config, .attention = attention, .check = true};
    int rc = -1;
    snprintf(path, sizeof path, "%s/config.json", dir);
    if (dit_config_read(&d.config, path, e) < 0) return -1;
    if (weights_open(&s.file, dir, "diffusion_pytorch_model", e) < 0) goto done;
    if (lora_file && lora_open(&s.lora, lora_file, 1, e) < 0) goto done;
    if (s.lora) lora_check_only(s.lora);
    rc = open_all(&d, &s, e);
done:
    dit_own_close(d.own);
    lora_close(s.lora);
    weights_close(s.file);
    return rc;
}

/* The device to compute on, the host's own where there is none, and its table. */
static int take_device(struct dit *d, struct device *device, struct err *e)
{
    if (!device && device_open(&d->own_device, "cpu", e) < 0) return -1;
    d->device = device ? device : d->own_device;
    d->ops = ops_of(d->device);
    if (d->ops) return 0;
    return err_set(e, ERR_DEVICE, "%s: this build computes nothing there; use --device cpu",
                   device_name(d->device));
}

/* The device's memory for weights, whole, and what of it slots are. */
static int place_weights(struct dit *d, int streamed, struct err *e)
{
    struct arena measure = {0};
    bool there = device_place(d->device) != PLACE_HOST;
    if (streamed && (!there || streamed > d->config.n_layers))
        return err_set(e, ERR_BUG, "%d of %d blocks are to be streamed to %s", streamed,
                       d->config.n_layers, device_name(d->device));
    dit_carve_vectors(NULL, NULL, &d->config, &measure);
    if (there) measure.used = dit_weight_bytes(&d->config, d->device, d->precision, streamed);
    if (arena_open_on(&d->weights, d->device, measure.used, e) < 0) return -1;
    dit_carve_vectors(&d->top, d->blocks, &d->config, &d->weights);
    return dit_stream_open(d, streamed, &d->weights, e);
}

static void say_opened(const struct dit *d, const struct dit_params *p, const struct lora *lora,
                       int sent)
{
    if (sent)
        log_line(p->log, 1, "transformer: %d weights went to %s beside other work", sent,
                 device_name(d->device));
    if (lora)
        log_line(p->log, 1, "%s merged into %d layers, strength %g", p->lora_file,
                 lora_modules(lora), p->lora_strength);
    if (d->stream.n)
        log_line(p->log, 1,
                 "transformer: %d of %d blocks stay on %s, %d are streamed a block ahead of use "
                 "(%.0f MiB of %s memory, %d slots of %.0f MiB)",
                 d->config.n_layers - d->stream.n, d->config.n_layers, device_name(d->device),
                 d->stream.n,
                 (double)d->stream.n * (double)(d->stream.step + d->stream.context) / 1048576,
                 d->stream.pinned ? "pinned" : "unpinned", d->stream.n_slots,
                 (double)d->stream.step / 1048576);
}

/* Weights of these layers that may go up as they are, from the place on where opening will take it. */
static int list_layers(const struct source *s, const struct layer_row *rows, int n, int layer,
                       struct arena *at, struct dit_sent *items, int *n_items, struct err *e)
{
    for (int i = 0; i < n; i++) {
        struct linear_params lp = dit_linear_params(&rows[i], s->precision);
        struct pair p;
        lp.at = arena_take(at, s->ops->linear_bytes(&lp));
        if (bind_layer(s, &p, &rows[i], layer, e) < 0) return -1;
        if (s->ops->linear_as_is && s->ops->linear_as_is(&lp, p.weight.dtype))
            items[(*n_items)++] = (struct dit_sent){lp.at, p.weight};
    }
    return 0;
}

static int begin_sending(struct dit *d, struct source *s, struct err *e)
{
    struct layer_row rows[DIT_MAX_ROWS];
    struct arena at = d->weights; /* behind the vectors; opening takes from the arena itself */
    int n = 0, rc;
    struct dit_sent *items = calloc((size_t)(d->config.n_layers + 1) * DIT_MAX_ROWS, sizeof *items);
    if (!items) return err_set(e, ERR_RESOURCE, "no memory to list weights");
    rc = list_layers(s, rows, dit_top_layers(&d->config, rows), 0, &at, items, &n, e);
    int n_rows = dit_block_layers(&d->config, rows);
    for (int i = 0; i < d->config.n_layers && rc == 0; i++)
        rc = list_layers(s, rows, n_rows, i, &at, items, &n, e);
    if (rc == 0 && n) return dit_sender_start(&s->sender, d->device, s->file, items, n, e);
    free(items);
    return rc;
}

static void close_opening(struct dit *d)
{
    struct dit_opening *o = d->opening;
    if (!o) return;
    dit_sender_close(o->s.sender);
    free(o->stage.data);
    lora_close(o->s.lora);
    weights_close(o->s.file);
    free(o);
    d->opening = NULL;
}

int dit_open_begin(struct dit **out, const struct dit_params *p, bool send, struct err *e)
{
    char path[4200];
    *out = NULL;
    struct dit *d = calloc(1, sizeof *d);
    struct dit_opening *o = calloc(1, sizeof *o);
    if (!d || !o) {
        free(d), free(o);
        return err_set(e, ERR_RESOURCE, "no memory for the transformer (%zu bytes)", sizeof *d);
    }
    d->opening = o;
    d->precision = p->precision;
    if (p->log) d->log = *p->log;
    if (take_device(d, p->device, e) < 0) goto fail;
    o->p = *p;
    o->s = (struct source){.precision = p->precision,
                           .attention = p->attention,
                           .stage = &o->stage,
                           .d = d,
                           .device = d->device,
                           .ops = d->ops,
                           .config = &d->config};
    snprintf(path, sizeof path, "%s/config.json", p->dir);
    if (dit_config_read(&d->config, path, e) < 0) goto fail;
    if (weights_open(&o->s.file, p->dir, "diffusion_pytorch_model", e) < 0) goto fail;
    if (p->lora_file && lora_open(&o->s.lora, p->lora_file, p->lora_strength, e) < 0) goto fail;
    d->blocks = calloc((size_t)d->config.n_layers, sizeof *d->blocks);
    if (!d->blocks) {
        err_set(e, ERR_RESOURCE, "no memory for %d layers", d->config.n_layers);
        goto fail;
    }
    if (place_weights(d, p->streamed, e) < 0) goto fail;
    bool there = device_place(d->device) != PLACE_HOST;
    if (send && there && !p->streamed && !o->s.lora && begin_sending(d, &o->s, e) < 0) goto fail;
    *out = d;
    return 0;
fail:
    dit_close(d);
    return -1;
}

int dit_open_end(struct dit *d, struct err *e)
{
    struct dit_opening *o = d->opening;
    if (!o) return err_set(e, ERR_BUG, "a transformer is opened twice");
    if (dit_sender_join(o->s.sender, e) < 0 || open_all(d, &o->s, e) < 0) return -1;
    dit_stream_lend(d);
    /* packs are on their way down */
    if (d->stream.n && device_wait(d->device, e) < 0) return -1;
    say_opened(d, &o->p, o->s.lora, dit_sender_count(o->s.sender));
    close_opening(d);
    return 0;
}

int dit_open_with(struct dit **out, const struct dit_params *p, struct err *e)
{
    *out = NULL;
    struct dit *d;
    if (dit_open_begin(&d, p, false, e) < 0) return -1;
    if (dit_open_end(d, e) < 0) {
        dit_close(d);
        return -1;
    }
    *out = d;
    return 0;
}

int dit_open_on(struct dit **d, struct device *device, const char *attention, const char *dir,
                const char *lora_file, double strength, enum precision precision,
                const struct log *log, struct err *e)
{
    struct dit_params p = {.device = device,
                           .attention = attention,
                           .dir = dir,
                           .lora_file = lora_file,
                           .lora_strength = strength,
                           .precision = precision,
                           .log = log};
    return dit_open_with(d, &p, e);
}

int dit_open_for(struct dit **d, const char *attention, const char *dir, const char *lora_file,
                 double strength, enum precision precision, const struct log *log, struct err *e)
{
    return dit_open_on(d, NULL, attention, dir, lora_file, strength, precision, log, e);
}

int dit_open_lora(struct dit **d, const char *dir, const char *lora_file, double strength,
                  enum precision precision, const struct log *log, struct err *e)
{
    return dit_open_for(d, NULL, dir, lora_file, strength, precision, log, e);
}

int dit_open(struct dit **d, const char *dir, enum precision precision, const struct log *log,
             struct err *e)
{
    return dit_open_lora(d, dir, NULL, 1, precision, log, e);
}

static void close_layers(const struct ops *o, void *target, const struct layer_row *rows, int n)
{
    for (int i = 0; i < n; i++) {
        struct op_linear *l;
        memcpy(&l, (char *)target + rows[i].offset, sizeof l);
        if (l) o->linear_close(l);
    }
}

void dit_close(struct dit *d)
{
    struct layer_row rows[DIT_MAX_ROWS];
    if (!d) return;
    close_opening(d);
    if (d->device) dit_run_close(&d->run);
    dit_own_close(d->own);
    close_layers(d->ops, &d->top, rows, dit_top_layers(&d->config, rows));
    int n = dit_block_layers(&d->config, rows);
    for (int b = 0; d->blocks && b < d->config.n_layers; b++)
        if (!dit_is_streamed(d, b)) close_layers(d->ops, &d->blocks[b], rows, n);
    for (int i = 0; i < d->stream.n_slots; i++)
        close_layers(d->ops, &d->stream.slot[i].block, rows, n);
    dit_stream_close(d);
    free(d->blocks);
    arena_close(&d->weights);
    device_close(d->own_device);
    free(d);
}

const struct dit_config *dit_config_of(const struct dit *d) { return &d->config; }

int dit_streamed(const struct dit *d) { return d->stream.n; }

size_t dit_held_bytes(const struct dit *d) { return d->weights.size; }
