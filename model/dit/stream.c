/* Blocks whose weights do not stay on a device: they lie in memory of the host, pinned where there is
 * some, and come into one of two slots a block ahead of use, beside the work. Which numbers they are is
 * the operations' business: what lies here are the bytes that linear_open() made of them on the device.
 *
 * Each pass over the blocks is whole in itself: it fills the slots anew and leaves nothing under way, so
 * that a recorded step and one that is not, and the pass over keys and values of the text, come in any
 * order. What steps use lies first in a pack, what only that pass uses behind; they share a slot. */
#include "model/dit/dit_internal.h"

#include <stdlib.h>

#define NONE (-1)

/* Evenly among the others, the first last, so that a pass begins with what is there. */
static bool streams(int layer, int n_layers, int streamed)
{
    long long before = (long long)layer * streamed / n_layers;
    return (layer + 1LL) * streamed / n_layers > before;
}

bool dit_row_is_text(const struct layer_row *r)
{
    return r->kind == ROWS_TEXT || r->kind == ROWS_IMAGE;
}

/* Bytes of those layers of a block that steps use, or only the text's pass does. */
static size_t part_bytes(const struct ops *o, const struct layer_row *rows, int n, enum precision p,
                         bool text)
{
    struct arena count = {0};
    for (int i = 0; i < n; i++) {
        struct linear_params lp = dit_linear_params(&rows[i], p);
        if (dit_row_is_text(&rows[i]) == text) arena_take(&count, o->linear_bytes(&lp));
    }
    return count.used;
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

void dit_stream_bytes(const struct dit_config *c, const struct ops *o, enum precision p,
                      int streamed, size_t *slots, size_t *packs)
{
    struct layer_row rows[DIT_MAX_ROWS];
    int n = dit_block_layers(c, rows), n_slots = streamed < DIT_SLOTS ? streamed : DIT_SLOTS;
    size_t step = part_bytes(o, rows, n, p, false), context = part_bytes(o, rows, n, p, true);
    *slots = (size_t)n_slots * larger(step, context);
    *packs = (size_t)streamed * (step + context);
}

/* --- Opening --- */

int dit_stream_open(struct dit *d, int streamed, struct arena *weights, struct err *e)
{
    struct dit_stream *s = &d->stream;
    struct layer_row rows[DIT_MAX_ROWS];
    int n = dit_block_layers(&d->config, rows), n_layers = d->config.n_layers;
    if (!streamed) return 0;
    s->index = malloc((size_t)n_layers * sizeof *s->index);
    s->pack = calloc((size_t)streamed, sizeof *s->pack);
    if (!s->index || !s->pack) return err_set(e, ERR_RESOURCE, "no memory for %d layers", n_layers);
    s->n_slots = streamed < DIT_SLOTS ? streamed : DIT_SLOTS;
    s->step = part_bytes(d->ops, rows, n, d->precision, false);
    s->context = part_bytes(d->ops, rows, n, d->precision, true);
    s->pinned = true;
    for (int i = 0, k = 0; i < n_layers; i++)
        s->index[i] = streams(i, n_layers, streamed) ? k++ : NONE;
    for (int i = 0; i < s->n_slots; i++) {
        s->slot[i].at = arena_take(weights, larger(s->step, s->context));
        if (device_mark_open(d->device, &s->slot[i].empty, e) < 0 ||
            device_mark_open(d->device, &s->slot[i].full, e) < 0)
            return -1;
    }
    s->n = streamed;
    return 0;
}

bool dit_is_streamed(const struct dit *d, int layer)
{
    return d->stream.n && d->stream.index[layer] != NONE;
}

struct dit_block *dit_stream_block(struct dit *d, int layer, struct dit_slot **slot)
{
    struct dit_stream *s = &d->stream;
    *slot = NULL;
    if (!dit_is_streamed(d, layer)) return &d->blocks[layer];
    *slot = &s->slot[s->index[layer] % s->n_slots];
    return &(*slot)->block;
}

void *dit_stream_place(const struct dit *d, struct dit_slot *slot, const struct layer_row *r)
{
    struct layer_row rows[DIT_MAX_ROWS];
    struct arena at = {.base = slot->at, .size = larger(d->stream.step, d->stream.context)};
    int n = dit_block_layers(&d->config, rows);
    for (int i = 0; i < n; i++) {
        struct linear_params lp = dit_linear_params(&rows[i], d->precision);
        if (dit_row_is_text(&rows[i]) != dit_row_is_text(r)) continue;
        void *here = arena_take(&at, d->ops->linear_bytes(&lp));
        if (rows[i].offset == r->offset) return here;
    }
    return NULL;
}

/* Room for a pack: pinned as long as there is such memory, then any, which is said. */
static int take_pack(struct dit *d, struct dit_pack *pack, size_t bytes, struct err *e)
{
    struct dit_stream *s = &d->stream;
    void *at = NULL;
    if (s->pinned && device_alloc_pinned(d->device, &at, bytes, e) < 0) {
        if (e->code != ERR_RESOURCE) return -1;
        log_line(&d->log, 0,
                 "%s: the weights of %d blocks stream from other memory of the host, which is "
                 "slower, and steps are not recorded",
                 e->msg, s->n - (int)(pack - s->pack));
        *e = (struct err){0};
        s->pinned = false;
    }
    pack->pinned = s->pinned;
    pack->at = s->pinned ? at : malloc(bytes);
    if (pack->at) return 0;
    return err_set(e, ERR_RESOURCE,
                   "no memory of the host for %.0f MiB of weights to stream; try a higher "
                   "--max-vram",
                   (double)bytes / 1048576);
}

int dit_stream_keep(struct dit *d, int layer, bool text, struct err *e)
{
    struct dit_stream *s = &d->stream;
    struct dit_pack *pack = &s->pack[s->index[layer]];
    const void *slot = s->slot[s->index[layer] % s->n_slots].at;
    size_t at = text ? s->step : 0, bytes = text ? s->context : s->step;
    if (!pack->at && take_pack(d, pack, s->step + s->context, e) < 0) return -1;
    if (pack->pinned) return device_download_pinned(d->device, pack->at + at, slot, bytes, e);
    return device_download(d->device, pack->at + at, slot, bytes, e);
}

/* A streamed block's layers are those of its slot, its vectors its own. */
void dit_stream_lend(struct dit *d)
{
    struct layer_row rows[DIT_MAX_ROWS];
    struct dit_slot *slot;
    int n = dit_block_layers(&d->config, rows);
    for (int layer = 0; layer < d->config.n_layers; layer++) {
        const struct dit_block *b = dit_stream_block(d, layer, &slot);
        for (int i = 0; slot && i < n; i++)
            memcpy((char *)&d->blocks[layer] + rows[i].offset, (const char *)b + rows[i].offset,
                   sizeof(struct op_linear *));
    }
}

void dit_stream_close(struct dit *d)
{
    struct dit_stream *s = &d->stream;
    struct err ignored = {0}; /* a lost device is closed all the same */
    if (s->n) device_wait(d->device, &ignored);
    for (int i = 0; i < s->n_slots; i++) {
        device_mark_close(d->device, s->slot[i].empty);
        device_mark_close(d->device, s->slot[i].full);
    }
    for (int i = 0; s->pack && i < s->n; i++)
        if (s->pack[i].pinned)
            device_free_pinned(d->device, s->pack[i].at);
        else
            free(s->pack[i].at);
    free(s->pack);
    free(s->index);
    *s = (struct dit_stream){0};
}

/* --- Passes --- */

/* The next pack that no slot got yet, into the slot that is its own, once that is empty. */
static int begin_next(struct dit *d, struct err *e)
{
    struct dit_stream *s = &d->stream;
    if (s->begun >= s->end) return 0;
    struct dit_slot *slot = &s->slot[s->begun % s->n_slots];
    const char *pack = s->pack[s->begun++].at;
    if (s->text) pack += s->step;
    return device_fetch(d->device, slot->at, pack, s->text ? s->context : s->step, slot->empty,
                        slot->full, e);
}

int dit_stream_begin(struct dit *d, int from, int to, bool text, struct err *e)
{
    struct dit_stream *s = &d->stream;
    s->text = text;
    s->begun = s->joined = s->end = 0;
    for (int i = 0; s->n && i < to; i++) {
        if (!dit_is_streamed(d, i)) continue;
        s->end++;
        if (i < from) s->begun = s->joined = s->end;
    }
    for (int i = 0; i < s->n_slots; i++)
        if (device_pass(d->device, s->slot[i].empty, e) < 0) return -1;
    for (int i = 0; i < s->n_slots; i++)
        if (begin_next(d, e) < 0) return -1;
    return 0;
}

static int join_next(struct dit *d, struct err *e)
{
    struct dit_stream *s = &d->stream;
    return device_join(d->device, s->slot[s->joined++ % s->n_slots].full, e);
}

int dit_stream_take(struct dit *d, int layer, struct err *e)
{
    struct dit_stream *s = &d->stream;
    if (!dit_is_streamed(d, layer)) return 0;
    if (s->joined != s->index[layer] || s->joined >= s->begun)
        return err_set(e, ERR_BUG, "block %d was not asked for in its turn", layer);
    return join_next(d, e);
}

int dit_stream_leave(struct dit *d, int layer, struct err *e)
{
    struct dit_stream *s = &d->stream;
    if (!dit_is_streamed(d, layer)) return 0;
    if (device_pass(d->device, s->slot[s->index[layer] % s->n_slots].empty, e) < 0) return -1;
    return begin_next(d, e);
}

int dit_stream_end(struct dit *d, int rc, struct err *e)
{
    struct err ignored = {0};
    while (d->stream.joined < d->stream.begun)
        if (join_next(d, rc < 0 ? &ignored : e) < 0) return -1;
    return rc;
}
