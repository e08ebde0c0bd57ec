/* What a clip says of its run; see ran.h. */
#include "app/cli/ran.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/lib/ini.h"
#include "model/base/option.h"

void ran_of(struct ran *r, const struct ditgen_ran *from)
{
    *r = (struct ran){.known = true, .density = from->density, .error = -1, .copied_error = -1};
    snprintf(r->device, sizeof r->device, "%s", from->device);
    snprintf(r->kernel, sizeof r->kernel, "%s", from->kernel);
    if (from->sampled) r->error = from->error;
    if (from->copied > 0) r->copied_error = from->drift;
    r->reused_steps = from->reused_steps;
    if (from->error_budget > 0) r->estimate = from->budget_estimate;
    r->fp8_error = from->fp8_error;
}

static int take_word(char *to, size_t n, const char *key, const char *value, struct err *e)
{
    if (strlen(value) >= n)
        return err_set(e, ERR_INPUT, "[run] %s is longer than %zu bytes", key, n - 1);
    strcpy(to, value);
    return 0;
}

static int take(void *ctx, const char *section, const char *key, const char *value, struct err *e)
{
    struct ran *r = ctx;
    static const struct {
        const char *key;
        size_t at;
        double most;
    } numbers[] = {{"density", offsetof(struct ran, density), 1},
                   {"sampled-error", offsetof(struct ran, error), 1e6},
                   {"copied-error", offsetof(struct ran, copied_error), 1e6},
                   {"reused-steps", offsetof(struct ran, reused_steps), 1e6},
                   {"budget-estimate", offsetof(struct ran, estimate), 99},
                   {"fp8-error", offsetof(struct ran, fp8_error), 1e6}};
    if (strcmp(section, "run") != 0 || !key) return 0;
    if (!r->known) *r = (struct ran){.known = true, .density = 1, .error = -1, .copied_error = -1};
    if (strcmp(key, "device") == 0) return take_word(r->device, sizeof r->device, key, value, e);
    if (strcmp(key, "kernel") == 0) return take_word(r->kernel, sizeof r->kernel, key, value, e);
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        if (strcmp(key, numbers[i].key) != 0) continue;
        if (parse_double(value, 0, numbers[i].most, (void *)((char *)r + numbers[i].at)) == 0)
            return 0;
        return err_set(e, ERR_INPUT, "[run] %s is '%.40s', wanted a number from 0 to %g", key,
                       value, numbers[i].most);
    }
    return 0;
}

int ran_read(struct ran *r, const char *text, const char *name, struct err *e)
{
    *r = (struct ran){0};
    return ini_parse(text, strlen(text), name, take, r, e);
}

char *ran_text(const char *settings, const struct ran *r)
{
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    if (!f) return NULL;
    fprintf(f, "%s[run]\ndevice = \"%s\"\nkernel = \"%s\"\ndensity = %.4g\n", settings, r->device,
            r->kernel, r->density);
    if (r->error >= 0) fprintf(f, "sampled-error = %.3g\n", r->error);
    if (r->copied_error >= 0) fprintf(f, "copied-error = %.3g\n", r->copied_error);
    if (r->reused_steps > 0) fprintf(f, "reused-steps = %.0f\n", r->reused_steps);
    if (r->estimate > 0) fprintf(f, "budget-estimate = %.4g\n", r->estimate);
    if (r->fp8_error > 0) fprintf(f, "fp8-error = %.3g\n", r->fp8_error);
    if (fclose(f) == 0) return text;
    free(text);
    return NULL;
}

const char *ran_section(const char *text)
{
    const char *at = strstr(text, "\n[run]\n"); /* values cannot hold it: newlines are escaped */
    return at ? at + 1 : "";
}

/* Numbers are stored with a few digits, and an error is a sample. */
static bool near(double a, double b, double share)
{
    return fabs(a - b) <= share * fmax(fabs(a), fabs(b));
}

void ran_compare(char *buf, size_t n, const struct ran *clip, const struct ran *now)
{
    size_t len = 0;
    buf[0] = 0;
#define SAY(...)                                                                                   \
    do {                                                                                           \
        int k_ = len < n ? snprintf(buf + len, n - len, __VA_ARGS__) : 0;                          \
        len += k_ > 0 ? (size_t)k_ : 0;                                                            \
    } while (0)
    if (!clip->known || !now->known) return;
    if (strcmp(clip->device, now->device) != 0 || strcmp(clip->kernel, now->kernel) != 0)
        SAY("the clip was made on %s by %s, this one on %s by %s: the last digits may differ",
            clip->device, clip->kernel, now->device, now->kernel);
    if (!near(clip->density, now->density, 1e-3))
        SAY("%sattention computed %.3g of its pairs then, %.3g now", len ? "; " : "", clip->density,
            now->density);
    if (clip->error >= 0 && now->error >= 0 && !near(clip->error, now->error, 0.05))
        SAY("%ssampled error %.2g then, %.2g now", len ? "; " : "", clip->error, now->error);
    if (!near(clip->reused_steps, now->reused_steps, 1e-9))
        SAY("%sthe step cache left out %.0f steps then, %.0f now", len ? "; " : "",
            clip->reused_steps, now->reused_steps);
    if (clip->estimate > 0 && !near(clip->estimate, now->estimate, 0.005))
        SAY("%sits error budget came to %.1f dB then, %.1f now", len ? "; " : "", clip->estimate,
            now->estimate);
    if (!near(clip->fp8_error, now->fp8_error, 0.05))
        SAY("%ssampled error of fp8 products %.2g then, %.2g now", len ? "; " : "", clip->fp8_error,
            now->fp8_error);
#undef SAY
}
