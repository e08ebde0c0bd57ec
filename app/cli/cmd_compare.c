/* compare: how far two clips, PNG folders or latents are apart. Figures: app/clips/quality.h. */
#include "app/cli/cmd.h"
#include "app/cli/input.h"
#include "app/clips/latents.h"
#include "app/clips/quality.h"
#include "app/clips/writer.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char USAGE[] =
    "ditgen compare A B [--json]\n"
    "  A, B    clips (mp4, mov, webm, y4m), folders or patterns of PNG frames, single PNGs,\n"
    "          or latents (.safetensors with a tensor \"latents\")\n"
    "  --json  one JSON object instead of lines\n"
    "Prints PSNR (dB, over R, G, B) and SSIM (luma, 11x11 Gaussian window) of the whole clip and "
    "of\n"
    "the worst frame; of latents the relative L2 distance and PSNR over B's range.\n";

struct compare_args {
    const char *a, *b;
    bool json, help;
};

static int parse_args(struct compare_args *c, int argc, char **argv, struct err *e)
{
    const char *paths[2] = {NULL, NULL};
    int n = 0;
    bool flags = true;
    memset(c, 0, sizeof *c);
    for (int i = 1; i < argc; i++) {
        if (flags && strcmp(argv[i], "--") == 0) {
            flags = false;
        } else if (flags && strcmp(argv[i], "--json") == 0) {
            c->json = true;
        } else if (flags && (strcmp(argv[i], "-h") == 0 || strcmp(argv[i], "--help") == 0)) {
            c->help = true;
        } else if (flags && argv[i][0] == '-') {
            return err_set(e, ERR_USAGE, "compare: unknown flag %s; it takes --json", argv[i]);
        } else if (n == 2) {
            return err_set(e, ERR_USAGE, "compare: a third name %s; it takes two", argv[i]);
        } else {
            paths[n++] = argv[i];
        }
    }
    if (n < 2 && !c->help)
        return err_set(e, ERR_USAGE, "compare: %s; wanted two clips: ditgen compare A B [--json]",
                       n ? "only one name" : "no names");
    c->a = paths[0];
    c->b = paths[1];
    return 0;
}

/* A JSON number, or null for what JSON has no number for. */
static void put_number(const char *name, double v)
{
    if (isfinite(v))
        printf(", \"%s\": %.9g", name, v);
    else
        printf(", \"%s\": null", name);
}

/* --- clips ------------------------------------------------------------------------------------ */

static void print_clips(const struct quality *q, const struct clip *c, bool json)
{
    if (json) {
        printf(
            "{\"kind\": \"clip\", \"width\": %d, \"height\": %d, \"frames\": %d, \"identical\": %s",
            c->width, c->height, c->frames, q->differing ? "false" : "true");
        put_number("psnr", q->psnr);
        put_number("psnr_worst", q->psnr_worst);
        printf(", \"worst_frame\": %d", q->worst_frame);
        put_number("ssim", q->ssim);
        put_number("ssim_worst", q->ssim_worst);
        printf(", \"differing_bytes\": %zu, \"max_difference\": %d}\n", q->differing,
               q->max_difference);
        return;
    }
    printf("%dx%d, %d frames\n", c->width, c->height, c->frames);
    if (!q->differing) {
        puts("identical");
        return;
    }
    printf("PSNR %.2f dB, worst frame %d: %.2f dB\n", q->psnr, q->worst_frame + 1, q->psnr_worst);
    if (isnan(q->ssim))
        printf("SSIM needs frames of %dx%d at least\n", SSIM_WINDOW, SSIM_WINDOW);
    else
        printf("SSIM %.5f, worst frame %.5f\n", q->ssim, q->ssim_worst);
    printf("%zu of %zu bytes differ, by %d at most\n", q->differing,
           3 * (size_t)c->frames * (size_t)c->width * (size_t)c->height, q->max_difference);
}

static int compare_clips(const struct compare_args *args, struct err *e)
{
    struct clip a = {0}, b = {0};
    struct quality q;
    int rc = -1;
    if (clip_read(&a, args->a, true, e) < 0 || clip_read(&b, args->b, true, e) < 0) goto out;
    if (a.width != b.width || a.height != b.height || a.frames != b.frames) {
        err_set(e, ERR_INPUT,
                "%s is %dx%d with %d frames, %s is %dx%d with %d; only equal sizes compare",
                args->a, a.width, a.height, a.frames, args->b, b.width, b.height, b.frames);
        goto out;
    }
    rc = quality_clips(&q, a.rgb, b.rgb, a.frames, a.width, a.height, e);
    if (rc == 0) print_clips(&q, &a, args->json);
out:
    clip_fini(&a);
    clip_fini(&b);
    return rc;
}

