/* Safetensors files good and bad: every refusal of the header, cuts at every byte, shards, binds.
 */
#include "model/weights/weights.h"

#include "tests/check.h"

#include <sys/stat.h>
#include <unistd.h>

static char dir[] = "/tmp/ditgen-weights-XXXXXX";

static void put(const char *name, const void *data, size_t n)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(data, 1, n, f) == n);
    if (f) fclose(f);
}

/* 8-byte length, header, then data bytes 0, 1, 2, ...; returns the size. */
static size_t make(unsigned char *buf, const char *header, size_t data)
{
    size_t n = strlen(header);
    for (int i = 0; i < 8; i++)
        buf[i] = (unsigned char)(n >> (8 * i));
    memcpy(buf + 8, header, n);
    for (size_t i = 0; i < data; i++)
        buf[8 + n + i] = (unsigned char)i;
    return 8 + n + data;
}

static int try_open(const char *header, size_t data, struct err *e)
{
    unsigned char buf[4096];
    char path[256];
    struct weights *w;
    put("x.safetensors", buf, make(buf, header, data));
    snprintf(path, sizeof path, "%s/x.safetensors", dir);
    memset(e, 0, sizeof *e);
    int r = weights_open_file(&w, path, e);
    CHECK((r == 0) == (w != NULL));
    weights_close(w);
    return r;
}

static const char good[] = "{\"__metadata__\":{\"format\":\"pt\"},\"a\":{\"dtype\":\"F32\","
                           "\"shape\":[2,3],\"data_offsets\":[0,24]},"
                           "\"b\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[24,26]},"
                           "\"c\":{\"dtype\":\"F16\",\"shape\":[0,7],\"data_offsets\":[26,26]}}   ";

static void refused(void)
{
    static const struct {
        const char *header;
        size_t data;
        const char *says;
    } bad[] = {
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 9, "the file holds 9"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 7, "outside the 7"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8,
         "its shape and type want 12"},
        {"{\"a\":{\"dtype\":\"Q9\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "type Q9"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, "outside"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, "no size"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,8]}}", 8, "no size"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4000000000,4000000000,4000000000],\"data_offsets\":["
         "0,8]}}",
         8, "larger than any memory"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4,
         "9 dimensions"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[2,6]}}",
         6, "overlap"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[6,10]}}",
         10, "a hole"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         8, "twice"},
        {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "lacks"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "lacks"},
        {"{\"a\":7}", 0, "lacks"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],", 4, "not valid JSON"},
        {"[1,2,3]", 0, "begin with '{'"},
        {"{} trailing", 0, "after the JSON"},
        {"{}", 1, "the file holds 1"},
    };
    struct err e;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_MSG(try_open(bad[i].header, bad[i].data, &e) < 0, "%s", bad[i].header);
        CHECK_MSG(e.code == ERR_INPUT && strstr(e.msg, bad[i].says), "said: %s; wanted: %s", e.msg,
                  bad[i].says);
    }
    /* cut at every byte, and a length field that lies */
    unsigned char buf[4096];
    char path[256];
    snprintf(path, sizeof path, "%s/cut.safetensors", dir);
    size_t n = make(buf, good, 26);
    for (size_t cut = 0; cut < n; cut++) {
        struct weights *w;
        put("cut.safetensors", buf, cut);
        CHECK(weights_open_file(&w, path, &e) < 0 && e.code == ERR_INPUT && !w);
    }
    static const uint64_t lies[] = {0, 1, 100000001, UINT64_MAX, 1u << 30};
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        struct weights *w;
        for (int b = 0; b < 8; b++)
            buf[b] = (unsigned char)(lies[i] >> (8 * b));
        put("cut.safetensors", buf, n);
        CHECK(weights_open_file(&w, path, &e) < 0 && e.code == ERR_INPUT && !w);
    }
    struct weights *w;
    CHECK(weights_open_file(&w, "/nowhere/x.safetensors", &e) < 0 && e.code == ERR_INPUT);
    CHECK(weights_open_file(&w, dir, &e) < 0 && e.code == ERR_INPUT);
}

struct pair {
    struct tensor a, b, none;
};

static void binds(void)
{
    unsigned char buf[4096];
    char path[256];
    struct err e = {0};
    struct weights *w;
    put("ok.safetensors", buf, make(buf, good, 26));
    snprintf(path, sizeof path, "%s/ok.safetensors", dir);
    CHECK_OK(weights_open(&w, dir, "ok", &e));
    CHECK(weights_count(w) == 3);
    CHECK_STR(weights_metadata(w, "format"), "pt");
    CHECK(weights_metadata(w, "absent") == NULL);
    const struct tensor *a = weights_find(w, "a");
    CHECK(a && a->n_dims == 2 && a->shape[1] == 3 && ((const unsigned char *)a->data)[5] == 5);
    struct pair p;
    static const struct bind_row rows[] = {
        {"a", offsetof(struct pair, a), 2, {2, 3}, false},
        {"layer.%d.none", offsetof(struct pair, none), 1, {4}, true},
    };
    CHECK_OK(weights_bind(w, &p, rows, 2, 7, &e));
    CHECK(p.a.data == a->data && p.none.n_dims == 0 && !p.none.data);
    CHECK(weights_all_used(w, NULL, &e) < 0 && strstr(e.msg, "2 tensors") && strstr(e.msg, "b, c"));
    static const char *const ignore[] = {"b", "c", NULL};
    CHECK_OK(weights_all_used(w, ignore, &e));
    static const struct bind_row wrong[] = {{"a", offsetof(struct pair, a), 2, {3, 2}, false}};
    CHECK(weights_bind(w, &p, wrong, 1, 0, &e) < 0 &&
          strstr(e.msg, "a is [2, 3], the config wants [3, 2]"));
    static const struct bind_row miss[] = {
        {"blocks.%d.w", offsetof(struct pair, a), 1, {3}, false}};
    CHECK(weights_bind(w, &p, miss, 1, 4, &e) < 0 && strstr(e.msg, "blocks.4.w [3] is missing"));
    weights_close(w);
}

