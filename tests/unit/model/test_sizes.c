/* Sizes of any patches and any factors of the autoencoder: what is legal is what its parts take, side by
 * side, and what is told as nearest is legal. */
#include "model/model.h"
#include "tests/check.h"

#define MODEL TEST_SOURCE_DIR "/assets/emoji"

static struct model_info draw(struct test_rng *r, const struct model_info *like)
{
    static const int spatial[] = {1, 2, 4, 8, 16, 32};
    struct model_info m = *like;
    m.dit.patch_t = rng_int(r, 1, 3);
    m.dit.patch_h = rng_int(r, 1, 5);
    m.dit.patch_w = rng_int(r, 1, 5);
    m.dit.rope_max_seq_len = rng_int(r, 1, 4) == 1 ? rng_int(r, 32, 40) : 1024;
    m.vae.scale_spatial = spatial[rng_int(r, 0, 5)];
    m.vae.scale_temporal = 1 << rng_int(r, 0, 3);
    return m;
}

static int one(const struct model_info *m, int v,
               void (*near)(const struct model_info *, int, int *, int *))
{
    int below, above, b, a;
    near(m, v, &below, &above);
    CHECK(below >= 1 && below <= above);
    CHECK(below == v || below < v || above == below); /* beyond the ends both are the end */
    CHECK(above == v || above > v || above == below);
    near(m, below, &b, &a);
    CHECK(b == below && a == below);
    near(m, above, &b, &a);
    CHECK(b == above && a == above);
    return v % 2 ? below : above;
}

/* The transformer alone says whether these latents can be cut into its patches. */
static bool transformer_takes(const struct model_info *m, const struct model_clip *c)
{
    struct err e = {0};
    struct model_params p = {.threads = 1, .attn = {.method = "dense", .threads = 1}};
    cpu_detect(&p.attn.cpu);
    struct dit_run_params r = model_run_params(m, &p, c, 8);
    size_t bytes;
    return dit_bytes(&bytes, &m->dit, PRECISION_FP32, &r, &e) == 0;
}

/* Is v one that the rules name: a multiple of 16, whole latents, whole patches? */
static bool side_legal(const struct model_info *m, int v, int patch)
{
    int latents = v / m->vae.scale_spatial;
    return v > 0 && v % 16 == 0 && v % m->vae.scale_spatial == 0 && latents % patch == 0 &&
           latents / patch <= m->dit.rope_max_seq_len;
}

static bool is_near(const struct model_info *m, int v,
                    void (*near)(const struct model_info *, int, int *, int *))
{
    int below, above;
    near(m, v, &below, &above);
    return below == v && above == v;
}

int main(int argc, char **argv)
{
    struct test_rng r = test_seed(argc, argv);
    static struct model_info emoji;
    struct err e = {0};
    int apart = 0;
    CHECK_OK(model_info_read(&emoji, MODEL, &e));
    for (int i = 0; i < 400; i++) {
        struct model_info m = draw(&r, &emoji);
        struct model_clip c = {.num_steps = 1, .guided = true};
        c.width = one(&m, rng_int(&r, -5, 700), model_width_near);
        c.height = one(&m, rng_int(&r, -5, 700), model_height_near);
        c.frames = one(&m, rng_int(&r, -5, 40), model_frames_near);
        CHECK_MSG(transformer_takes(&m, &c),
                  "%dx%d, %d frames; patches of %dx%dx%d, factors %d and %d", c.width, c.height,
                  c.frames, m.dit.patch_t, m.dit.patch_h, m.dit.patch_w, m.vae.scale_spatial,
                  m.vae.scale_temporal);
        for (int v = 1; v <= 700; v++) {
            if (is_near(&m, v, model_width_near) != side_legal(&m, v, m.dit.patch_w)) apart++;
            if (is_near(&m, v, model_height_near) != side_legal(&m, v, m.dit.patch_h)) apart++;
        }
    }
    CHECK_MSG(apart == 0, "%d sizes are told otherwise than the rules say", apart);
    return TEST_RESULT();
}
