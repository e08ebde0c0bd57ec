/* What a run of attention leaves for another: what it remembers, in place, and what it learned, as
 * text. */
#include "attention/room.h"

#include <stdlib.h>
#include <string.h>

/* --- what is remembered --- */

/* Behind what the host has: areas of the device, as far apart as the host's own would be. */
static size_t area_bytes(const struct cache_area *area) { return (area->bytes + 255) / 256 * 256; }

void attn_kept(const struct attn *a, struct attn_kept *k)
{
    struct attn_forecast f = {0};
    struct cache_area areas[3];
    size_t there = 0;
    forecast_remembers(&f, a);
    cache_areas(a, areas);
    for (int i = 0; a->device && i < 3; i++)
        there += area_bytes(&areas[i]);
    *k = (struct attn_kept){0};
    if (!f.remembers) return;
    k->at = there || a->there.made.on ? NULL : a->recent;
    k->bytes = a->kept_bytes + there;
}

int attn_kept_read(const struct attn *a, void *to, struct err *e)
{
    struct cache_area areas[3];
    char *at = to;
    if (making_remember(a, e) < 0) return -1;
    cache_areas(a, areas);
    memcpy(at, a->recent, a->kept_bytes);
    at += a->kept_bytes;
    for (int i = 0; a->device && i < 3; i++) {
        size_t all = area_bytes(&areas[i]);
        memset(at, 0, all);
        if (device_download(a->device, at, areas[i].at, areas[i].bytes, e) < 0) return -1;
        at += all;
    }
    return 0;
}

int attn_kept_write(struct attn *a, const void *from, struct err *e)
{
    struct cache_area areas[3];
    const char *at = from;
    cache_areas(a, areas);
    memcpy(a->recent, at, a->kept_bytes);
    at += a->kept_bytes;
    for (int i = 0; a->device && i < 3; i++) {
        if (device_upload(a->device, areas[i].at, at, areas[i].bytes, e) < 0) return -1;
        at += area_bytes(&areas[i]);
    }
    return 0;
}

int attn_kept_check(struct attn *a, struct err *e)
{
    room_device_forget(a); /* plans that stand are others */
    const struct recent *r = a->recent;
    bool right = r->last_step >= -1 && r->last_step < a->shape.n_steps && r->branch_step >= -1 &&
                 r->branch_layer >= -1 && r->branch_layer < a->shape.n_layers;
    for (int i = 0; i < a->n_pairs; i++) { /* a byte that is no bool is read with care */
        unsigned char planned, kept;
        memcpy(&planned, &a->pair[i].planned, 1);
        memcpy(&kept, &a->pair[i].kept, 1);
        right = right && planned < 2 && kept < 2;
    }
    if (!right)
        return err_set(e, ERR_INPUT, "what attention remembered is of no run like this one");
    return turn_check_plans(a, e);
}

/* --- what was learned --- */

/* "method NAME BYTES\n", then so many bytes, for each part that saves. */
int attn_save(struct attn *a, FILE *to, struct err *e)
{
    for (int i = 0; i < a->stack.n; i++) {
        const struct attn_part *p = &a->stack.part[i];
        char *text = NULL;
        size_t n = 0;
        if (!p->method->save) continue;
        FILE *f = open_memstream(&text, &n);
        if (!f) return err_set(e, ERR_RESOURCE, "no memory for what attention learned");
        int rc = p->method->save(p, f, e);
        if (fclose(f) != 0 && rc == 0)
            rc = err_set(e, ERR_RESOURCE, "no memory for what attention learned");
        if (rc == 0) {
            fprintf(to, "method %s %zu\n", p->method->name, n);
            fwrite(text, 1, n, to);
        }
        free(text);
        if (rc < 0) return err_wrap(e, "attention %s", p->method->name);
    }
    return ferror(to) ? err_set(e, ERR_RESOURCE, "what attention learned cannot be written") : 0;
}

int attn_load(struct attn *a, const char *text, size_t n, struct err *e)
{
    const char *at = text, *end = text + n;
    for (int i = 0; i < a->stack.n; i++) {
        const struct attn_part *p = &a->stack.part[i];
        if (!p->method->load) continue;
        const char *line = memchr(at, '\n', (size_t)(end - at));
        char name[64], head[128];
        size_t bytes;
        if (!line || line - at >= (int)sizeof head)
            return err_set(e, ERR_INPUT, "no table of attention %s", p->method->name);
        memcpy(head, at, (size_t)(line - at));
        head[line - at] = 0;
        if (sscanf(head, "method %63s %zu", name, &bytes) != 2 || bytes > (size_t)(end - line - 1))
            return err_set(e, ERR_INPUT, "'%.60s' is not the head of a table of attention", head);
        if (strcmp(name, p->method->name) != 0)
            return err_set(e, ERR_INPUT, "a table of attention %s, wanted one of %s", name,
                           p->method->name);
        if (p->method->load(p, line + 1, bytes, e) < 0)
            return err_wrap(e, "attention %s", p->method->name);
        at = line + 1 + bytes;
    }
    return at == end ? 0
                     : err_set(e, ERR_INPUT, "%zu bytes too many after the tables of attention",
                               (size_t)(end - at));
}