/* --- latents ---------------------------------------------------------------------------------- */

static void print_latents(const struct latents *a, const struct latents *b, bool json)
{
    size_t n = a->n, differing = 0;
    double sum = 0, norm = 0, most = 0, lo = (double)INFINITY, hi = -(double)INFINITY;
    for (size_t i = 0; i < n; i++) {
        double x = (double)a->values[i], y = (double)b->values[i], d = fabs(x - y);
        differing += memcmp(&a->values[i], &b->values[i], sizeof(float)) != 0;
        sum += d * d;
        norm += y * y;
        if (!(d <= most)) most = d; /* a NaN stays */
        if (y < lo) lo = y;
        if (y > hi) hi = y;
    }
    double l2 = norm > 0 ? sqrt(sum / norm) : sum > 0 ? (double)INFINITY : sqrt(sum);
    double psnr =
        sum > 0 ? 10 * log10((hi - lo) * (hi - lo) / (sum / (double)n)) : sum + (double)INFINITY;
    char shape[200];
    tensor_shape_text(shape, sizeof shape, a->n_dims, a->shape);
    if (json) {
        printf("{\"kind\": \"latents\", \"shape\": %s, \"identical\": %s", shape,
               differing ? "false" : "true");
        put_number("relative_l2", l2);
        put_number("psnr", psnr);
        put_number("max_difference", most);
        printf(", \"differing_values\": %zu}\n", differing);
        return;
    }
    printf("latents %s\n", shape);
    if (!differing) {
        puts("identical");
        return;
    }
    printf("relative L2 %.4g\nPSNR %.2f dB over B's range of %.4g\n", l2, psnr, hi - lo);
    printf("%zu of %zu values differ, by %.4g at most\n", differing, n, most);
}

static bool same_shape(const struct latents *a, const struct latents *b)
{
    return a->n_dims == b->n_dims &&
           memcmp(a->shape, b->shape, (size_t)a->n_dims * sizeof a->shape[0]) == 0;
}

static int compare_latents(const struct compare_args *args, struct err *e)
{
    struct latents a = {0}, b = {0};
    int rc = -1;
    if (latents_read(&a, args->a, e) < 0 || latents_read(&b, args->b, e) < 0) goto out;
    if (!same_shape(&a, &b)) {
        char sa[100], sb[100];
        tensor_shape_text(sa, sizeof sa, a.n_dims, a.shape);
        tensor_shape_text(sb, sizeof sb, b.n_dims, b.shape);
        err_set(e, ERR_INPUT, "latents of %s are %s, of %s %s; only equal shapes compare", args->a,
                sa, args->b, sb);
        goto out;
    }
    print_latents(&a, &b, args->json);
    rc = 0;
out:
    latents_fini(&a);
    latents_fini(&b);
    return rc;
}

/* By the name; what came out of a pipe by how it begins: a length, then a JSON object. */
static bool is_latents(const struct input *in)
{
    static const char suffix[] = ".safetensors";
    unsigned char head[9];
    size_t n = strlen(in->given), m = sizeof suffix - 1;
    if (in->fd < 0) return n > m && strcmp(in->given + n - m, suffix) == 0;
    return input_head(in, head, sizeof head) == sizeof head && !head[7] && head[8] == '{';
}

static int compare(const struct input *a, const struct input *b, bool json, struct err *e)
{
    const struct compare_args args = {.a = a->path, .b = b->path, .json = json};
    if (is_latents(a) != is_latents(b))
        return err_set(e, ERR_USAGE, "%s and %s: latents compare with latents, clips with clips",
                       a->given, b->given);
    int rc = is_latents(a) ? compare_latents(&args, e) : compare_clips(&args, e);
    if (rc == 0) return 0;
    input_blame(a, e);
    return input_blame(b, e);
}

int cmd_compare(int argc, char **argv, struct err *e)
{
    struct compare_args args;
    struct input a = {.fd = -1}, b = {.fd = -1};
    if (parse_args(&args, argc, argv, e) < 0) return -1;
    if (args.help) {
        fputs(USAGE, stdout);
        return 0;
    }
    int rc = input_open(&a, args.a, e);
    if (rc == 0) rc = input_open(&b, args.b, e);
    if (rc == 0) rc = compare(&a, &b, args.json, e);
    input_close(&a);
    input_close(&b);
    return rc;
}
