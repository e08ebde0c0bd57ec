/* Parts that stay on a device; see store.h. */
#include "model/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void store_drop_dit(struct model_store *s)
{
    dit_close(s->dit);
    free(s->of);
    s->dit = NULL;
    s->of = NULL;
}

void store_drop_vae(struct model_store *s)
{
    vae_close(s->vae);
    free(s->vae_of);
    s->vae = NULL;
    s->vae_of = NULL;
}

void model_store_close(struct model_store *s)
{
    store_drop_dit(s);
    store_drop_vae(s);
}

void store_dit_params(struct dit_params *dp, char *path, size_t n, const struct model_info *m,
                      const struct model_params *p)
{
    snprintf(path, n, "%s/%s", m->dir, p->turbo ? "transformer_turbo" : "transformer");
    *dp = (struct dit_params){.device = p->device,
                              .attention = p->attn.method,
                              .dir = path,
                              .lora_file = p->lora,
                              .lora_strength = p->lora_strength,
                              .precision = p->precision,
                              .streamed = p->streamed,
                              .log = p->log};
}

/* What a transformer is opened from, heap; NULL: no memory. */
static char *name_of(const struct dit_params *p)
{
    char *of = NULL;
    int n = asprintf(&of, "%s|%s|%g|%d|%s", p->dir, p->lora_file ? p->lora_file : "",
                     p->lora_strength, (int)p->precision, p->attention ? p->attention : "");
    return n < 0 ? NULL : of;
}

struct dit *store_has_dit(const struct model_store *s, const struct dit_params *p)
{
    char *of = s && s->dit ? name_of(p) : NULL;
    bool same = of && strcmp(s->of, of) == 0 && dit_streamed(s->dit) >= p->streamed;
    free(of);
    return same ? s->dit : NULL;
}

int store_dit(struct dit **dit, struct model_store *s, const struct dit_params *p,
              struct dit **begun, struct err *e)
{
    *dit = store_has_dit(s, p);
    if (*dit) return 0;
    char *of = name_of(p);
    if (!of) return err_set(e, ERR_RESOURCE, "no memory for a path");
    store_drop_dit(s);
    struct dit *d = *begun;
    *begun = NULL;
    if ((!d && dit_open_begin(&d, p, false, e) < 0) || dit_open_end(d, e) < 0) {
        dit_close(d);
        free(of);
        return -1;
    }
    s->dit = d;
    s->of = of;
    *dit = s->dit;
    return 0;
}

int store_vae(struct vae **vae, struct model_store *s, const char *path,
              const struct model_params *p, struct err *e)
{
    enum precision precision = precision_beside(p->precision);
    char *of = NULL;
    if (asprintf(&of, "%s|%d", path, (int)precision) < 0)
        return err_set(e, ERR_RESOURCE, "no memory for a path");
    if (s->vae && strcmp(s->vae_of, of) == 0) {
        free(of);
    } else {
        store_drop_vae(s);
        if (vae_open(&s->vae, p->device, path, VAE_DECODER, precision, p->log, e) < 0) {
            free(of);
            return -1;
        }
        s->vae_of = of;
    }
    *vae = s->vae;
    return 0;
}
