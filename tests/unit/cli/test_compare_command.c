/* The compare command: what it prints for clips and latents, and what it refuses. */
#include "tests/unit/clips/test_clips.h"

#include "app/cli/cmd.h"
#include "model/base/json.h"

#include <fcntl.h>

/* Runs compare with standard output into a string. */
static int compare(char *out, size_t size, struct err *e, const char *a, const char *b,
                   const char *flag)
{
    char *argv[] = {(char *)"compare", (char *)a, (char *)b, (char *)flag, NULL};
    int argc = 1 + (a != NULL) + (b != NULL) + (flag != NULL);
    memset(e, 0, sizeof *e);
    fflush(stdout);
    int saved = dup(1), fd = open("stdout.txt", O_CREAT | O_TRUNC | O_WRONLY, 0666);
    dup2(fd, 1);
    close(fd);
    int rc = cmd_compare(argc, argv, e);
    fflush(stdout);
    dup2(saved, 1);
    close(saved);
    struct bytes text = read_bytes("stdout.txt");
    snprintf(out, size, "%s", text.data ? text.data : "");
    free(text.data);
    unlink("stdout.txt");
    return rc;
}

static double number(const char *text, const char *key)
{
    struct err e = {0};
    struct json *root = NULL;
    double v = -1;
    CHECK_OK(json_parse(&root, text, strlen(text), "stdout", &e));
    const struct json *n = root ? json_get(root, key) : NULL;
    if (json_is_null(n))
        v = (double)INFINITY; /* what the command has no number for */
    else
        CHECK_MSG(json_number(n, &v), "no number %s in %s", key, text);
    json_close(root);
    return v;
}

static void clips(void)
{
    struct err e = {0};
    char out[1000];
    enum { W = 32, H = 24, FRAMES = 3, N = W * H * 3 };
    uint8_t *rgb = make_frames(FRAMES, W, H);
    struct writer_params p = params("a/", FRAMES, W, H);
    CHECK_OK(write_clip(&p, rgb, &e));
    /* every byte of the last frame moves by 10: clip MSE 100/3, frame MSE 100 */
    for (int i = 2 * N; i < 3 * N; i++)
        rgb[i] = (uint8_t)(rgb[i] + (rgb[i] < 128 ? 10 : -10));
    p.path = "b/";
    CHECK_OK(write_clip(&p, rgb, &e));
    CHECK_OK(compare(out, sizeof out, &e, "a", "b/", NULL));
    CHECK_MSG(strstr(out, "PSNR 32.90 dB, worst frame 3: 28.13 dB"), "%s", out);
    CHECK(strstr(out, "2304 of 6912 bytes differ, by 10 at most") && !strstr(out, "identical"));
    CHECK_OK(compare(out, sizeof out, &e, "a", "b", "--json"));
    CHECK(fabs(number(out, "psnr") - 10 * log10(255 * 255 * 3 / 100.0)) < 1e-6);
    CHECK(fabs(number(out, "psnr_worst") - 10 * log10(255 * 255 / 100.0)) < 1e-6);
    CHECK(number(out, "worst_frame") == 2 && number(out, "frames") == 3);
    CHECK(number(out, "ssim") < 1 && number(out, "ssim") > number(out, "ssim_worst"));
    CHECK_OK(compare(out, sizeof out, &e, "a/frame_%04d.png", "a", NULL));
    CHECK_STR(out, "32x24, 3 frames\nidentical\n");
    CHECK_OK(compare(out, sizeof out, &e, "--json", "a", "a"));
    CHECK(strstr(out, "\"identical\": true") && isinf(number(out, "psnr")));
    p.path = "c.y4m";
    p.frames = 2;
    CHECK_OK(write_clip(&p, rgb, &e));
    CHECK(compare(out, sizeof out, &e, "a", "c.y4m", NULL) < 0 && e.code == ERR_INPUT);
    CHECK(strstr(e.msg, "32x24 with 3 frames") && strstr(e.msg, "32x24 with 2") && !out[0]);
    free(rgb);
}

static void put_latents(const char *path, const char *name, const char *shape, const float *v,
                        size_t n)
{
    char file[1024] = {0};
    int len = snprintf(file + 8, 500,
                       "{\"%s\":{\"dtype\":\"F32\",\"shape\":%s,\"data_offsets\":[0,%zu]}}", name,
                       shape, n * 4);
    while (len % 8)
        file[8 + len++] = ' ';
    file[0] = (char)len; /* below 256 in this test */
    memcpy(file + 8 + len, v, n * 4);
    CHECK(len < 128);
    write_bytes(path, file, 8 + (size_t)len + n * 4);
}

static void latents(void)
{
    struct err e = {0};
    char out[1000];
    static const float a[4] = {0, 3, 4, 0}, b[4] = {0, 3, 4, 5};
    put_latents("a.safetensors", "latents", "[1,2,2]", a, 4);
    put_latents("b.safetensors", "latents", "[1,2,2]", b, 4);
    put_latents("c.safetensors", "latents", "[4]", b, 4);
    put_latents("d.safetensors", "other", "[4]", b, 4);
    CHECK_OK(compare(out, sizeof out, &e, "a.safetensors", "b.safetensors", "--json"));
    CHECK(fabs(number(out, "relative_l2") - sqrt(25 / 50.0)) < 1e-8);
    CHECK(fabs(number(out, "psnr") - 10 * log10(25 / (25 / 4.0))) < 1e-7); /* B's range is 5 */
    CHECK(number(out, "max_difference") == 5 && number(out, "differing_values") == 1);
    CHECK_OK(compare(out, sizeof out, &e, "a.safetensors", "a.safetensors", NULL));
    CHECK_STR(out, "latents [1, 2, 2]\nidentical\n");
    CHECK(compare(out, sizeof out, &e, "a.safetensors", "c.safetensors", NULL) < 0);
    CHECK(e.code == ERR_INPUT && strstr(e.msg, "[1, 2, 2]") && strstr(e.msg, "[4]"));
    CHECK(compare(out, sizeof out, &e, "d.safetensors", "a.safetensors", NULL) < 0);
    CHECK(strstr(e.msg, "no tensor \"latents\""));
    CHECK(compare(out, sizeof out, &e, "a.safetensors", "a", NULL) < 0 && e.code == ERR_USAGE);
}

static void usage(void)
{
    struct err e = {0};
    char out[1000];
    CHECK(compare(out, sizeof out, &e, "a", NULL, NULL) < 0 && e.code == ERR_USAGE);
    CHECK(compare(out, sizeof out, &e, NULL, NULL, NULL) < 0 && e.code == ERR_USAGE);
    CHECK(compare(out, sizeof out, &e, "a", "b", "c") < 0 && strstr(e.msg, "third name c"));
    CHECK(compare(out, sizeof out, &e, "a", "b", "--jsn") < 0 && strstr(e.msg, "--jsn"));
    CHECK(compare(out, sizeof out, &e, "a", "nowhere", NULL) < 0 && strstr(e.msg, "nowhere"));
    CHECK_OK(compare(out, sizeof out, &e, "--help", NULL, NULL));
    CHECK(strstr(out, "ditgen compare A B"));
}

int main(void)
{
    enter_folder();
    clips();
    latents();
    usage();
    leave_folder();
    return TEST_RESULT();
}
