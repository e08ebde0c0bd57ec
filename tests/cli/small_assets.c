/* Assets for tests that ask what the command does, not what its clips show: a model of the built-in
 * one's kind and name with random weights, a twentieth of its work, beside profiles and prompts as they
 * are. Usage: small_assets SOURCE_ASSETS GOLDEN_DATA FOLDER (made anew) */
#include "tests/golden/tiny.h"

#include <errno.h>

#define WORDS 1920 /* of the built-in model's tokenizer, which is kept */

static const char *assets, *data;

static void path_of(char out[1024], const char *folder, const char *name)
{
    if (snprintf(out, 1024, "%s/%s", folder, name) >= 1024) tiny_die("too long", name);
}

static void folder_at(const char *top, const char *name)
{
    char path[1024];
    path_of(path, top, name);
    if (mkdir(path, 0777) < 0) tiny_die("cannot make", path);
}

static void link_to(const char *top, const char *name)
{
    char from[1024], to[1024];
    path_of(from, assets, name);
    path_of(to, top, name);
    if (symlink(from, to) < 0) tiny_die("cannot link", to);
}

/* data/from with the first `old` in it as `new`, at top/to. */
static void copy_text(const char *top, const char *to, const char *from, const char *old,
                      const char *new)
{
    char path[1024], text[65536], whole[65536 + 64];
    path_of(path, data, from);
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (!f || n == sizeof text - 1) tiny_die("cannot read", path);
    fclose(f);
    text[n] = 0;
    char *at = strstr(text, old);
    if (!at) tiny_die(old, path);
    snprintf(whole, sizeof whole, "%.*s%s%s", (int)(at - text), text, new, at + strlen(old));
    path_of(path, top, to);
    tiny_write_text(path, whole);
}

static void weights(const char *top, const char *to, const char *list)
{
    char path[1024];
    struct tiny_tensor *t;
    path_of(path, data, list);
    int n = tiny_read_list(&t, path);
    for (int i = 0; i < n; i++)
        if (strcmp(t[i].name, "shared.weight") == 0) t[i].shape[0] = WORDS;
    path_of(path, top, to);
    tiny_write(path, t, n);
    free(t);
}

/* The few-step adapter: q and o of every self-attention, of rank 2. */
static void turbo(const char *top, int layers, int dim)
{
    static const char *const ends[] = {"to_q.lora_A", "to_q.lora_B", "to_out.0.lora_A",
                                       "to_out.0.lora_B"};
    struct tiny_tensor t[64];
    int n = 0;
    for (int l = 0; l < layers; l++) {
        for (int i = 0; i < 4; i++, n++) {
            t[n] = (struct tiny_tensor){.n_dims = 2, .shape = {i % 2 ? dim : 2, i % 2 ? 2 : dim}};
            snprintf(t[n].name, sizeof t[n].name, "transformer.blocks.%d.attn1.%s.weight", l,
                     ends[i]);
            tiny_scale(&t[n]);
        }
    }
    char path[1024];
    path_of(path, top, "emoji/transformer_turbo/pytorch_lora_weights.safetensors");
    tiny_write(path, t, n);
}

int main(int argc, char **argv)
{
    if (argc != 4) return 2;
    assets = argv[1], data = argv[2];
    const char *top = argv[3];
    tiny_remove(top);
    if (mkdir(top, 0777) < 0 && errno != EEXIST) tiny_die("cannot make", top);
    static const char *const folders[] = {"emoji", "emoji/transformer", "emoji/transformer_turbo",
                                          "emoji/text_encoder", "emoji/vae"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        folder_at(top, folders[i]);
    static const char *const kept[] = {"profiles",         "prompts",
                                       "emoji/ditgen.ini", "emoji/model_index.json",
                                       "emoji/scheduler",  "emoji/tokenizer"};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        link_to(top, kept[i]);
    copy_text(top, "emoji/transformer/config.json", "dit_wide.json", "\"rope_max_seq_len\": 32",
              "\"rope_max_seq_len\": 1024");
    copy_text(top, "emoji/vae/config.json", "vae_wan21.json", "AutoencoderKLWan",
              "AutoencoderKLWan");
    copy_text(top, "emoji/text_encoder/config.json", "text_umt5_tiny.json", "\"vocab_size\": 600",
              "\"vocab_size\": 1920");
    weights(top, "emoji/transformer/diffusion_pytorch_model.safetensors", "dit_wide.txt");
    weights(top, "emoji/vae/diffusion_pytorch_model.safetensors", "vae_wan21.txt");
    weights(top, "emoji/text_encoder/model.safetensors", "text_umt5_tiny.txt");
    turbo(top, 2, 256);
    return 0;
}
