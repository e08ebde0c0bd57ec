/* transformer/config.json: defaults, every refusal by its key. */
#include "tests/unit/dit/fixture.h"

static char dir[256], path[300];

static int read_text(struct dit_config *c, const char *text, struct err *e)
{
    memset(e, 0, sizeof *e);
    tiny_write_text(path, text);
    return dit_config_read(c, path, e);
}

static void check_defaults(void)
{
    struct dit_config c;
    struct err e;
    CHECK_OK(read_text(&c, "{\"_class_name\": \"WanTransformer3DModel\"}", &e));
    CHECK(c.n_heads == 40 && c.head_dim == 128 && c.ffn_dim == 13824 && c.n_layers == 40);
    CHECK(c.in_channels == 16 && c.out_channels == 16 && c.text_dim == 4096 && c.freq_dim == 256);
    CHECK(c.patch_t == 1 && c.patch_h == 2 && c.patch_w == 2 && c.cross_attn_norm);
    CHECK(c.eps == 1e-6 && c.rope_max_seq_len == 1024);
    CHECK(!c.image_dim && !c.added_kv_proj_dim && !c.pos_embed_seq_len);
    CHECK_OK(read_text(&c,
                       "{\"_class_name\": \"WanTransformer3DModel\", \"in_channels\": 36, "
                       "\"out_channels\": null, \"qk_norm\": null}",
                       &e));
    CHECK(c.out_channels == 36);
    CHECK(dit_tokens(&c, &(struct dit_grid){21, 60, 104}) == 32760);
}

static void check_image(void)
{
    struct dit_config c;
    struct err e;
    CHECK_OK(read_text(&c,
                       "{\"_class_name\": \"WanTransformer3DModel\", \"image_dim\": 1280, "
                       "\"added_kv_proj_dim\": 5120, \"pos_embed_seq_len\": 514}",
                       &e));
    CHECK(c.image_dim == 1280 && c.added_kv_proj_dim == 5120 && c.pos_embed_seq_len == 514);
}

/* the rest of a config, and the word its message must hold */
static const char *const refused[][2] = {
    {"\"_class_name\": \"WanVACETransformer3DModel\"", "WanVACETransformer3DModel"},
    {"\"_class_name\": \"UNet2DConditionModel\"", "wanted WanTransformer3DModel"},
    {"\"num_layers\": 2", "class is none"},
    {"\"_class_name\": 7", "_class_name"},
#define WAN "\"_class_name\": \"WanTransformer3DModel\", "
    {WAN "\"num_attention_heads\": 0", "num_attention_heads"},
    {WAN "\"num_attention_heads\": 2000000000", "num_attention_heads"},
    {WAN "\"num_attention_heads\": \"40\"", "num_attention_heads"},
    {WAN "\"num_attention_heads\": 1024, \"attention_head_dim\": 256", "num_attention_heads"},
    {WAN "\"attention_head_dim\": 4096", "attention_head_dim"},
    {WAN "\"attention_head_dim\": 15", "attention_head_dim"},
    {WAN "\"in_channels\": -16", "in_channels"},
    {WAN "\"in_channels\": 16.5", "in_channels"},
    {WAN "\"out_channels\": 1e300", "out_channels"},
    {WAN "\"text_dim\": 0", "text_dim"},
    {WAN "\"freq_dim\": 255", "freq_dim"},
    {WAN "\"ffn_dim\": 4000000000", "ffn_dim"},
    {WAN "\"num_layers\": 100000", "num_layers"},
    {WAN "\"num_layers\": []", "num_layers"},
    {WAN "\"cross_attn_norm\": 1", "cross_attn_norm"},
    {WAN "\"qk_norm\": \"layer_norm\"", "qk_norm"},
    {WAN "\"eps\": 0", "eps"},
    {WAN "\"eps\": \"tiny\"", "eps"},
    {WAN "\"patch_size\": [1, 2]", "patch_size"},
    {WAN "\"patch_size\": [2, 2, 2]", "patch_size"},
    {WAN "\"patch_size\": [1, 0, 2]", "patch_size"},
    {WAN "\"patch_size\": 2", "patch_size"},
    {WAN "\"rope_max_seq_len\": 0", "rope_max_seq_len"},
    {WAN "\"image_dim\": 1280", "added_kv_proj_dim"},
    {WAN "\"added_kv_proj_dim\": 5120", "image_dim"},
    {WAN "\"image_dim\": 1280, \"added_kv_proj_dim\": 1280", "added_kv_proj_dim"},
    {WAN "\"pos_embed_seq_len\": 514", "pos_embed_seq_len"},
    {WAN "\"quantization_config\": {\"quant_method\": \"bitsandbytes\"}", "quantization_config"},
};

static void check_refused(void)
{
    struct dit_config c;
    struct err e;
    for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
        char text[512];
        snprintf(text, sizeof text, "{%s}", refused[i][0]);
        CHECK_MSG(read_text(&c, text, &e) == -1, "accepted: %s", text);
        CHECK_MSG(e.code == ERR_INPUT && strstr(e.msg, refused[i][1]) && strstr(e.msg, path),
                  "%s: \"%s\" does not name %s", text, e.msg, refused[i][1]);
    }
    CHECK(read_text(&c, "[]", &e) == -1 && e.code == ERR_INPUT);
    CHECK(read_text(&c, "{", &e) == -1 && e.code == ERR_INPUT);
    CHECK(read_text(&c, "", &e) == -1 && e.code == ERR_INPUT);
    remove(path);
    CHECK(dit_config_read(&c, path, &e) == -1 && e.code == ERR_INPUT);
}

int main(void)
{
    tiny_temp(dir);
    snprintf(path, sizeof path, "%s/config.json", dir);
    check_defaults();
    check_image();
    check_refused();
    tiny_remove(dir);
    return TEST_RESULT();
}