static void shards(void)
{
    unsigned char buf[512];
    struct err e = {0};
    struct weights *w;
    put("m-1.safetensors", buf,
        make(buf, "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4));
    put("m-2.safetensors", buf,
        make(buf, "{\"b\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8));
    static const struct {
        const char *index, *says;
    } cases[] = {
        {"{\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\"}}", NULL},
        {"{\"weight_map\":{\"a\":\"m-2.safetensors\",\"b\":\"m-2.safetensors\"}}", "is not in"},
        {"{\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-1.safetensors\"}}", "is not in"},
        {"{\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"../m-2.safetensors\"}}",
         "outside the folder"},
        {"{\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"none.safetensors\"}}", "cannot open"},
        {"{\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":3}}", "outside the folder"},
        {"{\"weights\":{}}", "no weight_map"},
        {"{\"weight_map\":", "not valid JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put("m.safetensors.index.json", cases[i].index, strlen(cases[i].index));
        int r = weights_open(&w, dir, "m", &e);
        CHECK_MSG((r == 0) == !cases[i].says, "%s", cases[i].index);
        if (r < 0) CHECK_MSG(strstr(e.msg, cases[i].says), "%s", e.msg);
        if (r == 0) CHECK(weights_count(w) == 2 && weights_find(w, "b")->shape[0] == 1);
        weights_close(w);
    }
    /* a shard that holds more than the index names */
    static const char fewer[] = "{\"weight_map\":{\"a\":\"m-1.safetensors\"}}";
    put("m.safetensors.index.json", fewer, sizeof fewer - 1);
    CHECK_OK(weights_open(&w, dir, "m", &e));
    weights_close(w);
    CHECK(weights_open(&w, dir, "absent", &e) < 0 && strstr(e.msg, "no such file"));
}

/* Names that diffusers and transformers give to variants, one file or sharded. */
static void variants(void)
{
    unsigned char buf[4096], half[4096];
    char path[256], index[400];
    struct err e = {0};
    struct weights *w;
    size_t n = make(buf, good, 26);
    put("v1.fp16.safetensors", buf, n);
    put("v1.txt", buf, n);
    put("v1.fp16.safetensors.lock", buf, n);
    CHECK(weights_on_disk(dir, "v1") == n);
    CHECK_OK(weights_open(&w, dir, "v1", &e));
    CHECK(w && weights_count(w) == 3 && strstr(weights_path(w), "v1.fp16.safetensors"));
    weights_close(w);
    put("v1.bf16.safetensors", buf, n);
    CHECK(weights_open(&w, dir, "v1", &e) < 0 && e.code == ERR_INPUT && strstr(e.msg, "v1.fp16") &&
          strstr(e.msg, "v1.bf16"));
    put("v1.safetensors", buf, n); /* the plain name wins */
    CHECK_OK(weights_open(&w, dir, "v1", &e));
    CHECK(w && strstr(weights_path(w), "v1.safetensors"));
    weights_close(w);

    size_t a = make(buf, "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8);
    size_t b = make(half, "{\"b\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]}}", 12);
    put("v2.fp16-00001-of-00002.safetensors", buf, a);
    put("v2.fp16-00002-of-00002.safetensors", half, b);
    int len = snprintf(index, sizeof index,
                       "{\"metadata\": {\"total_size\": Infinity}, \"weight_map\": {"
                       "\"a\": \"v2.fp16-00001-of-00002.safetensors\","
                       "\"b\": \"v2.fp16-00002-of-00002.safetensors\"}}");
    put("v2.safetensors.index.fp16.json", index, (size_t)len);
    CHECK_OK(weights_open(&w, dir, "v2", &e));
    CHECK(w && weights_count(w) == 2 && weights_on_disk(dir, "v2") == a + b);
    weights_close(w);
    CHECK(weights_open(&w, dir, "v", &e) < 0 && weights_on_disk(dir, "v") == 0 &&
          strstr(e.msg, "no such file"));

    static const char pointer[] = "version https://git-lfs.github.com/spec/v1\noid sha256:"
                                  "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393"
                                  "\nsize 2838277224\n";
    put("v3.safetensors", pointer, sizeof pointer - 1);
    CHECK(weights_open(&w, dir, "v3", &e) < 0 && e.code == ERR_INPUT &&
          strstr(e.msg, "Git LFS pointer to a file of 2838277224 bytes"));
    put("v4.safetensors.index.json", pointer, sizeof pointer - 1);
    CHECK(weights_open(&w, dir, "v4", &e) < 0 && strstr(e.msg, "Git LFS"));
    snprintf(path, sizeof path, "%s/pipe.safetensors", dir);
    CHECK(mkfifo(path, 0600) == 0);
    CHECK(weights_open(&w, dir, "pipe", &e) < 0 && strstr(e.msg, "a pipe"));
}

int main(void)
{
    struct err e;
    if (!mkdtemp(dir)) return perror(dir), 1;
    CHECK_MSG(try_open(good, 26, &e) == 0, "%s", e.msg);
    refused();
    binds();
    shards();
    variants();
    char cmd[128];
    snprintf(cmd, sizeof cmd, "rm -r %s", dir);
    return TEST_RESULT() | system(cmd);
}
