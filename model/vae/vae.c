/* Opening, closing and measuring a VAE. */
#include "model/vae/vae.h"

#include "model/vae/vae_internal.h"

#include <stdio.h>
#include <stdlib.h>

/* Both halves in the order of their parts; measures when s->weights is NULL. */
static int build(struct vae *v, const struct net_source *s, struct err *e)
{
    if (v->decoder && net_decoder(v->decoder, &v->config, s, e) < 0) return -1;
    if (v->encoder && net_encoder(v->encoder, &v->config, s, e) < 0) return -1;
    return 0;
}

/* Names of the half that is not opened. */
static const char *const *ignored(int parts)
{
    static const char *const no_encoder[] = {"encoder.", "quant_conv.", NULL};
    static const char *const no_decoder[] = {"decoder.", "post_quant_conv.", NULL};
    return !(parts & VAE_ENCODER) ? no_encoder : !(parts & VAE_DECODER) ? no_decoder : NULL;
}

static int load(struct vae *v, const char *dir, struct err *e)
{
    struct arena count = {0};
    struct weights *w = NULL;
    struct net_source s = {.arena = &count, .on = &v->on};
    int rc = -1;
    if (build(v, &s, e) < 0 || weights_open(&w, dir, "diffusion_pytorch_model", e) < 0) goto done;
    if (arena_open_on(&v->weights, v->on.device, count.used, e) < 0) {
        err_wrap(e, "%s, packed weights", dir);
        goto done;
    }
    if (!v->on.away) arena_huge_pages(&v->weights);
    s.arena = &v->weights;
    s.weights = w;
    if (build(v, &s, e) < 0) goto done;
    rc = weights_all_used(
        w, ignored((v->decoder ? VAE_DECODER : 0) | (v->encoder ? VAE_ENCODER : 0)), e);
done:
    weights_close(w);
    return rc;
}

int vae_check(const char *dir, int parts, struct err *e)
{
    char path[4200];
    struct arena count = {0};
    struct vae v = {0};
    struct net_source s = {.arena = &count, .on = &v.on, .check = true};
    int rc = -1;
    snprintf(path, sizeof path, "%s/config.json", dir);
    if (vae_config_read(&v.config, path, e) < 0) return -1;
    if (frames_open(&v.on, NULL, PRECISION_FP32, e) < 0) return -1;
    if (parts & VAE_DECODER) v.decoder = calloc(1, sizeof *v.decoder);
    if (parts & VAE_ENCODER) v.encoder = calloc(1, sizeof *v.encoder);
    if ((parts & VAE_DECODER && !v.decoder) || (parts & VAE_ENCODER && !v.encoder))
        err_set(e, ERR_RESOURCE, "no memory for the VAE");
    else if (weights_open(&s.weights, dir, "diffusion_pytorch_model", e) == 0)
        rc = build(&v, &s, e);
    if (rc == 0) rc = weights_all_used(s.weights, ignored(parts), e);
    weights_close(s.weights);
    frames_close(&v.on);
    free(v.decoder);
    free(v.encoder);
    return rc;
}

static const char *const products_text[] = {
    "Winograd convolutions in fp32", "oneDNN's convolutions in fp32",
    "oneDNN's convolutions in bf16, Winograd below 96 channels"};

/* AMX multiplies bf16 16 times as fast as other units do fp32, Winograd saves a factor of 4; bf16
 * without AMX is twice as fast at best, and Winograd stays ahead. */
struct vae_choice vae_choose(enum precision precision)
{
    struct cpu cpu;
    cpu_detect(&cpu);
    struct vae_choice c = {NULL, PRODUCTS_OWN, 0};
    if (precision == PRECISION_BF16 && cpu.level >= CPU_AMX && conv3d_available(true))
        c = (struct vae_choice){NULL, PRODUCTS_LIBRARY_BF16, DIRECT_LEAST};
    return c;
}

struct frames_on frames_chosen(const struct vae_choice *choice)
{
    return (struct frames_on){
        .kernels = choice->kernels,
        .set = {.products = choice->products, .least = choice->least},
    };
}

static void say_opened(const struct vae *v, int parts, const struct log *log)
{
    const char *both = parts == (VAE_DECODER | VAE_ENCODER) ? " and " : "";
    const char *decoder = parts & VAE_DECODER ? "decoder" : "",
               *encoder = parts & VAE_ENCODER ? "encoder" : "";
    double mib = (double)v->weights.size / 1048576;
    if (v->on.away)
        log_line(log, 1, "vae: %s%s%s on %s, %s, %.0f MiB packed", decoder, both, encoder,
                 device_name(v->on.device), precision_name(v->precision), mib);
    else
        log_line(log, 1, "vae: %s%s%s, %s (%s), %s, %.0f MiB packed", decoder, both, encoder,
                 products_text[v->on.set.products], v->on.kernels->name,
                 precision_name(v->precision), mib);
}

int vae_open_with(struct vae **out, struct device *device, const char *dir, int parts,
                  enum precision precision, const struct vae_choice *choice, const struct log *log,
                  struct err *e)
{
    *out = NULL;
    char path[4200];
    struct vae *v = calloc(1, sizeof *v);
    if (!v) return err_set(e, ERR_RESOURCE, "no memory for the VAE");
    snprintf(path, sizeof path, "%s/config.json", dir);
    if (vae_config_read(&v->config, path, e) < 0) goto fail;
    v->on = frames_chosen(choice);
    v->precision = precision;
    if (frames_open(&v->on, device, precision, e) < 0) goto fail;
    if (parts & VAE_DECODER) v->decoder = calloc(1, sizeof *v->decoder);
    if (parts & VAE_ENCODER) v->encoder = calloc(1, sizeof *v->encoder);
    if ((parts & VAE_DECODER && !v->decoder) || (parts & VAE_ENCODER && !v->encoder)) {
        err_set(e, ERR_RESOURCE, "no memory for the VAE");
        goto fail;
    }
    if (load(v, dir, e) < 0) goto fail;
    say_opened(v, parts, log);
    *out = v;
    return 0;
fail:
    vae_close(v);
    return -1;
}

int vae_open(struct vae **v, struct device *device, const char *dir, int parts,
             enum precision precision, const struct log *log, struct err *e)
{
    struct vae_choice choice = vae_choose(precision);
    return vae_open_with(v, device, dir, parts, precision, &choice, log, e);
}

void vae_close(struct vae *v)
{
    if (!v) return;
    frames_close(&v->on);
    arena_close(&v->weights);
    free(v->decoder);
    free(v->encoder);
    free(v);
}

const struct vae_config *vae_config_of(const struct vae *v) { return &v->config; }

size_t vae_held_bytes(const struct vae *v) { return v->weights.size; }
